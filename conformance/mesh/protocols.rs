//! Port protocol × traffic × mutual TLS mode × client, each cell on real connections.

use std::collections::BTreeMap;
use std::sync::MutexGuard;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fairlead::clock;

use crate::Scenario;
use crate::harness::client::{self, Reply};
use crate::harness::manifest::ServiceSpec;
use crate::harness::mesh::{Applied, Mesh};
use crate::harness::packing::Shared;
use crate::harness::pod::{App, Pod, PodSpec};
use crate::harness::wait::eventually;

/// What a Service's port says it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Declared {
    Http,
    Http2,
    Grpc,
    Tcp,
    Auto,
}

/// What a client really sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Traffic {
    Http1,
    Http2,
    Grpc,
    Tcp,
    ServerFirst,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Permissive,
    Strict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// A workload with a sidecar, by the service's address.
    Mesh,
    /// A pod without a sidecar, by the server's own address.
    Outside,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    declared: Declared,
    traffic: Traffic,
    mode: Mode,
    from: From,
}

/// Each port with its protocol and what listens there.
const PORTS: &[(u16, Declared, App)] = &[
    (8001, Declared::Http, App::Http),
    (8002, Declared::Http2, App::Http),
    (8003, Declared::Grpc, App::Http),
    (8004, Declared::Tcp, App::Http),
    (8005, Declared::Tcp, App::TcpEcho),
    (8006, Declared::Tcp, App::ServerFirst),
    (8007, Declared::Auto, App::Http),
    (8008, Declared::Auto, App::TcpEcho),
    (8009, Declared::Auto, App::ServerFirst),
];

/// Every combination that means something; `bytes_on_an_http_port` is the mistake, told apart.
pub(crate) fn cells() -> Vec<Cell> {
    let all = PORTS.iter().flat_map(|(_, declared, app)| {
        let traffic: &[Traffic] = match app {
            App::Http => &[Traffic::Http1, Traffic::Http2, Traffic::Grpc],
            App::TcpEcho => &[Traffic::Tcp],
            App::ServerFirst => &[Traffic::ServerFirst],
            App::Tunnel => &[],
        };
        traffic.iter().map(|traffic| (*declared, *traffic))
    });
    let all: Vec<(Declared, Traffic)> = all.collect();
    let mut cells = Vec::new();
    for mode in [Mode::Permissive, Mode::Strict] {
        for from in [From::Mesh, From::Outside] {
            let cell = |(declared, traffic): &(Declared, Traffic)| Cell {
                declared: *declared,
                traffic: *traffic,
                mode,
                from,
            };
            cells.extend(all.iter().map(cell));
        }
    }
    cells
}

pub(crate) const SCENARIOS: &[Scenario] = &[(
    "bytes_that_are_no_http_reach_no_workload_by_an_http_port",
    bytes_on_an_http_port,
)];

fn bytes_on_an_http_port() -> Result<()> {
    let mut stage = Stage::enter()?;
    for mode in [Mode::Permissive, Mode::Strict] {
        stage.set(mode)?;
        for (pod, authority) in [
            (&stage.client, "server:8001".to_owned()),
            (&stage.outsider, stage.server.at(8001).to_string()),
        ] {
            let greeting = pod.tcp(pod.address(&authority)?);
            ensure!(greeting.is_err(), "{mode:?} {authority}: {greeting:?}");
        }
    }
    Ok(())
}

impl Cell {
    pub(crate) fn name(&self) -> String {
        let Self {
            declared,
            traffic,
            mode,
            from,
        } = self;
        format!("{traffic:?}_on_a_port_for_{declared:?}_{mode:?}_from_{from:?}").to_lowercase()
    }

