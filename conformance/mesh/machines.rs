//! Machines that no object describes: they enter a WorkloadGroup by themselves.

use anyhow::{Result, ensure};

use crate::Scenario;
use crate::harness::manifest::ServiceSpec;
use crate::harness::mesh::Mesh;
use crate::harness::pod::{App, Pod, PodSpec};
use crate::harness::wait::eventually;

pub(crate) const SCENARIOS: &[Scenario] = &[(
    "a_machine_enters_its_group_and_leaves_it_when_it_is_gone",
    machine,
)];

const GROUP: &str = "
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: orders, namespace: shop}
spec:
  metadata: {labels: {app: orders}}
  template: {serviceAccount: orders}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: all, namespace: shop}
spec: {mtls: {mode: STRICT}}
";

const ORDERS: &str = "http://orders:80/";

fn machine() -> Result<()> {
    let mesh = Mesh::start(&[])?;
    mesh.add_namespace("shop")?;
    mesh.add_service(ServiceSpec::new("shop", "orders").port("http", 80, 8080))?;
    mesh.configure("group", GROUP)?;
    let spec = |name: &str, account: &str| {
        let spec = PodSpec::new(name).in_namespace("shop");
        spec.service_account(account)
    };
    let client = Pod::start(&mesh, spec("client", "client"))?;
    let machine = || {
        let spec = spec("machine", "orders").serves(8080, App::Http);
        Pod::start(&mesh, spec.bootstrap(&["--workload-group=orders"]))
    };
    let first = machine()?;
    let seen = eventually("the machine answers", || client.get(ORDERS)?.seen())?;
    ensure!(seen["name"] == "machine", "{seen}");
    let caller = seen["headers"]["x-forwarded-client-cert"].to_string();
    ensure!(caller.contains("ns/shop/sa/client"), "{caller}");

    // The control plane comes again, and so does the machine's stream: it was never away. What came in the last moment
    // before is not yet written down; that would be a machine that enters anew.
    let entry = format!("orders-{}", first.ip());
    eventually("the entry is written down", || {
        ensure!(mesh.control_plane()?.kept()?.contains(&entry));
        Ok(())
    })?;
    mesh.control_plane()?.restart()?;
    for _request in 0..20 {
        client.get(ORDERS)?.seen()?;
    }

    drop(first);
    eventually("nobody is there", || {
        let reply = client.get(ORDERS)?;
        let text = reply.text();
        ensure!(
            reply.status == 503 && text.contains("no healthy upstream"),
            "{} {text}",
            reply.status
        );
        Ok(())
    })?;
    let _second = machine()?;
    eventually("another machine answers", || client.get(ORDERS)?.seen())?;

    // Who proves to be someone else is not entered, and told why.
    let thief = spec("thief", "thief").bootstrap(&["--workload-group=orders"]);
    ensure!(Pod::start(&mesh, thief).is_err(), "a stranger was served");
    let log = mesh.control_plane()?.log();
    let told =
        "WorkloadGroup `orders` is for service account `orders`, the credential says `thief`";
    ensure!(log.contains(told), "{log}");
    Ok(())
}
