//! Renders the HTTP connection manager and its ordered filters. Route tables are in `route`.

use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::filters::http::cors::v3::Cors;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::HttpFault;
use envoy_types::pb::envoy::extensions::filters::http::grpc_stats::v3::FilterConfig as GrpcStats;
use envoy_types::pb::envoy::extensions::filters::http::grpc_stats::v3::filter_config::PerMethodStatSpecifier;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as pb;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType, ForwardClientCertDetails, RouteSpecifier, ServerHeaderTransformation,
    SetCurrentClientCertDetails, UpgradeConfig,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;
use prost::{Message, Name};

use super::route::filters;
use super::{Ref, ResourceType, access_log, extension, on_demand, proto, route, scope};
use crate::config::proxy_config::ForwardClientCert;
use crate::config::traffic_extension::Phase;
use crate::ir::{Direction, Edge, HttpManager, Loading, Routes};

/// What a request passes, in this order. The router is always last.
#[derive(Clone, Copy)]
enum HttpFilter {
    /// Users' own of this phase.
    Own(Phase),
    Cors,
    Fault,
    GrpcStats,
    Router,
}

const OUTBOUND_FILTERS: &[HttpFilter] = &[
    HttpFilter::Own(Phase::Authn),
    HttpFilter::Own(Phase::Authz),
    HttpFilter::Own(Phase::Stats),
    HttpFilter::Own(Phase::Unspecified),
    HttpFilter::Fault,
    HttpFilter::Cors,
    HttpFilter::GrpcStats,
    HttpFilter::Router,
];
const INBOUND_FILTERS: &[HttpFilter] = &[
    HttpFilter::Own(Phase::Authn),
    HttpFilter::Own(Phase::Authz),
    HttpFilter::Own(Phase::Stats),
    HttpFilter::Own(Phase::Unspecified),
    HttpFilter::GrpcStats,
    HttpFilter::Router,
];

pub fn render(node: &HttpManager) -> pb::HttpConnectionManager {
    let manager = pb::HttpConnectionManager {
        codec_type: CodecType::Auto.into(),
        stat_prefix: node.stat_prefix.to_string(),
        route_specifier: Some(routes(&node.routes)),
        use_remote_address: proto::boolean(false),
        normalize_path: proto::boolean(true),
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..Default::default()
        }],
        // The route's timeout rules; Envoy's own default would cut silent streams after 5 minutes. A request
        // whose route is yet to come has no other.
        stream_idle_timeout: Some(match node.loading {
            Loading::AtOnce => proto::seconds(0),
            Loading::OnDemand => on_demand::patience(),
        }),
        access_log: access_log::file(node.access_log.as_ref()),
        ..Default::default()
    };
    match (node.direction, node.edge) {
        (Direction::Inbound, _) => inbound(manager, node),
        (Direction::Outbound, None) => outbound(manager, node),
        (Direction::Outbound, Some(edge)) => at_edge(outbound(manager, node), edge),
    }
}

/// The route table, the scope or the only cluster that the manager names.
pub fn reference(node: &HttpManager) -> Ref {
    match &node.routes {
        Routes::Rds(name) => Ref {
            kind: ResourceType::Route,
            name: name.clone(),
        },
        Routes::Scoped(scoping) => scope::reference(scoping),
        Routes::Inline(route) => Ref {
            kind: ResourceType::Cluster,
            name: route.cluster.clone(),
        },
    }
}

/// Passes on who called (`x-forwarded-client-cert`) after those who called before.
fn inbound(manager: pb::HttpConnectionManager, node: &HttpManager) -> pb::HttpConnectionManager {
    pb::HttpConnectionManager {
        server_name: "istio-envoy".to_owned(),
        forward_client_cert_details: ForwardClientCertDetails::AppendForward.into(),
        set_current_client_cert_details: Some(SetCurrentClientCertDetails {
            subject: proto::boolean(true),
            dns: true,
            uri: true,
            ..Default::default()
        }),
        http_filters: http_filters(INBOUND_FILTERS, node).collect(),
        ..manager
    }
}

