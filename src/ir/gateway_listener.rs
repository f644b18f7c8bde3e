//! The listeners of a proxy at the edge: one an address and port, a chain for plaintext HTTP and one for each server
//! of TLS.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::extension;
use super::front::{Door, Served};
use super::outbound::{Apart, Asks, Bytes};
use super::outbound_listener::access_log;
use super::{
    Address, Capture, Certificates, ChainMatch, ClientProof, ClientRoots, Connect, Direction,
    DownstreamTls, Edge, FilterChain, HttpManager, InboundTls, Inspector, Listener, Loading,
    NetworkFilter, Routes, ServerTls, Socket, TcpProxy,
};
use crate::config::gateway::{self, Sort, TlsMode};
use crate::config::mesh::MeshConfig;
use crate::config::proxy_config::Topology;
use crate::config::secret;
use crate::config::traffic_extension::Side;
use crate::model::extensions::Chosen;
use crate::model::proxy::Families;
use crate::text::Str;

/// What servers of the mesh know the mesh's own TLS by.
const MESH_ALPN: [&str; 5] = [
    "istio-peer-exchange",
    "istio",
    "istio-http/1.0",
    "istio-http/1.1",
    "istio-h2",
];
const HTTP_ALPN: [&str; 2] = ["h2", "http/1.1"];

/// None while no chain has anywhere to lead.
pub fn listener<'a>(
    (mesh, topology, extensions): (&MeshConfig, Option<&Topology>, &Chosen),
    families: Families,
    (address, port): (IpAddr, u16),
    door: &Door,
    asks: impl IntoIterator<Item = &'a Asks>,
) -> Option<Listener> {
    let name = Str::new(format!("{address}_{port}"));
    let topology = topology.or(mesh.default_config.gateway_topology.as_ref());
    let made = Made {
        mesh,
        topology,
        extensions,
        name: &name,
        door,
    };
    let chains = made.http_chains().into_iter().chain(made.byte_chains(asks));
    let chains = told_apart(chains);
    if chains.is_empty() {
        return None;
    }
    let named = |chain: &FilterChain| {
        !chain.matches.server_names.is_empty() || !chain.matches.alpn.is_empty()
    };
    let (bound, also) = families.bound(address);
    Some(Listener {
        address: Address::Ip(bound, port),
        also,
        socket: Socket::Bound,
        direction: Direction::Outbound,
        capture: Capture::None,
        proxy_protocol: topology.is_some_and(|t| t.proxy_protocol.is_some()),
        tls_inspector: match chains.iter().any(named) {
            true => Inspector::On,
            false => Inspector::Off,
        },
        http_inspector: Inspector::Off,
        detection_timeout: mesh.protocol_detection_timeout,
        chains,
        default_chain: None,
        access_log: access_log(mesh),
        name,
    })
}

/// Of chains that would take the same connections the first stands: Envoy refuses a listener with two.
fn told_apart(chains: impl Iterator<Item = FilterChain>) -> Vec<FilterChain> {
    let mut taken: BTreeSet<(Str, Vec<IpNet>, Vec<Str>)> = BTreeSet::new();
    let mut out = Vec::new();
    for mut chain in chains {
        let ChainMatch {
            server_names,
            destinations,
            alpn,
            ..
        } = &mut chain.matches;
        let mut is_new =
            |name: &Str| taken.insert((name.clone(), destinations.clone(), alpn.clone()));
        let stands = match server_names.is_empty() {
            true => is_new(&Str::default()),
            false => {
                server_names.retain(&mut is_new);
                !server_names.is_empty()
            }
        };
        if stands {
            out.push(chain);
        }
    }
    out
}

struct Made<'a> {
    mesh: &'a MeshConfig,
    topology: Option<&'a Topology>,
    extensions: &'a Chosen,
    name: &'a Str,
    door: &'a Door,
}

