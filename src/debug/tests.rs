//! What the pages show, and to whom.

use axum::body::Body;
use http::header::AUTHORIZATION;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use tokio::sync::mpsc;

use super::desk::{Desk, Readers};
use super::*;
use crate::ca::authenticate::{Authenticator, Verifier};
use crate::ca::testing::{authority, token_issuer};
use crate::ca::token::{AUDIENCE, Bearer, ISSUER, TokenIssuer};
use crate::ca::verify::LocalVerifier;
use crate::clock;
use crate::delivery::hub::Hub;
use crate::delivery::registrar::Registrar;
use crate::delivery::server::Streams;
use crate::delivery::{Access, Limits};
use crate::view::Engine;

struct Fixture {
    pages: Pages,
    issuer: TokenIssuer,
    over: CancellationToken,
}

/// Pages before a hub that runs in the background of the test.
fn fixture(readers: Readers) -> (Fixture, impl Future<Output = ()>) {
    let issuer = token_issuer();
    let local = LocalVerifier::new(&issuer.jwks(), ISSUER, &[AUDIENCE], "cluster.local").unwrap();
    let authenticator = Arc::new(Authenticator::new(Verifier::of_own(local), "cluster.local"));
    let authority = Arc::new(authority(clock::wall()));
    let (hub, inbox) = mpsc::channel(16);
    let real = Hub::new(Engine::default(), Limits::default());
    let metrics = real.metrics();
    let over = CancellationToken::new();
    let running = real.run(inbox, over.clone());
    let server = Server {
        registrar: Registrar::default(),
        credentials: Arc::default(),
        hub: hub.clone(),
        authenticator: authenticator.clone(),
        authority: authority.clone(),
        limits: Limits::default(),
        access: Access::default(),
        others: Router::new(),
        tasks: TaskTracker::new(),
        streams: Streams::default(),
        metrics: metrics.clone(),
    };
    let pages = Pages {
        shelf: Shelf {
            desk: Desk {
                hub,
                authenticator,
                readers,
                root_namespace: "istio-system".into(),
            },
            render: Arc::new(|entries| Ok(Value::from(entries.len()))),
            config: Arc::new(Vec::new),
        },
        authority,
        server: Arc::new(server),
        metrics,
        objects: Arc::new(|| (vec![SIDECARS], 3)),
        prepared: Arc::new(|| true),
        stop: CancellationToken::new(),
        started: clock::mono(),
    };
    (
        Fixture {
            pages,
            issuer,
            over,
        },
        running,
    )
}

impl Fixture {
    /// Of the port that has it; what both have, both answer alike.
    async fn get(&self, path: &str, from: &str, token: Option<&str>) -> (StatusCode, String) {
        let (first, second) = (
            router(self.pages.clone()),
            monitoring::router(self.pages.clone()),
        );
        let at_first = self.ask(first, path, from, token).await;
        let at_second = self.ask(second, path, from, token).await;
        match (at_first.0, at_second.0) {
            (StatusCode::NOT_FOUND, _) => at_second,
            (_, StatusCode::NOT_FOUND) => at_first,
            (one, other) => {
                assert_eq!(one, other, "{path}");
                at_second
            }
        }
    }

