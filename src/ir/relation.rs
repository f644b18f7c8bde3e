//! How a client stands to a host: all that the join of the host reads of the client.

use std::net::IpAddr;
use std::sync::Arc;

use super::client::Client;
use super::domains::Home;
use super::front::{self, Front, Served};
use super::spread::Where;
use crate::config::Kind;
use crate::config::gateway::Sort;
use crate::config::l4_route::L4Match;
use crate::config::meta::{Labels, selects};
use crate::model::Snapshot;
use crate::model::protocol::{Class, Protocol};
use crate::model::proxy::{Families, Interception, Taken};
use crate::model::routes::{Place, Virtual};
use crate::model::rules::Obeyed;
use crate::model::services::Service;
use crate::model::sidecars::Egress;
use crate::text::{Hostname, Str};

/// Clients with equal relations to a host share its join, whatever else tells them apart.
///
/// Of objects it holds the versions themselves: it is equal only to a relation by the same ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Relation {
    pub reach: Reach,
    pub home: Home,
    pub interception: Interception,
    pub families: Families,
    pub taken: Taken,
    /// The DestinationRules that calls to the Service obey.
    pub rule: Option<Obeyed>,
    pub followed: Option<Followed>,
    /// Where the client is, if that matters to the rules or to the mesh.
    pub place: Option<Arc<Where>>,
    /// Where a proxy at the edge answers for the host.
    pub gates: Vec<Gate>,
}

/// A server of a Gateway that answers for a host.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// Of its listener.
    pub place: (IpAddr, u16),
    pub served: Served,
    /// The VirtualServices that it obeys for the host, the oldest first.
    pub followed: Vec<Followed>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Reach {
    /// Not at all: what there is of it is at the edge.
    Nowhere,
    /// Another host's route leads there: clusters, but no way to call it by name.
    Led,
    /// The same at the edge, where no connection was going anywhere before.
    Edge,
    /// By name, on every port.
    Open,
    /// By name, on those of the Service's ports that an egress listener takes.
    Ways(Vec<Option<Way>>),
    /// By a name that only a VirtualService gives it.
    Routed(Way),
}

/// The egress listener that takes a port, as far as it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Way {
    pub bind: Option<IpAddr>,
    pub own_port: OwnPort,
    pub virtuals: Virtuals,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnPort {
    #[default]
    None,
    /// With the protocol that it states, if any.
    Stated(Option<Class>),
}

/// Whether the listener imports the VirtualService too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Virtuals {
    #[default]
    Imported,
    Hidden,
}

/// The VirtualService that calls to the host obey, and what of the client it asks about.
#[derive(Clone, Debug)]
pub struct Followed {
    pub entry: Arc<Virtual>,
    /// Matches, by rule and place in it, that are for other clients.
    pub elsewhere: Vec<(usize, usize)>,
    /// The same of the rules for TLS, and for TCP.
    pub tls_elsewhere: Vec<(usize, usize)>,
    pub tcp_elsewhere: Vec<(usize, usize)>,
    /// The hosts that its routes lead to, each once.
    pub leads: Vec<(Hostname, Lead)>,
}

/// What of a destination decides part of a route.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lead {
    /// Set if its Service has just one.
    pub only_port: Option<u16>,
    pub rule: Option<Obeyed>,
}

impl PartialEq for Followed {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.entry, &other.entry)
            && self.elsewhere == other.elsewhere
            && self.tls_elsewhere == other.tls_elsewhere
            && self.tcp_elsewhere == other.tcp_elsewhere
            && self.leads == other.leads
    }
}

impl Relation {
    /// None if the client cannot call the host by its name.
    pub fn of(
        client: &Client,
        egress: &[Egress],
        snapshot: &Snapshot,
        host: &Hostname,
    ) -> Option<Self> {
        if let Some(front) = &client.front {
            return at_edge(client, front, snapshot, host);
        }
        match visible(client, snapshot, host) {
            Some(service) => to_service(client, egress, snapshot, service),
            None => to_routed_host(client, egress, snapshot, host),
        }
    }

    /// To a host that another host's route leads to. None if there is no such Service for this client.
    pub fn led(client: &Client, snapshot: &Snapshot, host: &Hostname) -> Option<Self> {
        visible(client, snapshot, host).map(|service| Self {
            reach: Reach::Led,
            home: Home::Elsewhere,
            interception: client.interception,
            families: client.families,
            taken: client.taken,
            place: place(client, snapshot, rule(client, snapshot, service).as_ref()),
            rule: rule(client, snapshot, service),
            followed: None,
            gates: Vec::new(),
        })
    }
}

impl Reach {
    /// How the port at this place among the Service's ports is called, if it is.
    pub fn way(&self, index: usize) -> Option<Way> {
        match self {
            Self::Nowhere | Self::Led | Self::Edge | Self::Routed(_) => None,
            Self::Open => Some(Way::default()),
            Self::Ways(ways) => ways.get(index).cloned().flatten(),
        }
    }

