//! Hosts as clients may write them: what one table finds, a table for each host must find too.

use anyhow::{Result, ensure};

use crate::Scenario;
use crate::harness::client::{Call, Protocol, Reply};
use crate::harness::load::Connections;
use crate::harness::wait::{eventually, within};
use crate::shop::Shop;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("a_host_is_found_however_it_is_written", spellings),
    ("hosts_under_a_wildcard_share_its_routes", wildcard),
    ("an_unknown_host_is_answered_at_once", unknown),
    ("a_known_host_without_a_route_is_404", no_route),
    ("no_header_of_the_clients_chooses_its_routes", spoofed),
    ("an_ipv6_literal_leads_to_its_service", literal),
    (
        "services_come_and_go_beside_one_that_is_called_and_no_request_fails",
        comings_and_goings,
    ),
];

/// A request to the stranger's address, where the mesh has a port of that number: its host alone decides.
fn request(shop: &Shop, authority: &str) -> Result<Call> {
    Ok(Call {
        authority: authority.to_owned(),
        ..shop
            .storefront
            .call(&format!("http://{}/", shop.stranger.at(80)))?
    })
}

fn answer(shop: &Shop, authority: &str) -> Result<Reply> {
    shop.storefront.send(&request(shop, authority)?)
}

/// The client's own spelling reaches the app.
fn spellings() -> Result<()> {
    let shop = Shop::enter()?;
    let hosts = [
        "ratings:80",
        "ratings:8080",
        "RATINGS",
        "Ratings.Shop:80",
        "ratings.shop.svc.cluster.local.",
        "RATINGS.shop.svc.cluster.local.:80",
    ];
    let rule = shop.apply(&marked("ratings", "ratings.shop.svc.cluster.local"))?;
    eventually("the mark is in force", || marks(&answer(&shop, "ratings")?))?;
    for host in hosts {
        let reply = answer(&shop, host)?;
        ensure!(reply.seen()?["authority"] == host, "{host}");
        marks(&reply).map_err(|why| why.context(host))?;
        let http2 = request(&shop, host)?.over(Protocol::Http2);
        marks(&shop.storefront.send(&http2)?)?;
    }
    drop(rule);
    eventually("ratings answers for itself", || {
        ensure!(answer(&shop, "ratings")?.seen()?["name"] == "ratings");
        Ok(())
    })
}

/// A host of its own is told by where it leads: to reviews, whatever the address.
fn marked(name: &str, host: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: shop}}
spec:
  hosts: ['{host}']
  http:
  - route: [{{destination: {{host: reviews}}}}]
"
    )
}

fn marks(reply: &Reply) -> Result<()> {
    let seen = reply.seen()?;
    let name = seen["name"].as_str().unwrap_or_default();
    ensure!(name.starts_with("reviews-"), "{seen}");
    Ok(())
}

fn wildcard() -> Result<()> {
    let shop = Shop::enter()?;
    let rule = shop.apply(&marked("wild", "*.wild.example"))?;
    eventually("a name under it is found", || {
        marks(&answer(&shop, "a.wild.example")?)
    })?;
    for host in ["b.a.wild.example:80", "A.Wild.Example"] {
        marks(&answer(&shop, host)?)?;
    }
    drop(rule);
    eventually("it is gone", || {
        ensure!(marks(&answer(&shop, "a.wild.example")?).is_err());
        Ok(())
    })
}

/// To the address that it went to, as far as the mesh is concerned.
fn unknown() -> Result<()> {
    let shop = Shop::enter()?;
    let to_stranger = Call {
        authority: "nobody.example".to_owned(),
        ..request(&shop, "")?
    };
    let second = std::time::Duration::from_secs(1);
    for _attempt in 0..3 {
        within(second, "an answer", || {
            let reply = shop.storefront.send(&to_stranger)?;
            ensure!(reply.seen()?["name"] == "stranger");
            Ok(())
        })?;
    }
    Ok(())
}

