//! What every proxy must hold, foretold from the mesh alone. What a server says is not asked.

use std::collections::BTreeMap;

use fairlead::xds::ResourceType;

use super::facts::{self, Fact, Sums};
use super::mesh::{Mesh, Port, Service, View, namespace, version};
use super::packing::{Packing, WHOLE};
use super::proxy::Least;

type Facts = Vec<Fact>;

const SUBSETS: [&str; 3] = [WHOLE, "v1", "v2"];
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
        let mut facts = self.shared(of);
        facts.extend(self.at_home(of));
        facts
    }

    /// What all hold that see what this namespace does.
    fn shared(&self, of: &str) -> Facts {
        let mut facts = own(self.size.ports);
        let mut tables: BTreeMap<u16, Vec<&Service>> = BTreeMap::new();
        for service in self.services.iter() {
            if self.size.view == View::Namespace && service.namespace != of {
                continue;
            }
            outbound(self.size.packing, service, &mut facts, &mut tables);
        }
        for (port, services) in tables {
            facts.push((ResourceType::Listener, format!("0.0.0.0:{port}")));
            facts.extend(self.size.packing.routes(port, &services));
        }
        facts
    }

    /// What only those in this namespace hold.
    fn at_home(&self, of: &str) -> Facts {
        let mut facts = Facts::new();
        for service in self.services.iter().filter(|s| s.namespace == of) {
            let ports = service.ports.iter().filter(|p| p.is_http());
            facts.extend(ports.filter_map(|p| self.size.packing.at_home(p.number, service)));
        }
        facts
    }

    /// The same for all proxies, as sums.
    pub fn sums(&self) -> Vec<Sums> {
        let add = |mut sums: Sums, facts: Facts| {
            for (kind, fact) in facts {
                let sum = &mut sums[kind as usize];
                *sum = sum.wrapping_add(facts::weight(kind, &fact));
            }
            sums
        };
        let shared = |of: &str| add(Sums::default(), self.shared(of));
        let all = (self.size.view == View::Mesh).then(|| shared(""));
        let of = |name: String| {
            let sums = all.unwrap_or_else(|| shared(&name));
            let sums = add(sums, self.at_home(&name));
            (name, sums)
        };
        let namespaces = (0..self.size.namespaces).map(namespace);
        let by_namespace: BTreeMap<String, Sums> = namespaces.map(of).collect();
        (0..self.size.proxies)
            .map(|proxy| by_namespace[&self.identity(proxy).namespace])
            .collect()
    }

    /// The fewest resources with which any proxy is whole.
    pub fn least(&self) -> Least {
        let of = |name: String| {
            let facts = self.shared(&name);
            let count = |kind| facts.iter().filter(|(k, _)| *k == kind).count();
            Least {
                clusters: count(ResourceType::Cluster),
                listeners: count(ResourceType::Listener),
                scopes: count(ResourceType::ScopedRoute),
                tables: match self.size.packing {
                    Packing::Rds => 1,
                    // Each has one virtual host.
                    Packing::Scoped | Packing::OnDemand => count(ResourceType::Route),
                },
            }
        };
        let names = match self.size.view {
            View::Mesh => 0..1,
            View::Namespace => 0..self.size.namespaces,
        };
        let all = names.map(namespace).map(of);
        let least = all.min_by_key(|least| least.clusters).unwrap_or_default();
        let namespaces = (0..self.size.namespaces).map(namespace);
        let at_home = namespaces.map(|name| self.at_home(&name).len()).min();
        Least {
            scopes: least.scopes + at_home.unwrap_or(0),
            ..least
        }
    }
}

/// What a workload has of itself.
fn own(ports: &[Port]) -> Facts {
    let inbound = ports
        .iter()
        .map(|port| format!("inbound|{}||", port.target));
    let clusters = FIXED_CLUSTERS.map(str::to_owned).into_iter().chain(inbound);
    let clusters = clusters.map(|name| (ResourceType::Cluster, name));
    let listeners = FIXED_LISTENERS.map(|a| (ResourceType::Listener, a.to_owned()));
    clusters.chain(listeners).collect()
}

fn outbound<'a>(
    packing: Packing,
    service: &'a Service,
    facts: &mut Facts,
    tables: &mut BTreeMap<u16, Vec<&'a Service>>,
) {
    let host = service.host();
    for port in &service.ports {
        let number = port.number;
        let subsets = match service.rules {
            Some(_) => &SUBSETS[..],
            None => &[WHOLE],
        };
        for subset in packing.clusters(port, subsets) {
            let cluster = format!("outbound|{number}|{subset}|{host}");
            for (endpoint, address) in service.endpoints.iter().enumerate() {
                if subset == WHOLE || subset == version(endpoint) {
                    let fact = facts::endpoint(&cluster, address, port.target);
                    facts.push((ResourceType::Endpoint, fact));
                }
            }
            facts.push((ResourceType::Endpoint, cluster.clone()));
            facts.push((ResourceType::Cluster, cluster));
        }
        if port.is_http() {
            tables.entry(number).or_default().push(service);
        } else {
            let address = format!("{}:{number}", service.address);
            facts.push((ResourceType::Listener, address));
        }
    }
}
