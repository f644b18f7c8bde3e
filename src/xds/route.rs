//! Renders route tables, one separately encoded virtual host after the other.

mod action;
pub mod filters;
mod headers;
mod matcher;
mod retry;

use std::collections::BTreeSet;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::envoy::config::route::v3::route::Action as RouteKind;
use envoy_types::pb::envoy::config::route::v3::virtual_host::TlsRequirementType;
use envoy_types::pb::envoy::config::route::v3::{Decorator, RouteConfiguration};
use prost::Message;
use serde::Serialize;

use super::encode::{Cache, Part};
use super::{Encoded, Ref, Render, ResourceType, proto, scope};
use crate::ir::{Action, InboundRoute, Reached, Route, RouteTable, VirtualHost};
use crate::text::Str;

/// Raise when `head` gives other bytes for an equal input.
pub const TABLE_EPOCH: u32 = 3;
/// Raise when `virtual_host` gives other bytes for an equal input.
pub const VIRTUAL_HOST_EPOCH: u32 = 5;

/// `RouteConfiguration.virtual_hosts`
const VIRTUAL_HOSTS_TAG: u32 = 2;

/// One mebibyte: the longest `directResponse` body, which Envoy's default cuts at 4096.
const MAX_DIRECT_RESPONSE: u32 = 1 << 20;

/// One virtual host, encoded once for every table that has it.
pub fn part(cache: &mut Cache, host: &VirtualHost) -> Arc<Part> {
    cache.part(
        "vhost",
        VIRTUAL_HOST_EPOCH,
        VIRTUAL_HOSTS_TAG,
        host,
        |host| (virtual_host(host), refs(host)),
    )
}

/// A table of these parts, in their order.
pub fn table(cache: &mut Cache, table: &RouteTable, parts: &[Arc<Part>]) -> Arc<Encoded> {
    let head = head(table).encode_to_vec();
    cache.assemble(
        ResourceType::Route,
        TABLE_EPOCH,
        &table.name,
        (table, head),
        parts,
        BTreeSet::new(),
    )
}

/// The table of one host, to which its own scopes lead and nothing else: the names are in these.
pub fn table_of_one(cache: &mut Cache, table: &RouteTable, host: &Part) -> Arc<Encoded> {
    cache.get(&TableOfOne {
        table,
        version: host.version.0,
        host,
    })
}

#[derive(Serialize)]
struct TableOfOne<'a> {
    table: &'a RouteTable,
    version: u128,
    #[serde(skip)]
    host: &'a Part,
}

impl Render for TableOfOne<'_> {
    type Message = RouteConfiguration;
    const KIND: ResourceType = ResourceType::Route;
    const EPOCH: u32 = TABLE_EPOCH;

    fn name(&self) -> Str {
        self.table.name.clone()
    }

    fn render(&self) -> RouteConfiguration {
        let mut table = head(self.table);
        let host = table.merge(self.host.bytes.clone());
        host.expect("the part is a virtual host of ours");
        for host in &mut table.virtual_hosts {
            host.domains = vec!["*".to_owned()];
        }
        table
    }

    fn refs(&self) -> Vec<Ref> {
        self.host.refs.to_vec()
    }
}

/// The only virtual host of an inbound port: everything to the app.
pub(super) fn inbound(node: &InboundRoute) -> pb::VirtualHost {
    let route = pb::Route {
        name: "default".to_owned(),
        r#match: Some(matcher::all()),
        decorator: decorator(&node.operation),
        action: Some(RouteKind::Route(action::to_app(node))),
        ..Default::default()
    };
    pb::VirtualHost {
        name: node.virtual_host.to_string(),
        domains: vec!["*".to_owned()],
        routes: vec![route],
        ..Default::default()
    }
}

pub(super) fn head(table: &RouteTable) -> RouteConfiguration {
    RouteConfiguration {
        name: table.name.to_string(),
        // Hosts are listed without port; `reviews:9080` must find `reviews`.
        ignore_port_in_host_matching: table.reached != Reached::ByOwnScopes,
        // A route may come before its cluster, and may name one that never comes (503).
        validate_clusters: proto::boolean(false),
        max_direct_response_body_size_bytes: proto::uint32(MAX_DIRECT_RESPONSE),
        request_headers_to_remove: match table.reached {
            Reached::ByListener => Vec::new(),
            Reached::ByScope | Reached::ByOwnScopes => vec![scope::HEADER.to_owned()],
        },
        ..Default::default()
    }
}

fn virtual_host(node: &VirtualHost) -> pb::VirtualHost {
    let mut host = pb::VirtualHost {
        name: node.name.to_string(),
        domains: node.domains.iter().map(ToString::to_string).collect(),
        routes: node.routes.iter().map(route).collect(),
        include_request_attempt_count: true,
        require_tls: match node.redirects {
            true => TlsRequirementType::All.into(),
            false => TlsRequirementType::None.into(),
        },
        ..Default::default()
    };
    retry::say_once(&mut host);
    host
}

fn refs(node: &VirtualHost) -> Vec<Ref> {
    let forwards = node.routes.iter().filter_map(|route| match &route.action {
        Action::Forward(forward) => Some(forward),
        Action::Redirect(_) | Action::Respond(_) => None,
    });
    let clusters = forwards.flat_map(|forward| {
        let targets = forward.targets.iter().map(|target| &target.cluster);
        targets.chain(forward.mirrors.iter().map(|mirror| &mirror.cluster))
    });
    let mut refs: Vec<Ref> = clusters
        .map(|cluster| Ref {
            kind: ResourceType::Cluster,
            name: cluster.clone(),
        })
        .collect();
    refs.sort();
    refs.dedup();
    refs
}

fn route(node: &Route) -> pb::Route {
    let mut route = plain(node);
    if let Some(also) = node.also.as_deref() {
        headers::of_route(&mut route, &also.headers);
        route.typed_per_filter_config = filters::of_route(also);
        route.stat_prefix = also.stat_prefix.to_string();
    }
    route
}

fn plain(node: &Route) -> pb::Route {
    pb::Route {
        name: node.name.to_string(),
        r#match: Some(
            node.matches
                .as_ref()
                .map_or_else(matcher::all, matcher::one),
        ),
        action: Some(match &node.action {
            Action::Forward(forward) => RouteKind::Route(action::forward(forward)),
            Action::Redirect(redirect) => RouteKind::Redirect(action::redirect(redirect)),
            Action::Respond(answer) => RouteKind::DirectResponse(action::respond(answer)),
        }),
        metadata: metadata(&node.config),
        decorator: decorator(&node.operation),
        ..Default::default()
    }
}

/// `filter_metadata.istio.config`, by which istioctl and Kiali find the VirtualService.
fn metadata(config: &str) -> Option<Metadata> {
    (!config.is_empty()).then(|| {
        let fields = proto::structure([("config", proto::text(config))]);
        proto::metadata([("istio", fields)])
    })
}

fn decorator(operation: &str) -> Option<Decorator> {
    (!operation.is_empty()).then(|| Decorator {
        operation: operation.to_owned(),
        ..Default::default()
    })
}
