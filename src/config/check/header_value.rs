//! Values of headers that are set: Envoy refuses a route for a command in them that it does not know.
//!
//! <https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage#format-strings>

/// Commands by name, and whether they need something in parentheses.
const COMMANDS: &[(&str, Needs)] = &[
    ("ACCESS_LOG_TYPE", Needs::Nothing),
    ("BYTES_RECEIVED", Needs::Nothing),
    ("BYTES_SENT", Needs::Nothing),
    ("CEL", Needs::Text),
    ("CLUSTER_METADATA", Needs::Text),
    ("COALESCE", Needs::Text),
    ("COMMON_DURATION", Needs::Maybe),
    ("CONNECTION_ID", Needs::Nothing),
    ("CONNECTION_TERMINATION_DETAILS", Needs::Nothing),
    ("CUSTOM_FLAGS", Needs::Maybe),
    ("DOWNSTREAM_DIRECT_LOCAL_ADDRESS", Needs::Nothing),
    (
        "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT",
        Needs::Nothing,
    ),
    ("DOWNSTREAM_DIRECT_LOCAL_PORT", Needs::Nothing),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", Needs::Nothing),
    (
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
        Needs::Nothing,
    ),
    ("DOWNSTREAM_DIRECT_REMOTE_PORT", Needs::Nothing),
    ("DOWNSTREAM_HEADER_BYTES_RECEIVED", Needs::Nothing),
    ("DOWNSTREAM_HEADER_BYTES_SENT", Needs::Nothing),
    ("DOWNSTREAM_LOCAL_ADDRESS", Needs::Nothing),
    ("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", Needs::Nothing),
    ("DOWNSTREAM_LOCAL_DNS_SAN", Needs::Nothing),
    ("DOWNSTREAM_LOCAL_EMAIL_SAN", Needs::Nothing),
    ("DOWNSTREAM_LOCAL_IP_SAN", Needs::Nothing),
    ("DOWNSTREAM_LOCAL_PORT", Needs::Nothing),
    ("DOWNSTREAM_LOCAL_SUBJECT", Needs::Nothing),
    ("DOWNSTREAM_LOCAL_URI_SAN", Needs::Nothing),
    ("DOWNSTREAM_PEER_CERT", Needs::Nothing),
    ("DOWNSTREAM_PEER_CERT_V_END", Needs::Maybe),
    ("DOWNSTREAM_PEER_CERT_V_START", Needs::Maybe),
    ("DOWNSTREAM_PEER_DNS_SAN", Needs::Nothing),
    ("DOWNSTREAM_PEER_EMAIL_SAN", Needs::Nothing),
    ("DOWNSTREAM_PEER_FINGERPRINT_1", Needs::Nothing),
    ("DOWNSTREAM_PEER_FINGERPRINT_256", Needs::Nothing),
    ("DOWNSTREAM_PEER_IP_SAN", Needs::Nothing),
    ("DOWNSTREAM_PEER_ISSUER", Needs::Nothing),
    ("DOWNSTREAM_PEER_SERIAL", Needs::Nothing),
    ("DOWNSTREAM_PEER_SUBJECT", Needs::Nothing),
    ("DOWNSTREAM_PEER_URI_SAN", Needs::Nothing),
    ("DOWNSTREAM_REMOTE_ADDRESS", Needs::Nothing),
    ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Needs::Nothing),
    ("DOWNSTREAM_REMOTE_PORT", Needs::Nothing),
    ("DOWNSTREAM_TLS_CIPHER", Needs::Nothing),
    ("DOWNSTREAM_TLS_SESSION_ID", Needs::Nothing),
    ("DOWNSTREAM_TLS_VERSION", Needs::Nothing),
    ("DOWNSTREAM_TRANSPORT_FAILURE_REASON", Needs::Nothing),
    ("DOWNSTREAM_WIRE_BYTES_RECEIVED", Needs::Nothing),
    ("DOWNSTREAM_WIRE_BYTES_SENT", Needs::Nothing),
    ("DURATION", Needs::Nothing),
    ("DYNAMIC_METADATA", Needs::Text),
    ("EMIT_TIME", Needs::Maybe),
    ("EMIT_TIME_LOCAL", Needs::Maybe),
    ("ENVIRONMENT", Needs::Text),
    ("FILTER_CHAIN_NAME", Needs::Nothing),
    ("FILTER_STATE", Needs::Text),
    ("GRPC_STATUS", Needs::Maybe),
    ("GRPC_STATUS_NUMBER", Needs::Nothing),
    ("HOSTNAME", Needs::Nothing),
    ("METADATA", Needs::Text),
    ("PATH", Needs::Maybe),
    ("PER_REQUEST_STATE", Needs::Text),
    ("PROTOCOL", Needs::Nothing),
    ("QUERY_PARAM", Needs::Text),
    ("QUERY_PARAMS", Needs::Maybe),
    ("REQ", Needs::Text),
    ("REQUESTED_SERVER_NAME", Needs::Maybe),
    ("REQUEST_DURATION", Needs::Nothing),
    ("REQUEST_HEADERS_BYTES", Needs::Nothing),
    ("REQUEST_TX_DURATION", Needs::Nothing),
    ("RESP", Needs::Text),
    ("RESPONSE_CODE", Needs::Nothing),
    ("RESPONSE_CODE_DETAILS", Needs::Maybe),
    ("RESPONSE_DURATION", Needs::Nothing),
    ("RESPONSE_FLAGS", Needs::Nothing),
    ("RESPONSE_FLAGS_LONG", Needs::Nothing),
    ("RESPONSE_HEADERS_BYTES", Needs::Nothing),
    ("RESPONSE_TRAILERS_BYTES", Needs::Nothing),
    ("RESPONSE_TX_DURATION", Needs::Nothing),
    ("ROUNDTRIP_DURATION", Needs::Nothing),
    ("ROUTE_NAME", Needs::Nothing),
    ("SPAN_ID", Needs::Nothing),
    ("START_TIME", Needs::Maybe),
    ("START_TIME_LOCAL", Needs::Maybe),
    ("STREAM_ID", Needs::Nothing),
    ("TLS_JA3_FINGERPRINT", Needs::Nothing),
    ("TLS_JA4_FINGERPRINT", Needs::Nothing),
    ("TRACE_ID", Needs::Nothing),
    ("TRAILER", Needs::Text),
    ("UNIQUE_ID", Needs::Nothing),
    ("UPSTREAM_CLUSTER", Needs::Nothing),
    ("UPSTREAM_CLUSTER_RAW", Needs::Nothing),
    ("UPSTREAM_CONNECTION_ID", Needs::Nothing),
    ("UPSTREAM_FILTER_STATE", Needs::Text),
    ("UPSTREAM_HEADER_BYTES_RECEIVED", Needs::Nothing),
    ("UPSTREAM_HEADER_BYTES_SENT", Needs::Nothing),
    ("UPSTREAM_HOST", Needs::Nothing),
    ("UPSTREAM_HOST_NAME", Needs::Nothing),
    ("UPSTREAM_HOST_NAME_WITHOUT_PORT", Needs::Nothing),
    ("UPSTREAM_LOCAL_ADDRESS", Needs::Nothing),
    ("UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", Needs::Nothing),
    ("UPSTREAM_LOCAL_DNS_SAN", Needs::Nothing),
    ("UPSTREAM_LOCAL_PORT", Needs::Nothing),
    ("UPSTREAM_LOCAL_URI_SAN", Needs::Nothing),
    ("UPSTREAM_METADATA", Needs::Text),
    ("UPSTREAM_PEER_CERT", Needs::Nothing),
    ("UPSTREAM_PEER_DNS_SAN", Needs::Nothing),
    ("UPSTREAM_PEER_ISSUER", Needs::Nothing),
    ("UPSTREAM_PEER_SUBJECT", Needs::Nothing),
    ("UPSTREAM_PEER_URI_SAN", Needs::Nothing),
    ("UPSTREAM_PROTOCOL", Needs::Nothing),
    ("UPSTREAM_REMOTE_ADDRESS", Needs::Nothing),
    ("UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Needs::Nothing),
    ("UPSTREAM_REMOTE_PORT", Needs::Nothing),
    ("UPSTREAM_REQUEST_ATTEMPT_COUNT", Needs::Nothing),
    ("UPSTREAM_TLS_CIPHER", Needs::Nothing),
    ("UPSTREAM_TLS_SESSION_ID", Needs::Nothing),
    ("UPSTREAM_TLS_VERSION", Needs::Nothing),
    ("UPSTREAM_TRANSPORT_FAILURE_REASON", Needs::Nothing),
    ("UPSTREAM_WIRE_BYTES_RECEIVED", Needs::Nothing),
    ("UPSTREAM_WIRE_BYTES_SENT", Needs::Nothing),
    ("VIRTUAL_CLUSTER_NAME", Needs::Nothing),
];