    /// What stands without a Sidecar is `Open`, also where a Sidecar says the same.
    fn of(ways: Vec<Option<Way>>) -> Self {
        if ways.iter().all(|w| *w == Some(Way::default())) {
            Self::Open
        } else {
            Self::Ways(ways)
        }
    }
}

fn visible<'s>(
    client: &Client,
    snapshot: &'s Snapshot,
    host: &Hostname,
) -> Option<&'s Arc<Service>> {
    let service = snapshot.services.get(host.as_str());
    service.filter(|s| s.export_to.reaches(&client.namespace))
}

fn rule(client: &Client, snapshot: &Snapshot, service: &Service) -> Option<Obeyed> {
    let root = &snapshot.mesh.root_namespace;
    let caller = (client.namespace.as_str(), &client.labels);
    snapshot.rules.select(root, caller, service)
}

fn place(client: &Client, snapshot: &Snapshot, rule: Option<&Obeyed>) -> Option<Arc<Where>> {
    let minds = rule.is_some_and(Obeyed::minds_localities);
    let shared = !snapshot.mesh.locality_lb_setting.distribute.is_empty();
    client.place.clone().filter(|_| minds || shared)
}

fn to_service(
    client: &Client,
    egress: &[Egress],
    snapshot: &Snapshot,
    service: &Service,
) -> Option<Relation> {
    let entry = snapshot.virtuals.select(&client.namespace, &service.host);
    let way = |port: u16| {
        let takes = |e: &&Egress| e.imports(&service.namespace, &service.host);
        let listener = taking(egress, port).find(takes)?;
        let hidden = entry.is_some_and(|v| !listener.imports(&v.key.namespace, &service.host));
        Some(Way {
            virtuals: if hidden {
                Virtuals::Hidden
            } else {
                Virtuals::Imported
            },
            ..way_by(listener)
        })
    };
    // A port of UDP is none of the mesh's, whatever takes it.
    let udp = |index: usize| service.ports[index].protocol == Protocol::Udp;
    let ways: Vec<Option<Way>> = service.ports.iter().map(|p| way(p.number)).collect();
    if !ways.iter().enumerate().any(|(i, w)| w.is_some() && !udp(i)) {
        return None;
    }
    Some(Relation {
        reach: Reach::of(ways),
        home: if service.namespace == client.namespace {
            Home::Own
        } else {
            Home::Elsewhere
        },
        interception: client.interception,
        families: client.families,
        taken: client.taken,
        place: place(client, snapshot, rule(client, snapshot, service).as_ref()),
        rule: rule(client, snapshot, service),
        followed: entry.map(|e| followed(client, snapshot, e, &Place::Mesh)),
        gates: Vec::new(),
    })
}

/// A VirtualService's host that is no Service stands on port 80 alone, as in Istio; a wildcard only while
/// no Service falls under it.
fn to_routed_host(
    client: &Client,
    egress: &[Egress],
    snapshot: &Snapshot,
    host: &Hostname,
) -> Option<Relation> {
    let entry = snapshot.virtuals.named(&client.namespace, host)?;
    let mut taking = taking(egress, super::outbound::ROUTED_PORT);
    let listener = taking.find(|e| e.imports(&entry.key.namespace, host))?;
    let sees = |s: &&Arc<Service>| s.export_to.reaches(&client.namespace);
    if host.is_wildcard() && snapshot.services.matching(host).iter().any(sees) {
        return None;
    }
    Some(Relation {
        reach: Reach::Routed(way_by(listener)),
        home: Home::Elsewhere,
        interception: client.interception,
        families: client.families,
        taken: client.taken,
        place: None,
        rule: None,
        followed: Some(followed(client, snapshot, entry, &Place::Mesh)),
        gates: Vec::new(),
    })
}

/// A proxy at the edge can lead to every Service that it sees, and answers for what its servers' hosts and the
/// VirtualServices bound to them have in common.
fn at_edge(
    client: &Client,
    front: &Front,
    snapshot: &Snapshot,
    host: &Hostname,
) -> Option<Relation> {
    let service = visible(client, snapshot, host);
    let gates = gates(client, front, snapshot, host, service.is_some());
    if service.is_none() && gates.is_empty() {
        return None;
    }
    Some(Relation {
        reach: service.map_or(Reach::Nowhere, |_| Reach::Edge),
        home: Home::Elsewhere,
        interception: client.interception,
        families: client.families,
        taken: client.taken,
        place: service
            .and_then(|service| place(client, snapshot, rule(client, snapshot, service).as_ref())),
        rule: service.and_then(|service| rule(client, snapshot, service)),
        followed: None,
        gates,
    })
}

