//! The API server goes away, forgets, comes back: what is known stays, and nothing is sent that did not change.

use anyhow::{Result, ensure};
use fairlead::xds::ResourceType::{Cluster, Endpoint, Route};

use super::Scenario;
use super::harness::wait::eventually;
use super::mirror::Mirror;
use super::served::{CALLER, MESH, NAMESPACES, cluster, read, route, rule, service, slice};
use super::world::{Plane, World};

pub const SCENARIOS: &[Scenario] = &[
    (
        "while_the_api_server_is_away_everything_stays_and_what_happens_after_it_is_back_arrives",
        away_and_back,
    ),
    (
        "a_listing_anew_takes_away_what_went_meanwhile_and_sends_nothing_else",
        listed_anew,
    ),
    (
        "a_server_that_does_not_stream_listings_is_read_in_pages",
        in_pages,
    ),
    (
        "a_control_plane_started_anew_serves_the_same_from_the_api_server",
        started_anew,
    ),
];

fn away_and_back() -> Result<()> {
    let mut world = World::start()?;
    world.put_all(MESH)?;
    let plane = Plane::start(&world, &[])?;
    world.server.kill();
    eventually("notice that it is away", || {
        let failures = plane.metric("fairlead_k8s_watch_failures_total{type=\"Service\"}")?;
        ensure!(failures > 0, "no failure of the watch");
        Ok(())
    })?;
    let mut mirror = Mirror::join(&world, &plane, CALLER)?;
    ensure!(mirror.holds(Cluster, &cluster("tea")));
    ensure!(mirror.says(Endpoint, &cluster("tea"), "10.1.0.1"));
    ensure!(mirror.says(Route, "80", "/green"));
    let before = plane.dump(CALLER)?;
    world.server.restart()?;
    world.put_yaml(&service("cups", 81))?;
    mirror.until(|m| m.holds(Endpoint, &cluster("cups")));
    world.delete(&read(&service("cups", 81))?)?;
    mirror.until(|m| !m.holds(Cluster, &cluster("cups")));
    mirror.settle();
    ensure!(plane.dump(CALLER)? == before, "something else has changed");
    Ok(())
}

fn listed_anew() -> Result<()> {
    let mut world = World::start()?;
    world.put_all(MESH)?;
    for name in ["cups", "pots"] {
        world.put_yaml(&service(name, 81))?;
        world.put_yaml(&slice(name, "10.1.0.3"))?;
        world.put_yaml(&rule(name, "v1"))?;
        world.put_yaml(&route(name, &format!("/{name}")))?;
    }
    let plane = Plane::start(&world, &[])?;
    let mut mirror = Mirror::join(&world, &plane, CALLER)?;

    // What goes while nobody looks is in no event: only a listing shows it.
    plane.sleep()?;
    for pot in [
        route("pots", "/pots"),
        rule("pots", "v1"),
        slice("pots", "10.1.0.3"),
        service("pots", 81),
    ] {
        world.delete(&read(&pot)?)?;
    }
    let server = &world.server;
    world.runtime.block_on(server.compact())?;
    world.server.restart()?;
    plane.wake()?;
    mirror.until(|m| !m.holds(Cluster, &cluster("pots")) && !m.says(Route, "80", "/pots"));
    for kind in [
        "Service",
        "EndpointSlice",
        "DestinationRule",
        "VirtualService",
        "Sidecar",
    ] {
        let relists = format!("fairlead_k8s_relists_total{{type=\"{kind}\"}}");
        eventually("list anew", || {
            let count = plane.metric(&relists)?;
            ensure!(count > 0, "{relists} {count}");
            Ok(())
        })?;
    }
    // Each watch goes on behind its listing: what comes by it now comes after all of that.
    world.put_yaml(&service("jars", 81))?;
    world.put_yaml(&slice("jars", "10.1.0.4"))?;
    world.put_yaml(&rule("jars", "v1"))?;
    world.put_yaml(&route("jars", "/jars"))?;
    let subset = "outbound|80|v1|jars.shop.svc.cluster.local";
    mirror.until(|m| {
        m.says(Endpoint, &cluster("jars"), "10.1.0.4")
            && m.holds(Cluster, subset)
            && m.says(Route, "80", "/jars")
    });
    let news = mirror.news();
    let others: Vec<&String> = news
        .iter()
        .filter(|name| !name.contains("jars") && !name.contains("pots"))
        .filter(|name| !["Route +80", "Route +81"].contains(&name.as_str()))
        .collect();
    ensure!(
        others.is_empty(),
        "these were sent without a change: {others:?}"
    );
    Ok(())
}

fn in_pages() -> Result<()> {
    const MANY: usize = 620;
    let mut world = World::bare(&["--feature-gates=WatchList=false"])?;
    world.define(&super::definitions::only("WorkloadEntry", "v1"))?;
    world.put_all(NAMESPACES)?;
    world.put_yaml(&service("cups", 81))?;
    let entry = |n: usize, address: &str| {
        format!(
            "apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: cups-{n}, namespace: shop}}
spec: {{address: {address}, labels: {{app: cups}}}}"
        )
    };
    let own = |n: usize| format!("10.3.{}.{}", n / 250, n % 250 + 1);
    let all = (0..MANY)
        .map(|n| read(&entry(n, &own(n))))
        .collect::<Result<Vec<_>>>()?;
    world.put_many(&all)?;
    let plane = Plane::start(&world, &[])?;
    let mut mirror = Mirror::join(&world, &plane, CALLER)?;
    let cups = cluster("cups");
    for n in [0, 499, 500, MANY - 1] {
        ensure!(mirror.says(Endpoint, &cups, &own(n)), "no endpoint {n}");
    }
    world.put_yaml(&entry(3, "10.9.9.9"))?;
    mirror.until(|m| m.says(Endpoint, &cups, "10.9.9.9"));
    world.delete(&read(&entry(4, &own(4)))?)?;
    mirror.until(|m| !m.says(Endpoint, &cups, &own(4)));
    drop(mirror.news());
    world.server.restart()?;
    world.put_yaml(&entry(5, "10.9.9.8"))?;
    mirror.until(|m| m.says(Endpoint, &cups, "10.9.9.8"));
    let news = mirror.news();
    ensure!(
        news.iter()
            .all(|name| name.starts_with("Endpoint") && name.contains("cups")),
        "{news:?}"
    );
    Ok(())
}

fn started_anew() -> Result<()> {
    let world = World::start()?;
    world.put_all(MESH)?;
    let plane = Plane::start(&world, &[])?;
    let mirror = Mirror::join(&world, &plane, CALLER)?;
    let before = plane.dump(CALLER)?;
    drop(mirror);
    let kept = std::fs::read_to_string(plane.state().join("accepted.json"))?;
    ensure!(
        kept.contains("VirtualService") && !kept.contains("EndpointSlice"),
        "what is kept over a restart: {kept}"
    );
    let state = plane.state();
    let again = Plane::start_in(&world, plane.end(), &[])?;
    ensure!(again.state() == state);
    let _mirror = Mirror::join(&world, &again, CALLER)?;
    ensure!(again.dump(CALLER)? == before, "it serves something else");
    Ok(())
}
