//! `fairlead init` in real namespaces: what is captured, what is not, and how it fails.

use anyhow::{Result, ensure};

use crate::Scenario;
use crate::harness::isolation::{output, shell};
use crate::harness::mesh::Mesh;
use crate::harness::network::User;
use crate::harness::pod::{App, Pod, PodSpec};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("inbound_goes_through_the_sidecar", inbound),
    ("outbound_goes_through_the_sidecar", outbound),
    (
        "the_workload_reaches_its_own_pod_without_the_sidecar",
        own_pod,
    ),
    ("excluded_inbound_ports_are_left_alone", excluded_inbound),
    ("listed_inbound_ports_alone_are_captured", listed_inbound),
    (
        "excluded_outbound_ports_and_ranges_are_left_alone",
        excluded_outbound,
    ),
    (
        "listed_outbound_ranges_and_ports_alone_are_captured",
        listed_outbound,
    ),
    (
        "what_the_sidecars_user_sends_is_not_captured",
        sidecars_user,
    ),
    (
        "traffic_straight_to_the_capture_port_ends",
        straight_to_capture_port,
    ),
    ("a_second_init_leaves_the_same_rules", twice),
    ("an_init_with_other_flags_replaces_the_rules", replaced),
    ("rules_of_others_stay", others),
    ("cleanup_leaves_nothing_behind", cleanup),
    ("a_dry_run_changes_nothing", dry_run),
    ("without_the_right_to_change_rules_init_fails", unprivileged),
    ("rules_that_did_not_arrive_are_noticed", lost_rules),
    (
        "validation_passes_with_capture_and_fails_with_126_without",
        validation,
    ),
    ("a_pod_that_gets_an_ipv6_address_is_captured_on_it", ipv6),
];

/// A node with a stranger outside and a pod with a sidecar; the workload listens on 8080 and 9090.
struct Scene {
    pod: Pod,
    stranger: Pod,
    _mesh: Mesh,
}

const WEB: u16 = 8080;
const SECOND: u16 = 9090;
const INBOUND: &str = "cluster.InboundPassthroughCluster.upstream_cx_total";
const OUTBOUND: &str = "cluster.PassthroughCluster.upstream_cx_total";

impl Scene {
    fn new(init: &[&str]) -> Result<Self> {
        let mesh = Mesh::without_control_plane()?;
        let server = |name| {
            PodSpec::new(name)
                .serves(WEB, App::TcpEcho)
                .serves(SECOND, App::TcpEcho)
        };
        let stranger = Pod::start(&mesh, server("stranger").without_sidecar())?;
        let pod = Pod::start(&mesh, server("pod").init(init))?;
        Ok(Self {
            pod,
            stranger,
            _mesh: mesh,
        })
    }

    /// Connects from outside to a port of the workload; whether it went through the sidecar.
    fn inbound(&self, port: u16) -> Result<bool> {
        self.through(INBOUND, || {
            let seen = self.stranger.tcp(self.pod.at(port))?;
            ensure!(seen.name == "pod");
            // The sidecar connects to the workload from an address of its own.
            Ok(seen.peer.ip().to_string() == "127.0.0.6")
        })
    }

    /// Connects from the workload to a port outside; whether it went through the sidecar.
    fn outbound(&self, port: u16) -> Result<bool> {
        let before = self.pod.stat(OUTBOUND)?;
        let seen = self.pod.tcp(self.stranger.at(port))?;
        ensure!(seen.name == "stranger");
        Ok(self.pod.stat(OUTBOUND)? == before + 1)
    }

    /// What the workload saw must agree with what the sidecar counted.
    fn through(&self, stat: &str, connect: impl Fn() -> Result<bool>) -> Result<bool> {
        let before = self.pod.stat(stat)?;
        let seen = connect()?;
        let counted = self.pod.stat(stat)? - before;
        ensure!(
            counted == u64::from(seen),
            "workload saw {seen}, sidecar counted {counted}"
        );
        Ok(seen)
    }
}

fn inbound() -> Result<()> {
    let scene = Scene::new(&[])?;
    ensure!(scene.inbound(WEB)? && scene.inbound(SECOND)?);
    Ok(())
}

fn outbound() -> Result<()> {
    let scene = Scene::new(&[])?;
    ensure!(scene.outbound(WEB)? && scene.outbound(SECOND)?);
    Ok(())
}

fn own_pod() -> Result<()> {
    let scene = Scene::new(&[])?;
    let (before, own) = (scene.pod.stat(OUTBOUND)?, scene.pod.ip());
    let seen = scene.pod.tcp(scene.pod.at(WEB))?;
    ensure!(seen.peer.ip() == own, "the workload saw {}", seen.peer);
    let seen = scene.pod.tcp(([127, 0, 0, 1], WEB).into())?;
    ensure!(
        seen.peer.ip().is_loopback(),
        "the workload saw {}",
        seen.peer
    );
    ensure!(scene.pod.stat(OUTBOUND)? == before && scene.pod.stat(INBOUND)? == 0);
    Ok(())
}

