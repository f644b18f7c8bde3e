//! Capture in its other forms: IPv6 beside IPv4, transparent (TPROXY), by nftables alone.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};

use crate::Scenario;
use crate::harness::isolation::{output, shell};
use crate::harness::mesh::Mesh;
use crate::harness::network::User;
use crate::harness::pod::{App, Pod, PodSpec};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("a_pod_of_both_families_is_captured_on_both", dual_stack),
    (
        "a_service_of_both_families_is_called_by_either_address",
        dual_service,
    ),
    (
        "by_tproxy_the_workload_sees_its_clients_own_address",
        transparent,
    ),
    (
        "a_workload_behind_tproxy_calls_others_itself_and_its_own_service",
        transparent_outbound,
    ),
    ("by_nftables_the_same_is_captured", nftables),
    (
        "by_nftables_tproxy_keeps_the_clients_address",
        transparent_nftables,
    ),
    (
        "nftables_leave_what_others_have_and_go_without_a_trace",
        nftables_cleanup,
    ),
    (
        "rules_that_nft_did_not_take_are_noticed",
        lost_nftables_rules,
    ),
    (
        "a_program_that_is_not_there_is_named_with_its_package",
        no_program,
    ),
];

const WEB: u16 = 8080;
const BYTES: u16 = 9090;
const INBOUND: &str = "cluster.InboundPassthroughCluster;.upstream_cx_total";
const OUTBOUND: &str = "cluster.PassthroughCluster;.upstream_cx_total";

/// A pod with a sidecar of a control plane's, and a stranger; both have both families.
struct Scene {
    pod: Pod,
    stranger: Pod,
    _mesh: Mesh,
}

const POLICY: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: PERMISSIVE}}
";

impl Scene {
    fn new(shape: impl Fn(PodSpec) -> PodSpec) -> Result<Self> {
        let mesh = Mesh::start(&[])?;
        mesh.add_namespace("default")?;
        mesh.configure("mtls", POLICY)?;
        let server = |name| {
            PodSpec::new(name)
                .dual_stack()
                .serves(WEB, App::Http)
                .serves(BYTES, App::TcpEcho)
        };
        let stranger = Pod::start(&mesh, server("stranger").without_sidecar())?;
        let pod = Pod::start(&mesh, shape(server("pod").label("app", "pod")))?;
        Ok(Self {
            pod,
            stranger,
            _mesh: mesh,
        })
    }

    /// Which address the workload sees when it is called from outside at each of its own.
    fn seen_inbound(&self) -> Result<[IpAddr; 2]> {
        let seen = |to: SocketAddr| -> Result<IpAddr> {
            let before = self.inbound_count()?;
            let seen = self.stranger.tcp(to)?;
            ensure!(seen.name == "pod", "{to} is answered by {}", seen.name);
            let counted = self.inbound_count()? - before;
            ensure!(counted == 1, "{to}: the sidecar counted {counted}");
            Ok(seen.peer.ip().to_canonical())
        };
        Ok([seen(self.pod.at(BYTES))?, seen(self.pod.at6(BYTES))?])
    }

    fn inbound_count(&self) -> Result<u64> {
        self.count(INBOUND)
    }

    /// A cluster that nothing went through yet has no statistics.
    fn count(&self, name: &str) -> Result<u64> {
        let all = self.pod.admin("/stats")?.text();
        match all.contains(name) {
            true => self.pod.stat(name),
            false => Ok(0),
        }
    }

    fn check_outbound(&self) -> Result<()> {
        for to in [self.stranger.at(BYTES), self.stranger.at6(BYTES)] {
            let before = self.count(OUTBOUND)?;
            let seen = self.pod.tcp(to)?;
            ensure!(seen.name == "stranger", "{to} is answered by {}", seen.name);
            let counted = self.count(OUTBOUND)? - before;
            ensure!(counted == 1, "{to}: the sidecar counted {counted}");
        }
        Ok(())
    }