    async fn ask(
        &self,
        router: Router,
        path: &str,
        from: &str,
        token: Option<&str>,
    ) -> (StatusCode, String) {
        let mut request = http::Request::get(path).body(Body::empty()).unwrap();
        let remote = Remote(from.parse().unwrap());
        request.extensions_mut().insert(remote);
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let response = router.oneshot(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20)
            .await
            .unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn token(&self, namespace: &str) -> String {
        let bearer = Bearer {
            namespace,
            service_account: "reader",
            pod: None,
        };
        let hour = std::time::Duration::from_secs(3600);
        let token = self.issuer.issue(bearer, AUDIENCE, hour, clock::wall());
        token.unwrap()
    }
}

const SIDECARS: OfKind = OfKind {
    kind: "Sidecar",
    in_force: 4,
    rejected: 1,
    held: 0,
    kept: 0,
    rejections: 2,
};

const NEAR: &str = "127.0.0.1:5";
const FAR: &str = "10.0.0.9:5";

#[tokio::test]
async fn pages_that_show_configuration_need_a_token_wherever_the_reader_is() {
    let (f, hub) = fixture(Readers::Proven);
    let test = async {
        for path in [
            "/debug/syncz",
            "/debug/adsz",
            "/debug/connections",
            "/debug/config_dump?proxyID=a.b",
            "/debug/registryz",
            "/debug/endpointz",
            "/debug/endpointShardz",
            "/debug/configz",
            "/debug/mesh",
            "/debug/list",
        ] {
            for from in [NEAR, FAR] {
                assert_eq!(
                    f.get(path, from, None).await.0,
                    StatusCode::UNAUTHORIZED,
                    "{path}"
                );
                let bad = f.get(path, from, Some("x.y.z")).await;
                assert_eq!(bad.0, StatusCode::UNAUTHORIZED, "{path}");
            }
        }
        let good = f.get("/debug/syncz", FAR, Some(&f.token("shop"))).await;
        assert_eq!(good, (StatusCode::OK, "[]".to_owned()));
        f.over.cancel();
    };
    tokio::join!(test, hub);
}

#[tokio::test]
async fn who_shows_no_token_is_told_how_and_a_page_that_is_none_is_not_found() {
    let (f, hub) = fixture(Readers::Proven);
    let test = async {
        let (_, text) = f.get("/debug/syncz", FAR, None).await;
        assert!(text.contains("fairlead token --state-dir"), "{text}");
        assert!(text.contains("istio-system"), "{text}");
        for path in ["/nosuch", "/debug/nosuch"] {
            assert_eq!(f.get(path, FAR, None).await.0, StatusCode::NOT_FOUND);
        }
        f.over.cancel();
    };
    tokio::join!(test, hub);
}

#[tokio::test]
async fn a_local_reader_needs_none_where_that_is_allowed() {
    let (f, hub) = fixture(Readers::Local);
    let test = async {
        assert_eq!(f.get("/debug/syncz", NEAR, None).await.0, StatusCode::OK);
        assert_eq!(
            f.get("/debug/syncz", "[::ffff:127.0.0.1]:1", None).await.0,
            StatusCode::OK
        );
        assert_eq!(
            f.get("/debug/syncz", FAR, None).await.0,
            StatusCode::UNAUTHORIZED
        );
        f.over.cancel();
    };
    tokio::join!(test, hub);
}

#[tokio::test]
async fn readiness_metrics_and_version_are_open() {
    let (f, hub) = fixture(Readers::Proven);
    let test = async {
        assert_eq!(f.get("/ready", FAR, None).await.0, StatusCode::OK);
        let (status, text) = f.get("/metrics", FAR, None).await;
        assert_eq!(status, StatusCode::OK);
        for line in [
            "pilot_xds 0\n",
            "pilot_total_rejected_configs{type=\"Sidecar\"} 2\n",
            "fairlead_objects{kind=\"Sidecar\",state=\"rejected\"} 1\n",
            "fairlead_unreadable_files 3\n",
            "pilot_info{version=\"",
            "process_resident_memory_bytes ",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(f.get("/version", FAR, None).await.1.contains("\"version\""));
        f.pages.stop.cancel();
        assert_eq!(
            f.get("/ready", FAR, None).await.0,
            StatusCode::SERVICE_UNAVAILABLE
        );
        f.over.cancel();
    };
    tokio::join!(test, hub);
}

#[tokio::test]
async fn pages_of_the_whole_mesh_take_an_identity_of_the_root_namespace() {
    let (f, hub) = fixture(Readers::Proven);
    let test = async {
        let (own, root) = (f.token("shop"), f.token("istio-system"));
        for page in shelf::PAGES
            .iter()
            .filter(|page| page.name != "config_dump")
        {
            let path = format!("/debug/{}", page.name);
            let (status, text) = f.get(&path, FAR, Some(&root)).await;
            assert_eq!(status, StatusCode::OK, "{path}: {text}");
            serde_json::from_str::<Value>(&text).unwrap();
            let mesh_wide = [
                "configz",
                "endpointShardz",
                "endpointz",
                "mesh",
                "registryz",
            ];
            let (status, text) = f.get(&path, FAR, Some(&own)).await;
            match mesh_wide.contains(&page.name) {
                true => assert!(status == StatusCode::FORBIDDEN && text.contains("root namespace")),
                false => assert_eq!(status, StatusCode::OK, "{path}"),
            }
        }
        f.over.cancel();
    };
    tokio::join!(test, hub);
}

#[tokio::test]
async fn a_dump_of_nobody_is_not_found() {
    let (f, hub) = fixture(Readers::Proven);
    let test = async {
        let token = f.token("istio-system");
        let missing = f
            .get("/debug/config_dump?proxyID=a.b", FAR, Some(&token))
            .await;
        assert_eq!(missing.0, StatusCode::NOT_FOUND);
        let unsaid = f.get("/debug/config_dump", FAR, Some(&token)).await;
        assert_eq!(unsaid.0, StatusCode::BAD_REQUEST);
        f.over.cancel();
    };
    tokio::join!(test, hub);
}
