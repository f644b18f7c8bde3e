//! How route tables come to proxies, and which tables, scopes and clusters a manifest foretells.

use clap::ValueEnum;
use fairlead::xds::ResourceType;
use serde::Serialize;

use super::facts::{self, Fact, Loading};
use super::mesh::{Port, Service};

/// What the server is told by `--route-packing`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Packing {
    /// A table a port.
    #[default]
    Rds,
    /// A table for each host of a port, and a scope for each of its names.
    Scoped,
    /// The same scopes. Tables of hosts, and clusters that no listener leads to, come when a request needs them.
    OnDemand,
}

/// The virtual host for what no other has.
const REST: &str = "allow_any";
/// The subset without a name.
pub const WHOLE: &str = "";
/// Works that show nothing to proxies without requests.
const NEED_REQUESTS: [&str; 3] = ["vs-1", "eds-big", "slow"];

impl Packing {
    pub fn name(self) -> &'static str {
        match self {
            Self::Rds => "rds",
            Self::Scoped => "scoped",
            Self::OnDemand => "on-demand",
        }
    }

    pub fn can_show(self, work: &str) -> bool {
        match self {
            Self::Rds | Self::Scoped => true,
            Self::OnDemand => !NEED_REQUESTS.contains(&work),
        }
    }

    /// When tables of hosts come, and clusters.
    pub fn loading(self) -> Loading {
        match self {
            Self::Rds | Self::Scoped => Loading::AtOnce,
            Self::OnDemand => Loading::OnDemand,
        }
    }

    /// Of these subsets those whose clusters on this port come to proxies that have no requests: on demand only what
    /// a listener's byte streams lead to, which is the whole Service.
    pub fn clusters(self, port: &Port, subsets: &[&'static str]) -> Vec<&'static str> {
        match (self.loading(), port.is_http()) {
            (Loading::AtOnce, _) => subsets.to_vec(),
            (Loading::OnDemand, false) => vec![WHOLE],
            (Loading::OnDemand, true) => Vec::new(),
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
            Self::Scoped | Self::OnDemand => {
                let rest = format!("{port}/*");
                let scope = facts::scope(&rest, &rest, Loading::AtOnce);
                let mut facts = vec![
                    (ResourceType::Route, facts::virtual_host(&rest, REST)),
                    (ResourceType::ScopedRoute, scope),
                ];
                for service in services {
                    let names = names(service);
                    facts.extend(names.map(|name| self.scope(port, &name, service)));
                    if self.loading() == Loading::AtOnce {
                        let host = virtual_host(port, service);
                        let fact = facts::virtual_host(&table(port, service), &host);
                        facts.push((ResourceType::Route, fact));
                    }
                }
                facts
            }
        }
    }

    /// What those in the Service's own namespace hold besides: there its bare name is enough.
    pub fn at_home(self, port: u16, service: &Service) -> Option<Fact> {
        match self {
            Self::Rds => None,
            Self::Scoped | Self::OnDemand => Some(self.scope(port, &service.name, service)),
        }
    }

    fn scope(self, port: u16, name: &str, service: &Service) -> Fact {
        let (key, table) = (format!("{port}/{name}"), table(port, service));
        let fact = facts::scope(&key, &table, self.loading());
        (ResourceType::ScopedRoute, fact)
    }
}

fn virtual_host(port: u16, service: &Service) -> String {
    format!("{}:{port}", service.host())
}

fn table(port: u16, service: &Service) -> String {
    format!("{port}/{}", service.host())
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
