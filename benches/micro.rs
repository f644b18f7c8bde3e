//! What one step of the push core costs, and what it allocates. No sockets, no clock of our own.

#[allow(dead_code, reason = "a program's code, of which its mesh is used")]
#[path = "push.rs"]
mod push;

use std::cell::RefCell;
use std::sync::Arc;

use divan::{AllocProfiler, Bencher, black_box};
use fairlead::config::Change;
use fairlead::config::decode::{Item, documents};
use fairlead::delivery::Limits;
use fairlead::delivery::lists::Known;
use fairlead::delivery::pool::{Pool, Told};
use fairlead::delivery::session::secrets::Credential;
use fairlead::delivery::session::{Output, Session, Turn, Volume};
use fairlead::delivery::wire::Request;
use fairlead::ir::client::Client;
use fairlead::ir::outbound::{HostFacts, HostView, join};
use fairlead::ir::relation::Relation;
use fairlead::model::Settings;
use fairlead::model::proxy::{Interception, Proxy};
use fairlead::text::{Hostname, Str};
use fairlead::view::{Engine, ProxyId, ScopeId};
use fairlead::xds::ResourceType;
use fairlead::xds::encode::Cache;

use self::push::mesh::changes::Edit;
use self::push::mesh::{Mesh, PORTS, Size, View, namespace};
use self::push::packing::Packing;

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

const SERVICES: [usize; 2] = [100, 1000];

fn main() {
    divan::main();
}

fn mesh(services: usize) -> Mesh {
    Mesh::new(Size {
        services,
        endpoints: 10,
        namespaces: 20,
        proxies: 100,
        view: View::Mesh,
        packing: Packing::Rds,
        ports: PORTS,
        seed: 0,
    })
}

fn changes(text: &str) -> Vec<Change> {
    let items = documents(text, "mesh.yaml").items.into_iter();
    let change = |item| match item {
        Item::Object(decoded) => Some(Change {
            key: decoded.object.key(),
            object: Some(decoded.object),
        }),
        _ => None,
    };
    items.filter_map(change).collect()
}

/// A client in each namespace, each a scope of its own.
fn engine(mesh: &Mesh) -> Engine {
    let mut engine = Engine::new(Settings::default());
    let all: Vec<Change> = mesh
        .objects()
        .iter()
        .flat_map(|o| changes(&o.text))
        .collect();
    engine.apply(&all);
    for number in 0..mesh.size.namespaces {
        engine.attach(ProxyId(number as u64), proxy(number));
    }
    engine
}

fn proxy(number: usize) -> Proxy {
    Proxy {
        role: Default::default(),
        locality: Default::default(),
        topology: None,
        packing: None,
        metadata: Default::default(),
        families: Default::default(),
        id: Str::new(format!("sidecar~10.1.0.1~caller.{}~x", namespace(number))),
        ip: [10, 1, 0, 1].into(),
        name: Str::new("caller"),
        namespace: Str::new(namespace(number)),
        dns_domain: Str::new("x"),
        identity: None,
        interception: Interception::Redirect,
        taken: Default::default(),
        labels: Default::default(),
    }
}

fn host(mesh: &Mesh, service: usize) -> Option<Hostname> {
    Hostname::parse(&mesh.services[service].host()).ok()
}

fn relation(engine: &Engine, host: &Hostname) -> Option<Relation> {
    let snapshot = engine.snapshot();
    let client = Client::of(&proxy(0), &Default::default(), None, snapshot);
    Relation::of(&client, &client.egress(), snapshot, host)
}

/// What the first host, which has rules, is to a client.
fn view(mesh: &Mesh, engine: &Engine) -> HostView {
    let view = host(mesh, 0).and_then(|host| {
        let relation = relation(engine, &host)?;
        Some(join(&HostFacts::of(engine.snapshot(), &host), &relation))
    });
    view.unwrap_or_default()
}

/// An event, from decoded objects to what each scope's sessions are told.
#[divan::bench(args = SERVICES, consts = [0, 1, 2])]
fn apply_event<const EDIT: usize>(bencher: Bencher<'_, '_>, services: usize) {
    let mut mesh = mesh(services);
    let mut engine = engine(&mesh);
    let edit = [Edit::Endpoint, Edit::Weight, Edit::Rule][EDIT];
    bencher
        .with_inputs(|| {
            let change = mesh.next(edit);
            let objects = change.put.iter();
            objects.flat_map(|o| changes(&o.text)).collect::<Vec<_>>()
        })
        .bench_local_refs(|changes| engine.apply(changes));
}

/// What one host is to one sort of client.
#[divan::bench(args = SERVICES)]
fn join_one_host(bencher: Bencher<'_, '_>, services: usize) {
    let mesh = mesh(services);
    let engine = engine(&mesh);
    let host = host(&mesh, 0);
    let known = host
        .as_ref()
        .and_then(|host| Some((host, relation(&engine, host)?)));
    assert!(known.is_some(), "the host is in the mesh");
    bencher.bench_local(|| {
        let (host, relation) = black_box(known.as_ref())?;
        Some(join(&HostFacts::of(engine.snapshot(), host), relation))
    });
}

