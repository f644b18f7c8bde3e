//! Every page of Envoy's admin interface, called from another pod and from the workload's side.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use fairlead::clock;
use http::Method;

use crate::Scenario;
use crate::harness::client::{Call, Reply, Target};
use crate::harness::mesh::Mesh;
use crate::harness::network::User;
use crate::harness::pod::{App, DRAIN_SECRET, Pod, PodSpec};
use crate::harness::wait::eventually;

pub(crate) const SCENARIOS: &[Scenario] = &[
    (
        "from_another_pod_only_readiness_is_reached",
        from_another_pod,
    ),
    (
        "from_the_workload_only_reading_pages_is_possible",
        from_the_workload,
    ),
    ("the_admin_socket_is_the_sidecars_alone", socket),
    ("draining_takes_the_secret", draining),
    (
        "a_gateways_hook_waits_while_clients_are_asked_to_leave",
        held_drain,
    ),
    ("the_drain_secret_is_shown_nowhere", secret_is_hidden),
];

struct Scene {
    pod: Pod,
    stranger: Pod,
    _mesh: Mesh,
}

impl Scene {
    fn new() -> Result<Self> {
        let mesh = Mesh::without_control_plane()?;
        let stranger = Pod::start(&mesh, PodSpec::new("stranger").without_sidecar())?;
        let pod = Pod::start(&mesh, PodSpec::new("pod").serves(8081, App::Http))?;
        Ok(Self {
            pod,
            stranger,
            _mesh: mesh,
        })
    }

    /// All pages that this Envoy says it has, and some spellings that might slip past a filter.
    fn pages(&self) -> Result<BTreeSet<String>> {
        let help = self.pod.admin("/help")?.text();
        let listed = help.lines().filter_map(|line| {
            let page = line.trim_start().strip_prefix('/')?;
            page.split([':', ' ', '<'])
                .next()
                .map(|page| format!("/{page}"))
        });
        let mut pages: BTreeSet<String> = listed.collect();
        ensure!(
            pages.len() > 20 && pages.contains("/quitquitquit"),
            "{pages:?}"
        );
        let slips = [
            "/drain_listeners?graceful",
            "//quitquitquit",
            "/./quitquitquit",
            "/stats/../quitquitquit",
            "/stats%2f..%2fquitquitquit",
            "/%71uitquitquit",
            "/healthz/ready/../../quitquitquit",
            "/drain",
        ];
        pages.extend(slips.map(str::to_owned));
        Ok(pages)
    }
}

const METHODS: [Method; 4] = [Method::GET, Method::POST, Method::PUT, Method::HEAD];

/// The reply, or none when there was not even a connection.
fn call(from: &Pod, to: SocketAddr, method: &Method, page: &str) -> Option<Reply> {
    let call = Call::get(Target::Tcp(to), "localhost", page).method(method.clone());
    call.send(from.namespace(), User::App).ok()
}

fn from_another_pod() -> Result<()> {
    let scene = Scene::new()?;
    let status = scene.pod.at(15021);
    for page in scene.pages()? {
        for method in &METHODS {
            let reply = call(&scene.stranger, status, method, &page);
            let refused = reply
                .as_ref()
                .is_some_and(|r| matches!(r.status, 400 | 404));
            ensure!(refused, "{method} {page} on 15021: {reply:?}");
        }
        for port in [15000, 15090, 15001, 15006] {
            let reply = call(&scene.stranger, scene.pod.at(port), &Method::GET, &page);
            ensure!(reply.is_none(), "{page} on {port}: {reply:?}");
        }
    }
    let ready = call(&scene.stranger, status, &Method::GET, "/healthz/ready");
    ensure!(ready.is_some_and(|r| r.status == 200));
    let posted = call(&scene.stranger, status, &Method::POST, "/healthz/ready");
    ensure!(posted.is_some_and(|r| r.status == 404));
    Ok(())
}

/// Pages that istioctl, Kiali and people read.
const READABLE: &[&str] = &[
    "/certs",
    "/clusters",
    "/config_dump",
    "/help",
    "/init_dump",
    "/listeners",
    "/memory",
    "/ready",
    "/runtime",
    "/server_info",
    "/stats",
    "/stats/prometheus",
];

fn from_the_workload() -> Result<()> {
    let mut scene = Scene::new()?;
    let admin = SocketAddr::from(([127, 0, 0, 1], 15000));
    for page in scene.pages()? {
        for method in &METHODS {
            let reply = call(&scene.pod, admin, method, &page);
            let allowed = *method == Method::GET && READABLE.contains(&page.as_str());
            let status = reply.as_ref().map_or(0, |r| r.status);
            let right = if allowed {
                status == 200
            } else {
                matches!(status, 400 | 403)
            };
            ensure!(right, "{method} {page} on 15000: {reply:?}");
        }
    }
    let prometheus = SocketAddr::from(([127, 0, 0, 1], 15090));
    for page in scene.pages()? {
        let reply = call(&scene.pod, prometheus, &Method::GET, &page);
        let status = reply.as_ref().map_or(0, |r| r.status);
        let right = if page == "/stats/prometheus" {
            status == 200
        } else {
            matches!(status, 400 | 404)
        };
        ensure!(right, "{page} on 15090: {reply:?}");
    }
    let clusters = call(&scene.pod, admin, &Method::GET, "/clusters?format=json");
    ensure!(clusters.is_some_and(|r| r.text().starts_with('{')));
    ensure!(
        scene.pod.envoy()?.has_ended()?.is_none(),
        "a page ended Envoy"
    );
    Ok(())
}

