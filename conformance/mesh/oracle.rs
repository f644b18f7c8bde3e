//! Random configurations and requests: where the oracle says that a request lands, there a real Envoy puts it.
//!
//! The control plane is the real one, and so are two Envoys, of a sidecar and of a gateway, that take one random world after
//! another. The oracle reads what `fairlead dump` says of the same files.

use std::cell::Cell;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use serde_json::Value;

use self::land::{Asked, Landing, land};
use self::world::{World, worlds};
use crate::harness::client::{Call, Target};
use crate::harness::isolation::{output, program};
use crate::harness::manifest::ServiceSpec;
use crate::harness::mesh::{Applied, Mesh};
use crate::harness::pod::{App, Pod, PodSpec};
use crate::harness::wait::eventually;
use crate::shop::SUBSETS;

#[path = "oracle/land.rs"]
mod land;
#[path = "oracle/world.rs"]
mod world;

/// How many worlds are tried; each takes some tenths of a second.
const WORLDS: u32 = 40;
const EDGE_PORT: u16 = 8080;

struct Stage {
    mesh: Mesh,
    reader: Pod,
    edge: Pod,
    ratings: Pod,
    _books: [Pod; 2],
}

pub(crate) fn agrees(seed: u64) -> Result<()> {
    let stage = Stage::start()?;
    let config = Config {
        cases: WORLDS,
        max_shrink_iters: 60,
        failure_persistence: None,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, random);
    let number = Cell::new(0);
    let outcome = runner.run(&worlds(), |world| {
        number.set(number.get() + 1);
        let tried = stage.try_world(&world, number.get());
        tried.map_err(|fault| TestCaseError::fail(format!("{fault:#}")))
    });
    outcome.map_err(|fault| anyhow::anyhow!("FAIRLEAD_SEED={seed}: {fault}"))
}

impl Stage {
    fn start() -> Result<Self> {
        let mesh = Mesh::start(&[])?;
        for namespace in ["shop", "edge"] {
            mesh.add_namespace(namespace)?;
        }
        mesh.add_service(ServiceSpec::new("shop", "books").port("http", 80, 8080))?;
        mesh.add_service(ServiceSpec::new("shop", "ratings").port("http", 80, 80))?;
        mesh.add_service(ServiceSpec::new("edge", "edge").port("http", 80, EDGE_PORT))?;
        mesh.configure("subsets", &SUBSETS.replace("reviews", "books"))?;
        let bare = |name: &str, app: &str| {
            let spec = PodSpec::new(name).in_namespace("shop").label("app", app);
            spec.without_sidecar()
        };
        let books = |version: &str| {
            let spec = bare(&format!("books-{version}"), "books").label("version", version);
            Pod::start(&mesh, spec.serves(8080, App::Http))
        };
        let (v1, v2) = (books("v1")?, books("v2")?);
        let ratings = Pod::start(&mesh, bare("ratings", "ratings").serves(80, App::Http))?;
        let edge = PodSpec::new("edge")
            .in_namespace("edge")
            .label("app", "edge");
        Ok(Self {
            reader: Pod::start(&mesh, PodSpec::new("reader").in_namespace("shop"))?,
            edge: Pod::start(&mesh, edge.at_the_edge())?,
            ratings,
            _books: [v1, v2],
            mesh,
        })
    }

    fn try_world(&self, world: &World, number: u32) -> Result<()> {
        let _applied = self.apply(world, number)?;
        let faults: Vec<String> = [Side::Mesh, Side::Edge]
            .into_iter()
            .flat_map(|side| self.compare(side, world))
            .collect();
        let objects: Vec<String> = world.objects.iter().map(Value::to_string).collect();
        ensure!(
            faults.is_empty(),
            "{}\nobjects:\n{}",
            faults.join("\n"),
            objects.join("\n")
        );
        Ok(())
    }

