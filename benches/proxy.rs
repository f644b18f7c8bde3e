//! What one simulated proxy holds, and how it answers, as Envoy 1.40 does. No sockets here.
//!
//! Simplified: a route table that no listener names any more stays subscribed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use bytes::Bytes;
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, Listener};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use fairlead::xds::ResourceType;
use prost::Message;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::mesh::Manifest;
use super::wire::{Field, Fields, Packed, Request, Response};

/// A resource version that some proxy was sent; all proxies share it.
pub struct Resource {
    pub name: String,
    pub version: String,
    key: u64,
    /// Names of the next type that it leads to: a cluster's assignment, a listener's tables.
    leads: Vec<String>,
}

/// All resource versions seen. Only the first proxy that is sent one looks inside it.
#[derive(Default)]
pub struct Known(HashMap<u64, Rc<Resource>>);

impl Known {
    fn intern(&mut self, kind: ResourceType, packed: &Packed<'_>) -> Rc<Resource> {
        let key = xxh3_64(packed.name.as_bytes());
        let triple = xxh3_64_with_seed(packed.version.as_bytes(), key ^ kind as u64);
        let make = || {
            Rc::new(Resource {
                name: packed.name.into(),
                version: packed.version.into(),
                key,
                leads: leads(kind, packed),
            })
        };
        self.0.entry(triple).or_insert_with(make).clone()
    }
}

fn leads(kind: ResourceType, packed: &Packed<'_>) -> Vec<String> {
    match kind {
        ResourceType::Cluster => assignment(packed).into_iter().collect(),
        ResourceType::Listener => tables(packed.body),
        ResourceType::Endpoint | ResourceType::Route | ResourceType::Secret => Vec::new(),
    }
}

