//! The mesh that most scenarios share: a shop, its neighbour, and a stranger outside.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{MutexGuard, PoisonError};

use anyhow::{Context as _, Result, ensure};

use crate::harness::manifest::ServiceSpec;
use crate::harness::mesh::{Applied, Mesh};
use crate::harness::packing::Shared;
use crate::harness::pki::Tls;
use crate::harness::pod::{App, Pod, PodSpec};
use crate::harness::script::{Script, Stage};
use crate::harness::wait::eventually;

/// Namespace `shop` has storefront, reviews v1 and v2 (HTTP 9080), ratings (HTTP 80, TCP 7000).
pub(crate) struct Shop {
    pub(crate) storefront: Pod,
    /// In namespace `office`.
    pub(crate) neighbour: Pod,
    /// Without a sidecar, and no service: HTTP 80 and 8080, TCP 7000, TCP where the server speaks first 7001, tunnels 3128.
    pub(crate) stranger: Pod,
    pub(crate) mesh: Mesh,
    /// reviews v1 and v2, ratings.
    others: [Pod; 3],
    /// The scripts that are applied, for as long as the mesh is there.
    scripts: BTreeSet<&'static str>,
}

static SHOPS: Shared<Shop> = Shared::new();

impl Shop {
    /// The shop of the scenario's packing, for one scenario at a time. It must leave no configuration behind.
    pub(crate) fn enter() -> Result<MutexGuard<'static, Self>> {
        SHOPS.enter(Self::start)
    }

    fn start() -> Result<Self> {
        let mesh = Mesh::start(&[])?;
        mesh.add_namespace("shop")?;
        mesh.add_namespace("office")?;
        mesh.add_service(ServiceSpec::new("shop", "reviews").port("http", 9080, 9080))?;
        let ratings = ServiceSpec::new("shop", "ratings");
        mesh.add_service(
            ratings
                .port("http", 80, 8080)
                .port("tcp-ledger", 7000, 7000),
        )?;
        let pod = |name: &str, app: &str| {
            let spec = PodSpec::new(name).in_namespace("shop").service_account(app);
            spec.label("app", app)
        };
        let reviews = |version: &str| {
            let spec = pod(&format!("reviews-{version}"), "reviews").label("version", version);
            Pod::start(&mesh, spec.serves(9080, App::Http))
        };
        let (reviews_v1, reviews_v2) = (reviews("v1")?, reviews("v2")?);
        let ratings = pod("ratings", "ratings")
            .serves(8080, App::Http)
            .serves(7000, App::TcpEcho);
        let ratings = Pod::start(&mesh, ratings)?;
        let stranger = PodSpec::new("stranger")
            .in_namespace("outside")
            .label("version", "outside")
            .without_sidecar();
        let stranger = stranger.serves(8080, App::Http).serves(7000, App::TcpEcho);
        let stranger = stranger.serves(80, App::Http);
        let stranger = stranger
            .serves(7001, App::ServerFirst)
            .serves(3128, App::Tunnel);
        let neighbour = PodSpec::new("neighbour")
            .in_namespace("office")
            .service_account("clerk");
        let shop = Self {
            storefront: Pod::start(&mesh, pod("storefront", "storefront"))?,
            neighbour: Pod::start(&mesh, neighbour)?,
            stranger: Pod::start(&mesh, stranger)?,
            mesh,
            others: [reviews_v1, reviews_v2, ratings],
            scripts: BTreeSet::new(),
        };
        eventually("the shop is open", || {
            shop.version_of("http://reviews:9080/")?;
            Ok(())
        })?;
        Ok(shop)
    }

    /// A scenario of a script, all of which stay applied from the first on.
    pub(crate) fn play(script: &Script, at: usize) -> Result<()> {
        let mut shop = Self::enter()?;
        if shop.scripts.is_empty() {
            let books = ServiceSpec {
                selector: BTreeMap::from([("app".to_owned(), "reviews".to_owned())]),
                ..ServiceSpec::new("shop", "books")
            };
            shop.mesh.add_service(books.port("http", 9080, 9080))?;
            let subsets = SUBSETS.replace("reviews", "books");
            shop.mesh.configure("books", &subsets)?;
        }
        if shop.scripts.insert(script.file) {
            let objects = script.objects(&*shop)?;
            let name = format!("script-{}", script.file);
            shop.mesh.configure(&name, &objects)?;
        }
        script.check(at, &*shop)
    }

    pub(crate) fn apply(&self, yaml: &str) -> Result<Applied> {
        self.mesh.apply("scenario", yaml)
    }

    /// The address of a pod that is kept in the background.
    pub(crate) fn pod_ip(&self, name: &str) -> Result<Ipv4Addr> {
        let pods = self.mesh.inventory();
        let pods = pods.lock().unwrap_or_else(PoisonError::into_inner);
        let found = pods.pods.iter().find(|(spec, _)| spec.name == name);
        found.map(|(_, ip)| *ip).context("no such pod")
    }

    /// Which version of the workload answers the storefront.
    pub(crate) fn version_of(&self, url: &str) -> Result<String> {
        let seen = self.storefront.get(url)?.seen()?;
        Ok(seen["version"].as_str().unwrap_or_default().to_owned())
    }

    /// How many of `n` answers come from each version; each request must be answered.
    pub(crate) fn versions(&self, url: &str, n: u32) -> Result<BTreeMap<String, u32>> {
        let mut counts = BTreeMap::new();
        for _request in 0..n {
            *counts.entry(self.version_of(url)?).or_default() += 1;
        }
        Ok(counts)
    }

    /// Waits until `version` alone answers, and not by chance of a balance over two.
    pub(crate) fn until_answered_by(&self, url: &str, version: &str) -> Result<()> {
        eventually(&format!("{url} is answered by {version} alone"), || {
            for _request in 0..16 {
                let got = self.version_of(url)?;
                ensure!(got == version, "answered by {got}");
            }
            Ok(())
        })
    }

    /// Waits until `version`, which did not answer before, does.
    pub(crate) fn until_first_answer_from(&self, url: &str, version: &str) -> Result<()> {
        eventually(&format!("{url} is answered by {version}"), || {
            let got = self.version_of(url)?;
            ensure!(got == version, "answered by {got}");
            Ok(())
        })
    }

    /// Waits until both versions answer again: what a scenario must leave.
    pub(crate) fn until_as_before(&self) -> Result<()> {
        eventually("reviews are balanced over both versions", || {
            let counts = self.versions("http://reviews:9080/", 40)?;
            ensure!(
                counts.len() == 2 && counts.values().all(|n| *n >= 10),
                "{counts:?}"
            );
            Ok(())
        })
    }
}

