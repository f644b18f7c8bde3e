//! What every proxy must hold, foretold from the mesh alone. What a server says is not asked.

use std::collections::BTreeMap;

use fairlead::xds::ResourceType;

use super::facts::{self, Sums};
use super::mesh::{Mesh, PORTS, Service, View, namespace, version};
use super::proxy::Least;

type Facts = Vec<(ResourceType, String)>;

const SUBSETS: [&str; 2] = ["v1", "v2"];
/// Clusters and listeners of every sidecar, whatever the mesh.
const FIXED_CLUSTERS: [&str; 3] = [
    "BlackHoleCluster",
    "PassthroughCluster",
    "InboundPassthroughCluster",
];
const FIXED_LISTENERS: [&str; 2] = ["0.0.0.0:15001", "0.0.0.0:15006"];

impl Mesh {
    /// All that the proxy in this seat must hold, in words.
    pub fn facts(&self, proxy: usize) -> Facts {
        let identity = self.identity(proxy);
        self.facts_in(&identity.namespace)
    }

    fn facts_in(&self, of: &str) -> Facts {
        let mut facts = own();
        let mut tables: BTreeMap<u16, Vec<String>> = BTreeMap::new();
        for service in self.services.iter() {
            if self.size.view == View::Namespace && service.namespace != of {
                continue;
            }
            outbound(service, &mut facts, &mut tables);
        }
        for (port, hosts) in tables {
            facts.push((ResourceType::Listener, format!("0.0.0.0:{port}")));
            let hosts = hosts.into_iter().chain(["allow_any".to_owned()]);
            let table = port.to_string();
            facts.extend(hosts.map(|h| (ResourceType::Route, facts::virtual_host(&table, &h))));
        }
        facts
    }

    /// The same for all proxies, as sums.
    pub fn sums(&self) -> Vec<Sums> {
        let sums = |of: &str| {
            let mut sums = Sums::default();
            for (kind, fact) in self.facts_in(of) {
                let sum = &mut sums[kind as usize];
                *sum = sum.wrapping_add(facts::weight(kind, &fact));
            }
            sums
        };
        let all = (self.size.view == View::Mesh).then(|| sums(""));
        let by_namespace: BTreeMap<String, Sums> = (0..self.size.namespaces)
            .map(namespace)
            .map(|name| (name.clone(), all.unwrap_or_else(|| sums(&name))))
            .collect();
        (0..self.size.proxies)
            .map(|proxy| by_namespace[&self.identity(proxy).namespace])
            .collect()
    }

    /// The fewest resources with which any proxy is whole.
    pub fn least(&self) -> Least {
        let of = |name: String| {
            let facts = self.facts_in(&name);
            let count = |kind| facts.iter().filter(|(k, _)| *k == kind).count();
            Least {
                clusters: count(ResourceType::Cluster),
                listeners: count(ResourceType::Listener),
                tables: 1,
            }
        };
        let names = match self.size.view {
            View::Mesh => 0..1,
            View::Namespace => 0..self.size.namespaces,
        };
        let all = names.map(namespace).map(of);
        all.min_by_key(|least| least.clusters).unwrap_or_default()
    }
}

/// What a workload has of itself.
fn own() -> Facts {
    let inbound = PORTS.map(|port| format!("inbound|{}||", port.target));
    let clusters = FIXED_CLUSTERS.map(str::to_owned).into_iter().chain(inbound);
    let clusters = clusters.map(|name| (ResourceType::Cluster, name));
    let listeners = FIXED_LISTENERS.map(|a| (ResourceType::Listener, a.to_owned()));
    clusters.chain(listeners).collect()
}

fn outbound(service: &Service, facts: &mut Facts, tables: &mut BTreeMap<u16, Vec<String>>) {
    let host = service.host();
    for port in &service.ports {
        let number = port.number;
        let subsets = SUBSETS.into_iter().filter(|_| service.rules.is_some());
        for subset in std::iter::once("").chain(subsets) {
            let cluster = format!("outbound|{number}|{subset}|{host}");
            for (endpoint, address) in service.endpoints.iter().enumerate() {
                if subset.is_empty() || subset == version(endpoint) {
                    let fact = facts::endpoint(&cluster, address, port.target);
                    facts.push((ResourceType::Endpoint, fact));
                }
            }
            facts.push((ResourceType::Endpoint, cluster.clone()));
            facts.push((ResourceType::Cluster, cluster));
        }
        if port.name == "http" {
            let table = tables.entry(number).or_default();
            table.push(format!("{host}:{number}"));
        } else {
            let address = format!("{}:{number}", service.address);
            facts.push((ResourceType::Listener, address));
        }
    }
}
