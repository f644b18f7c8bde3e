//! A control plane in this process: hub, CA and listeners on free ports, a mesh from YAML.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fairlead::ca::authenticate::{Authenticator, Verifier};
use fairlead::ca::authority::{Authority, Lifetimes};
use fairlead::ca::files;
use fairlead::ca::serving::Serving;
use fairlead::ca::token::{AUDIENCE, Bearer, ISSUER, TokenIssuer};
use fairlead::ca::verify::LocalVerifier;
use fairlead::clock;
use fairlead::config::decode::{Item, documents};
use fairlead::config::{Change, Key, Kind, Object};
use fairlead::debug::desk::{Desk, Readers};
use fairlead::debug::shelf::Shelf;
use fairlead::debug::status::{self, StatusService};
use fairlead::delivery::hub::report::{Inspect, Sight, StreamReport, Summary};
use fairlead::delivery::hub::{Hub, Message};
use fairlead::delivery::registrar::Registrar;
use fairlead::delivery::server::{Door, Server, Streams};
use fairlead::delivery::{Access, Limits};
use fairlead::state::StateDir;
use fairlead::telemetry::metrics::Metrics;
use fairlead::tls;
use fairlead::view::Engine;
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::{Call, Client, Credential, trusting};

pub const TRUST_DOMAIN: &str = "cluster.local";

/// Two services of two endpoints, and a client of theirs.
const MESH: &str = include_str!("mesh.yaml");

pub struct Plane {
    pub tls: SocketAddr,
    pub plain: SocketAddr,
    pub authority: Arc<Authority>,
    pub metrics: Arc<Metrics>,
    pub server: Arc<Server>,
    issuer: TokenIssuer,
    hub: mpsc::Sender<Message>,
    stop: CancellationToken,
    /// Removed when the plane is dropped.
    _state: tempfile::TempDir,
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The pages of such a plane, over xDS.
fn pages(hub: mpsc::Sender<Message>, authenticator: Arc<Authenticator>) -> StatusService {
    let objects: Vec<Arc<Object>> = changes(MESH)
        .into_iter()
        .filter_map(|change| change.object)
        .collect();
    let desk = Desk {
        hub,
        authenticator,
        readers: Readers::Proven,
        root_namespace: "istio-system".into(),
    };
    let shelf = Shelf {
        desk,
        render: Arc::new(|entries| Ok(entries.len().into())),
        config: Arc::new(move || objects.clone()),
    };
    StatusService::new(shelf, "here")
}

impl Plane {
    pub async fn start() -> Self {
        Self::with(Limits::default(), Access::default()).await
    }

    pub async fn with(limits: Limits, access: Access) -> Self {
        Self::made(limits, access, Lifetimes::default()).await
    }

    pub async fn with_lifetimes(lifetimes: Lifetimes) -> Self {
        Self::made(Limits::default(), Access::default(), lifetimes).await
    }

    async fn made(limits: Limits, access: Access, lifetimes: Lifetimes) -> Self {
        let state = tempfile::tempdir().unwrap();
        let dir = StateDir::prepare(state.path()).unwrap().lock().unwrap();
        let now = clock::wall();
        let signer = files::open(&dir, TRUST_DOMAIN, None, now).unwrap();
        let authority = Arc::new(Authority::new(signer, lifetimes));
        let issuer = TokenIssuer::open(&dir).unwrap();
        let local = LocalVerifier::new(&issuer.jwks(), ISSUER, &[AUDIENCE], TRUST_DOMAIN).unwrap();
        let verifier = Verifier::of_own(local);
        let serving = Serving::new(authority.clone(), &[], now).unwrap();

        let mut engine = Engine::default();
        engine.apply(&changes(MESH));
        let (hub, inbox) = mpsc::channel(1024);
        let running = Hub::new(engine, limits);
        let metrics = running.metrics();
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(running.run(inbox, stop.clone()));
        let authenticator = Arc::new(Authenticator::new(verifier, TRUST_DOMAIN));
        let answers = pages(hub.clone(), authenticator.clone());
        let server = Arc::new(Server {
            credentials: Arc::default(),
            hub: hub.clone(),
            registrar: Registrar::default(),
            authenticator,
            authority: authority.clone(),
            limits,
            access,
            others: axum::Router::new().route_service(status::METHOD, answers),
            tasks: tasks.clone(),
            streams: Streams::default(),
            metrics: metrics.clone(),
        });
        let proven = Door::Proven(tls::server_config(serving.live()).unwrap());
        let mut bound = Vec::new();
        for door in [proven, Door::Open] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            bound.push(listener.local_addr().unwrap());
            let serving = server.clone().serve(listener, door, stop.clone());
            tasks.spawn(serving);
        }
        Self {
            tls: bound[0],
            plain: bound[1],
            authority,
            metrics,
            server,
            issuer,
            hub,
            stop,
            _state: state,
        }
    }

