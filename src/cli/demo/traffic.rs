//! Constant traffic through the mesh, with an exact count of what failed.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;

use super::client::{Call, CallError, Connection, Place};

/// Each caller rests so long between two requests.
const REST: Duration = Duration::from_millis(20);
/// Callers that each keep a connection, per service.
const CALLERS: usize = 2;
/// So many causes of failures are kept to be shown.
const MAX_CAUSES: usize = 5;

/// What has been sent so far. Read it at any time; it only grows.
#[derive(Debug, Default)]
pub struct Traffic {
    running: Cell<bool>,
    sent: Cell<u64>,
    failed: Cell<u64>,
    causes: RefCell<Vec<String>>,
}

/// What was sent in a stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub sent: u64,
    pub failed: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests, {} failed", self.sent, self.failed)
    }
}

impl Tally {
    pub fn since(self, earlier: Self) -> Self {
        Self {
            sent: self.sent - earlier.sent,
            failed: self.failed - earlier.failed,
        }
    }
}

impl Traffic {
    /// From now on requests are sent; before, the mesh was not up.
    pub fn begin(&self) {
        self.running.set(true);
    }

    pub fn tally(&self) -> Tally {
        Tally {
            sent: self.sent.get(),
            failed: self.failed.get(),
        }
    }

    /// The first failures, in words.
    pub fn causes(&self) -> String {
        self.causes.borrow().join("; ")
    }

    /// Sends for ever, as `place`'s app would, while it is begun.
    pub async fn run(&self, place: &Place, services: &[&str]) {
        let callers = services.iter().flat_map(|service| {
            std::iter::repeat_with(|| self.caller(place, service)).take(CALLERS)
        });
        join_all(callers).await;
    }

    async fn caller(&self, place: &Place, service: &str) {
        let call = Call::new(service, "/steady");
        let mut connection = None;
        loop {
            if self.running.get() {
                let outcome = request(&mut connection, place, &call).await;
                self.count(service, outcome);
            }
            tokio::time::sleep(REST).await;
        }
    }

    fn count(&self, service: &str, outcome: Result<StatusCode, CallError>) {
        self.sent.set(self.sent.get() + 1);
        let why = match outcome {
            Ok(StatusCode::OK) => return,
            Ok(status) => format!("{service}: {status}"),
            Err(error) => format!("{service}: {error}"),
        };
        self.failed.set(self.failed.get() + 1);
        let mut causes = self.causes.borrow_mut();
        if causes.len() < MAX_CAUSES {
            causes.push(why);
        }
    }
}

/// One request by a kept connection. A close between two requests is no failure: HTTP/1.1 allows it, nothing
/// was sent, and every client opens another one.
async fn request(
    kept: &mut Option<Connection>,
    place: &Place,
    call: &Call,
) -> Result<StatusCode, CallError> {
    if let Some(mut connection) = kept.take()
        && connection.is_open().await
    {
        match connection.call(call).await {
            Ok(answer) => {
                *kept = Some(connection);
                return Ok(answer.status);
            }
            Err(CallError::NotSent) => {}
            Err(other) => return Err(other),
        }
    }
    let mut connection = Connection::open(place).await?;
    let answer = connection.call(call).await?;
    *kept = Some(connection);
    Ok(answer.status)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers each connection once with the next text, then closes it.
    async fn counted(answers: &[&str]) -> (Tally, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = Place::Tcp(listener.local_addr().unwrap());
        let traffic = Traffic::default();
        let server = async {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 1024];
                assert!(stream.read(&mut buffer).await.unwrap() > 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        };
        let mut kept = None;
        let client = async {
            for _ in answers {
                let outcome = request(&mut kept, &place, &Call::new("a", "/")).await;
                traffic.count("a", outcome);
            }
        };
        tokio::join!(server, client);
        (traffic.tally(), traffic.causes())
    }

    #[tokio::test]
    async fn what_is_not_200_failed_and_a_close_between_requests_did_not() {
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        let unavailable = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
        let (tally, causes) = counted(&[ok, ok, unavailable, "HTTP/1.1 200 OK\r\n", ok]).await;
        assert_eq!(tally, Tally { sent: 5, failed: 2 });
        assert!(
            causes.starts_with("a: 503 Service Unavailable; a: "),
            "{causes}"
        );
    }
}
