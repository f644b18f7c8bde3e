//! Renders endpoints (ClusterLoadAssignment). Which endpoints there are is decided in `ir`.

use envoy_types::pb::envoy::config::core::v3::{HealthStatus, Locality};
use envoy_types::pb::envoy::config::endpoint::v3 as pb;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;

use super::{Render, ResourceType, proto};
use crate::ir::{Address, Endpoint, Health, LoadAssignment, LocalityEndpoints, TlsMode};
use crate::text::Str;

impl Render for LoadAssignment {
    type Message = pb::ClusterLoadAssignment;
    const KIND: ResourceType = ResourceType::Endpoint;
    const EPOCH: u32 = 1;

    fn name(&self) -> Str {
        self.cluster.clone()
    }

    fn render(&self) -> pb::ClusterLoadAssignment {
        let total: u64 = self.localities.iter().map(weight).sum();
        let scale = Scale::fitting(total);
        pb::ClusterLoadAssignment {
            cluster_name: self.cluster.to_string(),
            endpoints: self.localities.iter().map(|l| locality(l, scale)).collect(),
            ..Default::default()
        }
    }
}

/// An endpoint of which nothing but the address is known.
pub fn plain(address: &Address) -> pb::LbEndpoint {
    pb::LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(pb::Endpoint {
            address: Some(proto::address(address)),
            ..Default::default()
        })),
        ..Default::default()
    }
}

/// Envoy refuses an assignment whose weights together pass 32 bits; all are then halved this often.
#[derive(Clone, Copy)]
struct Scale(u32);

impl Scale {
    fn fitting(total: u64) -> Self {
        // A bit to spare: what would become 0 stays 1.
        Self((u64::BITS - total.leading_zeros()).saturating_sub(31))
    }

    fn apply(self, weight: u32) -> u32 {
        weight.checked_shr(self.0).unwrap_or(0).max(1)
    }
}

fn weight(locality: &LocalityEndpoints) -> u64 {
    locality.endpoints.iter().map(|e| u64::from(e.weight)).sum()
}

fn locality(group: &LocalityEndpoints, scale: Scale) -> pb::LocalityLbEndpoints {
    let [region, zone, sub_zone] = group.locality.each_ref().map(Str::to_string);
    let endpoints: Vec<_> = group.endpoints.iter().map(|e| endpoint(e, scale)).collect();
    let weight = group.endpoints.iter().map(|e| scale.apply(e.weight));
    pb::LocalityLbEndpoints {
        locality: Some(Locality {
            region,
            zone,
            sub_zone,
        }),
        // Envoy leaves out a locality of weight 0, and an empty one has nothing to leave out.
        load_balancing_weight: match group.share {
            Some(share) => proto::uint32(share.max(1)),
            None => proto::uint32(weight.fold(0, u32::saturating_add).max(1)),
        },
        priority: group.priority,
        lb_endpoints: endpoints,
        ..Default::default()
    }
}

fn endpoint(node: &Endpoint, scale: Scale) -> pb::LbEndpoint {
    let workload = proto::structure([("workload", proto::text(&node.workload))]);
    let metadata = match node.tls_mode {
        TlsMode::Disabled => proto::metadata([("istio", workload)]),
        TlsMode::Istio => proto::metadata([
            ("istio", workload),
            (
                "envoy.transport_socket_match",
                proto::structure([("tlsMode", proto::text("istio"))]),
            ),
        ]),
    };
    let health = match node.health {
        Health::Healthy => HealthStatus::Healthy,
        Health::Unhealthy => HealthStatus::Unhealthy,
        Health::Draining => HealthStatus::Draining,
    };
    pb::LbEndpoint {
        health_status: health.into(),
        metadata: Some(metadata),
        load_balancing_weight: proto::uint32(scale.apply(node.weight)),
        ..plain(&node.address)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::xds::json::shown;

    fn endpoint_of(n: u8, weight: u32) -> Endpoint {
        Endpoint {
            address: Address::Ip([10, 0, 0, n].into(), 8080),
            health: Health::Unhealthy,
            weight,
            tls_mode: TlsMode::Istio,
            workload: "reviews-v1;shop;reviews;;Kubernetes".into(),
        }
    }

    fn assignment(weights: &[u32]) -> LoadAssignment {
        let endpoints = (1..)
            .zip(weights)
            .map(|(n, w)| endpoint_of(n, *w))
            .collect();
        LoadAssignment {
            cluster: "c".into(),
            localities: vec![LocalityEndpoints {
                priority: 0,
                share: None,
                locality: ["r".into(), "z".into(), Str::default()],
                endpoints,
            }],
        }
    }

    #[test]
    fn an_endpoint_carries_its_health_weight_workload_and_tls_mode() {
        let expected = json!({
            "clusterName": "c",
            "endpoints": [{
                "locality": {"region": "r", "zone": "z"},
                "loadBalancingWeight": 7,
                "lbEndpoints": [{
                    "endpoint": {"address": {"socketAddress": {"address": "10.0.0.1", "portValue": 8080}}},
                    "healthStatus": "UNHEALTHY",
                    "loadBalancingWeight": 7,
                    "metadata": {"filterMetadata": {
                        "envoy.transport_socket_match": {"tlsMode": "istio"},
                        "istio": {"workload": "reviews-v1;shop;reviews;;Kubernetes"}
                    }}
                }]
            }]
        });
        assert_eq!(shown(&assignment(&[7]).render()), expected);
    }

    #[test]
    fn weights_that_together_pass_32_bits_shrink_in_proportion() {
        let weights = |given: &[u32]| -> Vec<u32> {
            let rendered = assignment(given).render();
            let all = rendered.endpoints.iter().flat_map(|l| &l.lb_endpoints);
            all.map(|e| e.load_balancing_weight.unwrap().value)
                .collect()
        };
        assert_eq!(weights(&[90, 10, 0]), [90, 10, 1]);
        let shrunk = weights(&[u32::MAX, u32::MAX / 2, 1]);
        assert!(shrunk.iter().map(|w| u64::from(*w)).sum::<u64>() <= u64::from(u32::MAX));
        assert_eq!((shrunk[0] / shrunk[1], shrunk[2]), (2, 1));
    }
}
