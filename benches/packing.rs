//! How route tables come to proxies, and which tables and scopes a manifest foretells.

use clap::ValueEnum;
use fairlead::xds::ResourceType;
use serde::Serialize;

use super::facts::{self, Fact};
use super::mesh::Service;

/// What the server is told by `--route-packing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Packing {
    /// A table a port.
    Rds,
    /// A table for each host of a port, and a scope for each of its names.
    Scoped,
}

/// The virtual host for what no other has.
const REST: &str = "allow_any";

impl Packing {
    pub fn name(self) -> &'static str {
        match self {
            Self::Rds => "rds",
            Self::Scoped => "scoped",
        }
    }

    /// What proxies in any namespace hold of these Services on a port.
    pub fn routes(self, port: u16, services: &[&Service]) -> Vec<Fact> {
        match self {
            Self::Rds => {
                let hosts = services.iter().map(|s| virtual_host(port, s));
                let hosts = hosts.chain([REST.to_owned()]);
                let table = port.to_string();
                let facts = hosts.map(|host| facts::virtual_host(&table, &host));
                facts.map(|fact| (ResourceType::Route, fact)).collect()
            }
            Self::Scoped => {
                let rest = format!("{port}/*");
                let mut facts = vec![
                    (ResourceType::Route, facts::virtual_host(&rest, REST)),
                    (ResourceType::ScopedRoute, facts::scope(&rest, &rest)),
                ];
                for service in services {
                    let host = virtual_host(port, service);
                    let fact = facts::virtual_host(&table(port, service), &host);
                    facts.push((ResourceType::Route, fact));
                    facts.extend(names(service).map(|name| scope(port, &name, service)));
                }
                facts
            }
        }
    }

    /// What those in the Service's own namespace hold besides: there its bare name is enough.
    pub fn at_home(self, port: u16, service: &Service) -> Option<Fact> {
        match self {
            Self::Rds => None,
            Self::Scoped => Some(scope(port, &service.name, service)),
        }
    }
}

fn virtual_host(port: u16, service: &Service) -> String {
    format!("{}:{port}", service.host())
}

fn table(port: u16, service: &Service) -> String {
    format!("{port}/{}", service.host())
}

fn scope(port: u16, name: &str, service: &Service) -> Fact {
    let fact = facts::scope(&format!("{port}/{name}"), &table(port, service));
    (ResourceType::ScopedRoute, fact)
}

/// By which clients in any namespace may call a Service.
fn names(service: &Service) -> [String; 4] {
    let Service {
        name,
        namespace,
        address,
        ..
    } = service;
    [
        service.host(),
        format!("{name}.{namespace}.svc"),
        format!("{name}.{namespace}"),
        address.clone(),
    ]
}