impl Made<'_> {
    /// Servers of plaintext share a table and a chain.
    fn http_chains(&self) -> Vec<FilterChain> {
        let mut chains: Vec<FilterChain> = Vec::new();
        for served in self.door.servers.iter().filter(|s| s.sort.has_table()) {
            if served.sort == Sort::Http && !chains.is_empty() {
                continue;
            }
            let tls = (served.sort == Sort::Https)
                .then(|| self.tls(served))
                .flatten();
            if served.sort == Sort::Https && tls.is_none() {
                continue;
            }
            let matches = match served.sort {
                Sort::Https => by_names(served),
                _ => Some(ChainMatch::default()),
            };
            let Some(matches) = matches else {
                continue;
            };
            chains.push(FilterChain {
                name: Str::default(),
                matches,
                tls,
                filter: NetworkFilter::Http(Box::new(self.manager(served))),
            });
        }
        chains
    }

    fn manager(&self, served: &Served) -> HttpManager {
        let topology = self.topology.cloned().unwrap_or_default();
        let own = &served.server().name;
        let number = served.server().port.number;
        HttpManager {
            direction: Direction::Outbound,
            stat_prefix: match own.as_str() {
                "" => Str::new(format!("outbound_{};", self.name)),
                own => Str::new(format!("{own};")),
            },
            routes: Routes::Rds(served.table.clone()),
            loading: Loading::AtOnce,
            edge: Some(Edge {
                trusted_hops: topology.num_trusted_proxies,
                client_cert: topology.forward_client_cert_details,
            }),
            extensions: extension::passed(self.extensions, Side::Client, number),
            access_log: access_log(self.mesh),
        }
    }

    /// Of hosts that ask for the same, the first by name gets it: two equal matches would be refused.
    fn byte_chains<'a>(&self, asks: impl IntoIterator<Item = &'a Asks>) -> Vec<FilterChain> {
        let mut told: BTreeMap<&Apart, &Bytes> = BTreeMap::new();
        let mut rest = None;
        for asks in asks {
            let Asks::Told { ways, rest: others } = asks else {
                continue;
            };
            for (apart, bytes) in ways {
                told.entry(apart).or_insert(bytes);
            }
            rest = rest.or(others.as_ref());
        }
        let all = Apart::default();
        if let Some(rest) = rest {
            told.entry(&all).or_insert(rest);
        }
        let told = told.into_iter();
        told.filter_map(|(apart, bytes)| self.byte_chain(apart, bytes))
            .collect()
    }

    fn byte_chain(&self, apart: &Apart, bytes: &Bytes) -> Option<FilterChain> {
        let served = self.door.servers.iter().find(|s| bytes.is_for(s))?;
        // A name that another server has is that server's.
        let owner = self.door.server_of(&apart.server_name);
        if owner.is_some_and(|owner| owner != served) {
            return None;
        }
        let tls = match served.sort {
            Sort::Tls => Some(self.tls(served)?),
            _ => None,
        };
        let alpn = match served.sort {
            Sort::AutoPassthrough => MESH_ALPN.map(Str::new_static).to_vec(),
            _ => Vec::new(),
        };
        let named = !apart.server_name.is_empty();
        Some(FilterChain {
            name: Str::default(),
            matches: ChainMatch {
                server_names: named
                    .then(|| apart.server_name.clone())
                    .into_iter()
                    .collect(),
                destinations: apart.range.into_iter().collect(),
                alpn,
                ..ChainMatch::default()
            },
            tls,
            filter: NetworkFilter::Tcp(TcpProxy {
                stat_prefix: bytes.to.prefix.clone(),
                targets: bytes.to.targets.clone(),
                flow: bytes.flow.clone(),
                upstream_alpn: None,
                connect: Connect::AtOnce,
                access_log: access_log(self.mesh),
            }),
        })
    }

    /// None for a server whose TLS does not end here.
    fn tls(&self, served: &Served) -> Option<DownstreamTls> {
        let settings = served.server().tls.as_deref()?;
        let http = served.sort == Sort::Https;
        match settings.mode {
            TlsMode::Passthrough | TlsMode::AutoPassthrough => None,
            TlsMode::IstioMutual => {
                let bytes = (!http).then_some("istio-peer-exchange");
                let alpn = bytes.into_iter().chain(HTTP_ALPN);
                let own = [self.mesh.trust_domain.clone()].into_iter();
                let aliases = self.mesh.trust_domain_aliases.iter().cloned();
                Some(DownstreamTls::Mesh(InboundTls {
                    alpn: alpn.map(Str::new_static).collect(),
                    trust_domains: own.chain(aliases).collect(),
                }))
            }
            TlsMode::Simple | TlsMode::Mutual | TlsMode::OptionalMutual => {
                Some(DownstreamTls::Server(Box::new(own(settings, http))))
            }
        }
    }
}