    pub fn token(&self, namespace: &str, service_account: &str) -> String {
        self.token_for(namespace, service_account, AUDIENCE)
    }

    pub fn token_for(&self, namespace: &str, service_account: &str, audience: &str) -> String {
        let bearer = Bearer {
            namespace,
            service_account,
            pod: None,
        };
        let hour = Duration::from_secs(3600);
        let token = self.issuer.issue(bearer, audience, hour, clock::wall());
        token.unwrap()
    }

    /// A token that is bound to a pod.
    pub fn token_of_pod(&self, service_account: &str, pod: &str) -> String {
        let bearer = Bearer {
            namespace: "shop",
            service_account,
            pod: Some(pod),
        };
        let hour = Duration::from_secs(3600);
        let token = self.issuer.issue(bearer, AUDIENCE, hour, clock::wall());
        token.unwrap()
    }

    pub async fn apply(&self, yaml: &str) {
        self.tell(changes(yaml)).await;
    }

    pub async fn delete(&self, kind: Kind, namespace: &str, name: &str) {
        let key = Key {
            kind,
            namespace: namespace.into(),
            name: name.into(),
        };
        self.tell(vec![Change { key, object: None }]).await;
    }

    async fn tell(&self, changes: Vec<Change>) {
        let message = Message::Changes(changes, clock::mono());
        self.hub.send(message).await.unwrap();
    }

    /// A connection to the port with TLS.
    pub async fn secured(&self, certificate: Option<&Credential>) -> TlsStream<TcpStream> {
        let socket = TcpStream::connect(self.tls).await.unwrap();
        let config = trusting(&self.authority.bundle(), certificate);
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("istiod.istio-system.svc").unwrap();
        connector.connect(name, socket).await.unwrap()
    }

    pub async fn streams(&self) -> Vec<StreamReport> {
        self.ask(|reply| Inspect::Streams(Sight::All, reply)).await
    }

    pub async fn summary(&self) -> Summary {
        self.ask(Inspect::Summary).await
    }

    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Inspect) -> T {
        let (reply, answer) = oneshot::channel();
        let message = Message::Inspect(question(reply));
        self.hub.send(message).await.unwrap();
        answer.await.unwrap()
    }
}

impl Client {
    /// A sidecar of service account `caller`, over TLS.
    pub async fn connect(plane: &Plane) -> Self {
        let token = Some(plane.token("shop", "caller"));
        Self::call(
            plane,
            Call {
                token,
                ..Call::default()
            },
        )
        .await
    }

    pub async fn call(plane: &Plane, call: Call) -> Self {
        let io = plane.secured(call.certificate.as_ref()).await;
        Self::over(io, plane.tls, call).await
    }

    /// A call of nobody; returns when the server has closed the connection.
    pub async fn refused(plane: &Plane) {
        Self::refused_over(plane.secured(None).await, plane.tls).await;
    }

    pub async fn plaintext(plane: &Plane, call: Call) -> Self {
        let socket = TcpStream::connect(plane.plain).await.unwrap();
        Self::over(socket, plane.plain, call).await
    }
}

fn changes(yaml: &str) -> Vec<Change> {
    let decoded = documents(yaml, "mesh.yaml");
    let change = |item| match item {
        Item::Object(decoded) => Change {
            key: decoded.object.key(),
            object: Some(decoded.object),
        },
        other => panic!("{other:?}"),
    };
    decoded.items.into_iter().map(change).collect()
}
