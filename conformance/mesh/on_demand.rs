//! Hosts of which a sidecar is told when a request first needs them: that it is, and what becomes of that request.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use fairlead::clock;
use http::Method;

use crate::Scenario;
use crate::harness::client::{Call, Reply};
use crate::harness::load::Connections;
use crate::harness::manifest::ServiceSpec;
use crate::harness::mesh::Mesh;
use crate::harness::pod::{App, Pod, PodSpec};
use crate::harness::wait::{eventually, within};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("a_host_is_sent_when_a_request_first_needs_it", first_use),
    (
        "a_host_under_a_wildcard_waits_for_its_cluster_too",
        wildcard,
    ),
    ("a_first_request_with_a_body_arrives_whole", first_body),
    (
        "a_slow_answer_to_a_first_request_is_waited_for",
        slow_answer,
    ),
    (
        "a_route_to_a_service_that_left_fails_at_once_and_works_when_it_returns",
        left_and_returned,
    ),
    (
        "a_first_request_waits_for_a_control_plane_that_starts_again",
        away,
    ),
    (
        "what_was_asked_for_once_follows_changes_after_a_restart",
        followed,
    ),
    (
        "hosts_used_for_the_first_time_under_load_fail_no_request",
        under_load,
    ),
];

/// How long a request waits for a control plane that does not answer, and some more.
const PATIENCE: Duration = Duration::from_secs(10);
/// Far less than that.
const AT_ONCE: Duration = Duration::from_secs(2);

/// A caller, and the services ratings and reviews behind one workload each.
struct Town {
    // Ends before the mesh that it is in.
    caller: Pod,
    _workloads: Vec<Pod>,
    mesh: Mesh,
}

impl Town {
    fn start() -> Result<Self> {
        let mesh = Mesh::start(&[])?;
        mesh.add_namespace("town")?;
        let pod = |name: &str| PodSpec::new(name).in_namespace("town").label("app", name);
        let mut workloads = Vec::new();
        for name in ["ratings", "reviews"] {
            mesh.add_service(ServiceSpec::new("town", name).port("http", 80, 8080))?;
            let spec = pod(name).serves(8080, App::Http);
            workloads.push(Pod::start(&mesh, spec)?);
        }
        let caller = Pod::start(&mesh, pod("caller"))?;
        let town = Self {
            caller,
            _workloads: workloads,
            mesh,
        };
        town.settled()?;
        Ok(town)
    }

    /// Until the caller has a scope for each.
    fn settled(&self) -> Result<()> {
        eventually("the caller knows the hosts", || {
            let dump = self.dump("dynamic_scoped_route_configs")?;
            for name in ["80/ratings", "80/reviews"] {
                ensure!(dump.contains(&format!("\"{name}\"")), "no scope {name}");
            }
            Ok(())
        })
    }

    fn dump(&self, what: &str) -> Result<String> {
        let page = format!("/config_dump?resource={what}");
        self.caller.admin(&page)?.found(&page)
    }

    fn has_cluster(&self, name: &str) -> Result<bool> {
        let cluster = format!("outbound|80||{name}.town.svc.cluster.local");
        Ok(self.dump("dynamic_active_clusters")?.contains(&cluster))
    }

    fn has_table(&self, name: &str) -> Result<bool> {
        let table = format!("80/{name}.town.svc.cluster.local");
        Ok(self.dump("dynamic_route_configs")?.contains(&table))
    }

    fn call(&self, name: &str) -> Result<Call> {
        self.caller.call(&format!("http://{name}/"))
    }

    fn answer(&self, name: &str) -> Result<Reply> {
        self.caller.send(&self.call(name)?)
    }

    fn is_answered(&self, name: &str) -> Result<()> {
        let seen = self.answer(name)?.seen()?;
        ensure!(seen["name"] == name, "{seen}");
        Ok(())
    }
}

fn first_use() -> Result<()> {
    let town = Town::start()?;
    for name in ["ratings", "reviews"] {
        ensure!(!town.has_cluster(name)? && !town.has_table(name)?, "{name}");
    }
    town.is_answered("ratings")?;
    ensure!(town.has_cluster("ratings")? && town.has_table("ratings")?);
    ensure!(!town.has_cluster("reviews")? && !town.has_table("reviews")?);
    // However it is written.
    let call = Call {
        authority: "REVIEWS.town:80".to_owned(),
        ..town.call("reviews")?
    };
    ensure!(town.caller.send(&call)?.seen()?["name"] == "reviews");
    Ok(())
}

fn wildcard() -> Result<()> {
    let town = Town::start()?;
    let _wild = town.mesh.apply(
        "wild",
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: wild, namespace: town}
spec:
  hosts: ['*.wild.example']
  http:
  - route: [{destination: {host: reviews}}]
",
    )?;
    let call = Call {
        authority: "a.wild.example".to_owned(),
        ..town.call("ratings")?
    };
    eventually("a name under it is answered by reviews", || {
        let seen = town.caller.send(&call)?.seen()?;
        ensure!(seen["name"] == "reviews", "{seen}");
        Ok(())
    })
}

fn first_body() -> Result<()> {
    const LENGTH: usize = 200_000;
    let town = Town::start()?;
    let call = Call {
        body: Bytes::from(vec![b'x'; LENGTH]),
        ..town.call("ratings")?.method(Method::POST)
    };
    let seen = town.caller.send(&call)?.seen()?;
    ensure!(seen["body_bytes"] == LENGTH, "{seen}");
    Ok(())
}

