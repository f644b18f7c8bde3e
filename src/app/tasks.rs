//! The program's long-lived tasks: one that ends early, or fails, ends the program.

use anyhow::{Context, Result, anyhow};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::error;

/// Tasks by name. `stop` tells all of them to come to an end.
pub struct Tasks {
    running: JoinSet<(&'static str, Result<()>)>,
    stop: CancellationToken,
    fault: Option<anyhow::Error>,
}

impl Tasks {
    pub fn new(stop: CancellationToken) -> Self {
        Self {
            running: JoinSet::new(),
            stop,
            fault: None,
        }
    }

    pub fn run(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<()>> + Send + 'static,
    ) {
        self.running.spawn(async move { (name, task.await) });
    }

    /// What `wanted` gives, unless a task ends before: then None, and `end` says why.
    pub async fn unless_ended<T>(&mut self, wanted: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            found = wanted => Some(found),
            ended = self.running.join_next() => {
                self.note(ended.unwrap_or_else(|| Ok(("nothing runs", Ok(())))));
                None
            }
        }
    }

    /// Waits until all have ended. The first fault is the outcome.
    pub async fn end(mut self) -> Result<()> {
        while let Some(ended) = self.running.join_next().await {
            self.note(ended);
        }
        self.fault.map_or(Ok(()), Err)
    }

    fn note(&mut self, ended: Result<(&'static str, Result<()>), tokio::task::JoinError>) {
        let fault = match ended {
            Ok((_, Ok(()))) if self.stop.is_cancelled() => return,
            Ok((name, Ok(()))) => anyhow!("{name}: ended before it was told to"),
            Ok((name, Err(why))) => why.context(name),
            Err(panic) => anyhow::Error::new(panic).context("a task panicked"),
        };
        error!(fault = format!("{fault:#}"), "stopping");
        self.stop.cancel();
        self.fault.get_or_insert(fault);
    }
}

/// A task whose error is of another type.
pub async fn fallible<E>(task: impl Future<Output = Result<(), E>>) -> Result<()>
where
    E: std::error::Error + Send + Sync + 'static,
{
    task.await.map_err(anyhow::Error::new)
}

/// A task that can only end.
pub async fn unfailing(task: impl Future<Output = ()>) -> Result<()> {
    task.await;
    Ok(())
}

/// Ends, and with it everything else, on SIGTERM or SIGINT.
pub async fn signals(stop: CancellationToken) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        () = stop.cancelled() => {}
    }
    stop.cancel();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_early_ends_the_rest_and_is_named() {
        let stop = CancellationToken::new();
        let mut tasks = Tasks::new(stop.clone());
        let stopped = stop.clone();
        tasks.run("patient", async move {
            stopped.cancelled().await;
            Ok(())
        });
        tasks.run("hasty", async { Ok(()) });
        assert_eq!(
            tasks.end().await.unwrap_err().to_string(),
            "hasty: ended before it was told to"
        );
    }

    #[tokio::test]
    async fn a_fault_is_the_outcome_and_the_orderly_end_is_none() {
        let stop = CancellationToken::new();
        let mut tasks = Tasks::new(stop.clone());
        tasks.run("broken", async { Err(anyhow!("no disk")) });
        assert_eq!(
            format!("{:#}", tasks.end().await.unwrap_err()),
            "broken: no disk"
        );

        let stop = CancellationToken::new();
        stop.cancel();
        let mut tasks = Tasks::new(stop);
        tasks.run("done", async { Ok(()) });
        tasks.end().await.unwrap();
    }

    #[tokio::test]
    async fn waiting_for_a_start_ends_when_a_task_does() {
        let mut tasks = Tasks::new(CancellationToken::new());
        tasks.run("broken", async { Err(anyhow!("no folder")) });
        assert_eq!(tasks.unless_ended(std::future::pending::<()>()).await, None);
        assert_eq!(
            format!("{:#}", tasks.end().await.unwrap_err()),
            "broken: no folder"
        );
    }
}