fn excluded_inbound() -> Result<()> {
    let scene = Scene::new(&["-d", "15021,9090"])?;
    ensure!(scene.inbound(WEB)?);
    ensure!(!scene.inbound(SECOND)?);
    Ok(())
}

fn listed_inbound() -> Result<()> {
    let scene = Scene::new(&["-b", "9090"])?;
    ensure!(scene.inbound(SECOND)?);
    ensure!(!scene.inbound(WEB)?);
    Ok(())
}

fn excluded_outbound() -> Result<()> {
    let scene = Scene::new(&["-o", "9090"])?;
    ensure!(scene.outbound(WEB)?);
    ensure!(!scene.outbound(SECOND)?);
    scene
        .pod
        .init(&["-x", &format!("{}/32", scene.stranger.ip())])?;
    ensure!(!scene.outbound(WEB)?);
    Ok(())
}

fn listed_outbound() -> Result<()> {
    let scene = Scene::new(&["-i", "192.0.2.0/24", "-q", "9090"])?;
    ensure!(scene.outbound(SECOND)?);
    ensure!(!scene.outbound(WEB)?);
    // Listed once more, so that the flag is not given twice.
    let capture = ["init", "-i", &format!("{}/16", scene.stranger.ip())];
    let program = crate::harness::isolation::program("fairlead");
    output(
        scene
            .pod
            .namespace()
            .command(User::Root, program)
            .args(capture),
    )?;
    ensure!(scene.outbound(WEB)?);
    Ok(())
}

fn sidecars_user() -> Result<()> {
    let scene = Scene::new(&[])?;
    let before = scene.pod.stat(OUTBOUND)?;
    let to = scene.stranger.at(WEB);
    crate::harness::client::tcp(scene.pod.namespace(), User::Envoy, to, b"hello")?;
    ensure!(scene.pod.stat(OUTBOUND)? == before);
    Ok(())
}

fn straight_to_capture_port() -> Result<()> {
    let scene = Scene::new(&[])?;
    ensure!(scene.stranger.tcp(scene.pod.at(15006)).is_err());
    ensure!(scene.pod.stat(INBOUND)? == 0);
    // It is still there for everybody else.
    ensure!(scene.inbound(WEB)?);
    Ok(())
}

fn twice() -> Result<()> {
    let scene = Scene::new(&[])?;
    let first = scene.pod.nat_rules()?;
    scene.pod.init(&[])?;
    ensure!(scene.pod.nat_rules()? == first);
    // Half a set, as an init that was killed by hand would leave it, is made whole.
    let (flush, jump) = (
        "iptables -t nat -F ISTIO_OUTPUT",
        "iptables -t nat -A OUTPUT -j ISTIO_OUTPUT",
    );
    in_pod(&scene.pod, &format!("{flush} && {jump}"))?;
    ensure!(scene.pod.nat_rules()? != first);
    scene.pod.init(&[])?;
    ensure!(scene.pod.nat_rules()? == first);
    ensure!(scene.inbound(WEB)? && scene.outbound(WEB)?);
    Ok(())
}

fn replaced() -> Result<()> {
    let scene = Scene::new(&["-d", "15021"])?;
    ensure!(scene.inbound(SECOND)?);
    let program = crate::harness::isolation::program("fairlead");
    let flags = ["init", "-d", "15021,9090"];
    output(
        scene
            .pod
            .namespace()
            .command(User::Root, program)
            .args(flags),
    )?;
    ensure!(!scene.inbound(SECOND)?);
    ensure!(scene.inbound(WEB)?);
    Ok(())
}

fn others() -> Result<()> {
    let scene = Scene::new(&[])?;
    let mut foreign = vec![
        "-A PREROUTING -p tcp -m tcp --dport 7777 -j REDIRECT --to-ports 7778".to_owned(),
        "-A OUTPUT -d 198.51.100.7/32 -j ACCEPT".to_owned(),
    ];
    let add: Vec<String> = foreign
        .iter()
        .map(|rule| format!("iptables -t nat {rule}"))
        .collect();
    in_pod(&scene.pod, &add.join(" && "))?;
    for flags in [&["-o", "3306"][..], &["--cleanup-only"]] {
        scene.pod.init(flags)?;
        let rules = scene.pod.nat_rules()?;
        foreign.retain(|rule| !rules.contains(rule));
        ensure!(
            foreign.is_empty(),
            "after {flags:?} these are gone: {foreign:?}"
        );
    }
    Ok(())
}