fn socket() -> Result<()> {
    let scene = Scene::new()?;
    let socket = || Target::Unix(scene.pod.admin_socket());
    let read = Call::get(socket(), "admin", "/server_info");
    let as_workload = read.send(scene.pod.namespace(), User::App);
    ensure!(
        as_workload.is_err(),
        "the workload opened the socket: {as_workload:?}"
    );
    ensure!(read.send(scene.pod.namespace(), User::Envoy)?.status == 200);
    // Even there nothing ends the sidecar or fakes its health.
    for page in [
        "/quitquitquit",
        "/healthcheck/fail",
        "/runtime_modify",
        "/reset_counters",
        "/cpuprofiler",
    ] {
        let change = Call::get(socket(), "admin", page).method(Method::POST);
        let reply = change.send(scene.pod.namespace(), User::Envoy)?;
        ensure!(reply.status == 403, "{page}: {reply:?}");
    }
    Ok(())
}

fn draining() -> Result<()> {
    let mut scene = Scene::new()?;
    let drain = Call::get(Target::Tcp(scene.pod.at(15021)), "pod", "/drain");
    let with = |secret: &str| {
        let credentials = data_encoding::BASE64.encode(format!("drain:{secret}").as_bytes());
        let call = drain
            .clone()
            .header("authorization", &format!("Basic {credentials}"));
        call.send(scene.stranger.namespace(), User::App)
    };
    for wrong in ["", "0123456789abcdef-drainX", "x"] {
        let reply = with(wrong)?;
        ensure!(reply.status == 401, "{reply:?}");
    }
    // A draining sidecar answers, and asks each client to come back on another connection.
    let answer = || {
        scene
            .stranger
            .get(&format!("http://{}/", scene.pod.at(8081)))
    };
    let before = answer()?;
    ensure!(
        before.status == 200 && before.header("connection") != "close",
        "{before:?}"
    );
    let reply = with(DRAIN_SECRET)?;
    ensure!(reply.status == 200, "{reply:?}");
    eventually("clients are asked to leave", || {
        let reply = answer()?;
        ensure!(reply.status == 200, "{reply:?}");
        ensure!(reply.header("connection") == "close", "{reply:?}");
        Ok(())
    })?;
    ensure!(
        scene.pod.envoy()?.has_ended()?.is_none(),
        "draining ended Envoy"
    );
    Ok(())
}

/// As its preStop hook does: what follows the answer is SIGTERM.
fn held_drain() -> Result<()> {
    let hold = Duration::from_secs(4);
    let mesh = Mesh::without_control_plane()?;
    let stranger = Pod::start(&mesh, PodSpec::new("stranger").without_sidecar())?;
    let spec = PodSpec::new("gate").serves(8081, App::Http);
    let gate = Pod::start(&mesh, spec.bootstrap(&["--role=router", "--drain-hold=4s"]))?;
    let credentials = data_encoding::BASE64.encode(format!("drain:{DRAIN_SECRET}").as_bytes());
    let hook = Call::get(Target::Tcp(gate.at(15021)), "pod", "/drain")
        .header("authorization", &format!("Basic {credentials}"));
    let begun = clock::mono();
    let passed = || clock::mono().duration_since(begun);
    std::thread::scope(|scope| {
        let hook = scope.spawn(|| hook.send_from_node());
        eventually("clients are asked to leave", || {
            let reply = stranger.get(&format!("http://{}/", gate.at(8081)))?;
            ensure!(reply.status == 200, "{reply:?}");
            ensure!(reply.header("connection") == "close", "{reply:?}");
            Ok(())
        })?;
        ensure!(passed() < hold, "they were asked after the hook");
        let reply = hook.join().map_err(|_| anyhow!("the hook panicked"))??;
        ensure!(reply.status == 200, "{reply:?}");
        ensure!(passed() >= hold, "the hook was over too early");
        Ok(())
    })
}

fn secret_is_hidden() -> Result<()> {
    let mut scene = Scene::new()?;
    let mut shown = scene.pod.envoy()?.log();
    for page in READABLE {
        shown += &scene.pod.admin(page)?.text();
    }
    let bootstrap = std::fs::read_to_string(scene.pod.folder().join("sidecar/bootstrap.json"))?;
    ensure!(!bootstrap.contains(DRAIN_SECRET) && !shown.contains(DRAIN_SECRET));
    Ok(())
}
