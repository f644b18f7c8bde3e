//! What failed and is tried again, counted by what was tried.

use super::exposition::{Counter, Metric, Page};

/// Something that is tried again after a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Listing the configuration directory.
    List,
    /// Accepting a connection.
    Accept,
    /// Writing the accepted set.
    Keep,
    /// Renewing the control plane's own certificate.
    Renew,
    /// Making a secret for a proxy.
    Secret,
}

impl Attempt {
    pub const ALL: [Self; 5] = [
        Self::List,
        Self::Accept,
        Self::Keep,
        Self::Renew,
        Self::Secret,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Accept => "accept",
            Self::Keep => "keep",
            Self::Renew => "renew",
            Self::Secret => "secret",
        }
    }
}

/// One counter an attempt.
#[derive(Debug, Default)]
pub struct Retries([Counter; Attempt::ALL.len()]);

impl Retries {
    pub fn of(&self, attempt: Attempt) -> &Counter {
        &self.0[attempt as usize]
    }
}

impl Metric for Retries {
    const TYPE: &'static str = "counter";

    fn write(&self, name: &str, page: &mut Page) {
        for attempt in Attempt::ALL {
            let label = format!("attempt=\"{}\"", attempt.label());
            page.line(name, &label, self.of(attempt).get());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attempt_is_counted_under_its_own_label() {
        let retries = Retries::default();
        retries.of(Attempt::List).inc();
        let mut page = Page::default();
        retries.write("n", &mut page);
        let text = page.finish();
        assert!(
            text.starts_with("n{attempt=\"list\"} 1\nn{attempt=\"accept\"} 0\n"),
            "{text}"
        );
        assert_eq!(text.lines().count(), Attempt::ALL.len());
    }
}