fn no_route() -> Result<()> {
    let shop = Shop::enter()?;
    let rule = shop.apply(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings, namespace: shop}
spec:
  hosts: [ratings]
  http:
  - match: [{uri: {exact: /book}}]
    route: [{destination: {host: ratings}}]
",
    )?;
    let page = |host: &str, path: &str| -> Result<u16> {
        let call = Call {
            path: path.to_owned(),
            ..request(&shop, host)?
        };
        Ok(shop.storefront.send(&call)?.status)
    };
    eventually("only one page is left", || {
        ensure!(page("ratings", "/other")? == 404);
        Ok(())
    })?;
    for host in ["ratings", "RATINGS.shop"] {
        ensure!(
            page(host, "/book")? == 200 && page(host, "/other")? == 404,
            "{host}"
        );
    }
    drop(rule);
    eventually("all pages are back", || {
        ensure!(page("ratings", "/other")? == 200);
        Ok(())
    })
}

fn spoofed() -> Result<()> {
    let shop = Shop::enter()?;
    let header = fairlead::xds::scope::HEADER;
    for (host, sent, name) in [
        ("ratings", "9080/reviews", "ratings"),
        ("ratings", "80/*", "ratings"),
    ] {
        let call = request(&shop, host)?.header(header, sent);
        let seen = shop.storefront.send(&call)?.seen()?;
        ensure!(seen["name"] == name, "{seen}");
    }
    // What is used on the way is not shown to the app, nor to a stranger.
    let plain = answer(&shop, "ratings")?.seen()?;
    let web = format!("http://{}/", shop.stranger.at(8080));
    let stranger = shop.storefront.get(&web)?.seen()?;
    for seen in [plain, stranger] {
        let shown = seen["headers"].as_object();
        let shown = shown.ok_or_else(|| anyhow::anyhow!("no headers in {seen}"))?;
        ensure!(!shown.contains_key(header), "{seen}");
    }
    Ok(())
}

fn literal() -> Result<()> {
    let shop = Shop::enter()?;
    let service = shop.apply(&format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: twofold, namespace: shop}}
spec:
  clusterIP: fd00::77
  clusterIPs: ['fd00::77']
  selector: {{app: ratings}}
  ports: [{{name: http, port: 80, targetPort: 8080}}]
---
{}",
        marked("twofold", "twofold.shop.svc.cluster.local")
    ))?;
    for host in ["[fd00::77]", "[fd00::77]:80", "[FD00::77]"] {
        eventually(host, || marks(&answer(&shop, host)?))?;
    }
    drop(service);
    eventually("it is gone", || {
        ensure!(marks(&answer(&shop, "[fd00::77]")?).is_err());
        Ok(())
    })
}

fn comings_and_goings() -> Result<()> {
    const ROUNDS: u32 = 25;
    let shop = Shop::enter()?;
    let clients = [Connections::Kept, Connections::Fresh];
    let load = shop.storefront.load("http://ratings/", &clients)?;
    for round in 0..ROUNDS {
        // A port that no service had is a new listener.
        let (name, port) = (format!("guest-{round}"), 8100 + round % 5);
        let guest = shop.apply(&format!(
            "
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec:
  clusterIP: 10.96.77.{}
  selector: {{app: ratings}}
  ports:
  - {{name: http, port: 80, targetPort: 8080}}
  - {{name: http-own, port: {port}, targetPort: 8080}}
---
{}",
            round + 1,
            marked(&name, &format!("{name}.shop.svc.cluster.local"))
        ))?;
        eventually("the guest is served", || marks(&answer(&shop, &name)?))?;
        drop(guest);
        eventually("the guest is gone", || {
            ensure!(marks(&answer(&shop, &name)?).is_err());
            Ok(())
        })?;
    }
    load.stop().is_flawless(u64::from(ROUNDS))
}