    pub(crate) fn check(&self) -> Result<()> {
        let mut stage = Stage::enter()?;
        stage.set(self.mode)?;
        let refused = self.from == From::Outside && self.mode == Mode::Strict;
        match (self.traffic, refused) {
            (Traffic::Http1 | Traffic::Http2 | Traffic::Grpc, false) => self.answered(&stage),
            (Traffic::Http1 | Traffic::Http2 | Traffic::Grpc, true) => {
                let reply = self.request(&stage);
                ensure!(reply.is_err(), "STRICT let plaintext in: {reply:?}");
                Ok(())
            }
            (Traffic::Tcp | Traffic::ServerFirst, false) => self.greeted(&stage),
            (Traffic::Tcp | Traffic::ServerFirst, true) => {
                let greeting = self.greeting(&stage);
                ensure!(greeting.is_err(), "STRICT let plaintext in: {greeting:?}");
                Ok(())
            }
        }
    }

    fn port(&self) -> u16 {
        let app = match self.traffic {
            Traffic::Http1 | Traffic::Http2 | Traffic::Grpc => App::Http,
            Traffic::Tcp => App::TcpEcho,
            Traffic::ServerFirst => App::ServerFirst,
        };
        let found = PORTS
            .iter()
            .find(|(_, d, a)| *d == self.declared && *a == app);
        found.map_or(0, |(port, _, _)| *port)
    }

    fn request(&self, stage: &Stage) -> Result<Reply> {
        let (pod, authority) = self.client(stage);
        let protocol = match self.traffic {
            Traffic::Http1 => client::Protocol::Http1,
            Traffic::Grpc => client::Protocol::Grpc,
            Traffic::Http2 | Traffic::Tcp | Traffic::ServerFirst => client::Protocol::Http2,
        };
        pod.send(
            &pod.call(&format!("http://{authority}/a/b?c"))?
                .over(protocol),
        )
    }

    fn client<'a>(&self, stage: &'a Stage) -> (&'a Pod, String) {
        match self.from {
            From::Mesh => (&stage.client, format!("server:{}", self.port())),
            From::Outside => (&stage.outsider, stage.server.at(self.port()).to_string()),
        }
    }

    /// HTTP comes through whole, in the protocol that the port promises, and with TLS from the mesh.
    fn answered(&self, stage: &Stage) -> Result<()> {
        let before = stage.server.stat(HANDSHAKES)?;
        let reply = self.request(stage)?;
        let seen = reply.seen()?;
        ensure!(seen["path"] == "/a/b?c", "{seen}");
        let downgraded = self.declared == Declared::Http || self.traffic == Traffic::Http1;
        let upgraded = matches!(self.declared, Declared::Http2 | Declared::Grpc);
        let protocol = if downgraded && !upgraded {
            "HTTP/1.1"
        } else {
            "HTTP/2.0"
        };
        ensure!(seen["protocol"] == protocol, "{seen}");
        if self.traffic == Traffic::Grpc && protocol == "HTTP/2.0" {
            ensure!(
                reply.trailers.get("grpc-status").is_some_and(|s| s == "0"),
                "{reply:?}"
            );
        }
        let told = seen["headers"]["x-forwarded-client-cert"]
            .as_str()
            .unwrap_or_default();
        // A TCP port has TLS too, but nobody there who could write headers.
        let is_told = self.from == From::Mesh && self.declared != Declared::Tcp;
        let identity = "URI=spiffe://cluster.local/ns/stage/sa/client";
        ensure!(
            told.split(';').any(|f| f == identity) == is_told,
            "identity: {told}"
        );
        if self.from == From::Outside {
            ensure!(told.is_empty() && stage.server.stat(HANDSHAKES)? == before);
        }
        if self.declared == Declared::Tcp && self.from == From::Mesh {
            ensure!(stage.server.stat(HANDSHAKES)? == before + 1, "no TLS");
        }
        Ok(())
    }

    fn greeting(&self, stage: &Stage) -> Result<client::Greeting> {
        let (pod, authority) = self.client(stage);
        let address = pod.address(&authority)?;
        match self.traffic {
            Traffic::ServerFirst => pod.server_first(address),
            Traffic::Tcp | Traffic::Http1 | Traffic::Http2 | Traffic::Grpc => pod.tcp(address),
        }
    }

    fn greeted(&self, stage: &Stage) -> Result<()> {
        let before = (stage.server.stat(HANDSHAKES)?, clock::mono());
        let greeting = self.greeting(stage)?;
        let took = clock::mono() - before.1;
        ensure!(greeting.name == "server", "{greeting:?}");
        let handshakes = stage.server.stat(HANDSHAKES)? - before.0;
        ensure!(
            handshakes == u64::from(self.from == From::Mesh),
            "{handshakes} TLS handshakes"
        );
        // Where nothing has to be guessed, nobody waits for the client to speak.
        if self.declared == Declared::Tcp && self.from == From::Mesh {
            ensure!(took < Duration::from_secs(2), "it took {took:?}");
        }
        Ok(())
    }
}

