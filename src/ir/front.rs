//! What a proxy at the edge of the mesh listens on: the servers of all Gateways that select it, by port.
//!
//! <https://istio.io/latest/docs/reference/config/networking/gateway/>. Of servers that cannot share a port the
//! oldest Gateway's, then the first, stands; the others are left out, each by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::config::gateway::{ServedHost, Server, Sort};
use crate::config::meta::Labels;
use crate::config::proxy_config::Topology;
use crate::config::{Key, Source};
use crate::model::Snapshot;
use crate::model::endpoints;
use crate::model::gateways;
use crate::model::proxy::{Proxy, Taken};
use crate::model::workloads::Workload;
use crate::text::{Hostname, Str};

/// Equal fronts of two proxies are one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Front {
    /// By the address and port of the listener.
    pub doors: BTreeMap<(IpAddr, u16), Door>,
    /// What stands before the proxy, if it says so itself.
    pub topology: Option<Topology>,
    /// All that its servers name, each once.
    names: BTreeSet<Hostname>,
}

/// The servers of one listener: all of plaintext HTTP, one of plaintext bytes, or all of TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Door {
    pub servers: Vec<Served>,
    /// What its servers of TLS have: their names, and their tables.
    names: BTreeSet<Hostname>,
    tables: BTreeSet<Str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    pub gateway: Arc<gateways::Served>,
    /// Its place among the Gateway's servers.
    pub index: usize,
    pub sort: Sort,
    /// Of its requests; empty where there is none.
    pub table: Str,
}

impl Hash for Front {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.names.hash(state);
    }
}

impl Served {
    pub fn server(&self) -> &Server {
        &self.gateway.spec.servers[self.index]
    }

    pub fn hosts(&self) -> &[ServedHost] {
        &self.gateway.hosts[self.index]
    }

    pub fn key(&self) -> &Key {
        &self.gateway.key
    }

    pub fn source(&self) -> Source {
        self.gateway.source(self.index)
    }
}

impl Front {
    pub fn of(
        proxy: &Proxy,
        labels: &Labels,
        workload: Option<&Arc<Workload>>,
        snapshot: &Snapshot,
    ) -> Self {
        let mut front = Self {
            topology: proxy.topology.clone(),
            ..Self::default()
        };
        for gateway in snapshot.gateways.select(labels) {
            for index in 0..gateway.spec.servers.len() {
                let number = gateway.spec.servers[index].port.number;
                let port = target(number, &proxy.namespace, labels, workload, snapshot);
                front.add(gateway, index, port, proxy.taken);
            }
        }
        front
    }

    fn add(&mut self, gateway: &Arc<gateways::Served>, index: usize, port: u16, taken: Taken) {
        let server = &gateway.spec.servers[index];
        let Some((sort, address)) = server.sort().zip(address(&server.bind)) else {
            return;
        };
        if taken.covers(port) {
            return;
        }
        let served = Served {
            table: table(server, sort, &gateway.key, port),
            gateway: gateway.clone(),
            index,
            sort,
        };
        let door = self.doors.entry((address, port)).or_default();
        if door.takes(&served) {
            let names = served.hosts().iter().map(|host| host.name.clone());
            let names: Vec<Hostname> = names.collect();
            self.names.extend(names.iter().cloned());
            if !sort.is_plaintext() {
                door.names.extend(names);
                door.tables.insert(served.table.clone());
            }
            door.servers.push(served);
        }
    }

    pub fn servers(&self) -> impl Iterator<Item = (&(IpAddr, u16), &Served)> {
        let doors = self.doors.iter();
        doors.flat_map(|(place, door)| door.servers.iter().map(move |served| (place, served)))
    }

    /// Whether a server of this number is what listens on a port; the number itself where nothing does.
    pub fn serves(&self, port: u16, number: u32) -> bool {
        let mut there = self.servers().filter(|((_, p), _)| *p == port).peekable();
        match there.peek() {
            None => u32::from(port) == number,
            Some(_) => there.any(|(_, served)| u32::from(served.server().port.number) == number),
        }
    }

    pub fn tables(&self) -> impl Iterator<Item = &Str> {
        let served = self.servers().map(|(_, served)| &served.table);
        served.filter(|table| !table.is_empty())
    }

    /// The names of virtual hosts that a VirtualService of this host can lead to.
    pub fn meets(&self, host: &Hostname) -> impl Iterator<Item = Hostname> {
        self.names
            .iter()
            .filter_map(|name| met(name, host).cloned())
    }