/// The clusters of one host with two subsets, rendered and encoded.
#[divan::bench]
fn render_and_encode_six_clusters(bencher: Bencher<'_, '_>) {
    let mesh = mesh(100);
    let engine = engine(&mesh);
    let clusters = view(&mesh, &engine).clusters;
    assert_eq!(clusters.len(), 6, "both ports, whole and by two subsets");
    bencher
        .with_inputs(Cache::default)
        .bench_local_values(|mut cache| {
            let encoded = clusters.iter().map(|(cluster, _)| cache.get(cluster));
            encoded.collect::<Vec<_>>()
        });
}

/// The same clusters again: their versions alone.
#[divan::bench]
fn look_six_clusters_up(bencher: Bencher<'_, '_>) {
    let mesh = mesh(100);
    let engine = engine(&mesh);
    let clusters = view(&mesh, &engine).clusters;
    let mut cache = Cache::default();
    let kept: Vec<Arc<_>> = clusters.iter().map(|(c, _)| cache.get(c)).collect();
    bencher.bench_local(|| {
        let encoded = clusters.iter().map(|(cluster, _)| cache.get(cluster));
        encoded.collect::<Vec<_>>()
    });
    drop(kept);
}

/// A moved endpoint, told to a hundred sessions of one scope: what each sends, up to the frame.
#[divan::bench(args = SERVICES)]
fn tell_a_hundred_sessions(bencher: Bencher<'_, '_>, services: usize) {
    let mut mesh = mesh(services);
    let engine = RefCell::new(engine(&mesh));
    let pool = RefCell::new(Pool::default());
    let now = fairlead::clock::mono();
    let scope = engine.borrow().scope_of(ProxyId(0));
    let scope = scope.unwrap_or(ScopeId(0));
    let mut sessions: Vec<(Session, Volume)> = (0..100)
        .map(|_| {
            let session = Session::new(Limits::default(), Credential::Proven, now);
            (session, Volume::default())
        })
        .collect();
    let mut act = |told: &[Told], asked: &[Request]| {
        let (engine, mut pool) = (engine.borrow(), pool.borrow_mut());
        let Some(view) = engine.resources(scope) else {
            return 0;
        };
        let mut sent = 0;
        for (session, taken) in &mut sessions {
            let pool = &mut *pool;
            let mut turn = Turn { view, pool, now };
            let mut outputs = Vec::new();
            for request in asked {
                outputs.extend(session.on_request(request, &mut turn));
            }
            for told in told {
                session.touch(told, now);
            }
            outputs.extend(session.flush(&mut turn));
            for output in outputs {
                if let Output::Send(frame) = output {
                    sent += 1;
                    taken.frames += 1;
                    taken.bytes += frame.bytes() as u64;
                }
            }
            session.on_taken(*taken, &mut turn);
        }
        sent
    };
    let wildcard = ["*".to_owned()];
    act(&[], &[asks(ResourceType::Cluster, &wildcard)]);
    let names: Vec<String> = mesh
        .facts(0)
        .into_iter()
        .filter(|(kind, fact)| *kind == ResourceType::Cluster && fact.starts_with("outbound|"))
        .map(|(_, fact)| fact)
        .collect();
    assert!(act(&[], &[asks(ResourceType::Endpoint, &names)]) > 0);
    bencher
        .with_inputs(|| {
            let change = mesh.next(Edit::Endpoint);
            let mut engine = engine.borrow_mut();
            let update = engine.apply(&changes(&change.put[0].text));
            pool.borrow_mut().forget_plans();
            let touched = update.scopes.get(&scope).map(|t| &t.names);
            let told = touched.zip(engine.resources(scope));
            told.map_or(Vec::new(), |(names, view)| Told::of(names, view))
        })
        .bench_local_refs(|told| assert!(act(told, &[]) >= 100, "each is sent a frame"));
}

fn asks(kind: ResourceType, names: &[String]) -> Request {
    let request = push::wire::Request {
        subscribe: names.iter().map(String::as_str).collect(),
        ..push::wire::Request::of(kind)
    };
    let body = request.encode().slice(push::wire::PREFIX..);
    Request::parse(body, &Known::default()).expect("written by the bench's own client")
}

/// The whole of a mesh for its first client.
#[divan::bench(args = SERVICES, sample_count = 10)]
fn build_from_nothing(bencher: Bencher<'_, '_>, services: usize) {
    let mesh = mesh(services);
    let all: Vec<Change> = mesh
        .objects()
        .iter()
        .flat_map(|o| changes(&o.text))
        .collect();
    bencher.bench_local(|| {
        let mut engine = Engine::new(Settings::default());
        engine.apply(&all);
        engine.attach(ProxyId(0), proxy(0));
        engine
    });
}
