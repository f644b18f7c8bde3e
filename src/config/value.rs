//! Small values that several kinds share. Whole objects are in the files beside this one.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text::Str;

/// Istio's `StringMatch`: exactly one way to match.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StringMatch {
    Exact(Str),
    Prefix(Str),
    /// RE2, full match.
    Regex(Str),
    /// A path and what is below it, by whole segments: what an Ingress asks for, and no VirtualService.
    #[serde(skip_deserializing)]
    Segments(Str),
}

/// gRPC's statuses by number (<https://grpc.github.io/grpc/core/md_doc_statuscodes.html>).
pub const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// A CIDR range, or one address as a range of its own. Bits beyond its length say nothing.
pub fn range(text: &str) -> Option<IpNet> {
    let alone = || text.parse::<IpAddr>().ok().map(IpNet::from);
    let range = text.parse::<IpNet>().ok().or_else(alone);
    range.map(|range| range.trunc())
}

/// A number of protobuf's `double` in thousandths: equal ones are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal(pub u32);

impl Decimal {
    pub fn value(self) -> f64 {
        f64::from(self.0) / 1000.0
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() {
            s.serialize_f64(self.value())
        } else {
            s.serialize_u32(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if !d.is_human_readable() {
            return u32::deserialize(d).map(Self);
        }
        let value = f64::deserialize(d)?;
        if !(0.0..=1_000_000.0).contains(&value) {
            let message = format!("{value} is no number from 0 to 1000000");
            return Err(serde::de::Error::custom(message));
        }
        Ok(Self((value * 1000.0).round() as u32))
    }
}

/// A `google.protobuf.Duration` as Istio's users write it: `1.5s`, `10ms`, `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is no duration such as `1.5s`, `10ms` or `1h30m`: {why}")]
pub struct SpanError {
    text: String,
    why: &'static str,
}

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

impl Span {
    /// Numbers with units, added up, as Go's `time.ParseDuration` reads them; never negative.
    pub fn parse(text: &str) -> Result<Self, SpanError> {
        let fail = |why| SpanError {
            text: text.chars().take(40).collect(),
            why,
        };
        if text.starts_with('-') {
            return Err(fail("it is negative"));
        }
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest == "0" {
            return Ok(Self(Duration::ZERO));
        }
        if rest.is_empty() {
            return Err(fail("it is empty"));
        }
        let mut nanos: u128 = 0;
        while !rest.is_empty() {
            let number = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .unwrap_or(rest.len());
            let (digits, after) = rest.split_at(number);
            let end = after
                .find(|c: char| c.is_ascii_digit() || c == '.')
                .unwrap_or(after.len());
            let (unit, after) = after.split_at(end);
            let (_, scale) = UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .ok_or_else(|| fail("a number has no unit of ns, us, ms, s, m, h"))?;
            nanos +=
                scaled(digits, *scale).ok_or_else(|| fail("a number is wrong or too large"))?;
            rest = after;
        }
        // Go's limit, about 292 years.
        let nanos = i64::try_from(nanos)
            .ok()
            .and_then(|n| u64::try_from(n).ok());
        nanos
            .map(|n| Self(Duration::from_nanos(n)))
            .ok_or_else(|| fail("it is too long"))
    }
}

/// `digits` (with at most one point) times `scale`, cut to whole nanoseconds.
fn scaled(digits: &str, scale: u64) -> Option<u128> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let scale = u128::from(scale);
    let whole: u128 = if whole.is_empty() {
        0
    } else {
        whole.parse::<u64>().ok()?.into()
    };
    let mut sum = whole * scale;
    let mut place = scale;
    for digit in fraction.bytes() {
        place /= 10;
        sum += u128::from(digit - b'0') * place;
    }
    Some(sum)
}

impl fmt::Display for Span {
    /// Protobuf's form: seconds with a fraction as short as exact.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.0.as_secs(), self.0.subsec_nanos());
        if nanos == 0 {
            return write!(f, "{seconds}s");
        }
        write!(
            f,
            "{seconds}.{}s",
            format!("{nanos:09}").trim_end_matches('0')
        )
    }
}

// Text for people and JSON, seconds and nanoseconds where a version is hashed.
impl Serialize for Span {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() {
            s.collect_str(self)
        } else {
            self.0.serialize(s)
        }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if !d.is_human_readable() {
            return Duration::deserialize(d).map(Span);
        }
        let text = Cow::<'de, str>::deserialize(d)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_protobuf_and_of_go_are_read() {
        let nanos = |text| Span::parse(text).unwrap().0.as_nanos();
        assert_eq!(nanos("1.5s"), 1_500_000_000);
        assert_eq!(nanos("1h30m"), 5_400_000_000_000);
        assert_eq!(nanos("30ms"), 30_000_000);
        assert_eq!(nanos("1h2m3.5s100us"), 3_723_500_100_000);
        assert_eq!(nanos("0"), 0);
        assert_eq!(nanos(".5s"), 500_000_000);
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for bad in [
            "",
            "5",
            "-1s",
            "s",
            "1.2.3s",
            "1d",
            "1 s",
            "99999999999h",
            ".",
        ] {
            assert!(Span::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_duration_is_written_as_protobuf_does() {
        for (text, want) in [("90m", "5400s"), ("1500ms", "1.5s"), ("1us", "0.000001s")] {
            assert_eq!(Span::parse(text).unwrap().to_string(), want);
        }
    }
}
