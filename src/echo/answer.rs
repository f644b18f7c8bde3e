//! The HTTP answer: the request as JSON, or the failure that was asked for.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use serde::Serialize;

use super::Workload;
use crate::text::Str;

/// A body over this is refused with 413.
const MAX_BODY: usize = 1 << 20;
/// Requests whose attempts are counted at one time; the oldest is forgotten first.
const MAX_REMEMBERED: usize = 4096;
/// The longest delay that a request may ask for.
const MAX_DELAY: Duration = Duration::from_secs(600);

/// A request may ask for its own misbehaviour, over the workload's.
const ASK_FAIL_FIRST: &str = "echo-fail-first";
const ASK_DELAY_MS: &str = "echo-delay-ms";
const ASK_STATUS: &str = "echo-status";
/// Of the attempts that are to fail.
const ASK_FAIL_STATUS: &str = "echo-fail-status";
/// `<version> <name>: <value>`: a header of the answers of that version.
const ASK_HEADER: &str = "echo-header";

pub(super) struct Answerer {
    workload: Workload,
    /// Never held across an await.
    attempts: Mutex<Attempts>,
}

/// What the client sees of its own request.
#[derive(Serialize)]
struct Description<'a> {
    name: &'a str,
    version: &'a str,
    protocol: String,
    method: &'a str,
    authority: &'a str,
    path: &'a str,
    peer: &'a str,
    /// Which attempt of this `x-request-id` it was, from 1.
    attempt: u32,
    body_bytes: usize,
    headers: BTreeMap<&'a str, String>,
}

impl Answerer {
    pub(super) fn new(workload: Workload) -> Self {
        Self {
            workload,
            attempts: Mutex::default(),
        }
    }

    /// The line by which TCP listeners name themselves and the peer they see.
    pub(super) fn greeting(&self, peer: &str) -> String {
        let Workload { name, version, .. } = &self.workload;
        format!("{name} {version} {peer}\n")
    }

    pub(super) async fn answer(
        &self,
        peer: &str,
        request: Request<hyper::body::Incoming>,
    ) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
        let (head, body) = request.into_parts();
        let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
            return Ok(plain(StatusCode::PAYLOAD_TOO_LARGE, Bytes::new()));
        };
        let attempt = self.count_attempt(&head.headers);
        self.delay(&head.headers).await;
        let text = self.describe(peer, &head, attempt, body.to_bytes().len());
        let is_grpc = head
            .headers
            .get(CONTENT_TYPE)
            .is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"));
        let status = self.status(&head.headers, attempt);
        let mut answer = if is_grpc {
            grpc(status, &text)
        } else {
            plain(status, text)
        };
        let asked = head.headers.get_all(ASK_HEADER).iter();
        let asked = asked.filter_map(|line| self.own_header(line.to_str().ok()?));
        answer.headers_mut().extend(asked);
        Ok(answer)
    }

    fn own_header(&self, line: &str) -> Option<(HeaderName, HeaderValue)> {
        let (version, header) = line.split_once(' ')?;
        let (name, value) = header.split_once(": ")?;
        (version == self.workload.version).then_some(())?;
        Some((name.parse().ok()?, value.parse().ok()?))
    }

    fn count_attempt(&self, headers: &HeaderMap) -> u32 {
        let id = headers.get("x-request-id").map_or(Str::default(), |v| {
            Str::new(String::from_utf8_lossy(v.as_bytes()))
        });
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.count(id)
    }

    async fn delay(&self, headers: &HeaderMap) {
        let asked = number(headers, ASK_DELAY_MS).map(|ms| Duration::from_millis(ms.into()));
        let delay = asked.unwrap_or(self.workload.delay).min(MAX_DELAY);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }

    fn status(&self, headers: &HeaderMap, attempt: u32) -> StatusCode {
        let fail_first = number(headers, ASK_FAIL_FIRST).unwrap_or(self.workload.fail_first);
        if attempt <= fail_first {
            return stated(headers, ASK_FAIL_STATUS).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        }
        stated(headers, ASK_STATUS).unwrap_or(StatusCode::OK)
    }

    fn describe(
        &self,
        peer: &str,
        head: &http::request::Parts,
        attempt: u32,
        body_bytes: usize,
    ) -> Bytes {
        let mut headers: BTreeMap<&str, String> = BTreeMap::new();
        for (name, value) in &head.headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            let all = headers.entry(name.as_str()).or_default();
            if !all.is_empty() {
                all.push(',');
            }
            all.push_str(&value);
        }
        let host = head.headers.get(HOST).and_then(|v| v.to_str().ok());
        let description = Description {
            name: &self.workload.name,
            version: &self.workload.version,
            protocol: protocol(head.version),
            method: head.method.as_str(),
            authority: head
                .uri
                .authority()
                .map(http::uri::Authority::as_str)
                .or(host)
                .unwrap_or(""),
            path: head
                .uri
                .path_and_query()
                .map_or("", http::uri::PathAndQuery::as_str),
            peer,
            attempt,
            body_bytes,
            headers,
        };
        let text = serde_json::to_vec(&description).expect("strings and numbers always encode");
        Bytes::from(text)
    }
}