    /// Whether something of the host stands without a VirtualService.
    pub fn stands_alone(&self, host: &Hostname) -> bool {
        self.servers().any(|(_, served)| match served.sort {
            Sort::AutoPassthrough => true,
            Sort::Http => {
                let mut hosts = served.hosts().iter();
                served.server().redirects() && hosts.any(|h| h.name == *host)
            }
            Sort::Tcp | Sort::Https | Sort::Tls | Sort::Passthrough => false,
        })
    }

    /// The names that are answered whether or not a VirtualService names them.
    pub fn redirected(&self) -> impl Iterator<Item = &Hostname> {
        let served = self.servers().filter(|(_, s)| s.server().redirects());
        served.flat_map(|(_, served)| served.hosts().iter().map(|host| &host.name))
    }
}

impl Door {
    /// Plaintext HTTP goes together; bytes in plaintext stand alone; servers of TLS are told apart by the names that
    /// clients ask for, of which no two can be equal.
    fn takes(&self, new: &Served) -> bool {
        let Some(first) = self.servers.first() else {
            return true;
        };
        match (first.sort, new.sort) {
            (Sort::Http, Sort::Http) => true,
            (Sort::Http | Sort::Tcp, _) | (_, Sort::Http | Sort::Tcp) => false,
            (_, _) => {
                let mut hosts = new.hosts().iter();
                hosts.all(|host| !self.names.contains(&host.name))
                    && (new.table.is_empty() || !self.tables.contains(&new.table))
            }
        }
    }

    /// The server for connections whose client asks for this name.
    pub fn server_of(&self, name: &str) -> Option<&Served> {
        let best = |served: &Served| {
            let hosts = served.hosts().iter().map(|host| &host.name);
            let taking = hosts.filter(|host| match name {
                "" => host.as_str() == "*",
                name => host.matches(name),
            });
            taking.map(Hostname::specificity).max()
        };
        let servers = self.servers.iter().rev();
        servers
            .max_by_key(|served| best(served))
            .filter(|served| best(served).is_some())
    }
}

/// The more special of two hosts of which one covers the other.
pub fn met<'h>(a: &'h Hostname, b: &'h Hostname) -> Option<&'h Hostname> {
    if a == b || a.is_wildcard() && a.matches(b.as_str()) {
        return Some(b);
    }
    (b.is_wildcard() && b.matches(a.as_str())).then_some(a)
}

fn address(bind: &str) -> Option<IpAddr> {
    match bind {
        "" => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        bind => bind.parse().ok(),
    }
}

/// Istio's names of gateways' route tables.
fn table(server: &Server, sort: Sort, gateway: &Key, port: u16) -> Str {
    // All addresses are one, however they are written.
    let bind = match server.bind.parse::<IpAddr>() {
        Ok(ip) if !ip.is_unspecified() => format!(".{ip}"),
        Ok(_) | Err(_) => String::new(),
    };
    match sort {
        Sort::Http => Str::new(format!("http.{port}{bind}")),
        Sort::Https => {
            let Key {
                namespace, name, ..
            } = gateway;
            let number = server.port.number;
            let port = &server.port.name;
            Str::new(format!("https.{number}.{port}.{name}.{namespace}{bind}"))
        }
        Sort::Tcp | Sort::Tls | Sort::Passthrough | Sort::AutoPassthrough => Str::default(),
    }
}

/// A server's port is that of a Service in front of the proxy, where one has it: the proxy listens where that leads.
fn target(
    number: u16,
    namespace: &str,
    labels: &Labels,
    workload: Option<&Arc<Workload>>,
    snapshot: &Snapshot,
) -> u16 {
    let services = snapshot.services.selecting(namespace, labels);
    let mut services: Vec<_> = services.collect();
    services.sort_by_key(|s| (s.created, s.host.clone()));
    let ports = services.iter().flat_map(|s| &s.ports);
    let mut ports = ports.filter(|port| port.number == number);
    let led = ports.find_map(|port| match workload {
        Some(workload) => endpoints::target_port(port, &workload.ports),
        None => match port.target {
            crate::config::core::TargetPort::Number(number) => Some(number),
            crate::config::core::TargetPort::Name(_) => None,
        },
    });
    led.unwrap_or(number)
}
