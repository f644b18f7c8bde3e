//! A run whose proxies do not get what the manifest says is void, and so is one that shows its client.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::address::Address as Kind;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, SocketAddress};
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, Listener};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use envoy_types::pb::google::protobuf::Any;
use fairlead::xds::ResourceType;
use prost::Message;
use tokio::net::TcpListener;

use super::push::fleet::{Fleet, Helper};
use super::push::mesh::{Mesh, PORTS, Size, View};
use super::push::order::{Goal, NullOrder, Recruit, Target};
use super::push::packing::Packing;
use super::push::proxy::{Least, Opening, Secrets};
use super::push::report::{Round, Row};
use super::push::stage::{check_client, check_sets, times};
use super::push::stamp::Stamp;
use super::push::wire::{PREFIX, seal};
use super::push::{crew, null};

/// A mesh without Services: its proxies hold what every sidecar does.
pub fn mesh() -> Mesh {
    let mut mesh = Mesh::new(Size {
        services: 1,
        endpoints: 1,
        namespaces: 1,
        proxies: 2,
        view: View::Mesh,
        packing: Packing::Rds,
        ports: PORTS,
        seed: 0,
    });
    mesh.services.clear();
    mesh
}

pub fn response(kind: ResourceType, resources: Vec<(&str, Vec<u8>)>) -> Vec<u8> {
    let resource = |(name, value): (&str, Vec<u8>)| Resource {
        name: name.into(),
        version: "1".into(),
        resource: Some(Any {
            type_url: kind.type_url().into(),
            value,
        }),
        ..Resource::default()
    };
    let response = DeltaDiscoveryResponse {
        resources: resources.into_iter().map(resource).collect(),
        type_url: kind.type_url().into(),
        nonce: "1".into(),
        ..DeltaDiscoveryResponse::default()
    };
    let mut out = BytesMut::zeroed(PREFIX);
    out.extend_from_slice(&response.encode_to_vec());
    seal(out).to_vec()
}

/// What a server sends: these clusters, and listeners on these ports.
fn script(clusters: &[&str], ports: &[u32]) -> Vec<u8> {
    let cluster = |name: &&str| {
        let cluster = Cluster {
            name: (*name).into(),
            ..Cluster::default()
        };
        cluster.encode_to_vec()
    };
    let clusters = clusters.iter().map(|c| (*c, cluster(c))).collect();
    let names = ["in", "out"].into_iter().zip(ports);
    let listeners = names
        .map(|(name, port)| (name, listener(*port, Vec::new())))
        .collect();
    [
        response(ResourceType::Cluster, clusters),
        response(ResourceType::Listener, listeners),
    ]
    .concat()
}

pub fn listener(port: u32, filter_chains: Vec<FilterChain>) -> Vec<u8> {
    let socket = SocketAddress {
        address: "0.0.0.0".into(),
        port_specifier: Some(PortSpecifier::PortValue(port)),
        ..SocketAddress::default()
    };
    let listener = Listener {
        address: Some(Address {
            address: Some(Kind::SocketAddress(socket)),
        }),
        filter_chains,
        ..Listener::default()
    };
    listener.encode_to_vec()
}

/// A client process and a null server, here as threads.
async fn threads() -> anyhow::Result<(Fleet, Helper, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let thread = |serve: fn(SocketAddr)| std::thread::Builder::new().spawn(move || serve(address));
    thread(|address| crew::serve(address).unwrap())?;
    let crew = Helper::meet(&listener).await?;
    thread(|address| null::serve(address, None).unwrap())?;
    let mut null = Helper::meet(&listener).await?;
    let door = null.answer().await?.trim().parse()?;
    Ok((Fleet::of(crew, 2), null, door))
}

/// Two proxies on a server that sends this; whether the run is void, and why.
fn run(script: &[u8], least: Least) -> Result<(), String> {
    run_on(&mesh(), script, least)
}

pub fn run_on(mesh: &Mesh, script: &[u8], least: Least) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let done = runtime.block_on(judged(mesh, script, least, &folder.path().join("script")));
    done.map_err(|why| why.to_string())
}

async fn judged(mesh: &Mesh, script: &[u8], least: Least, file: &Path) -> anyhow::Result<()> {
    std::fs::write(file, script)?;
    let (mut fleet, mut null, address) = threads().await?;
    null.tell(&NullOrder::Script(file.into())).await?;
    null.answer().await?;
    fleet.aim(&Goal::Whole(least)).await?;
    let target = Target {
        address,
        roots: None,
    };
    let recruit = Recruit {
        node: Vec::new(),
        secrets: Secrets::Unasked,
        opening: Opening::Clusters,
        token: None,
    };
    fleet.enlist(&target, vec![recruit; 2]).await?;
    let reached = fleet.reached(Duration::from_millis(1500)).await?;
    times(&reached, Stamp::now())?;
    fleet.quiet().await?;
    check_sets(mesh, &mut fleet).await
}

pub const CLUSTERS: [&str; 5] = [
    "BlackHoleCluster",
    "PassthroughCluster",
    "InboundPassthroughCluster",
    "inbound|8080||",
    "inbound|9090||",
];

fn least() -> Least {
    Least {
        tables: 0,
        ..mesh().least()
    }
}

#[test]
fn a_server_that_sends_what_the_manifest_says_is_measured() {
    run(&script(&CLUSTERS, &[15001, 15006]), least()).unwrap();
}

#[test]
fn a_server_that_withholds_one_cluster_makes_the_run_void() {
    let why = run(&script(&CLUSTERS[1..], &[15001, 15006]), least()).unwrap_err();
    assert!(why.starts_with("2 of 2 proxies did not get there"), "{why}");
}

#[test]
fn another_cluster_in_its_place_makes_the_run_void() {
    let mut clusters = CLUSTERS;
    clusters[0] = "BlueHoleCluster";
    let why = run(&script(&clusters, &[15001, 15006]), least()).unwrap_err();
    assert!(
        why.contains("1 missing (cds BlackHoleCluster), 1 too many (cds BlueHoleCluster)"),
        "{why}"
    );
}

#[test]
fn a_listener_too_many_makes_the_run_void() {
    let why = run(&script(&CLUSTERS, &[15001, 15007]), least()).unwrap_err();
    assert!(why.contains("too many (lds 0.0.0.0:15007)"), "{why}");
}

#[test]
fn a_client_busier_than_its_server_makes_the_row_void() {
    let round = |client_busy, server_busy| Round {
        client_busy,
        server_busy,
        ..Round::default()
    };
    let void = |rounds: &[Round]| {
        let row = Row::of("tls", "eds-1", rounds);
        check_client(row, rounds).void.is_some()
    };
    assert!(void(&[round(0.9, 0.5)]));
    assert!(!void(&[round(0.9, 1.2)]));
    assert!(!void(&[round(0.3, 0.1)]));
}
