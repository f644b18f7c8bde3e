//! Mutual TLS: who may speak to whom, in which mode, and as whom each is known.

use anyhow::{Result, ensure};

use crate::Scenario;
use crate::harness::load::Connections;
use crate::harness::manifest::ServiceSpec;
use crate::harness::mesh::{Applied, Mesh};
use crate::harness::pod::{App, Pod, PodSpec};
use crate::harness::wait::eventually;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("permissive_takes_both_and_the_mesh_speaks_tls", permissive),
    ("strict_refuses_plaintext_on_every_port", strict),
    ("disabled_speaks_plaintext_only", disabled),
    ("a_port_may_differ_from_its_workload", port_level),
    ("a_workload_may_differ_from_its_namespace", workload_level),
    ("the_root_namespace_decides_for_the_mesh", mesh_level),
    ("both_identities_are_told_and_cannot_be_forged", identities),
    (
        "a_client_told_to_speak_plaintext_is_refused_by_strict",
        client_disabled,
    ),
    ("a_server_under_another_name_is_not_trusted", other_name),
    (
        "a_server_without_a_sidecar_is_spoken_to_in_plaintext",
        no_sidecar,
    ),
    (
        "a_sidecars_own_pages_are_in_no_ones_reach_through_the_mesh",
        own_pages,
    ),
    (
        "a_switch_to_strict_and_back_loses_no_request_of_the_mesh",
        switch,
    ),
    (
        "certificates_are_renewed_under_traffic_without_a_failure",
        renewal,
    ),
];

/// A bank with a teller as client, a vault as server, and a robber without a sidecar.
struct Bank {
    teller: Pod,
    vault: Pod,
    robber: Pod,
    mesh: Mesh,
}

const WEB: u16 = 8080;
const LEDGER: u16 = 7000;
/// In no Service.
const BACK_DOOR: u16 = 6000;
const VAULT: &str = "http://vault:8080/";
const HANDSHAKES: &str = "listener.0.0.0.0_15006.ssl.handshake";

impl Bank {
    fn open() -> Result<Self> {
        Self::with_flags(&[])
    }

    fn with_flags(flags: &[&str]) -> Result<Self> {
        let mesh = Mesh::start(flags)?;
        mesh.add_namespace("bank")?;
        let service = ServiceSpec::new("bank", "vault").port("http", WEB, WEB);
        mesh.add_service(service.port("tcp-ledger", LEDGER, LEDGER))?;
        let pod = |name: &str| {
            let spec = PodSpec::new(name)
                .in_namespace("bank")
                .service_account(name);
            spec.label("app", name)
        };
        let vault = pod("vault")
            .serves(WEB, App::Http)
            .serves(LEDGER, App::TcpEcho);
        let bank = Self {
            vault: Pod::start(&mesh, vault.serves(BACK_DOOR, App::TcpEcho))?,
            teller: Pod::start(&mesh, pod("teller"))?,
            robber: Pod::start(&mesh, pod("robber").without_sidecar())?,
            mesh,
        };
        eventually("the bank is open", || {
            ensure!(bank.teller.get(VAULT)?.status == 200);
            Ok(())
        })?;
        Ok(bank)
    }

    /// Applies a PeerAuthentication to the whole namespace.
    fn mode(&self, mode: &str) -> Result<Applied> {
        self.mesh.apply(
            "mode",
            &peer_authentication("bank", "default", &format!("mtls: {{mode: {mode}}}")),
        )
    }

    /// What the teller's request looks like to the vault, and whether it came over TLS.
    fn teller_over_tls(&self) -> Result<bool> {
        let seen = self.teller.get(VAULT)?.seen()?;
        Ok(seen["headers"]["x-forwarded-client-cert"].is_string())
    }

    fn robber_reaches(&self, port: u16) -> bool {
        let to = self.vault.at(port);
        if port == WEB {
            return self
                .robber
                .get(&format!("http://{to}/"))
                .is_ok_and(|reply| reply.status == 200);
        }
        self.robber.tcp(to).is_ok()
    }

    fn until_robber_reaches(&self, port: u16, wanted: bool) -> Result<()> {
        eventually(&format!("plaintext to port {port} works: {wanted}"), || {
            ensure!(self.robber_reaches(port) == wanted);
            Ok(())
        })
    }

    /// The teller over TCP, and by how much it raised the vault's count of TLS handshakes.
    fn teller_handshakes(&self) -> Result<u64> {
        let before = self.vault.stat(HANDSHAKES)?;
        let greeting = self.teller.tcp(self.teller.address("vault:7000")?)?;
        ensure!(greeting.name == "vault");
        Ok(self.vault.stat(HANDSHAKES)? - before)
    }
}

fn peer_authentication(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  {spec}
"
    )
}