fn gates(
    client: &Client,
    front: &Front,
    snapshot: &Snapshot,
    host: &Hostname,
    is_service: bool,
) -> Vec<Gate> {
    let bound = snapshot.virtuals.bound_at(host);
    if bound.is_empty() && !front.stands_alone(host) {
        return Vec::new();
    }
    let gate = |(place, served): (&(IpAddr, u16), &Served)| {
        let at = Place::of_gateway(served.key());
        let met = |entry: &Arc<Virtual>| {
            let names = served.hosts().iter();
            let mut names = names.filter(|name| name.takes_from(&entry.key.namespace));
            names.any(|name| {
                let mut own = entry.hosts.iter();
                own.any(|own| front::met(&name.name, own) == Some(host))
            })
        };
        let obeyed = bound.iter().filter(|entry| {
            entry.places.contains(&at) && entry.export_to.reaches(&client.namespace) && met(entry)
        });
        let obeyed: Vec<Followed> = closest(obeyed.copied().collect())
            .into_iter()
            .map(|entry| followed(client, snapshot, entry, &at))
            .collect();
        let mut names = served.hosts().iter().map(|name| &name.name);
        let stands = match served.sort {
            Sort::Http => served.server().redirects() && names.any(|name| name == host),
            Sort::AutoPassthrough => is_service && names.any(|name| name.matches(host.as_str())),
            Sort::Tcp | Sort::Https | Sort::Tls | Sort::Passthrough => false,
        };
        (stands || !obeyed.is_empty()).then(|| Gate {
            place: *place,
            served: served.clone(),
            followed: obeyed,
        })
    };
    front.servers().filter_map(gate).collect()
}

/// Of what Ingresses say those rules hold alone that are for the closest host, as in Kubernetes.
fn closest(obeyed: Vec<&Arc<Virtual>>) -> Vec<&Arc<Virtual>> {
    let closeness = |entry: &Virtual| {
        let hosts = entry.hosts.iter().map(Hostname::specificity);
        (entry.key.kind == Kind::Ingress)
            .then(|| hosts.max())
            .flatten()
    };
    let best = obeyed.iter().filter_map(|entry| closeness(entry)).max();
    let holds = |entry: &&Arc<Virtual>| closeness(entry).is_none_or(|own| Some(own) == best);
    obeyed.into_iter().filter(holds).collect()
}

/// A listener with a port takes that port alone, and no later one gets it.
fn taking(egress: &[Egress], port: u16) -> impl Iterator<Item = &Egress> {
    let own = move |e: &Egress| e.spec.port.as_ref().is_some_and(|p| p.number == port);
    egress
        .iter()
        .enumerate()
        .filter(move |(index, e)| match &e.spec.port {
            Some(_) => own(e),
            None => !egress[..*index].iter().any(own),
        })
        .map(|(_, e)| e)
}

fn way_by(listener: &Egress) -> Way {
    let stated = |word: &str| (!word.is_empty()).then(|| Protocol::of_word(word).class());
    Way {
        bind: listener.spec.bind.parse().ok(),
        own_port: match &listener.spec.port {
            Some(port) => OwnPort::Stated(stated(&port.protocol)),
            None => OwnPort::None,
        },
        virtuals: Virtuals::Imported,
    }
}

/// A match that names gateways is for these, whoever the client is; else for clients as it says.
fn followed(client: &Client, snapshot: &Snapshot, entry: &Arc<Virtual>, at: &Place) -> Followed {
    let is_for = |gateways: &[Str], labels: &Labels, namespace: &str| {
        if !gateways.is_empty() {
            return Place::all(gateways, &entry.key.namespace).contains(at);
        }
        let from = namespace.is_empty() || client.namespace == namespace;
        from && selects(labels, &client.labels)
    };
    let mut elsewhere = Vec::new();
    for (index, rule) in entry.rules.iter().enumerate() {
        for (place, m) in rule.route.matches.iter().enumerate() {
            if !is_for(&m.gateways, &m.source_labels, &m.source_namespace) {
                elsewhere.push((index, place));
            }
        }
    }
    // Of byte streams all conditions count.
    let is_for_bytes = |m: &L4Match| {
        let named =
            m.gateways.is_empty() || Place::all(&m.gateways, &entry.key.namespace).contains(at);
        named && is_for(&[], &m.source_labels, &m.source_namespace)
    };
    let of_bytes = |rules: &mut dyn Iterator<Item = &Vec<L4Match>>| {
        let mut elsewhere = Vec::new();
        for (index, matches) in rules.enumerate() {
            for (place, m) in matches.iter().enumerate() {
                if !is_for_bytes(m) {
                    elsewhere.push((index, place));
                }
            }
        }
        elsewhere
    };
    let mut leads: Vec<(Hostname, Lead)> = Vec::new();
    for host in entry.destinations(&snapshot.settings.domain) {
        if leads.iter().all(|(known, _)| *known != host) {
            let lead = lead(client, snapshot, &host);
            leads.push((host, lead));
        }
    }
    Followed {
        entry: entry.clone(),
        elsewhere,
        tls_elsewhere: of_bytes(&mut entry.spec.tls.iter().map(|rule| &rule.matches)),
        tcp_elsewhere: of_bytes(&mut entry.spec.tcp.iter().map(|rule| &rule.matches)),
        leads,
    }
}

fn lead(client: &Client, snapshot: &Snapshot, host: &Hostname) -> Lead {
    let Some(service) = snapshot.services.get(host.as_str()) else {
        return Lead::default();
    };
    Lead {
        only_port: service.only_port(),
        rule: rule(client, snapshot, service),
    }
}
