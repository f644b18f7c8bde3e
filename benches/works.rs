//! The works measured on one server over one transport, in their order.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use fairlead::ca::token::{AUDIENCE, Bearer, TokenIssuer};
use fairlead::clock;
use fairlead::state::StateDir;
use prost::Message;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::client::{Fleet, Recruit, Target};
use super::mesh::{Edit, Identity, Mesh, Size};
use super::proxy::{Proxy, Secrets};
use super::report::{Round, Row, bytes, millis};
use super::server::{Home, Server};

/// Within which a work must be done; it bounds a run, it judges nothing.
const LIMIT: Duration = Duration::from_secs(120);
/// How long the server is left alone before its resident size counts as settled.
const SETTLE: Duration = Duration::from_secs(3);
const TOKEN_LIFE: Duration = Duration::from_secs(3600);
/// Proxies whose state is compared with that of a fresh connection.
const SAMPLE: usize = 5;
const RESTARTS: usize = 3;
/// Istio's name.
const ISSUED: &str = "citadel_server_success_cert_issuance_count";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Plaintext,
    Tls,
}

impl Transport {
    pub fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Tls => "tls",
        }
    }
}

/// One server and its fleet.
pub struct Works<'a> {
    pub program: &'a Path,
    pub home: &'a Home,
    pub size: Size,
    pub proxies: usize,
    pub rounds: usize,
    pub transport: Transport,
}

/// What the works leave behind besides rows.
pub struct Outcome {
    pub rows: Vec<Row>,
    /// What the server sent the first proxy in the storm.
    pub recording: Vec<Bytes>,
    pub storm: Round,
}