/// `Cluster.type` = 2 is EDS = 3; `eds_cluster_config` = 3 may give another `service_name` = 2.
fn assignment(packed: &Packed<'_>) -> Option<String> {
    let (mut eds, mut service) = (false, None);
    for field in Fields(packed.body) {
        match field {
            (2, Field::Number(kind)) => eds = kind == 3,
            (3, Field::Bytes(config)) => {
                service = Fields(config).find_map(|(tag, field)| match (tag, field) {
                    (2, Field::Bytes(name)) => Some(String::from_utf8_lossy(name).into_owned()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    eds.then(|| service.unwrap_or_else(|| packed.name.into()))
}

fn tables(listener: &[u8]) -> Vec<String> {
    let listener = Listener::decode(listener).unwrap_or_default();
    let chains = listener.filter_chains.iter();
    let mut names: Vec<String> = chains
        .chain(&listener.default_filter_chain)
        .flat_map(chain_tables)
        .collect();
    names.sort();
    names.dedup();
    names
}

fn chain_tables(chain: &FilterChain) -> Vec<String> {
    let configs = chain.filters.iter().filter_map(|f| match &f.config_type {
        Some(ConfigType::TypedConfig(any)) => Some(any),
        _ => None,
    });
    configs
        .filter(|any| any.type_url.ends_with(".HttpConnectionManager"))
        .filter_map(|any| HttpConnectionManager::decode(&any.value[..]).ok())
        .filter_map(|http| match http.route_specifier {
            Some(RouteSpecifier::Rds(rds)) => Some(rds.route_config_name),
            _ => None,
        })
        .collect()
}

/// Whether a proxy asks for its certificate; only an authenticated stream gets one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    Unasked,
    Asked,
}

const SECRETS: [&str; 2] = ["default", "ROOTCA"];

#[derive(Default)]
struct Share {
    held: HashMap<u64, Rc<Resource>>,
    /// Names subscribed one by one (EDS, RDS, SDS).
    wanted: BTreeMap<u64, String>,
    /// Wanted and not held.
    missing: HashSet<u64>,
    /// Requested on this stream.
    asked: bool,
}

pub struct Proxy {
    node: Bytes,
    secrets: Secrets,
    shares: [Share; ResourceType::COUNT],
    warming: HashSet<u64>,
    /// Nonces of cluster responses whose ACK waits until nothing warms.
    withheld: Vec<Vec<u8>>,
    /// Sent at the opening of a stream instead of what a proxy would ask.
    probe: Option<Bytes>,
}

impl Proxy {
    pub fn new(node: Bytes, secrets: Secrets) -> Self {
        Self {
            node,
            secrets,
            shares: Default::default(),
            warming: HashSet::new(),
            withheld: Vec::new(),
            probe: None,
        }
    }

    /// A proxy that opens its stream with this request.
    pub fn probe(request: Bytes) -> Self {
        Self {
            probe: Some(request),
            ..Self::new(Bytes::new(), Secrets::Unasked)
        }
    }

    /// What a new stream begins with: clusters alone, or all that is held after a lost one.
    pub fn open(&mut self) -> Vec<Bytes> {
        if let Some(probe) = &self.probe {
            return vec![probe.clone()];
        }
        self.withheld.clear();
        self.warming.clear();
        for share in &mut self.shares {
            share.asked = false;
        }
        let fresh = self.shares[ResourceType::Cluster as usize].held.is_empty();
        let kinds: &[ResourceType] = if fresh {
            &[ResourceType::Cluster]
        } else {
            &ResourceType::ALL
        };
        let mut requests = Vec::new();
        for kind in kinds {
            let first = requests.is_empty();
            let node = first.then(|| self.node.clone());
            requests.extend(self.resume(*kind, node.as_deref()));
        }
        requests
    }

    fn resume(&mut self, kind: ResourceType, node: Option<&[u8]>) -> Option<Bytes> {
        let share = &mut self.shares[kind as usize];
        let wildcard = matches!(kind, ResourceType::Cluster | ResourceType::Listener);
        if !wildcard && share.wanted.is_empty() {
            return None;
        }
        share.asked = true;
        let held = share.held.values();
        let request = Request {
            node,
            subscribe: share.wanted.values().map(String::as_str).collect(),
            initial: held
                .map(|r| (r.name.as_str(), r.version.as_str()))
                .collect(),
            ..Request::of(kind)
        };
        Some(request.encode())
    }

    /// Takes a response in, and says what the proxy sends because of it.
    pub fn on_response(&mut self, response: &Response<'_>, known: &mut Known) -> Vec<Bytes> {
        let kind = response.kind;
        let mut replies = Vec::new();
        let mut news = Vec::new();
        for packed in &response.resources {
            let resource = known.intern(kind, packed);
            self.take(kind, &resource, &mut news);
        }
        let gone: Vec<String> = response
            .removed
            .iter()
            .flat_map(|name| self.drop(kind, name))
            .collect();
        if let Some(next) = next(kind) {
            replies.extend(self.subscribe(next, &news, &gone));
        }
        if kind == ResourceType::Cluster {
            self.withheld.push(response.nonce.to_vec());
            replies.extend(self.ask_secrets());
        } else {
            replies.push(Request::ack(kind, response.nonce).encode());
        }
        self.settle(&mut replies);
        replies
    }

    fn take(&mut self, kind: ResourceType, resource: &Rc<Resource>, news: &mut Vec<String>) {
        let key = resource.key;
        let share = &mut self.shares[kind as usize];
        share.missing.remove(&key);
        if kind == ResourceType::Endpoint {
            self.warming.remove(&key);
        }
        let before = share.held.insert(key, resource.clone());
        let Some(next) = next(kind) else { return };
        let changed = before.is_none_or(|b| b.version != resource.version);
        for name in &resource.leads {
            let key = xxh3_64(name.as_bytes());
            if next == ResourceType::Endpoint && changed {
                self.warming.insert(key);
            }
            let share = &mut self.shares[next as usize];
            if share.wanted.insert(key, name.clone()).is_none() {
                if !share.held.contains_key(&key) {
                    share.missing.insert(key);
                }
                news.push(name.clone());
            }
        }
    }

    /// Forgets a removed resource; names the assignment that nobody needs any more.
    fn drop(&mut self, kind: ResourceType, name: &str) -> Vec<String> {
        let lost = self.shares[kind as usize]
            .held
            .remove(&xxh3_64(name.as_bytes()));
        let Some(lost) = lost.filter(|_| kind == ResourceType::Cluster) else {
            return Vec::new();
        };
        let share = &mut self.shares[ResourceType::Endpoint as usize];
        for name in &lost.leads {
            let key = xxh3_64(name.as_bytes());
            share.wanted.remove(&key);
            share.missing.remove(&key);
            share.held.remove(&key);
            self.warming.remove(&key);
        }
        lost.leads.clone()
    }

    fn subscribe(&mut self, kind: ResourceType, news: &[String], gone: &[String]) -> Option<Bytes> {
        if news.is_empty() && gone.is_empty() {
            return None;
        }
        self.shares[kind as usize].asked = true;
        let request = Request {
            subscribe: news.iter().map(String::as_str).collect(),
            unsubscribe: gone.iter().map(String::as_str).collect(),
            ..Request::of(kind)
        };
        Some(request.encode())
    }

    fn ask_secrets(&mut self) -> Option<Bytes> {
        let share = &mut self.shares[ResourceType::Secret as usize];
        if share.asked || self.secrets == Secrets::Unasked {
            return None;
        }
        for name in SECRETS {
            let key = xxh3_64(name.as_bytes());
            share.wanted.insert(key, name.into());
            if !share.held.contains_key(&key) {
                share.missing.insert(key);
            }
        }
        self.resume(ResourceType::Secret, None)
    }

    /// Once nothing warms: the ACKs that waited for it, and the first request for listeners.
    fn settle(&mut self, replies: &mut Vec<Bytes>) {
        if !self.is_warm() {
            return;
        }
        let acks = self.withheld.drain(..);
        replies.extend(acks.map(|n| Request::ack(ResourceType::Cluster, &n).encode()));
        if !self.shares[ResourceType::Listener as usize].asked {
            replies.extend(self.resume(ResourceType::Listener, None));
        }
    }

    pub fn is_warm(&self) -> bool {
        self.warming.is_empty()
    }

    /// Whether it holds all that the mesh has for a proxy.
    pub fn is_whole(&self, manifest: &Manifest) -> bool {
        let count = |kind: ResourceType| self.shares[kind as usize].held.len();
        self.is_warm()
            && count(ResourceType::Cluster) >= manifest.clusters
            && count(ResourceType::Listener) >= manifest.listeners
            && count(ResourceType::Route) >= 1
            && (self.secrets == Secrets::Unasked || count(ResourceType::Secret) == SECRETS.len())
            && self.shares.iter().all(|s| s.missing.is_empty())
    }

    /// Names and versions of everything but secrets, which are no two times the same.
    pub fn inventory(&self) -> BTreeMap<(ResourceType, String), String> {
        let kinds = ResourceType::ALL.into_iter();
        kinds
            .filter(|kind| *kind != ResourceType::Secret)
            .flat_map(|kind| {
                let held = self.shares[kind as usize].held.values();
                held.map(move |r| ((kind, r.name.clone()), r.version.clone()))
            })
            .collect()
    }
}

fn next(kind: ResourceType) -> Option<ResourceType> {
    match kind {
        ResourceType::Cluster => Some(ResourceType::Endpoint),
        ResourceType::Listener => Some(ResourceType::Route),
        ResourceType::Endpoint | ResourceType::Route | ResourceType::Secret => None,
    }
}
