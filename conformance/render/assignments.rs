//! Load assignments of every shape the renderer can be given.

use fairlead::ir::{Address, Endpoint, Health, LoadAssignment, LocalityEndpoints, TlsMode};
use fairlead::text::Str;

use super::Case;

pub fn assignments() -> Vec<Case<LoadAssignment>> {
    let cases = vec![
        ("no endpoint", vec![]),
        ("a locality without endpoints", vec![zone("z1", vec![])]),
        (
            "with and without mTLS",
            vec![zone("z1", vec![one(1), plaintext(2)])],
        ),
        ("of each health", vec![zone("z1", of_each_health())]),
        (
            "in two zones",
            vec![zone("z1", vec![one(1)]), zone("z2", vec![one(2), one(3)])],
        ),
        ("v6 and a socket file", vec![zone("z1", odd_addresses())]),
        (
            "weighted",
            vec![zone(
                "z1",
                vec![weighted(1, 90), weighted(2, 10), weighted(3, 0)],
            )],
        ),
        (
            "more weight than 32 bits hold",
            vec![
                zone("z1", vec![weighted(1, u32::MAX), weighted(2, 1)]),
                zone("z2", vec![weighted(3, u32::MAX), weighted(4, u32::MAX)]),
            ],
        ),
    ];
    let assignment = |(label, localities)| {
        let cluster = Str::new(label);
        (
            label,
            LoadAssignment {
                cluster,
                localities,
            },
        )
    };
    cases.into_iter().map(assignment).collect()
}

fn zone(name: &str, endpoints: Vec<Endpoint>) -> LocalityEndpoints {
    LocalityEndpoints {
        priority: 0,
        share: None,
        locality: ["r1".into(), name.into(), Str::default()],
        endpoints,
    }
}

fn healthy(address: Address) -> Endpoint {
    Endpoint {
        address,
        health: Health::Healthy,
        weight: 1,
        tls_mode: TlsMode::Istio,
        workload: "reviews-v1;shop;reviews;v1;Kubernetes".into(),
    }
}

fn one(n: u8) -> Endpoint {
    healthy(Address::Ip([10, 0, 0, n].into(), 8080))
}

fn weighted(n: u8, weight: u32) -> Endpoint {
    Endpoint { weight, ..one(n) }
}

fn plaintext(n: u8) -> Endpoint {
    Endpoint {
        tls_mode: TlsMode::Disabled,
        ..one(n)
    }
}

fn of_each_health() -> Vec<Endpoint> {
    let all = [Health::Healthy, Health::Unhealthy, Health::Draining];
    let of = |(n, health)| Endpoint { health, ..one(n) };
    (1..).zip(all).map(of).collect()
}

fn odd_addresses() -> Vec<Endpoint> {
    let v6 = "fd00::1".parse().expect("an address");
    vec![
        healthy(Address::Ip(v6, 8080)),
        healthy(Address::Pipe("/run/app.sock".into())),
    ]
}