impl Works<'_> {
    pub async fn run(&self) -> Result<Outcome> {
        let mut mesh = Mesh::write(&self.home.config(), self.size)?;
        let mut server = self.home.start(self.program, None).await?;
        let boot = Round::of(vec![server.ready - server.started]);
        let cpu_s = server.usage().cpu;
        let mut rows = vec![self.row("boot: start to ready", &[Round { cpu_s, ..boot }])];
        let (fleet, storm) = self.storm(&server).await?;
        let peak = bytes(server.usage().peak as f64);
        rows.push(
            self.row("storm: all hold everything", std::slice::from_ref(&storm))
                .note(format!("peak resident {peak}")),
        );
        let recording = fleet.recording();
        tokio::time::sleep(SETTLE).await;
        let settled = server.usage();
        for (edit, work) in [
            (Edit::Endpoint, "one endpoint"),
            (Edit::Weight, "one VirtualService weight"),
            (Edit::Ring, "one DestinationRule"),
        ] {
            rows.push(self.edits(work, edit, &mut mesh, &server, &fleet).await?);
        }
        rows.push(self.annotations(&mut mesh, &server, &fleet).await?);
        check_streams(&fleet)?;
        self.check_converged(&server, &fleet).await?;
        rows.push(self.restarts(&mut mesh, &mut server, &fleet).await?);
        check_streams(&fleet)?;
        self.check_converged(&server, &fleet).await?;
        rows.push(Row {
            transport: self.transport.name(),
            work: "resident",
            note: format!(
                "settled after the storm {}, at the end {}",
                bytes(settled.resident as f64),
                bytes(server.usage().resident as f64)
            ),
            ..Row::default()
        });
        fleet.leave().await;
        Ok(Outcome {
            rows,
            recording,
            storm,
        })
    }

    fn row(&self, work: &'static str, rounds: &[Round]) -> Row {
        Row::of(self.transport.name(), work, rounds)
    }

    /// All proxies connect at once, to a server that has rendered nothing yet.
    async fn storm(&self, server: &Server) -> Result<(Fleet, Round)> {
        let target = self.target(server)?;
        let recruits = self.recruits(0..self.proxies)?;
        let before = server.usage();
        let start = clock::mono();
        let fleet = Fleet::connect(target, recruits, self.size.manifest());
        let times = fleet.reached(LIMIT).await.context("storm")?;
        fleet.quiet().await;
        let times = times.into_iter().map(|t| t - start).collect();
        let round = Round {
            cpu_s: server.usage().cpu - before.cpu,
            bytes_per_proxy: self.per_proxy(fleet.volume().total()),
            messages_per_proxy: self.per_proxy(fleet.volume().messages),
            ..Round::of(times)
        };
        Ok((fleet, round))
    }

    async fn edits(
        &self,
        work: &'static str,
        edit: Edit,
        mesh: &mut Mesh,
        server: &Server,
        fleet: &Fleet,
    ) -> Result<Row> {
        let mut rounds = Vec::new();
        for _ in 0..self.rounds {
            let round = self.edit(edit, mesh, server, fleet).await;
            rounds.push(round.with_context(|| work)?);
        }
        Ok(self.row(work, &rounds))
    }

    async fn edit(
        &self,
        edit: Edit,
        mesh: &mut Mesh,
        server: &Server,
        fleet: &Fleet,
    ) -> Result<Round> {
        let prepared = mesh.next(edit);
        fleet.expect(&prepared.markers);
        let (used, got) = (server.usage(), fleet.volume());
        let start = clock::mono();
        mesh.apply(&prepared)?;
        let times = fleet.reached(LIMIT).await?;
        fleet.quiet().await;
        let volume = fleet.volume();
        Ok(Round {
            cpu_s: server.usage().cpu - used.cpu,
            bytes_per_proxy: self.per_proxy(volume.total() - got.total()),
            messages_per_proxy: self.per_proxy(volume.messages - got.messages),
            ..Round::of(times.into_iter().map(|t| t - start).collect())
        })
    }

    /// Edits that no proxy may be told of, then one that all are: what came beside it is the answer.
    async fn annotations(&self, mesh: &mut Mesh, server: &Server, fleet: &Fleet) -> Result<Row> {
        let mut rounds = Vec::new();
        for _ in 0..self.rounds {
            let (used, got) = (server.usage(), fleet.volume());
            for prepared in mesh.annotate() {
                mesh.apply(&prepared)?;
            }
            let fence = self.edit(Edit::Endpoint, mesh, server, fleet).await?;
            let volume = fleet.volume();
            let beside = (volume.total() - volume.marked) - (got.total() - got.marked);
            rounds.push(Round {
                cpu_s: server.usage().cpu - used.cpu - fence.cpu_s,
                bytes_per_proxy: self.per_proxy(beside),
                ..Round::default()
            });
        }
        let worst = rounds.iter().map(|r| r.bytes_per_proxy).fold(0.0, f64::max);
        let row = self.row("annotation alone", &rounds);
        let note = format!("at most {} in any round", bytes(worst));
        Ok(Row {
            bytes_per_proxy: worst,
            ..row
        }
        .note(note))
    }

    /// `kill -9`, a start on the same ports and state, and all proxies come back with versions.
    ///
    /// A proxy is current when it holds a Service that was added after all of them were back.
    async fn restarts(&self, mesh: &mut Mesh, server: &mut Server, fleet: &Fleet) -> Result<Row> {
        let (mut rounds, mut issued, mut boots) = (Vec::new(), Vec::new(), Vec::new());
        for restart in 1..=RESTARTS {
            let prepared = mesh.next(Edit::Sentinel);
            fleet.expect(&prepared.markers);
            server.kill()?;
            let got = fleet.volume();
            let ports = server.ports.clone();
            *server = self.home.start(self.program, Some(&ports)).await?;
            boots.push(millis(server.ready - server.started));
            // The server's own certificate is one; no client is back yet, for this thread is theirs.
            let own = server.counter(ISSUED)?;
            fleet.reopened(u32::try_from(restart)?, LIMIT).await?;
            // Those that the kill ended; later ones make the run void.
            fleet.lost();
            mesh.apply(&prepared)?;
            let times = fleet.reached(LIMIT).await.context("restart")?;
            fleet.quiet().await;
            let volume = fleet.volume();
            let beside = (volume.total() - volume.marked) - (got.total() - got.marked);
            rounds.push(Round {
                cpu_s: server.usage().cpu,
                bytes_per_proxy: self.per_proxy(beside),
                ..Round::of(times.into_iter().map(|t| t - server.ready).collect())
            });
            let all = server.counter(ISSUED)?;
            issued.push(all.zip(own).map(|(all, own)| all - own));
        }
        let issued = match issued.into_iter().collect::<Option<Vec<_>>>() {
            Some(counts) => format!("{} certificates issued", counts.iter().sum::<f64>()),
            None => format!("the metrics page has no {ISSUED}"),
        };
        let boot = boots.iter().copied().fold(0.0, f64::max);
        let note = format!("{issued}; cpu includes a boot of at most {boot:.0} ms");
        Ok(self
            .row("restart: ready to all current", &rounds)
            .note(note))
    }

    /// Fresh connections of the same nodes must hold what the long-lived ones came to by edits.
    async fn check_converged(&self, server: &Server, fleet: &Fleet) -> Result<()> {
        let step = (fleet.size() / SAMPLE).max(1);
        let sample: Vec<usize> = (0..fleet.size()).step_by(step).take(SAMPLE).collect();
        let recruits = self.recruits(sample.iter().copied())?;
        let fresh = Fleet::connect(self.target(server)?, recruits, self.size.manifest());
        fresh.reached(LIMIT).await.context("fresh connections")?;
        fresh.quiet().await;
        for (at, seat) in sample.iter().enumerate() {
            let long = fleet.member(*seat).borrow().inventory();
            let short = fresh.member(at).borrow().inventory();
            let differs = |(k, v): &(&(_, String), &String)| short.get(*k) != Some(*v);
            let first = long.iter().find(differs);
            ensure!(
                first.is_none() && long.len() == short.len(),
                "void: proxy {seat} did not converge: it holds {} resources, a fresh one {}; {first:?}",
                long.len(),
                short.len(),
            );
        }
        fresh.leave().await;
        Ok(())
    }

    fn per_proxy(&self, count: u64) -> f64 {
        count as f64 / self.proxies as f64
    }

    fn target(&self, server: &Server) -> Result<Target> {
        Ok(match self.transport {
            Transport::Plaintext => Target {
                address: server.port("grpc")?,
                tls: None,
            },
            Transport::Tls => Target {
                address: server.port("secure-grpc")?,
                tls: Some(tls_of(&self.home.state())?),
            },
        })
    }

    fn recruits(&self, proxies: impl Iterator<Item = usize>) -> Result<Vec<Recruit>> {
        let issuer = match self.transport {
            Transport::Plaintext => None,
            Transport::Tls => Some(TokenIssuer::beside(StateDir::prepare(&self.home.state())?)?),
        };
        let recruit = |proxy: usize| {
            let identity = self.size.identity(proxy);
            let token = issuer.as_ref().map(|i| bearer(i, &identity)).transpose()?;
            let secrets = match self.transport {
                Transport::Plaintext => Secrets::Unasked,
                Transport::Tls => Secrets::Asked,
            };
            let proxy = Proxy::new(node(&identity), secrets);
            Ok(Recruit { proxy, token })
        };
        proxies.map(recruit).collect()
    }
}

