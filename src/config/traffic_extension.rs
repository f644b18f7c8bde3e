//! TrafficExtension: a user's own filter among those that requests pass.
//!
//! Field meaning: <https://istio.io/latest/docs/reference/config/proxy_extensions/traffic-extension/>. Of its two kinds
//! Lua is in effect.

use serde::{Deserialize, Serialize};

use super::destination_rule::WorkloadSelector;
use super::virtual_service::PortSelector;
use crate::text::Str;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficExtension {
    /// None is every workload.
    pub selector: Option<WorkloadSelector>,
    /// One that is attached to gateways of Gateway API is nowhere yet.
    pub target_refs: Vec<Attached>,
    pub phase: Phase,
    /// Within a phase the highest is first.
    pub priority: i32,
    /// None is all traffic; of several one is enough.
    #[serde(rename = "match")]
    pub matches: Vec<TrafficSelector>,
    pub lua: Option<Lua>,
}

/// What it is attached to is not read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Lua {
    pub inline_code: Str,
}

/// Before whose filters it stands: the order of the variants is that of requests.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Phase {
    Authn,
    Authz,
    Stats,
    /// After all of these.
    #[default]
    Unspecified,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrafficSelector {
    pub mode: TrafficMode,
    /// None is all of them.
    pub ports: Vec<PortSelector>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TrafficMode {
    /// As `CLIENT_AND_SERVER`.
    #[default]
    Undefined,
    /// What a workload calls, and what comes through a gateway.
    Client,
    /// What calls a workload.
    Server,
    ClientAndServer,
}

/// On which side of a proxy traffic passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

impl TrafficExtension {
    /// Whether it sees what passes on that side at that port.
    pub fn sees(&self, side: Side, port: u16) -> bool {
        let mut matches = self.matches.iter();
        self.matches.is_empty() || matches.any(|m| m.takes(side, port))
    }
}

impl TrafficSelector {
    fn takes(&self, side: Side, port: u16) -> bool {
        let at_side = match self.mode {
            TrafficMode::Undefined | TrafficMode::ClientAndServer => true,
            TrafficMode::Client => side == Side::Client,
            TrafficMode::Server => side == Side::Server,
        };
        let mut ports = self.ports.iter();
        at_side && (self.ports.is_empty() || ports.any(|own| own.number == port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_match_of_several_is_enough_and_none_takes_all() {
        let matched = |mode, ports: &[u16]| TrafficSelector {
            mode,
            ports: ports
                .iter()
                .map(|number| PortSelector { number: *number })
                .collect(),
        };
        let of = |matches| TrafficExtension {
            matches,
            ..TrafficExtension::default()
        };
        assert!(of(Vec::new()).sees(Side::Server, 80));
        let both = of(vec![
            matched(TrafficMode::Client, &[80]),
            matched(TrafficMode::Server, &[]),
        ]);
        assert!(both.sees(Side::Client, 80));
        assert!(!both.sees(Side::Client, 81));
        assert!(both.sees(Side::Server, 81));
    }
}
