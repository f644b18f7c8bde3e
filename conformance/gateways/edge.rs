//! The mesh that scenarios of gateways share: a shop behind a proxy at its edge, and a stranger before it.

use std::net::SocketAddr;
use std::sync::MutexGuard;

use anyhow::{Context as _, Result, ensure};

use crate::harness::client::{Call, Reply, Target};
use crate::harness::manifest::ServiceSpec;
use crate::harness::mesh::{Applied, Mesh};
use crate::harness::packing::Shared;
use crate::harness::pki::{Pair, Pki, Tls};
use crate::harness::pod::{App, Pod, PodSpec};
use crate::harness::script::{Script, Stage};
use crate::harness::wait::eventually;

/// Namespace `shop` has reviews v1 and v2 (HTTP 9080; v1 is in region `here`, as the storefront is, v2 `there`, as gateways) and a ledger (TCP 7000); `edge` has the proxies `ingress` (its
/// Service leads from 80 to 8080 and from 443 to 8443) and `egress` (80 to 8080, 443 to 8443).
pub(crate) struct Edge {
    pub(crate) storefront: Pod,
    pub(crate) ingress: Pod,
    pub(crate) egress: Pod,
    /// Without a sidecar, and no service: HTTP 8090, TCP 7000.
    pub(crate) stranger: Pod,
    pub(crate) pki: Pki,
    pub(crate) mesh: Mesh,
    _others: Vec<Pod>,
    /// Whether the script is applied, which then stays.
    told: bool,
}

static EDGES: Shared<Edge> = Shared::new();

impl Edge {
    /// That of the scenario's packing, for one scenario at a time. It must leave no configuration behind.
    pub(crate) fn enter() -> Result<MutexGuard<'static, Self>> {
        EDGES.enter(Self::start)
    }

    fn start() -> Result<Self> {
        let mesh = Mesh::start(&[])?;
        for namespace in ["shop", "edge", "office"] {
            mesh.add_namespace(namespace)?;
        }
        mesh.add_service(ServiceSpec::new("shop", "reviews").port("http", 9080, 9080))?;
        mesh.add_service(ServiceSpec::new("shop", "ledger").port("tcp", 7000, 7000))?;
        for gateway in ["ingress", "egress"] {
            let service = ServiceSpec::new("edge", gateway);
            let service = service.port("http2", 80, 8080).port("https", 443, 8443);
            mesh.add_service(service.port("tcp", 7000, 7000))?;
        }
        let pod = |name: &str, app: &str, namespace: &str| {
            let spec = PodSpec::new(name).in_namespace(namespace);
            spec.service_account(app).label("app", app)
        };
        let at = |region: &str, spec: PodSpec| spec.label("topology.kubernetes.io/region", region);
        let reviews = |version: &str| {
            let spec = pod(&format!("reviews-{version}"), "reviews", "shop");
            let spec = spec.label("version", version).serves(9080, App::Http);
            let region = if version == "v1" { "here" } else { "there" };
            Pod::start(&mesh, at(region, spec))
        };
        let ledger = pod("ledger", "ledger", "shop").serves(7000, App::TcpEcho);
        let others = vec![reviews("v1")?, reviews("v2")?, Pod::start(&mesh, ledger)?];
        let gateway = |name: &str| {
            let spec = at("there", pod(name, name, "edge").at_the_edge());
            Pod::start(&mesh, spec.label("istio", &format!("{name}gateway")))
        };
        let stranger = PodSpec::new("stranger").without_sidecar();
        let stranger = stranger.in_namespace("outside").serves(8090, App::Http);
        let edge = Self {
            storefront: Pod::start(&mesh, at("here", pod("storefront", "storefront", "shop")))?,
            ingress: gateway("ingress")?,
            egress: gateway("egress")?,
            stranger: Pod::start(&mesh, stranger.serves(7000, App::TcpEcho))?,
            pki: Pki::new("outside")?,
            mesh,
            _others: others,
            told: false,
        };
        eventually("the shop is open", || {
            edge.storefront
                .get("http://reviews:9080/")?
                .seen()
                .map(drop)
        })?;
        Ok(edge)
    }

    /// A scenario of the script, all of which stay applied from the first on.
    pub(crate) fn play(script: &Script, at: usize) -> Result<()> {
        let mut edge = Self::enter()?;
        if !edge.told {
            let pair = edge.pki.issue(&["secure.tale"])?;
            edge.secret("tales", &pair, None)?.keep();
            edge.mesh.configure("tales", TALES)?;
            let objects = script.objects(&*edge)?;
            edge.mesh.configure("script", &objects)?;
            edge.told = true;
        }
        script.check(at, &*edge)
    }

    pub(crate) fn apply(&self, yaml: &str) -> Result<Applied> {
        self.mesh.apply("scenario", yaml)
    }

    /// What the stranger asks for, in plaintext.
    pub(crate) fn call(&self, host: &str, path: &str) -> Call {
        Call::get(Target::Tcp(self.ingress.at(8080)), host, path)
    }

    /// The same within TLS.
    pub(crate) fn secure(&self, tls: Tls, path: &str) -> Call {
        let host = tls.name.clone();
        Call::get(Target::Tcp(self.ingress.at(8443)), &host, path).within(tls)
    }

    pub(crate) fn ask(&self, host: &str, path: &str) -> Result<Reply> {
        self.stranger.send(&self.call(host, path))
    }

    /// Waits until the stranger is answered so.
    pub(crate) fn until(&self, call: &Call, status: u16) -> Result<Reply> {
        let mut last = None;
        let what = format!("{}{} gets {status}", call.authority, call.path);
        eventually(&what, || {
            let reply = self.stranger.send(call)?;
            ensure!(reply.status == status, "{} {}", reply.status, reply.text());
            last = Some(reply);
            Ok(())
        })?;
        last.ok_or_else(|| anyhow::anyhow!("no answer"))
    }

    /// Waits until the handshake, or what follows it, is refused.
    pub(crate) fn until_refused(&self, call: &Call) -> Result<()> {
        eventually(&format!("{} is refused", call.authority), || {
            let answered = self.stranger.send(call);
            ensure!(answered.is_err(), "{answered:?}");
            Ok(())
        })
    }

    /// A Secret of the ingress' namespace.
    pub(crate) fn secret(&self, name: &str, pair: &Pair, roots: Option<&str>) -> Result<Applied> {
        let mut data = serde_json::json!({"tls.crt": pair.chain, "tls.key": pair.key});
        if let Some(roots) = roots {
            data["ca.crt"] = roots.into();
        }
        let secret = serde_json::json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": name, "namespace": "edge"}, "stringData": data,
        });
        self.mesh
            .apply(&format!("secret-{name}"), &secret.to_string())
    }
}

