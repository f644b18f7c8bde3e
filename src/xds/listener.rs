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
use envoy_types::pb::envoy::extensions::filters::listener::original_src::v3::OriginalSrc;
use envoy_types::pb::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use envoy_types::pb::envoy::r#type::v3::Int32Range;
use prost::{Message, Name};

use super::{Ref, Render, ResourceType, access_log, filter_chain, proto};
use crate::ir::{Address, Capture, Direction, FilterChain, Inspector, Listener, Socket};
use crate::text::Str;

/// By which the rules of a transparent capture know what Envoy sends the workload.
const TRANSPARENT_MARK: u32 = 1337;

impl Render for Listener {
    type Message = pb::Listener;
    const KIND: ResourceType = ResourceType::Listener;
    const EPOCH: u32 = 4;

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
            additional_addresses: also(self),
            transparent: match self.capture {
                Capture::Transparent => proto::boolean(true),
                Capture::None | Capture::HandOver | Capture::Restore => None,
            },
            traffic_direction: direction.into(),
            use_original_dst: match self.capture {
                Capture::HandOver => proto::boolean(true),
                Capture::None | Capture::Restore | Capture::Transparent => None,
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

/// On the address's own port.
fn also(listener: &Listener) -> Vec<pb::AdditionalAddress> {
    let Address::Ip(_, port) = listener.address else {
        return Vec::new();
    };
    let second = listener.also.map(|ip| pb::AdditionalAddress {
        address: Some(proto::address(&Address::Ip(ip, port))),
        ..Default::default()
    });
    second.into_iter().collect()
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
        Capture::Restore | Capture::Transparent => Some(filter(
            "envoy.filters.listener.original_dst",
            &OriginalDst {},
            None,
        )),
        Capture::None | Capture::HandOver => None,
    };
    let original_src = (listener.capture == Capture::Transparent).then(|| {
        let keep = OriginalSrc {
            mark: TRANSPARENT_MARK,
            ..Default::default()
        };
        filter("envoy.filters.listener.original_src", &keep, None)
    });
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
    let proxy_protocol = listener.proxy_protocol.then(|| {
        filter(
            "envoy.filters.listener.proxy_protocol",
            &ProxyProtocol::default(),
            None,
        )
    });
    let first = proxy_protocol.into_iter().chain(original_dst);
    let first = first.chain(original_src);
    first.chain(tls).chain(http).collect()
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ir::{
        ChainMatch, Connect, DownstreamTls, Flow, HttpManager, InboundRoute, InboundTls, Loading,
        NetworkFilter, Routes, Target, TcpProxy,
    };
    use crate::xds::json::shown;

    fn chain(filter: NetworkFilter) -> FilterChain {
        FilterChain {
            name: "c".into(),
            matches: ChainMatch::default(),
            tls: None,
            filter,
        }
    }

    fn tcp(clusters: &[&str]) -> TcpProxy {
        let target = |cluster: &&str| Target {
            cluster: Str::new(cluster),
            weight: 1,
        };
        TcpProxy {
            stat_prefix: "p".into(),
            targets: clusters.iter().map(target).collect(),
            flow: Flow::default(),
            upstream_alpn: None,
            connect: Connect::AtOnce,
            access_log: None,
        }
    }

    fn http(direction: Direction, routes: Routes) -> NetworkFilter {
        NetworkFilter::Http(Box::new(HttpManager {
            direction,
            stat_prefix: "p;".into(),
            routes,
            loading: Loading::AtOnce,
            edge: None,
            extensions: Vec::new(),
            access_log: None,
        }))
    }

    fn listener(chains: Vec<FilterChain>) -> Listener {
        Listener {
            name: "l".into(),
            address: Address::Ip([127, 0, 0, 1].into(), 80),
            also: None,
            socket: Socket::Bound,
            direction: Direction::Outbound,
            capture: Capture::None,
            proxy_protocol: false,
            tls_inspector: Inspector::Off,
            http_inspector: Inspector::Off,
            detection_timeout: crate::config::value::Span(std::time::Duration::from_secs(5)),
            chains,
            default_chain: None,
            access_log: None,
        }
    }

    #[test]
    fn a_listener_refers_to_the_clusters_and_tables_of_all_its_chains() {
        let inline = InboundRoute {
            cluster: "in".into(),
            virtual_host: "v".into(),
            operation: "o".into(),
            retries: None,
        };
        let all = Listener {
            default_chain: Some(chain(NetworkFilter::Tcp(tcp(&["b", "a"])))),
            ..listener(vec![
                chain(http(Direction::Outbound, Routes::Rds("80".into()))),
                chain(http(Direction::Inbound, Routes::Inline(inline))),
                chain(NetworkFilter::Tcp(tcp(&["a"]))),
            ])
        };
        let refs: Vec<(ResourceType, &str)> = [
            (ResourceType::Cluster, "a"),
            (ResourceType::Cluster, "b"),
            (ResourceType::Cluster, "in"),
            (ResourceType::Route, "80"),
        ]
        .into();
        let found = all.refs();
        assert_eq!(
            found
                .iter()
                .map(|r| (r.kind, r.name.as_str()))
                .collect::<Vec<_>>(),
            refs
        );
    }

    #[test]
    fn an_inspector_leaves_out_one_port_or_any_of_several() {
        let disabled = |ports: &[u16]| {
            let node = Listener {
                http_inspector: Inspector::ExceptPorts(ports.into()),
                ..listener(vec![])
            };
            shown(&node.render())["listenerFilters"][0]["filterDisabled"].clone()
        };
        let range = |port: u32| json!({"destinationPortRange": {"start": port, "end": port + 1}});
        assert_eq!(disabled(&[]), json!(null));
        assert_eq!(disabled(&[65535]), range(65535));
        assert_eq!(
            disabled(&[1, 2]),
            json!({"orMatch": {"rules": [range(1), range(2)]}})
        );
    }

    #[test]
    fn only_a_bound_listener_has_a_socket_and_shares_it_with_nobody() {
        let bound = shown(&listener(vec![]).render());
        assert_eq!(
            (&bound["bindToPort"], &bound["enableReusePort"]),
            (&json!(null), &json!(false))
        );
        let hidden = Listener {
            socket: Socket::Virtual,
            ..listener(vec![])
        };
        let hidden = shown(&hidden.render());
        assert_eq!(
            (&hidden["bindToPort"], &hidden["enableReusePort"]),
            (&json!(false), &json!(null))
        );
    }

    #[test]
    fn a_mesh_chain_wants_a_certificate_of_its_trust_domain_before_it_calls_the_app() {
        let node = FilterChain {
            tls: Some(DownstreamTls::Mesh(InboundTls {
                alpn: vec!["h2".into()],
                trust_domains: vec!["td".into()],
            })),
            ..chain(NetworkFilter::Tcp(TcpProxy {
                connect: Connect::AfterHandshake,
                ..tcp(&["in"])
            }))
        };
        let rendered = shown(&filter_chain::render(&node));
        let context = &rendered["transportSocket"]["typedConfig"];
        assert_eq!(context["requireClientCertificate"], true);
        let common = &context["commonTlsContext"];
        let validation = &common["combinedValidationContext"]["defaultValidationContext"];
        let believed = json!([{"sanType": "URI", "matcher": {"prefix": "spiffe://td/"}}]);
        assert_eq!(validation["matchTypedSubjectAltNames"], believed);
        let versions = (
            &common["tlsParams"]["tlsMinimumProtocolVersion"],
            &common["tlsParams"]["tlsMaximumProtocolVersion"],
        );
        assert_eq!(versions, (&json!("TLSv1_2"), &json!("TLSv1_3")));
        let proxy = &rendered["filters"][0]["typedConfig"];
        assert_eq!(proxy["upstreamConnectMode"], "ON_DOWNSTREAM_TLS_HANDSHAKE");
        assert_eq!(proxy["maxEarlyDataBytes"], 0);
    }

    #[test]
    fn bytes_for_a_port_of_unknown_protocol_say_so_to_the_server() {
        let node = chain(NetworkFilter::Tcp(TcpProxy {
            upstream_alpn: Some("istio".into()),
            ..tcp(&["out"])
        }));
        let filters = &shown(&filter_chain::render(&node))["filters"];
        let state = &filters[0]["typedConfig"]["onNewConnection"][0];
        assert_eq!(state["objectKey"], "envoy.network.application_protocols");
        assert_eq!(
            state["formatString"]["textFormatSource"]["inlineString"],
            "istio"
        );
        assert_eq!(filters[1]["name"], "envoy.filters.network.tcp_proxy");
    }

    #[test]
    fn who_called_is_passed_on_inbound_and_never_taken_from_the_app_outbound() {
        let manager = |direction| {
            let node = chain(http(direction, Routes::Rds("80".into())));
            shown(&filter_chain::render(&node))["filters"][0]["typedConfig"].clone()
        };
        let inbound = manager(Direction::Inbound);
        assert_eq!(inbound["forwardClientCertDetails"], "APPEND_FORWARD");
        let details = json!({"subject": true, "dns": true, "uri": true});
        assert_eq!(inbound["setCurrentClientCertDetails"], details);
        assert_eq!(inbound["serverName"], "istio-envoy");
        let outbound = manager(Direction::Outbound);
        assert_eq!(outbound["forwardClientCertDetails"], json!(null));
        assert_eq!(outbound["serverHeaderTransformation"], "PASS_THROUGH");
        for manager in [inbound, outbound] {
            let last = manager["httpFilters"].as_array().unwrap().last().unwrap();
            assert_eq!(last["name"], "envoy.filters.http.router");
            assert_eq!(manager["streamIdleTimeout"], "0s");
        }
    }
}