fn protocol(version: Version) -> String {
    format!("{version:?}")
}

fn number(headers: &HeaderMap, name: &str) -> Option<u32> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

fn stated(headers: &HeaderMap, name: &str) -> Option<StatusCode> {
    let code = u16::try_from(number(headers, name)?).ok()?;
    StatusCode::from_u16(code).ok()
}

fn plain(status: StatusCode, text: Bytes) -> Response<BoxBody<Bytes, Infallible>> {
    let mut response = Response::new(Full::new(text).boxed());
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// One message that holds the JSON, and the status in trailers (14 is UNAVAILABLE).
fn grpc(status: StatusCode, text: &Bytes) -> Response<BoxBody<Bytes, Infallible>> {
    let mut framed = BytesMut::with_capacity(text.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(text.len()).expect("a description is far below 4 GiB"));
    framed.put_slice(text);
    let code = if status.is_success() { "0" } else { "14" };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    let body = Full::new(framed.freeze()).with_trailers(async { Some(Ok(trailers)) });
    let mut response = Response::new(body.boxed());
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// How often each request came, for the newest ones.
#[derive(Default)]
struct Attempts {
    seen: BTreeMap<Str, u32>,
    order: VecDeque<Str>,
}

impl Attempts {
    fn count(&mut self, id: Str) -> u32 {
        if !self.seen.contains_key(&id) {
            if self.order.len() == MAX_REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.seen.remove(&oldest);
            }
            self.order.push_back(id.clone());
        }
        let count = self.seen.entry(id).or_default();
        *count = count.saturating_add(1);
        *count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answerer(fail_first: u32) -> Answerer {
        Answerer::new(Workload {
            name: "reviews".into(),
            version: "v2".into(),
            fail_first,
            delay: Duration::ZERO,
        })
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let insert = |mut map: HeaderMap, (k, v): &(&'static str, &'static str)| {
            map.insert(*k, HeaderValue::from_static(v));
            map
        };
        pairs.iter().fold(HeaderMap::new(), insert)
    }

    #[test]
    fn the_first_attempts_of_each_request_fail() {
        let app = answerer(1);
        let mut codes = Vec::new();
        for id in ["a", "b", "a", "b", "a"] {
            let h = headers(&[("x-request-id", id)]);
            codes.push(app.status(&h, app.count_attempt(&h)).as_u16());
        }
        assert_eq!(codes, [503, 503, 200, 200, 200]);
    }

    #[test]
    fn a_request_asks_for_its_own_failure() {
        let app = answerer(0);
        let twice = headers(&[(ASK_FAIL_FIRST, "2"), (ASK_STATUS, "418")]);
        let codes: Vec<u16> = (1..=3).map(|n| app.status(&twice, n).as_u16()).collect();
        assert_eq!(codes, [503, 503, 418]);
        assert_eq!(
            app.status(&headers(&[(ASK_STATUS, "70000")]), 1),
            StatusCode::OK
        );
    }

    #[test]
    fn a_header_is_answered_by_the_version_that_was_asked_for_it() {
        let app = answerer(0);
        let header = app.own_header("v2 x-load: cpu=1").unwrap();
        assert_eq!(
            (header.0.as_str(), header.1),
            ("x-load", HeaderValue::from_static("cpu=1"))
        );
        assert!(app.own_header("v1 x-load: cpu=1").is_none());
    }

    #[test]
    fn remembered_requests_are_bounded() {
        let mut attempts = Attempts::default();
        attempts.count("first".into());
        for n in 0..MAX_REMEMBERED {
            attempts.count(Str::new(n.to_string()));
        }
        assert_eq!(attempts.seen.len(), MAX_REMEMBERED);
        assert_eq!(attempts.count("first".into()), 1);
    }

    #[tokio::test]
    async fn a_grpc_answer_has_one_message_and_its_status_in_trailers() {
        let answer = grpc(StatusCode::OK, &Bytes::from_static(b"{}"));
        let body = answer.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(&body.to_bytes()[..], b"\0\0\0\0\x02{}");
    }
}