impl Stage for Edge {
    fn pod(&self, name: &str) -> Result<&Pod> {
        match name {
            "" => Ok(&self.stranger),
            "storefront" => Ok(&self.storefront),
            _ => anyhow::bail!("no pod {name} asks"),
        }
    }

    fn address(&self, name: &str) -> Result<SocketAddr> {
        if name.is_empty() {
            return Ok(self.ingress.at(8080));
        }
        let (host, port) = name.rsplit_once(':').context("an address has a port")?;
        let port = port.parse()?;
        match host {
            "ingress" => Ok(self.ingress.at(port)),
            "stranger" => Ok(self.stranger.at(port)),
            _ => self.storefront.address(name),
        }
    }

    fn tls(&self, name: &str) -> Result<Tls> {
        Ok(self.pki.client(name))
    }

    fn words(&self) -> Vec<(String, String)> {
        vec![("stranger".to_owned(), self.stranger.ip().to_string())]
    }
}

/// What the script's scenarios share: Gateways of the ingress, and subsets of reviews under a name of their own.
const TALES: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: tales, namespace: edge}
spec:
  selector: {app: ingress}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*.gateways.tale', 'office/*.private', 'office/more.office.private', 'edge/office.private']}
  - {port: {number: 8081, name: http-led, protocol: HTTP}, hosts: [led.tale], tls: {httpsRedirect: true}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: tales-secure, namespace: edge}
spec:
  selector: {app: ingress}
  servers:
  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: [secure.tale], tls: {mode: SIMPLE, credentialName: tales}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: tales-bytes, namespace: edge}
spec:
  selector: {app: ingress}
  servers:
  - {port: {number: 7100, name: tcp, protocol: TCP}, hosts: ['*']}
---
apiVersion: v1
kind: Service
metadata: {name: books, namespace: shop}
spec: {clusterIP: 240.9.0.9, selector: {app: reviews}, ports: [{name: http, port: 9080, targetPort: 9080}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: books, namespace: shop}
spec:
  host: books
  trafficPolicy: {loadBalancer: {localityLbSetting: {enabled: false}}}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
";

/// A Gateway of the ingress with these servers, and a VirtualService of `shop` that is bound to it.
pub(crate) fn bound(servers: &str, spec: &str) -> String {
    format!(
        "{}---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: bound, namespace: shop}}
spec:
{spec}",
        gateway("public", "ingress", servers)
    )
}

pub(crate) fn gateway(name: &str, app: &str, servers: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: edge}}
spec:
  selector: {{app: {app}}}
  servers:
{servers}"
    )
}
