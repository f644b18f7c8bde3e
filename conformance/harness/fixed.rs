//! A sidecar that passes everything through, without a control plane.
//!
//! For suites about the pod itself. Inbound port 8081 is HTTP to it, the rest TCP. It keeps all of `fairlead bootstrap`'s output except where resources
//! come from.

use serde_json::{Value, json};

/// Puts fixed listeners and clusters for captured traffic in place of xDS.
pub fn without_control_plane(mut bootstrap: Value) -> Value {
    if let Some(fields) = bootstrap.as_object_mut() {
        fields.remove("dynamic_resources");
    }
    let resources = &mut bootstrap["static_resources"];
    if let Some(listeners) = resources["listeners"].as_array_mut() {
        listeners.push(listener(
            "virtualOutbound",
            15001,
            &[chain("PassthroughCluster")],
        ));
        let mut loops = chain("BlackHoleCluster");
        loops["filter_chain_match"] = json!({"destination_port": 15006});
        let inbound = vec![loops, http_chain(), chain("InboundPassthroughCluster")];
        listeners.push(listener("virtualInbound", 15006, &inbound));
    }
    if let Some(clusters) = resources["clusters"].as_array_mut() {
        clusters.retain(|cluster| cluster["name"] != "xds-grpc");
        let mut inbound = original_destination("InboundPassthroughCluster");
        let source = json!({"address": "127.0.0.6", "port_value": 0});
        inbound["upstream_bind_config"] = json!({"source_address": source});
        clusters.push(inbound);
        clusters.push(original_destination("PassthroughCluster"));
        clusters.push(json!({"name": "BlackHoleCluster", "type": "STATIC"}));
    }
    bootstrap
}

fn listener(name: &str, port: u16, chains: &[Value]) -> Value {
    let original =
        "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst";
    let direction = if port == 15006 { "INBOUND" } else { "OUTBOUND" };
    json!({
        "name": name,
        "traffic_direction": direction,
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},
        "listener_filters": [{
            "name": "envoy.filters.listener.original_dst",
            "typed_config": {"@type": original},
        }],
        "filter_chains": chains,
    })
}

fn chain(cluster: &str) -> Value {
    let proxy = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    json!({
        "filters": [{
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {"@type": proxy, "stat_prefix": cluster, "cluster": cluster},
        }],
    })
}

fn http_chain() -> Value {
    let typed = |name: &str| format!("type.googleapis.com/envoy.extensions.filters.{name}");
    let routes = json!([{
        "match": {"prefix": "/"},
        "route": {"cluster": "InboundPassthroughCluster"},
    }]);
    json!({
        "filter_chain_match": {"destination_port": 8081},
        "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": typed("network.http_connection_manager.v3.HttpConnectionManager"),
                "stat_prefix": "inbound",
                "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": typed("http.router.v3.Router")},
                }],
            },
        }],
    })
}

fn original_destination(name: &str) -> Value {
    json!({
        "name": name,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "2s",
    })
}
