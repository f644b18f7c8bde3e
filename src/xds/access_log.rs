//! Access logs to a file, in Istio's text format. Telemetry decides elsewhere who logs.

use envoy_types::pb::envoy::config::accesslog::v3 as pb;
use envoy_types::pb::envoy::config::accesslog::v3::access_log::ConfigType;
use envoy_types::pb::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use envoy_types::pb::envoy::config::accesslog::v3::{AccessLogFilter, ResponseFlagFilter};
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::substitution_format_string::Format;
use envoy_types::pb::envoy::config::core::v3::{DataSource, SubstitutionFormatString};
use envoy_types::pb::envoy::extensions::access_loggers::file::v3::FileAccessLog;
use envoy_types::pb::envoy::extensions::access_loggers::file::v3::file_access_log::AccessLogFormat;

use super::proto;
use crate::ir::AccessLog;

/// Istio's default line, field by field: its users' log parsers count on it.
const DEFAULT_FIELDS: &[&str] = &[
    "[%START_TIME%]",
    "\"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\"",
    "%RESPONSE_CODE%",
    "%RESPONSE_FLAGS%",
    "%RESPONSE_CODE_DETAILS%",
    "%CONNECTION_TERMINATION_DETAILS%",
    "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\"",
    "%BYTES_RECEIVED%",
    "%BYTES_SENT%",
    "%DURATION%",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    "\"%REQ(X-FORWARDED-FOR)%\"",
    "\"%REQ(USER-AGENT)%\"",
    "\"%REQ(X-REQUEST-ID)%\"",
    "\"%REQ(:AUTHORITY)%\"",
    "\"%UPSTREAM_HOST%\"",
    "%UPSTREAM_CLUSTER_RAW%",
    "%UPSTREAM_LOCAL_ADDRESS%",
    "%DOWNSTREAM_LOCAL_ADDRESS%",
    "%DOWNSTREAM_REMOTE_ADDRESS%",
    "%REQUESTED_SERVER_NAME%",
    "%ROUTE_NAME%",
];

pub fn file(log: Option<&AccessLog>) -> Vec<pb::AccessLog> {
    log.map(logger).into_iter().collect()
}

/// Only connections that no filter chain took (flag NR).
pub fn unmatched(log: Option<&AccessLog>) -> Vec<pb::AccessLog> {
    let no_route = AccessLogFilter {
        filter_specifier: Some(FilterSpecifier::ResponseFlagFilter(ResponseFlagFilter {
            flags: vec!["NR".to_owned()],
        })),
    };
    let filtered = |log| pb::AccessLog {
        filter: Some(no_route),
        ..logger(log)
    };
    log.map(filtered).into_iter().collect()
}

fn logger(log: &AccessLog) -> pb::AccessLog {
    let format = if log.format.is_empty() {
        DEFAULT_FIELDS.join(" ") + "\n"
    } else {
        log.format.to_string()
    };
    let format = SubstitutionFormatString {
        format: Some(Format::TextFormatSource(DataSource {
            specifier: Some(Specifier::InlineString(format)),
            ..Default::default()
        })),
        ..Default::default()
    };
    pb::AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        config_type: Some(ConfigType::TypedConfig(proto::any(&FileAccessLog {
            path: log.path.to_string(),
            access_log_format: Some(AccessLogFormat::LogFormat(format)),
        }))),
        ..Default::default()
    }
}