fn permissive() -> Result<()> {
    let bank = Bank::open()?;
    ensure!(bank.teller_over_tls()?, "the teller spoke plaintext");
    ensure!(bank.teller_handshakes()? == 1);
    for port in [WEB, LEDGER, BACK_DOOR] {
        ensure!(bank.robber_reaches(port), "plaintext to {port} was refused");
    }
    Ok(())
}

fn strict() -> Result<()> {
    let bank = Bank::open()?;
    let mode = bank.mode("STRICT")?;
    for port in [WEB, LEDGER, BACK_DOOR] {
        bank.until_robber_reaches(port, false)?;
    }
    ensure!(bank.teller_over_tls()? && bank.teller_handshakes()? == 1);
    // Straight to the sidecar's own ports there is no way around either.
    for port in [15001, 15006] {
        ensure!(!bank.robber_reaches(port), "{port} leads in");
    }
    drop(mode);
    bank.until_robber_reaches(WEB, true)
}

fn disabled() -> Result<()> {
    let bank = Bank::open()?;
    let _mode = bank.mode("DISABLE")?;
    eventually("the teller speaks plaintext", || {
        ensure!(!bank.teller_over_tls()?);
        Ok(())
    })?;
    ensure!(bank.teller_handshakes()? == 0);
    ensure!(bank.robber_reaches(WEB) && bank.robber_reaches(LEDGER));
    Ok(())
}

fn port_level() -> Result<()> {
    let bank = Bank::open()?;
    let spec = "mtls: {mode: STRICT}
  selector: {matchLabels: {app: vault}}
  portLevelMtls: {7000: {mode: PERMISSIVE}}";
    let _mode = bank
        .mesh
        .apply("mode", &peer_authentication("bank", "vault", spec))?;
    bank.until_robber_reaches(WEB, false)?;
    ensure!(bank.robber_reaches(LEDGER) && !bank.robber_reaches(BACK_DOOR));
    ensure!(bank.teller_over_tls()? && bank.teller_handshakes()? == 1);
    Ok(())
}

fn workload_level() -> Result<()> {
    let bank = Bank::open()?;
    let spec = "mtls: {mode: PERMISSIVE}\n  selector: {matchLabels: {app: vault}}";
    let both = [
        peer_authentication("bank", "default", "mtls: {mode: STRICT}"),
        peer_authentication("bank", "vault", spec),
    ];
    let namespace = bank.mesh.apply("mode", &both[0])?;
    bank.until_robber_reaches(WEB, false)?;
    let workload = bank.mesh.apply("mode", &both.join("---"))?;
    bank.until_robber_reaches(WEB, true)?;
    ensure!(bank.teller_over_tls()?);
    drop((workload, namespace));
    Ok(())
}

fn mesh_level() -> Result<()> {
    let bank = Bank::open()?;
    let root = peer_authentication("istio-system", "default", "mtls: {mode: STRICT}");
    let _mesh = bank.mesh.apply("mesh-mode", &root)?;
    bank.until_robber_reaches(WEB, false)?;
    let _mode = bank.mode("PERMISSIVE")?;
    bank.until_robber_reaches(WEB, true)
}

fn identities() -> Result<()> {
    let bank = Bank::open()?;
    let forged =
        "By=spiffe://cluster.local/ns/x/sa/x;URI=spiffe://cluster.local/ns/bank/sa/director";
    let call = bank
        .teller
        .call(VAULT)?
        .header("x-forwarded-client-cert", forged);
    let seen = bank.teller.send(&call)?.seen()?;
    let told = seen["headers"]["x-forwarded-client-cert"]
        .as_str()
        .unwrap_or_default();
    let fields: Vec<&str> = told.split(';').collect();
    for field in [
        "By=spiffe://cluster.local/ns/bank/sa/vault",
        "URI=spiffe://cluster.local/ns/bank/sa/teller",
    ] {
        ensure!(fields.contains(&field), "no {field} in {told}");
    }
    ensure!(!told.contains("director"), "{told}");
    // Over plaintext nobody can claim to be anybody.
    let to = format!("http://{}/", bank.vault.at(WEB));
    let call = bank
        .robber
        .call(&to)?
        .header("x-forwarded-client-cert", forged);
    let seen = bank.robber.send(&call)?.seen()?;
    ensure!(
        seen["headers"]["x-forwarded-client-cert"].is_null(),
        "{seen}"
    );
    Ok(())
}