    /// Returns when both proxies have it: what was written last is there.
    fn apply(&self, world: &World, number: u32) -> Result<Applied> {
        let marker = serde_json::json!([{
            "apiVersion": "networking.istio.io/v1", "kind": "Gateway",
            "metadata": {"name": "marker", "namespace": "edge"},
            "spec": {"selector": {"app": "edge"}, "servers": [{
                "port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["marker.tale"],
            }]},
        }, {
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "marker", "namespace": "edge"},
            "spec": {"hosts": ["marker.tale"], "gateways": ["edge/marker", "mesh"], "http": [
                {"directResponse": {"status": 200, "body": {"string": number.to_string()}}},
            ]},
        }]);
        let all = world
            .objects
            .iter()
            .chain(marker.as_array().into_iter().flatten());
        let text: String = all.map(|object| format!("---\n{object}\n")).collect();
        // Each has names of its own: of a faulty version the one before would stay in force.
        let text = text.replace("{n}", &number.to_string());
        let applied = self.mesh.apply("world", &text)?;
        for side in [Side::Mesh, Side::Edge] {
            let marker = Asked {
                host: "marker.tale".to_owned(),
                method: "GET".to_owned(),
                path: "/".to_owned(),
                headers: Vec::new(),
            };
            eventually("the world is in force", || {
                let said = self.ask(side, &marker)?.text();
                ensure!(said == number.to_string(), "{said}");
                Ok(())
            })?;
        }
        Ok(applied)
    }

    /// What does not go where it should.
    fn compare(&self, side: Side, world: &World) -> Vec<String> {
        let dump = match self.dump(side) {
            Ok(dump) => dump,
            Err(fault) => return vec![format!("{fault:#}")],
        };
        let mut faults = Vec::new();
        for asked in &world.requests {
            let wanted = land(&dump, side.table(), asked);
            if let Err(fault) = self.landed(side, asked, &wanted) {
                faults.push(format!("{side:?} {asked:?}: {wanted:?}, but {fault:#}"));
            }
        }
        faults
    }

    fn landed(&self, side: Side, asked: &Asked, wanted: &Landing) -> Result<()> {
        let reply = self.ask(side, asked)?;
        let status = |code: u16| {
            ensure!(reply.status == code, "{} {}", reply.status, reply.text());
            Ok(())
        };
        let (clusters, path, host) = match wanted {
            Landing::Status(code) => return status(*code),
            Landing::Clusters {
                clusters,
                path,
                host,
            } => (clusters, path, host),
        };
        let answers = clusters.iter().flat_map(|name| workloads(name));
        let answers: Vec<&str> = answers.copied().collect();
        if reply.status == 503 {
            let empty = clusters.iter().any(|name| workloads(name).is_empty());
            ensure!(empty, "503 {}", reply.text());
            return Ok(());
        }
        let seen = reply.seen()?;
        let by = seen["name"].as_str().unwrap_or_default();
        ensure!(answers.contains(&by), "{by} answered");
        ensure!(seen["path"] == *path, "it saw the path {}", seen["path"]);
        ensure!(
            seen["authority"] == *host,
            "it saw the host {}",
            seen["authority"]
        );
        Ok(())
    }

    fn ask(&self, side: Side, asked: &Asked) -> Result<crate::harness::client::Reply> {
        let target = match side {
            Side::Mesh => Target::Tcp(self.ratings.at(80)),
            Side::Edge => Target::Tcp(self.edge.at(EDGE_PORT)),
        };
        let call = Call::get(target, &asked.host, &asked.path);
        let call = Call {
            method: asked.method.parse()?,
            headers: asked.headers.clone(),
            ..call
        };
        // The gateway is asked from a pod without a sidecar: its own.
        match side {
            Side::Mesh => self.reader.send(&call),
            Side::Edge => self.ratings.send(&call),
        }
    }

    fn dump(&self, side: Side) -> Result<Value> {
        let mut command = Command::new(program("fairlead"));
        let folder: &Path = &self.mesh.folder().join("config");
        command.args([
            "dump",
            "-o",
            "json",
            "--route-packing",
            "rds",
            "--config-dir",
        ]);
        command.arg(folder).args(match side {
            Side::Mesh => ["--node", "reader.shop", "--role", "sidecar"],
            Side::Edge => ["--node", "edge.edge", "--role", "router"],
        });
        serde_json::from_str(&output(&mut command)?).context("read the dump")
    }
}

#[derive(Clone, Copy, Debug)]
enum Side {
    Mesh,
    Edge,
}

impl Side {
    /// The table of its listener.
    fn table(self) -> &'static str {
        match self {
            Self::Mesh => "80",
            Self::Edge => "http.8080",
        }
    }
}

/// Who answers for a cluster; nobody where it is not there.
fn workloads(cluster: &str) -> &'static [&'static str] {
    match cluster {
        "outbound|80|v1|books.shop.svc.cluster.local" => &["books-v1"],
        "outbound|80|v2|books.shop.svc.cluster.local" => &["books-v2"],
        "outbound|80||books.shop.svc.cluster.local" => &["books-v1", "books-v2"],
        "outbound|80||ratings.shop.svc.cluster.local" | "PassthroughCluster" => &["ratings"],
        _ => &[],
    }
}