#[derive(Clone, Copy, PartialEq)]
enum Needs {
    Nothing,
    Maybe,
    Text,
}

/// What is wrong with a value as Envoy reads it.
pub(super) fn sound(value: &str) -> Result<(), String> {
    if value.bytes().any(|b| matches!(b, 0 | b'\r' | b'\n')) {
        return Err("a header's value has no line ends".to_owned());
    }
    let mut rest = value;
    while let Some((_, after)) = rest.split_once('%') {
        rest = match after.strip_prefix('%') {
            Some(escaped) => escaped,
            None => command(after)?,
        };
    }
    Ok(())
}

/// Reads one command without its first `%`, and gives what follows it.
fn command(text: &str) -> Result<&str, String> {
    let end = |c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    let (name, rest) = text.split_at(text.find(end).unwrap_or(text.len()));
    let Some((_, needs)) = COMMANDS.iter().find(|(known, _)| *known == name) else {
        return Err(format!(
            "`%{name}` begins no command of Envoy's; `%%` stands for a percent sign"
        ));
    };
    let (words, rest) = match rest.strip_prefix('(') {
        Some(inner) => match inner.split_once(')') {
            Some((words, rest)) => (Some(words), rest),
            None => return Err(format!("`%{name}(` has no end")),
        },
        None => (None, rest),
    };
    match (needs, words) {
        (Needs::Text, None | Some("")) => {
            return Err(format!("`%{name}%` needs to say of what: `%{name}(…)%`"));
        }
        (Needs::Nothing, Some(_)) => {
            return Err(format!("`%{name}%` takes nothing in parentheses"));
        }
        (Needs::Nothing | Needs::Maybe | Needs::Text, _) => {}
    }
    if words.is_some_and(|words| words.matches('?').count() > 1) {
        return Err(format!("`%{name}(…)%` takes one alternative after `?`"));
    }
    let rest = match rest.strip_prefix(':') {
        Some(length)
            if *needs == Needs::Text && length.starts_with(|c: char| c.is_ascii_digit()) =>
        {
            length.trim_start_matches(|c: char| c.is_ascii_digit())
        }
        Some(_) => return Err(format!("`%{name}%` takes no such length")),
        None => rest,
    };
    rest.strip_prefix('%')
        .ok_or_else(|| format!("`%{name}` does not end with `%`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_texts_that_only_look_so() {
        for sound_one in [
            "plain",
            "50%%",
            "%DOWNSTREAM_REMOTE_ADDRESS%",
            "a %REQ(x-a?x-b):10% b",
            "%START_TIME(%s)%",
            "%START_TIME%",
        ] {
            // `%` within parentheses is the command's own.
            assert_eq!(sound(sound_one), Ok(()), "{sound_one}");
        }
        for wrong in [
            "50%",
            "%NO_SUCH%",
            "%REQ%",
            "%REQ(x%",
            "%PROTOCOL(x)%",
            "%PROTOCOL:3%",
            "%REQ(x):%",
            "%REQ(a?b?c)%",
            "a\nb",
        ] {
            assert!(sound(wrong).is_err(), "{wrong}");
        }
    }
}
