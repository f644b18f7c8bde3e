//! Durations on the command line: `30m`, `1h30m`, `24h`, `1.5s`, as Go and Istio write them.

use std::time::Duration;

use jiff::SignedDuration;

/// A length of time that may be zero but not negative.
pub fn parse(text: &str) -> Result<Duration, String> {
    let fault = |why: &dyn std::fmt::Display| {
        format!("`{text}` is no duration such as 90s or 1h30m: {why}")
    };
    let span: SignedDuration = text.parse().map_err(|e: jiff::Error| fault(&e))?;
    Duration::try_from(span).map_err(|_| fault(&"it is negative"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_read() {
        for (text, millis) in [
            ("0s", 0),
            ("1.5s", 1500),
            ("250ms", 250),
            ("1h30m", 5_400_000),
            ("24h0m0s", 86_400_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_says_so() {
        for text in ["", "5", "-5s", "5 parsecs"] {
            assert!(
                parse(text).unwrap_err().contains("is no duration"),
                "{text}"
            );
        }
    }
}
