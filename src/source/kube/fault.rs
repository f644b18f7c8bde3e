//! What may go wrong with a watch, sorted by what is to be done about it.

use std::error::Error;

use ::kube::core::Status;
use ::kube::runtime::watcher;

#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
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
}

/// How objects are asked for at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listing {
    /// As the first events of the watch (Kubernetes 1.32 and later): neither side holds a whole list.
    Streamed,
    Paged,
}

impl Fault {
    pub(super) fn of(error: &::kube::Error) -> Self {
        match error {
            ::kube::Error::Api(status) => Self::of_status(status),
            // The others are of the connection, or of what came over it.
            other => Self::Broken(chain(other)),
        }
    }

    /// `listing` is how objects are listed.
    pub(super) fn of_watch(error: &watcher::Error, listing: Listing) -> Self {
        match error {
            watcher::Error::WatchStartFailed(::kube::Error::Api(status))
                if listing == Listing::Streamed && matches!(status.code, 400 | 422) =>
            {
                Self::NotStreamed(status.message.clone())
            }
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => Self::of(error),
            watcher::Error::WatchError(status) => Self::of_status(status),
            watcher::Error::NoResourceVersion => Self::Broken(error.to_string()),
        }
    }

    fn of_status(status: &Status) -> Self {
        let text = if status.message.is_empty() {
            format!("status {}", status.code)
        } else {
            status.message.clone()
        };
        match status.code {
            404 => Self::NotServed(text),
            _ => Self::Refused(text),
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

    fn of(code: u16, listing: Listing) -> Fault {
        let status = Status {
            code,
            message: "m".to_owned(),
            ..Status::default()
        };
        let error = ::kube::Error::Api(status.boxed());
        Fault::of_watch(&watcher::Error::WatchStartFailed(error), listing)
    }

    #[test]
    fn a_server_that_does_not_stream_is_told_from_one_that_refuses() {
        assert!(matches!(of(422, Listing::Streamed), Fault::NotStreamed(_)));
        assert!(matches!(of(422, Listing::Paged), Fault::Refused(_)));
        assert!(matches!(of(403, Listing::Streamed), Fault::Refused(_)));
        assert!(matches!(of(404, Listing::Streamed), Fault::NotServed(_)));
    }

    #[test]
    fn a_broken_connection_says_why() {
        let cause = std::io::Error::other("connection refused");
        let fault = Fault::of(&::kube::Error::ReadEvents(cause));
        assert_eq!(
            fault.to_string(),
            "Error reading events stream: connection refused"
        );
    }
}
