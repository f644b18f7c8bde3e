//! gRPC's statuses and how a response ends with one. Messages are framed in `wire` and `frame`.

use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response};

/// The canonical codes that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Ok = 0,
    InvalidArgument = 3,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Unimplemented = 12,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub code: Code,
    pub message: String,
}

pub const CONTENT: HeaderValue = HeaderValue::from_static("application/grpc");

impl Status {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }

    pub fn ok() -> Self {
        Self::new(Code::Ok, "")
    }

    pub fn trailers(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        map.insert("grpc-status", HeaderValue::from(self.code as u16));
        // Percent-encoded text is always a header value.
        if let Ok(value) = HeaderValue::from_str(&percent_encoded(&self.message))
            && !self.message.is_empty()
        {
            map.insert("grpc-message", value);
        }
        map
    }

    /// A response that is nothing but its status.
    pub fn response(&self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.headers_mut() = self.trailers();
        response.headers_mut().insert(CONTENT_TYPE, CONTENT);
        response
    }
}

/// gRPC over HTTP/2, `Status-Message`: printable ASCII but `%` stands for itself.
fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' => out.push_str("%25"),
            0x20..=0x7e => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_travels_as_headers_whatever_its_text() {
        let status = Status::new(Code::PermissionDenied, "100 % näh\n");
        let map = status.trailers();
        assert_eq!(map["grpc-status"], "7");
        assert_eq!(map["grpc-message"], "100 %25 n%C3%A4h%0A");
        assert!(!Status::ok().trailers().contains_key("grpc-message"));
    }
}
