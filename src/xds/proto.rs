//! Protobuf values that all renderers write. Whole resources are in the files beside this one.

use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, DataSource, Metadata, Pipe,
    SocketAddress, address,
};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{
    Any, BoolValue, Duration, ListValue, Struct, UInt32Value, UInt64Value, Value,
};
use prost::{Message, Name};

use crate::config::value::Span;
use crate::ir;

pub fn any<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: M::type_url(),
        value: message.encode_to_vec(),
    }
}

/// Longer than protobuf's ten thousand years cannot be written, nor meant.
pub fn duration(span: Span) -> Duration {
    const MAX_SECONDS: u64 = 315_576_000_000;
    Duration {
        seconds: span.0.as_secs().min(MAX_SECONDS).cast_signed(),
        nanos: span.0.subsec_nanos().cast_signed(),
    }
}

pub fn seconds(seconds: i64) -> Duration {
    Duration { seconds, nanos: 0 }
}

pub fn uint32(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

pub fn uint64(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

pub fn boolean(value: bool) -> Option<BoolValue> {
    Some(BoolValue { value })
}

pub fn socket_address(address: &str, port: u16) -> SocketAddress {
    SocketAddress {
        address: address.to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(port.into())),
        ..Default::default()
    }
}

pub fn address(address: &ir::Address) -> Address {
    let inner = match address {
        ir::Address::Ip(ip, port) => {
            address::Address::SocketAddress(socket_address(&ip.to_string(), *port))
        }
        ir::Address::Name(name, port) => {
            address::Address::SocketAddress(socket_address(name, *port))
        }
        ir::Address::Pipe(path) => address::Address::Pipe(Pipe {
            path: path.to_string(),
            mode: 0,
        }),
    };
    Address {
        address: Some(inner),
    }
}

/// More of the same stream; `0s` waits for ever.
pub fn ads(initial_fetch_timeout: Duration) -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        initial_fetch_timeout: Some(initial_fetch_timeout),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..Default::default()
    }
}

pub fn file(path: &str) -> DataSource {
    DataSource {
        specifier: Some(Specifier::Filename(path.to_owned())),
        ..Default::default()
    }
}

/// `metadata.filter_metadata`, one struct for each filter that reads it.
///
/// The maps in it have no order of their own: bytes of one content may differ between processes.
pub fn metadata<const N: usize>(by_filter: [(&str, Struct); N]) -> Metadata {
    Metadata {
        filter_metadata: by_filter
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v))
            .collect(),
        ..Default::default()
    }
}

pub fn structure<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>) -> Struct {
    Struct {
        fields: fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
    }
}

pub fn text(value: &str) -> Value {
    Value {
        kind: Some(Kind::StringValue(value.to_owned())),
    }
}

pub fn object(fields: Struct) -> Value {
    Value {
        kind: Some(Kind::StructValue(fields)),
    }
}

pub fn list(values: Vec<Value>) -> Value {
    Value {
        kind: Some(Kind::ListValue(ListValue { values })),
    }
}
