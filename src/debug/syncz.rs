//! How each proxy stands, in the shape that istioctl reads, and in our own detail.

use serde_json::{Map, Value, json};

use crate::delivery::hub::report::StreamReport;
use crate::delivery::session::{Standing, Subscribed};
use crate::delivery::wire::Nonce;
use crate::model::proxy::Proxy;
use crate::xds::ResourceType;

/// `<name>.<namespace>`, as istioctl names a proxy.
pub fn short(proxy: &Proxy) -> String {
    format!("{}.{}", proxy.name, proxy.namespace)
}

/// `/debug/syncz`: istioctl compares `*_sent` with `*_acked`; `types` has the counts behind them.
pub fn items(streams: &[StreamReport]) -> Value {
    streams.iter().map(item).collect()
}

/// `/debug/adsz`: who is connected, since when, and what it watches.
pub fn connections(streams: &[StreamReport]) -> Value {
    let clients: Vec<Value> = streams.iter().map(connection).collect();
    json!({ "totalClients": clients.len(), "clients": clients })
}

fn item(report: &StreamReport) -> Value {
    let mut item = Map::new();
    let mut put = |key: &str, value: Value| item.insert(key.to_owned(), value);
    put("cluster_id", "Kubernetes".into());
    put("proxy", short(&report.proxy).into());
    put("proxy_type", "sidecar".into());
    // Stock Envoy has no version of Istio's.
    put("istio_version", "".into());
    put(
        "envoy_version",
        report.version.clone().unwrap_or_default().into(),
    );
    put("node", report.proxy.id.as_str().into());
    put("stream", report.stream.0.into());
    if let Some(account) = &report.other_account {
        let note = format!(
            "the object of this name has service account {account}, which is not this proxy's: it gets none \
             of the object's ports"
        );
        put("note", note.into());
    }
    for standing in &report.types {
        let Some(word) = word(standing.kind) else {
            continue;
        };
        let (sent, acked) = marks(standing);
        put(&format!("{word}_sent"), sent.into());
        put(&format!("{word}_acked"), acked.into());
    }
    put("extensionconfig_sent", "".into());
    put("extensionconfig_acked", "".into());
    let types: Map<String, Value> = report
        .types
        .iter()
        .map(|s| (s.kind.short().to_owned(), counts(s)))
        .collect();
    put("types", types.into());
    item.into()
}

fn connection(report: &StreamReport) -> Value {
    let watches: Map<String, Value> = report
        .types
        .iter()
        .filter(|s| s.subscribed != Subscribed::No)
        .map(|s| (s.kind.type_url().to_owned(), watched(s.subscribed)))
        .collect();
    json!({
        "connectionId": format!("{}-{}", short(&report.proxy), report.stream.0),
        "node": report.proxy.id,
        "connectedSeconds": report.connected.as_secs(),
        "identity": report.proxy.identity.as_ref().map(ToString::to_string),
        "watches": watches,
    })
}

fn watched(subscribed: Subscribed) -> Value {
    match subscribed {
        Subscribed::No => Value::Null,
        Subscribed::Names(count) => json!({ "names": count }),
        Subscribed::All => json!({ "names": "*" }),
    }
}

fn counts(standing: &Standing) -> Value {
    let refusals: Vec<Value> = standing
        .refusals
        .iter()
        .map(|(name, nack)| json!({ "name": name, "version": nack.version, "message": &*nack.message }))
        .collect();
    json!({
        "subscribed": standing.subscribed != Subscribed::No,
        "sent": standing.sent,
        "acked": standing.acked,
        "nacked": standing.nacked,
        "pending": standing.pending,
        "refusals": refusals,
    })
}

/// Texts that are equal when the proxy is in sync: the last response of the type, and the last one answered
/// without a refusal that still stands.
fn marks(standing: &Standing) -> (String, String) {
    if standing.subscribed == Subscribed::No {
        return (String::new(), String::new());
    }
    let none = Nonce::default();
    let sent = match standing.frame_sent {
        // It had everything when it came.
        n if n == none => "resumed".to_owned(),
        n => n.to_string(),
    };
    let in_sync = standing.pending == 0 && standing.nacked == 0;
    let acked = match standing.frame_acked {
        _ if in_sync => sent.clone(),
        n if n == standing.frame_sent => "refused".to_owned(),
        n => n.to_string(),
    };
    (sent, acked)
}

/// Istio's word for a type in this page.
fn word(kind: ResourceType) -> Option<&'static str> {
    match kind {
        ResourceType::Cluster => Some("cluster"),
        ResourceType::Endpoint => Some("endpoint"),
        ResourceType::Listener => Some("listener"),
        ResourceType::Route => Some("route"),
        ResourceType::ScopedRoute => Some("scoped_route"),
        ResourceType::Secret => None,
    }
}
