//! Renders listeners: socket, capture, detection. Their filter chains are in `filter_chain`.

use envoy_types::pb::envoy::config::core::v3::TrafficDirection;
use envoy_types::pb::envoy::config::listener::v3 as pb;
use envoy_types::pb::envoy::config::listener::v3::listener_filter::ConfigType;
use envoy_types::pb::envoy::config::listener::v3::listener_filter_chain_match_predicate::{
    MatchSet, Rule,
};
use envoy_types::pb::envoy::config::listener::v3::{
    ListenerFilter, ListenerFilterChainMatchPredicate,
};
use envoy_types::pb::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use envoy_types::pb::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use envoy_types::pb::envoy::r#type::v3::Int32Range;
use prost::{Message, Name};

use super::{Ref, Render, ResourceType, access_log, filter_chain, proto};
use crate::ir::{Capture, Direction, FilterChain, Inspector, Listener, Socket};
use crate::text::Str;

impl Render for Listener {
    type Message = pb::Listener;
    const KIND: ResourceType = ResourceType::Listener;
    const EPOCH: u32 = 1;

    fn name(&self) -> Str {
        self.name.clone()
    }

    fn render(&self) -> pb::Listener {
        let direction = match self.direction {
            Direction::Inbound => TrafficDirection::Inbound,
            Direction::Outbound => TrafficDirection::Outbound,
        };
        pb::Listener {
            name: self.name.to_string(),
            address: Some(proto::address(&self.address)),
            traffic_direction: direction.into(),
            use_original_dst: match self.capture {
                Capture::HandOver => proto::boolean(true),
                Capture::None | Capture::Restore => None,
            },
            listener_filters: listener_filters(self),
            listener_filters_timeout: Some(proto::duration(self.detection_timeout)),
            // A server that speaks first: after the wait it is taken for raw TCP, not closed.
            continue_on_listener_filters_timeout: true,
            filter_chains: self.chains.iter().map(filter_chain::render).collect(),
            default_filter_chain: self.default_chain.as_ref().map(filter_chain::render),
            access_log: access_log::unmatched(self.access_log.as_ref()),
            ..socket(self.socket)
        }
    }

    fn refs(&self) -> Vec<Ref> {
        let mut refs: Vec<Ref> = chains(self).flat_map(filter_chain::refs).collect();
        refs.sort();
        refs.dedup();
        refs
    }
}

fn socket(socket: Socket) -> pb::Listener {
    match socket {
        Socket::Bound => pb::Listener {
            // Two Envoys of one user would else share the port, and neither would know.
            enable_reuse_port: proto::boolean(false),
            // One at a time, so that the workers share a burst of connections evenly.
            max_connections_to_accept_per_socket_event: proto::uint32(1),
            ..Default::default()
        },
        Socket::Virtual => pb::Listener {
            bind_to_port: proto::boolean(false),
            ..Default::default()
        },
    }
}

fn chains(listener: &Listener) -> impl Iterator<Item = &FilterChain> {
    listener.chains.iter().chain(&listener.default_chain)
}

/// In the order in which they read: where to, TLS or not, HTTP or not.
fn listener_filters(listener: &Listener) -> Vec<ListenerFilter> {
    let original_dst = match listener.capture {
        Capture::Restore => Some(filter(
            "envoy.filters.listener.original_dst",
            &OriginalDst {},
            None,
        )),
        Capture::None | Capture::HandOver => None,
    };
    let tls = inspector(
        "envoy.filters.listener.tls_inspector",
        &TlsInspector::default(),
        &listener.tls_inspector,
    );
    let http = inspector(
        "envoy.filters.listener.http_inspector",
        &HttpInspector::default(),
        &listener.http_inspector,
    );
    original_dst.into_iter().chain(tls).chain(http).collect()
}

fn inspector<M: Message + Name>(
    name: &str,
    config: &M,
    when: &Inspector,
) -> Option<ListenerFilter> {
    match when {
        Inspector::Off => None,
        Inspector::On => Some(filter(name, config, None)),
        Inspector::ExceptPorts(ports) => Some(filter(name, config, any_of(ports))),
    }
}

fn filter<M: Message + Name>(
    name: &str,
    config: &M,
    disabled: Option<ListenerFilterChainMatchPredicate>,
) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        filter_disabled: disabled,
        config_type: Some(ConfigType::TypedConfig(proto::any(config))),
    }
}

/// `or_match` takes two rules or more.
fn any_of(ports: &[u16]) -> Option<ListenerFilterChainMatchPredicate> {
    let mut rules: Vec<_> = ports.iter().map(|p| predicate(port(*p))).collect();
    match rules.len() {
        0 | 1 => rules.pop(),
        _ => Some(predicate(Rule::OrMatch(MatchSet { rules }))),
    }
}

fn port(port: u16) -> Rule {
    Rule::DestinationPortRange(Int32Range {
        start: i32::from(port),
        end: i32::from(port) + 1,
    })
}

fn predicate(rule: Rule) -> ListenerFilterChainMatchPredicate {
    ListenerFilterChainMatchPredicate { rule: Some(rule) }
}