    fn check_own_pod(&self) -> Result<()> {
        let before = (self.count(OUTBOUND)?, self.inbound_count()?);
        let loopback = SocketAddr::from(([127, 0, 0, 1], BYTES));
        for to in [self.pod.at(BYTES), self.pod.at6(BYTES), loopback] {
            ensure!(self.pod.tcp(to)?.name == "pod");
        }
        ensure!((self.count(OUTBOUND)?, self.inbound_count()?) == before);
        Ok(())
    }
}

fn sources() -> [IpAddr; 2] {
    [
        IpAddr::from([127, 0, 0, 6]),
        IpAddr::from([0, 0, 0, 0, 0, 0, 0, 6]),
    ]
}

fn dual_stack() -> Result<()> {
    let scene = Scene::new(|pod| pod)?;
    ensure!(scene.seen_inbound()? == sources());
    scene.check_outbound()?;
    scene.check_own_pod()?;
    // What comes straight to the capture port ends, on both.
    for to in [scene.pod.at(15006), scene.pod.at6(15006)] {
        ensure!(scene.stranger.tcp(to).is_err(), "{to} led somewhere");
    }
    // Done again it is the same, and tried by connections it holds.
    scene.pod.init(&[])?;
    scene.check_outbound()
}

fn dual_service() -> Result<()> {
    let mesh = Mesh::start(&[])?;
    mesh.add_namespace("default")?;
    let server = PodSpec::new("server")
        .dual_stack()
        .label("app", "server")
        .serves(WEB, App::Http)
        .serves(BYTES, App::TcpEcho);
    let server = Pod::start(&mesh, server)?;
    let client = Pod::start(&mesh, PodSpec::new("client").dual_stack())?;
    let old = Pod::start(&mesh, PodSpec::new("old"))?;
    mesh.configure("service", &service(&server))?;
    mesh.configure("mtls", &POLICY.replace("PERMISSIVE", "STRICT"))?;
    for address in ["10.96.250.1", "[fd00:96::1]"] {
        let reply = crate::harness::wait::eventually("be answered", || {
            let reply = client.get(&format!("http://{address}:80/"))?;
            ensure!(reply.status == 200, "{address}: {}", reply.status);
            Ok(reply)
        })?;
        ensure!(
            reply.text().contains("server"),
            "{address}: {}",
            reply.text()
        );
        let seen = client.tcp(format!("{address}:90").parse()?)?;
        ensure!(seen.name == "server", "{address}: {}", seen.name);
    }
    // Who has IPv4 alone is led to the pod's address of that.
    for _each in 0..4 {
        let reply = old.get("http://10.96.250.1:80/")?;
        ensure!(reply.status == 200, "{}", reply.status);
    }
    Ok(())
}

fn service(server: &Pod) -> String {
    let slice = |family: &str, ip: IpAddr| {
        format!(
            "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: dual-{family}, namespace: default, labels: {{kubernetes.io/service-name: dual}}}}
addressType: {family}
endpoints: [{{addresses: ['{ip}'], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: server, namespace: default}}}}]
ports: [{{name: http, port: {WEB}, protocol: TCP}}, {{name: tcp, port: {BYTES}, protocol: TCP}}]
"
        )
    };
    let service = "
apiVersion: v1
kind: Service
metadata: {name: dual, namespace: default}
spec:
  clusterIP: 10.96.250.1
  clusterIPs: [10.96.250.1, 'fd00:96::1']
  ipFamilies: [IPv4, IPv6]
  ipFamilyPolicy: RequireDualStack
  selector: {app: server}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 90, targetPort: 9090}]
";
    let v4 = slice("IPv4", server.ip().into());
    let v6 = slice("IPv6", server.ip6().into());
    [service, &v4, &v6].concat()
}

fn transparent() -> Result<()> {
    let scene = Scene::new(PodSpec::transparent)?;
    keeps_addresses(&scene)
}