fn check_streams(fleet: &Fleet) -> Result<()> {
    let lost = fleet.lost();
    ensure!(lost.is_empty(), "void: streams were lost: {lost:?}");
    Ok(())
}

/// Trust in the server's own root, as a proxy has it.
fn tls_of(state: &Path) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(state.join("ca/root-cert.pem"))? {
        roots.add(root?)?;
    }
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn bearer(issuer: &TokenIssuer, identity: &Identity) -> Result<String> {
    let bearer = Bearer {
        namespace: &identity.namespace,
        service_account: &identity.service,
        pod: Some(&identity.pod),
    };
    let token = issuer.issue(bearer, AUDIENCE, TOKEN_LIFE, clock::wall())?;
    Ok(format!("Bearer {token}"))
}

fn node(identity: &Identity) -> Bytes {
    let text = |s: &str| Value {
        kind: Some(Kind::StringValue(s.into())),
    };
    let labels = [("app", identity.service.as_str()), ("version", "v1")];
    let labels = labels.map(|(k, v)| (k.to_owned(), text(v)));
    let labels = Value {
        kind: Some(Kind::StructValue(Struct {
            fields: labels.into(),
        })),
    };
    let metadata = [
        ("NAMESPACE", text(&identity.namespace)),
        ("INTERCEPTION_MODE", text("REDIRECT")),
        ("LABELS", labels),
    ];
    let node = Node {
        id: identity.id.clone(),
        cluster: format!("{}.{}", identity.service, identity.namespace),
        metadata: Some(Struct {
            fields: metadata.map(|(k, v)| (k.to_owned(), v)).into(),
        }),
        user_agent_name: "envoy".into(),
        ..Node::default()
    };
    node.encode_to_vec().into()
}