/// Drops `x-forwarded-client-cert` (Envoy's default) and leaves the server's name to the server.
///
/// What finds a request's table comes before all that needs its route. A table on demand is asked for once the
/// host has its one spelling, and before the fallback takes the request; then what the fallback leads to.
fn outbound(manager: pb::HttpConnectionManager, node: &HttpManager) -> pb::HttpConnectionManager {
    let scoping = match &node.routes {
        Routes::Scoped(scoping) => Some(scoping),
        Routes::Rds(_) | Routes::Inline(_) => None,
    };
    let second = scoping.map(|_| named(scope::SECOND_LOOK, &scope::second_look()));
    let demand = |name| match node.loading {
        Loading::AtOnce => None,
        Loading::OnDemand => Some(named(name, &on_demand::filter())),
    };
    let third = scoping.map(|s| named(scope::THIRD_LOOK, &scope::third_look(s)));
    let again = third.as_ref().and_then(|_| demand(on_demand::AGAIN));
    let finders = [second, demand(on_demand::FIRST), third, again];
    let finders = finders.into_iter().flatten();
    let filters = http_filters(OUTBOUND_FILTERS, node);
    pb::HttpConnectionManager {
        server_header_transformation: ServerHeaderTransformation::PassThrough.into(),
        early_header_mutation_extensions: scoping.map(scope::first_key).into_iter().collect(),
        http_filters: finders.chain(filters).collect(),
        ..manager
    }
}

/// Nothing that a client outside says of itself or of those before it is believed, but by as many proxies as are known
/// to stand before.
fn at_edge(manager: pb::HttpConnectionManager, edge: Edge) -> pb::HttpConnectionManager {
    let forward = match edge.client_cert {
        ForwardClientCert::Undefined | ForwardClientCert::SanitizeSet => {
            ForwardClientCertDetails::SanitizeSet
        }
        ForwardClientCert::Sanitize => ForwardClientCertDetails::Sanitize,
        ForwardClientCert::ForwardOnly => ForwardClientCertDetails::ForwardOnly,
        ForwardClientCert::AppendForward => ForwardClientCertDetails::AppendForward,
        ForwardClientCert::AlwaysForwardOnly => ForwardClientCertDetails::AlwaysForwardOnly,
    };
    pb::HttpConnectionManager {
        use_remote_address: proto::boolean(true),
        xff_num_trusted_hops: edge.trusted_hops,
        server_name: "istio-envoy".to_owned(),
        server_header_transformation: ServerHeaderTransformation::Overwrite.into(),
        forward_client_cert_details: forward.into(),
        set_current_client_cert_details: Some(SetCurrentClientCertDetails {
            subject: proto::boolean(true),
            cert: true,
            dns: true,
            uri: true,
            ..Default::default()
        }),
        ..manager
    }
}

fn routes(routes: &Routes) -> RouteSpecifier {
    match routes {
        Routes::Rds(name) => RouteSpecifier::Rds(pb::Rds {
            config_source: Some(proto::ads(proto::seconds(0))),
            route_config_name: name.to_string(),
        }),
        Routes::Scoped(_) => RouteSpecifier::ScopedRoutes(scope::routes()),
        Routes::Inline(node) => RouteSpecifier::RouteConfig(RouteConfiguration {
            name: node.cluster.to_string(),
            virtual_hosts: vec![route::inbound(node)],
            validate_clusters: proto::boolean(false),
            ..Default::default()
        }),
    }
}

fn http_filters<'n>(
    kinds: &'static [HttpFilter],
    node: &'n HttpManager,
) -> impl Iterator<Item = pb::HttpFilter> + 'n {
    kinds.iter().flat_map(|kind| http_filter(*kind, node))
}

fn http_filter(kind: HttpFilter, node: &HttpManager) -> Vec<pb::HttpFilter> {
    let one = match kind {
        HttpFilter::Own(phase) => {
            let own = node.extensions.iter().filter(|own| own.phase == phase);
            let own = own.map(|own| named(&extension::name(own), &extension::lua(own)));
            return own.collect();
        }
        // What they do stands with each route.
        HttpFilter::Cors => named(filters::CORS, &Cors::default()),
        HttpFilter::Fault => named(filters::FAULT, &HttpFault::default()),
        HttpFilter::GrpcStats => named(
            "envoy.filters.http.grpc_stats",
            &GrpcStats {
                emit_filter_state: true,
                per_method_stat_specifier: Some(PerMethodStatSpecifier::StatsForAllMethods(
                    envoy_types::pb::google::protobuf::BoolValue { value: false },
                )),
                ..Default::default()
            },
        ),
        HttpFilter::Router => named("envoy.filters.http.router", &Router::default()),
    };
    vec![one]
}

fn named<M: Message + Name>(name: &str, config: &M) -> pb::HttpFilter {
    pb::HttpFilter {
        name: name.to_owned(),
        config_type: Some(ConfigType::TypedConfig(proto::any(config))),
        ..Default::default()
    }
}
