//! What may go wrong with a watch, sorted by what is to be done about it.

use std::error::Error;
use std::time::Duration;

use ::kube::core::Status;

#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The place in the server's history is forgotten: list anew.
    #[error("{0}")]
    Gone(String),
    /// The API version is not served (any more): look which is.
    #[error("{0}")]
    NotServed(String),
    /// The server does not stream listings: ask for pages.
    #[error("{0}")]
    NotStreamed(String),
    /// The server answered, and something else is wrong, such as a missing permission.
    #[error("{0}")]
    Refused(String),
    /// No answer, or one that is cut short or makes no sense.
    #[error("{0}")]
    Broken(String),
    #[error("the server ended the watch too soon")]
    Short,
    #[error("no answer within {0:?}")]
    Silent(Duration),
}

/// How objects are asked for at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listing {
    /// As the first events of the watch (Kubernetes 1.32 and later): neither side holds a whole list.
    Streamed,
    Paged,
}

impl Fault {
    /// `listing` is what was asked for, if anything was listed.
    pub(super) fn of_status(status: &Status, listing: Option<Listing>) -> Self {
        let text = if status.message.is_empty() {
            format!("status {}", status.code)
        } else {
            status.message.clone()
        };
        match (status.code, listing) {
            (410, _) => Self::Gone(text),
            (404, _) => Self::NotServed(text),
            (400 | 422, Some(Listing::Streamed)) => Self::NotStreamed(text),
            (_, _) => Self::Refused(text),
        }
    }

    pub(super) fn of(error: &::kube::Error, listing: Option<Listing>) -> Self {
        match error {
            ::kube::Error::Api(status) => Self::of_status(status, listing),
            // The others are of the connection, or of what came over it.
            other => Self::Broken(chain(other)),
        }
    }
}

/// An error with its causes, none of them twice.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: u16, listing: Option<Listing>) -> Fault {
        let status = Status {
            code,
            message: "m".to_owned(),
            ..Status::default()
        };
        Fault::of(&::kube::Error::Api(status.boxed()), listing)
    }

    #[test]
    fn a_server_that_does_not_stream_is_told_from_one_that_refuses() {
        let streamed = Some(Listing::Streamed);
        assert!(matches!(of(422, streamed), Fault::NotStreamed(_)));
        assert!(matches!(of(422, Some(Listing::Paged)), Fault::Refused(_)));
        assert!(matches!(of(403, streamed), Fault::Refused(_)));
        assert!(matches!(of(410, None), Fault::Gone(_)));
        assert!(matches!(of(404, streamed), Fault::NotServed(_)));
    }

    #[test]
    fn a_broken_connection_says_why() {
        let cause = std::io::Error::other("connection refused");
        let fault = Fault::of(&::kube::Error::ReadEvents(cause), None);
        assert_eq!(
            fault.to_string(),
            "Error reading events stream: connection refused"
        );
    }
}