fn cleanup() -> Result<()> {
    let mesh = Mesh::without_control_plane()?;
    let pod = Pod::start(&mesh, PodSpec::new("pod").without_sidecar())?;
    let builtin = |rules: Vec<String>| -> Vec<String> {
        rules
            .into_iter()
            .filter(|rule| rule.contains("ISTIO") || rule.starts_with("-A"))
            .collect()
    };
    pod.init(&[])?;
    ensure!(!builtin(pod.nat_rules()?).is_empty());
    for _again in 0..2 {
        pod.init(&["--cleanup-only"])?;
        ensure!(builtin(pod.nat_rules()?).is_empty());
    }
    Ok(())
}

fn dry_run() -> Result<()> {
    let mesh = Mesh::without_control_plane()?;
    let pod = Pod::start(&mesh, PodSpec::new("pod").without_sidecar())?;
    let before = pod.nat_rules()?;
    let printed = output(&mut pod.init_command(User::App, &["--dry-run"]))?;
    ensure!(
        printed.starts_with("*nat\n") && printed.ends_with("COMMIT\n"),
        "{printed}"
    );
    ensure!(pod.nat_rules()? == before);
    // What it prints is what it does.
    let file = pod.folder().join("rules");
    std::fs::write(&file, printed)?;
    in_pod(
        &pod,
        &format!("iptables-restore --noflush {}", file.display()),
    )?;
    let by_hand = pod.nat_rules()?;
    pod.init(&["--cleanup-only"])?;
    pod.init(&[])?;
    ensure!(pod.nat_rules()? == by_hand);
    Ok(())
}

fn unprivileged() -> Result<()> {
    let mesh = Mesh::without_control_plane()?;
    let pod = Pod::start(&mesh, PodSpec::new("pod").without_sidecar())?;
    let before = pod.nat_rules()?;
    let done = pod.init_command(User::App, &[]).output()?;
    ensure!(!done.status.success(), "init reported success");
    let text = String::from_utf8_lossy(&done.stderr);
    ensure!(text.contains("iptables-save"), "{text}");
    ensure!(pod.nat_rules()? == before);
    Ok(())
}

/// An iptables-restore that reports success and does nothing, or half.
fn lost_rules() -> Result<()> {
    let mesh = Mesh::without_control_plane()?;
    let pod = Pod::start(&mesh, PodSpec::new("pod").without_sidecar())?;
    let half = "sed '/15006/d' | /usr/sbin/iptables-restore \"$@\"";
    for script in ["cat > /dev/null", half] {
        let folder = pod.folder().join("bin");
        let fake = folder.join("iptables-restore");
        shell(&format!("mkdir -p {}", folder.display()))?;
        std::fs::write(&fake, format!("#!/bin/sh\n{script}\n"))?;
        shell(&format!("chmod 755 {}", fake.display()))?;
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", folder.display());
        let done = pod
            .init_command(User::Root, &[])
            .env("PATH", path)
            .output()?;
        let text = String::from_utf8_lossy(&done.stderr);
        ensure!(
            done.status.code() == Some(126),
            "{script}: {}: {text}",
            done.status
        );
        let left = pod.nat_rules()?;
        ensure!(
            !left.iter().any(|rule| rule.contains("ISTIO")),
            "{script} left {left:?}"
        );
    }
    Ok(())
}

fn validation() -> Result<()> {
    let mesh = Mesh::without_control_plane()?;
    let pod = Pod::start(&mesh, PodSpec::new("pod").without_sidecar())?;
    // As root what goes out is tried, as the sidecar's user what comes in.
    let only = [
        "--skip-rule-apply",
        "--run-validation",
        "--probe-timeout",
        "1s",
    ];
    for user in [User::Root, User::Envoy] {
        let done = pod.init_command(user, &only).output()?;
        ensure!(
            done.status.code() == Some(126),
            "{user:?} without capture: {}",
            done.status
        );
    }
    pod.init(&["--run-validation"])?;
    for user in [User::Root, User::Envoy] {
        output(&mut pod.init_command(user, &only))?;
    }
    Ok(())
}

fn ipv6() -> Result<()> {
    let mesh = Mesh::without_control_plane()?;
    let pod = Pod::start(&mesh, PodSpec::new("pod").without_sidecar())?;
    in_pod(&pod, "ip -6 addr add fd00::7/64 dev eth0 nodad")?;
    for flags in [&[][..], &["--cleanup-only"]] {
        pod.init(flags)?;
        let mut save = pod.namespace().command(User::Root, "ip6tables-save");
        let rules = output(save.args(["-t", "nat"]))?;
        let captured = rules.contains("-A OUTPUT -j ISTIO_OUTPUT");
        ensure!(captured == flags.is_empty(), "after {flags:?}: {rules}");
    }
    Ok(())
}

fn in_pod(pod: &Pod, commands: &str) -> Result<()> {
    let mut command = pod.namespace().command(User::Root, "sh");
    output(command.args(["-ec", commands])).map(drop)
}