fn slow_answer() -> Result<()> {
    let town = Town::start()?;
    let slow = PATIENCE.as_millis().to_string();
    for _first_and_second in 0..2 {
        let call = town.call("ratings")?.header("echo-delay-ms", &slow);
        ensure!(town.caller.send(&call)?.status == 200);
    }
    Ok(())
}

/// `shelf` has routes to a Service that comes and goes.
fn left_and_returned() -> Result<()> {
    let town = Town::start()?;
    let routes = town.mesh.apply(
        "shelf",
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: town}
spec:
  hosts: [reviews]
  http:
  - route: [{destination: {host: books}}]
",
    )?;
    let books = "
apiVersion: v1
kind: Service
metadata: {name: books, namespace: town}
spec:
  clusterIP: 10.96.77.7
  selector: {app: ratings}
  ports: [{name: http, port: 80, targetPort: 8080}]
";
    let leads_to_ratings = || -> Result<()> {
        let seen = town.answer("reviews")?.seen()?;
        ensure!(seen["name"] == "ratings", "{seen}");
        Ok(())
    };
    let fails_at_once = || -> Result<()> {
        let begun = clock::mono();
        let status = town.answer("reviews")?.status;
        let took = clock::mono().duration_since(begun);
        ensure!(status == 503 && took < AT_ONCE, "{status} after {took:?}");
        Ok(())
    };
    for _round in 0..3 {
        eventually("nothing is there", fails_at_once)?;
        for _again in 0..3 {
            fails_at_once()?;
        }
        let service = town.mesh.apply("books", books)?;
        eventually("the books are there", leads_to_ratings)?;
        drop(service);
    }
    drop(routes);
    Ok(())
}

fn away() -> Result<()> {
    let town = Town::start()?;
    town.is_answered("ratings")?;
    town.mesh.control_plane()?.kill();
    let begun = clock::mono();
    let status = town.answer("reviews")?.status;
    let took = clock::mono().duration_since(begun);
    ensure!(
        matches!(status, 503 | 504) && took < PATIENCE,
        "{status} after {took:?}"
    );
    // Who is known is called as before, and who is not of the mesh too.
    within(AT_ONCE, "ratings", || town.is_answered("ratings"))?;
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| town.is_answered("reviews"));
        town.mesh.control_plane()?.restart()?;
        waiting.join().map_err(|_| anyhow::anyhow!("it panicked"))?
    })
    .context("the request during the restart")?;
    town.is_answered("reviews")
}

fn followed() -> Result<()> {
    let town = Town::start()?;
    town.is_answered("ratings")?;
    town.mesh.control_plane()?.kill();
    let _elsewhere = town.mesh.apply(
        "elsewhere",
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings, namespace: town}
spec:
  hosts: [ratings]
  http:
  - route: [{destination: {host: reviews}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: town}
spec:
  host: reviews
  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}
",
    )?;
    town.mesh.control_plane()?.restart()?;
    eventually("ratings leads to reviews", || {
        let seen = town.answer("ratings")?.seen()?;
        ensure!(seen["name"] == "reviews", "{seen}");
        Ok(())
    })?;
    ensure!(town.has_cluster("reviews")?);
    Ok(())
}

/// Each of several hosts is used for the first time while all of them are there from the start.
fn under_load() -> Result<()> {
    const HOSTS: usize = 12;
    let town = Town::start()?;
    let host = |n: usize| {
        format!(
            "
apiVersion: v1
kind: Service
metadata: {{name: host-{n}, namespace: town}}
spec:
  clusterIP: 10.96.78.{}
  selector: {{app: ratings}}
  ports: [{{name: http, port: 80, targetPort: 8080}}]
",
            n + 1
        )
    };
    let hosts: Vec<String> = (0..HOSTS).map(host).collect();
    let _hosts = town.mesh.apply("hosts", &hosts.join("---"))?;
    eventually("the last of them has a scope", || {
        let last = format!("\"80/host-{}\"", HOSTS - 1);
        ensure!(town.dump("dynamic_scoped_route_configs")?.contains(&last));
        Ok(())
    })?;
    let load = town
        .caller
        .load("http://ratings/", &[Connections::Kept, Connections::Fresh])?;
    let mut statuses: BTreeMap<u16, usize> = BTreeMap::new();
    std::thread::scope(|scope| -> Result<()> {
        let first = |n: usize| {
            // Two at once: the second finds the first one waiting.
            let call = Call {
                authority: format!("host-{n}"),
                ..town.call("ratings")?
            };
            town.caller.send(&call).map(|reply| reply.status)
        };
        let calls = (0..HOSTS).flat_map(|n| [n, n]);
        let calls: Vec<_> = calls.map(|n| scope.spawn(move || first(n))).collect();
        for call in calls {
            let status = call.join().map_err(|_| anyhow::anyhow!("it panicked"))??;
            *statuses.entry(status).or_default() += 1;
        }
        Ok(())
    })?;
    ensure!(
        statuses == BTreeMap::from([(200, 2 * HOSTS)]),
        "{statuses:?}"
    );
    eventually("the load goes on", || {
        ensure!(load.answered() >= 20, "{} answers", load.answered());
        Ok(())
    })?;
    load.stop().is_flawless(20)
}