/// Without it a server that speaks first is never heard where the protocol is open, as in Istio.
const DETECTION: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: 'protocolDetectionTimeout: 3s'}
";

const HANDSHAKES: &str = "listener.0.0.0.0_15006.ssl.handshake";

/// One server with all ports, a client in the mesh and one outside.
struct Stage {
    server: Pod,
    client: Pod,
    outsider: Pod,
    mode: Option<(Mode, Applied)>,
    mesh: Mesh,
}

static STAGES: Shared<Stage> = Shared::new();

impl Stage {
    fn enter() -> Result<MutexGuard<'static, Self>> {
        STAGES.enter(Self::build)
    }

    fn build() -> Result<Self> {
        let mesh = Mesh::start(&[])?;
        mesh.configure("mesh", DETECTION)?;
        mesh.add_namespace("stage")?;
        let pod = |name: &str| {
            let spec = PodSpec::new(name)
                .in_namespace("stage")
                .service_account(name);
            spec.label("app", name)
        };
        let (mut service, mut server) = (ServiceSpec::new("stage", "server"), pod("server"));
        let mut taken = BTreeMap::new();
        for (port, declared, app) in PORTS {
            // The prefix of a port's name is its protocol; any other name leaves it open.
            let prefix = match declared {
                Declared::Http => "http",
                Declared::Http2 => "http2",
                Declared::Grpc => "grpc",
                Declared::Tcp => "tcp",
                Declared::Auto => "any",
            };
            ensure!(taken.insert(port, app).is_none(), "port {port} is taken");
            service = service.port(&format!("{prefix}-{port}"), *port, *port);
            server = server.serves(*port, *app);
        }
        mesh.add_service(service)?;
        let stage = Self {
            server: Pod::start(&mesh, server)?,
            client: Pod::start(&mesh, pod("client"))?,
            outsider: Pod::start(&mesh, pod("outsider").without_sidecar())?,
            mode: None,
            mesh,
        };
        eventually("the server is reached", || {
            ensure!(stage.client.get("http://server:8001/")?.status == 200);
            Ok(())
        })?;
        Ok(stage)
    }

    /// Switches the server's mode when it is another one, and waits until it is in force.
    fn set(&mut self, mode: Mode) -> Result<()> {
        if self.mode.as_ref().is_some_and(|(now, _)| *now == mode) {
            return Ok(());
        }
        let word = match mode {
            Mode::Permissive => "PERMISSIVE",
            Mode::Strict => "STRICT",
        };
        let policy = format!(
            "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: stage}}
spec: {{mtls: {{mode: {word}}}}}
"
        );
        let applied = self.mesh.apply("mode", &policy)?;
        // The old guard would take the same file away.
        if let Some((_, before)) = self.mode.replace((mode, applied)) {
            before.keep();
        }
        let (outsider, to) = (&self.outsider, format!("http://{}/", self.server.at(8001)));
        eventually("the mode is in force", || {
            let open = outsider.get(&to).is_ok_and(|reply| reply.status == 200);
            ensure!(
                open == (mode == Mode::Permissive),
                "plaintext is let in: {open}"
            );
            Ok(())
        })
        .context(word)
    }
}
