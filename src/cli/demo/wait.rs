//! Waiting with a deadline, while the report says for what.

use std::time::Duration;

use anyhow::{Result, bail};

use super::report::{Report, span};
use crate::clock;

/// How a thing that is waited for stands.
pub enum Standing<T> {
    Done(T),
    /// Not yet; this is told while waiting, and after the deadline.
    Not(String),
}

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until it is done. A look that fails ends the wait: what may fail for a while says `Not`.
pub async fn until<T>(
    report: &Report,
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Result<Standing<T>>,
) -> Result<T> {
    let begin = clock::mono();
    loop {
        let why = match look().await? {
            Standing::Done(value) => return Ok(value),
            Standing::Not(why) => why,
        };
        let waited = clock::mono() - begin;
        if waited > deadline {
            bail!("{what}: not within {}: {why}", span(deadline));
        }
        report.progress(&format!("{what}: {why} ({})", span(waited)));
        tokio::time::sleep(PAUSE).await;
    }
}

/// Lets `time` pass, saying how far it is.
pub async fn pass(
    report: &Report,
    what: &str,
    time: Duration,
    mut standing: impl FnMut() -> String,
) {
    let begin = clock::mono();
    while clock::mono() - begin < time {
        report.progress(&format!("{what}: {}", standing()));
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_deadline_tells_how_things_stood() {
        let report = Report::new();
        let never = async || Ok(Standing::<()>::Not("2 of 6".to_owned()));
        let why = until(&report, "proxies", Duration::ZERO, never).await;
        let why = why.unwrap_err().to_string();
        assert!(why.contains("proxies: not within 0 ms: 2 of 6"), "{why}");
    }
}