fn keeps_addresses(scene: &Scene) -> Result<()> {
    let own = [
        IpAddr::from(scene.stranger.ip()),
        IpAddr::from(scene.stranger.ip6()),
    ];
    let seen = scene.seen_inbound()?;
    ensure!(seen == own, "the workload saw {seen:?}");
    // Again and again, on connections of their own: none is mistaken for another.
    for _each in 0..20 {
        ensure!(scene.seen_inbound()? == own);
    }
    let reply = scene
        .stranger
        .get(&format!("http://{}/", scene.pod.at(WEB)))?;
    ensure!(reply.status == 200, "{}", reply.status);
    ensure!(scene.stranger.tcp(scene.pod.at(15006)).is_err());
    Ok(())
}

fn transparent_outbound() -> Result<()> {
    let scene = Scene::new(PodSpec::transparent)?;
    scene.check_outbound()?;
    scene.check_own_pod()?;
    // A second init, and then none.
    scene.pod.init(&[])?;
    keeps_addresses(&scene)?;
    scene.pod.init(&["--cleanup-only"])?;
    let own = IpAddr::from(scene.stranger.ip());
    let before = scene.inbound_count()?;
    let seen = scene.stranger.tcp(scene.pod.at(BYTES))?;
    ensure!(seen.peer.ip().to_canonical() == own && scene.inbound_count()? == before);
    let rules = in_pod(
        &scene.pod,
        "ip rule; ip -6 rule; iptables-save; ip6tables-save",
    )?;
    ensure!(
        !rules.contains("133") && !rules.contains("ISTIO"),
        "{rules}"
    );
    Ok(())
}

const NFT: &str = "--native-nftables";

fn nftables() -> Result<()> {
    let scene = Scene::new(|pod| pod.init(&[NFT, "-d", "15020,15021,15090,7777", "-o", "3306"]))?;
    let iptables = in_pod(&scene.pod, "iptables-save; ip6tables-save")?;
    ensure!(!iptables.contains("ISTIO"), "{iptables}");
    ensure!(scene.seen_inbound()? == sources());
    scene.check_outbound()?;
    scene.check_own_pod()?;
    for to in [scene.pod.at(15006), scene.pod.at6(15006)] {
        ensure!(scene.stranger.tcp(to).is_err(), "{to} led somewhere");
    }
    // What is left alone reaches nobody's listener: nothing of the workload's is there.
    let before = scene.inbound_count()?;
    ensure!(scene.stranger.tcp(scene.pod.at(7777)).is_err());
    ensure!(scene.inbound_count()? == before);
    // A second init leaves the same rules; one with other flags leaves others.
    let list = "nft list ruleset | grep -v handle";
    let first = in_pod(&scene.pod, list)?;
    scene.pod.init(&[])?;
    ensure!(in_pod(&scene.pod, list)? == first);
    scene.pod.init(&["-c", "eth9"])?;
    let other = in_pod(&scene.pod, list)?;
    ensure!(other != first && other.contains("eth9"), "{other}");
    scene.check_outbound()
}

fn transparent_nftables() -> Result<()> {
    let scene = Scene::new(|pod| pod.transparent().init(&[NFT]))?;
    keeps_addresses(&scene)?;
    scene.check_outbound()?;
    scene.check_own_pod()
}

fn bare() -> Result<(Mesh, Pod)> {
    let mesh = Mesh::without_control_plane()?;
    let pod = Pod::start(&mesh, PodSpec::new("pod").dual_stack().without_sidecar())?;
    Ok((mesh, pod))
}