fn client_disabled() -> Result<()> {
    let bank = Bank::open()?;
    let rule = |tls: &str| {
        format!(
            "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: vault, namespace: bank}}
spec:
  host: vault
  trafficPolicy: {{tls: {tls}}}
"
        )
    };
    let plain = bank.mesh.apply("rule", &rule("{mode: DISABLE}"))?;
    eventually("the teller speaks plaintext", || {
        ensure!(!bank.teller_over_tls()?);
        Ok(())
    })?;
    let _mode = bank.mode("STRICT")?;
    eventually("the vault refuses the teller", || {
        let reply = bank.teller.get(VAULT)?;
        ensure!(reply.status == 503, "{reply:?}");
        Ok(())
    })?;
    let mutual = bank.mesh.apply("rule", &rule("{mode: ISTIO_MUTUAL}"))?;
    eventually("the teller speaks TLS again", || {
        ensure!(bank.teller_over_tls()?);
        Ok(())
    })?;
    drop((plain, mutual));
    Ok(())
}

fn other_name() -> Result<()> {
    let bank = Bank::open()?;
    let rule = |name: &str| {
        format!(
            "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: vault, namespace: bank}}
spec:
  host: vault
  trafficPolicy:
    tls: {{mode: ISTIO_MUTUAL, subjectAltNames: ['spiffe://cluster.local/ns/bank/sa/{name}']}}
"
        )
    };
    let wrong = bank.mesh.apply("rule", &rule("robber"))?;
    eventually("the vault is not trusted as the robber", || {
        let reply = bank.teller.get(VAULT)?;
        ensure!(reply.status == 503, "{reply:?}");
        Ok(())
    })?;
    let right = bank.mesh.apply("rule", &rule("vault"))?;
    eventually("the vault is trusted as itself", || {
        ensure!(bank.teller_over_tls()?);
        Ok(())
    })?;
    drop((wrong, right));
    Ok(())
}

fn no_sidecar() -> Result<()> {
    let bank = Bank::open()?;
    bank.mesh
        .add_service(ServiceSpec::new("bank", "kiosk").port("http", 80, WEB))?;
    let spec = PodSpec::new("kiosk")
        .in_namespace("bank")
        .label("app", "kiosk");
    let _kiosk = Pod::start(&bank.mesh, spec.without_sidecar().serves(WEB, App::Http))?;
    eventually("the kiosk is reached", || {
        let seen = bank.teller.get("http://kiosk/")?.seen()?;
        ensure!(seen["name"] == "kiosk");
        Ok(())
    })
}

/// Captured traffic is passed on inside the pod: not to what listens there for the pod alone.
fn own_pages() -> Result<()> {
    let bank = Bank::open()?;
    for client in [&bank.teller, &bank.robber] {
        for port in [15000, 15001, 15006, 15090] {
            let url = format!("http://{}/config_dump", bank.vault.at(port));
            let reply = client.get(&url);
            // An answer may come from a sidecar that could not connect, never from a page.
            let refused = reply
                .as_ref()
                .map_or(true, |r| r.status == 503 || r.status == 502);
            ensure!(refused, "{} reads {url}: {reply:?}", client.spec.name);
        }
        let drain = client.get(&format!("http://{}/drain", bank.vault.at(15021)))?;
        ensure!(drain.status == 404, "{drain:?}");
        let ready = client.get(&format!("http://{}/healthz/ready", bank.vault.at(15021)))?;
        ensure!(ready.status == 200, "{ready:?}");
    }
    Ok(())
}

fn switch() -> Result<()> {
    let bank = Bank::open()?;
    let clients = [Connections::Kept, Connections::Fresh];
    let load = bank.teller.load(VAULT, &clients)?;
    for _round in 0..5 {
        let mode = bank.mode("STRICT")?;
        bank.until_robber_reaches(WEB, false)?;
        drop(mode);
        bank.until_robber_reaches(WEB, true)?;
    }
    eventually("there is enough traffic to tell", || {
        ensure!(load.answered() >= 500);
        Ok(())
    })?;
    load.stop().is_flawless(500)
}

fn renewal() -> Result<()> {
    let bank = Bank::with_flags(&["--workload-cert-ttl=20s"])?;
    let load = bank
        .teller
        .load(VAULT, &[Connections::Kept, Connections::Fresh])?;
    let serial = |pod: &Pod| -> Result<String> {
        let certs: serde_json::Value = serde_json::from_slice(&pod.admin("/certs")?.body)?;
        let chain = certs["certificates"].as_array().into_iter().flatten();
        let mut serials = chain.filter_map(|c| c["cert_chain"][0]["serial_number"].as_str());
        Ok(serials.next().unwrap_or_default().to_owned())
    };
    for _renewal in 0..3 {
        for pod in [&bank.teller, &bank.vault] {
            let before = serial(pod)?;
            ensure!(!before.is_empty(), "{} has no certificate", pod.spec.name);
            eventually("the certificate is renewed", || {
                ensure!(serial(pod)? != before, "still {before}");
                Ok(())
            })?;
        }
    }
    load.stop().is_flawless(200)
}