impl Stage for Shop {
    fn pod(&self, name: &str) -> Result<&Pod> {
        match name {
            "" => Ok(&self.storefront),
            "neighbour" => Ok(&self.neighbour),
            "stranger" => Ok(&self.stranger),
            _ => anyhow::bail!("no pod {name} asks"),
        }
    }

    /// Whoever asks at the stranger's port 80 is routed by the host that it names.
    fn address(&self, name: &str) -> Result<SocketAddr> {
        if name.is_empty() {
            return Ok(self.stranger.at(80));
        }
        let (host, port) = name.rsplit_once(':').context("an address has a port")?;
        let port = port.parse()?;
        match host {
            "stranger" => Ok(self.stranger.at(port)),
            "v1" => Ok(self.others[0].at(port)),
            _ => self.storefront.address(name),
        }
    }

    fn tls(&self, name: &str) -> Result<Tls> {
        anyhow::bail!("nobody here has a certificate for {name}")
    }

    fn words(&self) -> Vec<(String, String)> {
        let [v1, v2, ratings] = &self.others;
        let named = [
            ("v1", v1),
            ("v2", v2),
            ("ratings", ratings),
            ("stranger", &self.stranger),
        ];
        let word = |(name, pod): (&str, &Pod)| (name.to_owned(), pod.ip().to_string());
        named.map(word).into()
    }
}

/// A VirtualService of reviews with these `http` rules, and the subsets.
pub(crate) fn rules(http: &str) -> String {
    format!(
        "{SUBSETS}---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews, namespace: shop}}
spec:
  hosts: [reviews]
  http:
{http}"
    )
}

/// Subsets v1 and v2 of reviews.
pub(crate) const SUBSETS: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
";