/// TLS by certificates of the user's own.
pub fn own(settings: &gateway::ServerTls, http: bool) -> ServerTls {
    ServerTls {
        certificates: certificates(settings),
        clients: clients(settings),
        alpn: match http {
            true => HTTP_ALPN.map(Str::new_static).to_vec(),
            false => Vec::new(),
        },
        least: settings.min_protocol_version,
        most: settings.max_protocol_version,
        cipher_suites: gateway::known_ciphers(settings),
        ecdh_curves: gateway::known_curves(settings),
    }
}

/// `*` among the hosts takes whatever the client asks for. None where Envoy can tell none of the names apart.
fn by_names(served: &Served) -> Option<ChainMatch> {
    let names = served.hosts().iter().map(|host| &host.name);
    if names.clone().any(|name| name.as_str() == "*") {
        return Some(ChainMatch::default());
    }
    let mut server_names: Vec<Str> = names.filter_map(super::l4_routes::server_name).collect();
    server_names.sort();
    server_names.dedup();
    (!server_names.is_empty()).then(|| ChainMatch {
        server_names,
        ..ChainMatch::default()
    })
}

/// Files come by SDS too: one that is not there keeps its own server closed, and nothing else.
fn certificates(tls: &gateway::ServerTls) -> Certificates {
    let named = [&tls.credential_name]
        .into_iter()
        .chain(&tls.credential_names);
    let named: Vec<Str> = named
        .filter(|n| !n.is_empty())
        .map(|n| secret::sds_name(n))
        .collect();
    if !named.is_empty() {
        return Certificates::Secrets(named);
    }
    let several = tls.tls_certificates.iter();
    let several = several.map(|c| (&c.server_certificate, &c.private_key));
    let one = (&tls.server_certificate, &tls.private_key);
    let files = several.chain([one]).filter(|(chain, _)| !chain.is_empty());
    let name = |(chain, key): (&Str, &Str)| Str::new(format!("{}{chain}~{key}", secret::FILE_PAIR));
    Certificates::Secrets(files.map(name).collect())
}

fn clients(tls: &gateway::ServerTls) -> Option<ClientProof> {
    let optional = match tls.mode {
        TlsMode::Mutual => false,
        TlsMode::OptionalMutual => true,
        _ => return None,
    };
    Some(ClientProof {
        optional,
        roots: client_roots(tls),
        subject_alt_names: tls.subject_alt_names.clone(),
        certificate_spki: tls.verify_certificate_spki.clone(),
        certificate_hash: tls.verify_certificate_hash.clone(),
        unverified: tls.insecure_skip_verify,
    })
}

fn client_roots(tls: &gateway::ServerTls) -> ClientRoots {
    if !tls.ca_cert_credential_name.is_empty() {
        return ClientRoots::Secret(secret::sds_roots(&tls.ca_cert_credential_name));
    }
    let mut named = [&tls.credential_name]
        .into_iter()
        .chain(&tls.credential_names);
    if let Some(name) = named.find(|name| !name.is_empty()) {
        return ClientRoots::Secret(secret::sds_roots(name));
    }
    let several = tls.tls_certificates.iter().map(|c| &c.ca_certificates);
    let mut files = [&tls.ca_certificates].into_iter().chain(several);
    match files.find(|file| !file.is_empty()) {
        Some(file) => {
            let revoked = match tls.ca_crl.as_str() {
                "" => String::new(),
                list => format!("~{list}"),
            };
            let name = format!("{}{file}{revoked}", secret::FILE_ROOTS);
            ClientRoots::Secret(Str::new(name))
        }
        None => ClientRoots::None,
    }
}