fn nftables_cleanup() -> Result<()> {
    let (_mesh, pod) = bare()?;
    in_pod(
        &pod,
        "nft add table inet others; nft add chain inet others mine; nft add rule inet others mine tcp dport 1 drop",
    )?;
    let before = in_pod(&pod, "nft list ruleset")?;
    for flags in [&[NFT][..], &[NFT, "-m", "TPROXY"]] {
        pod.init(flags)?;
        let ours = in_pod(&pod, "nft list ruleset")?;
        ensure!(
            ours.contains("istio-proxy-nat") && ours.contains("inet others"),
            "{ours}"
        );
    }
    for _again in 0..2 {
        pod.init(&[NFT, "-m", "TPROXY", "--cleanup-only"])?;
        ensure!(in_pod(&pod, "nft list ruleset")? == before);
    }
    // What a dry run prints is what it does.
    let printed = output(&mut pod.init_command(User::App, &[NFT, "--dual-stack", "--dry-run"]))?;
    let file = pod.folder().join("rules.nft");
    std::fs::write(&file, printed)?;
    in_pod(&pod, &format!("nft -f {}", file.display()))?;
    let by_hand = in_pod(&pod, "nft list ruleset")?;
    pod.init(&[NFT, "--cleanup-only"])?;
    pod.init(&[NFT])?;
    ensure!(in_pod(&pod, "nft list ruleset")? == by_hand);
    // Tried by connections, on both families.
    pod.init(&[NFT, "--run-validation"])?;
    let only = [
        "--skip-rule-apply",
        "--run-validation",
        "--probe-timeout",
        "1s",
    ];
    for user in [User::Root, User::Envoy] {
        output(&mut pod.init_command(user, &only))?;
    }
    in_pod(&pod, "nft delete table ip6 istio-proxy-nat")?;
    let done = pod.init_command(User::Root, &only).output()?;
    let text = String::from_utf8_lossy(&done.stderr);
    ensure!(
        done.status.code() == Some(126) && text.contains("2001:db8"),
        "{text}"
    );
    Ok(())
}

fn lost_nftables_rules() -> Result<()> {
    let (_mesh, pod) = bare()?;
    let half = "sed '/to :15006/d' | /usr/sbin/nft \"$@\"";
    for script in [
        "case $1 in -f) cat > /dev/null;; *) exec /usr/sbin/nft \"$@\";; esac",
        half,
    ] {
        let done = with_program(&pod, "nft", script, &[NFT])?;
        let text = String::from_utf8_lossy(&done.stderr);
        ensure!(
            done.status.code() == Some(126),
            "{script}: {}: {text}",
            done.status
        );
        pod.init(&[NFT, "--cleanup-only"])?;
    }
    Ok(())
}

fn no_program() -> Result<()> {
    let (_mesh, pod) = bare()?;
    let folder = pod.folder().join("nothing");
    std::fs::create_dir_all(&folder)?;
    for (flags, named) in [(&[NFT][..], "`nftables`"), (&[], "`iptables`")] {
        let mut command = pod.init_command(User::Root, flags);
        // `ip` is there, and no more of what it runs.
        let link = |name: &str| format!("ln -sf \"$(command -v {name})\" {}", folder.display());
        shell(&[link("ip"), link("nsenter")].join("\n"))?;
        let done = command.env("PATH", &folder).output()?;
        let text = String::from_utf8_lossy(&done.stderr);
        ensure!(!done.status.success() && text.contains(named), "{text}");
    }
    let done = pod.init_command(User::App, &[]).output()?;
    let text = String::from_utf8_lossy(&done.stderr);
    ensure!(
        !done.status.success() && text.contains("NET_ADMIN"),
        "{text}"
    );
    Ok(())
}

/// `fairlead init` where a program of that name is a script.
fn with_program(
    pod: &Pod,
    name: &str,
    script: &str,
    flags: &[&str],
) -> Result<std::process::Output> {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = pod.folder().join("bin");
    std::fs::create_dir_all(&folder)?;
    let fake = folder.join(name);
    std::fs::write(&fake, format!("#!/bin/sh\n{script}\n"))?;
    std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755))?;
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", folder.display());
    Ok(pod
        .init_command(User::Root, flags)
        .env("PATH", path)
        .output()?)
}

fn in_pod(pod: &Pod, commands: &str) -> Result<String> {
    let mut command = pod.namespace().command(User::Root, "sh");
    output(command.args(["-ec", commands]))
}
