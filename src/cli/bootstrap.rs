//! `fairlead bootstrap`: a workload's description in, Envoy's bootstrap out.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::bootstrap::{
    Bootstrap, ControlPlane, DrainKey, Endpoint, FilePath, Locality, Pod, Workload,
    new_drain_secret,
};
use crate::config::meta::Labels;
use crate::model::proxy::{Interception, Role};
use crate::text::{Hostname, Str};

/// Who the workload is, how it reaches the control plane, and what its pod offers.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What its Envoy is: a workload's own (sidecar), or a gateway (router).
    #[arg(long, value_name = "ROLE", default_value_t)]
    role: Role,
    /// The workload's namespace.
    #[arg(long, value_name = "NAME")]
    namespace: Str,
    /// Its service account; the token proves it.
    #[arg(long, value_name = "NAME", default_value = "default")]
    service_account: Str,
    /// Its name: the pod's.
    #[arg(long, value_name = "NAME")]
    name: Str,
    /// Its address: the pod's, or one of 127.0.0.0/8 where nothing is captured.
    #[arg(long, value_name = "IP")]
    ip: IpAddr,
    /// Its addresses of the other family, as `status.podIPs` has them.
    #[arg(long, value_name = "IP,…", value_delimiter = ',')]
    more_ips: Vec<IpAddr>,
    /// Its labels.
    #[arg(long, value_name = "KEY=VALUE,…", value_delimiter = ',', value_parser = label)]
    labels: Vec<(Str, Str)>,
    /// Domain of its namespace's services; `<namespace>.svc.cluster.local` unless given.
    #[arg(long, value_name = "DOMAIN")]
    dns_domain: Option<Str>,
    /// The name under which traces show it; `<app>.<namespace>` unless given.
    #[arg(long, value_name = "NAME")]
    cluster: Option<Str>,
    /// The Kubernetes cluster that it is in.
    #[arg(long, value_name = "NAME", default_value = "Kubernetes")]
    cluster_id: Str,
    /// Where it runs, as region, region/zone or region/zone/sub-zone.
    #[arg(long, value_name = "LOCALITY", default_value = "")]
    locality: String,
    /// How traffic reaches Envoy: REDIRECT (captured by `fairlead init`; a sidecar's default) or NONE.
    #[arg(long, value_name = "MODE", value_parser = interception)]
    interception: Option<Interception>,

    /// The WorkloadGroup of its namespace that it enters by itself, where no object describes it.
    #[arg(long, value_name = "NAME")]
    workload_group: Option<Str>,

    /// The control plane, as host:port.
    #[arg(
        long,
        value_name = "HOST:PORT",
        default_value = "istiod.istio-system.svc:15012"
    )]
    discovery_address: String,
    /// The DNS name that its certificate must have; that of the address unless given.
    #[arg(long, value_name = "NAME")]
    discovery_name: Option<String>,
    /// The workload's token; read again when it changes.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/var/run/secrets/tokens/istio-token"
    )]
    token_file: PathBuf,
    /// Root certificates of the control plane; read again when they change.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/var/run/secrets/istio/root-cert.pem"
    )]
    root_cert: PathBuf,
    /// Where Envoy finds cp-ca-sds.yaml; beside the root certificates unless given or written to --out-dir.
    #[arg(long, value_name = "FILE", conflicts_with = "out_dir")]
    root_secret_file: Option<PathBuf>,

    /// Folder of the admin socket; made together with --out-dir.
    #[arg(long, value_name = "DIR", default_value = "/var/run/mesh")]
    run_dir: PathBuf,
    /// Where readiness is served; every address unless given.
    #[arg(long, value_name = "IP")]
    status_bind: Option<IpAddr>,
    /// Port of readiness (and of draining, for who has the secret).
    #[arg(long, value_name = "PORT", default_value_t = 15021)]
    status_port: u16,
    /// Where the read-only admin pages are served.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    admin_bind: IpAddr,
    /// Port of the read-only admin pages; 0 for none.
    #[arg(long, value_name = "PORT", default_value_t = 15000)]
    admin_port: u16,
    /// Where Prometheus' page is served; any address but loopback shows the mesh's traffic to every pod.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    prometheus_bind: IpAddr,
    /// Port of Prometheus' page; 0 for none.
    #[arg(long, value_name = "PORT", default_value_t = 15090)]
    prometheus_port: u16,
    /// Secret for `GET /drain` as user `drain`; made up and told on standard error unless given.
    #[arg(
        long,
        value_name = "SECRET",
        env = "FAIRLEAD_DRAIN_SECRET",
        hide_env_values = true
    )]
    drain_secret: Option<String>,
    /// How long draining is answered late, for a hook that is to wait meanwhile.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = super::span::parse)]
    drain_hold: Duration,
    /// Connections from clients in all.
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,
    /// Statistics to keep besides the usual ones, by prefix.
    #[arg(long, value_name = "PREFIX,…", value_delimiter = ',')]
    stats: Vec<Str>,

    /// How to print it.
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "yaml")]
    output: Format,
    /// Write bootstrap.yaml and cp-ca-sds.yaml there (for the owner alone) instead of printing.
    #[arg(long, value_name = "DIR")]
    out_dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Yaml,
    Json,
}

const ROOT_SECRET_FILE: &str = "cp-ca-sds.yaml";

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let secret = match &args.drain_secret {
        Some(secret) => secret.clone(),
        None => new_drain_secret()?,
    };
    let bootstrap = args.bootstrap(&secret)?;
    let rendered = bootstrap.render();
    match &args.out_dir {
        None => print!("{}", args.output.text(&rendered)?),
        Some(folder) => {
            create_private_folder(folder)?;
            // On the machine that Envoy will run on; where it is another one, that is told.
            if let Err(why) = create_private_folder(&args.run_dir) {
                let run_dir = args.run_dir.display();
                eprintln!(
                    "fairlead: {why:#}; make {run_dir} before Envoy starts, which puts its admin socket there"
                );
            }
            let extension = args.output.extension();
            write_private(
                &folder.join(format!("bootstrap.{extension}")),
                &args.output.text(&rendered)?,
            )?;
            let root = Format::Yaml.text(&bootstrap.control_plane.root_secret())?;
            write_private(&folder.join(ROOT_SECRET_FILE), &root)?;
        }
    }
    if args.drain_secret.is_none() {
        eprintln!(
            "drain: curl -u drain:{secret} http://{}/drain",
            bootstrap.pod.status
        );
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn bootstrap(&self, drain_secret: &str) -> anyhow::Result<Bootstrap> {
        Ok(Bootstrap {
            workload: self.workload()?,
            control_plane: self.control_plane()?,
            pod: self.pod(drain_secret)?,
        })
    }

    fn workload(&self) -> anyhow::Result<Workload> {
        let mut keys = BTreeSet::new();
        for (key, _) in &self.labels {
            ensure!(keys.insert(key), "--labels: `{key}` is given twice");
        }
        let labels: Labels = self.labels.iter().cloned().collect();
        let namespace = &self.namespace;
        let named = |what: &str, name: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
            ensure!(
                !name.is_empty() && name.chars().all(plain),
                "--{what}: `{name}` is no name of Kubernetes'"
            );
            Ok(())
        };
        named("name", &self.name)?;
        named("namespace", namespace)?;
        named("service-account", &self.service_account)?;
        let domain = || Str::new(format!("{namespace}.svc.cluster.local"));
        let app = labels.get("app").unwrap_or(&self.name);
        let cluster = || Str::new(format!("{app}.{namespace}"));
        Ok(Workload {
            role: self.role,
            name: self.name.clone(),
            namespace: namespace.clone(),
            service_account: self.service_account.clone(),
            ip: Str::new(self.ip.to_string()),
            ips: self.all_ips(),
            annotations: Labels::new(),
            topology: None,
            dns_domain: self.dns_domain.clone().unwrap_or_else(domain),
            cluster: self.cluster.clone().unwrap_or_else(cluster),
            labels,
            cluster_id: self.cluster_id.clone(),
            locality: locality(&self.locality)?,
            interception: self.interception()?,
            group: self.workload_group.clone(),
        })
    }

    /// The first is the one that the proxy goes by.
    fn all_ips(&self) -> Str {
        let others = self.more_ips.iter().filter(|ip| **ip != self.ip);
        let all: Vec<String> = std::iter::once(&self.ip)
            .chain(others)
            .map(IpAddr::to_string)
            .collect();
        Str::new(all.join(","))
    }

    fn interception(&self) -> anyhow::Result<Interception> {
        match (self.role, self.interception) {
            (Role::Sidecar, mode) => Ok(mode.unwrap_or(Interception::Redirect)),
            (Role::Router, None | Some(Interception::None)) => Ok(Interception::None),
            (Role::Router, Some(Interception::Redirect | Interception::Tproxy)) => {
                bail!("--interception: nothing is captured for a router")
            }
        }
    }

    fn control_plane(&self) -> anyhow::Result<ControlPlane> {
        let endpoint = Endpoint::parse(&self.discovery_address)?;
        let server_name = match (&self.discovery_name, endpoint.name()) {
            (Some(name), _) => Hostname::parse(name)?,
            (None, Some(name)) => name.clone(),
            (None, None) => Hostname::parse("istiod.istio-system.svc")?,
        };
        let beside = self.root_cert.with_file_name(ROOT_SECRET_FILE);
        let root_secret_file = match (&self.out_dir, &self.root_secret_file) {
            (Some(folder), _) => folder.join(ROOT_SECRET_FILE),
            (None, Some(file)) => file.clone(),
            (None, None) => beside,
        };
        Ok(ControlPlane {
            endpoint,
            server_name,
            token: absolute(&self.token_file)?,
            root: absolute(&self.root_cert)?,
            root_secret_file: absolute(&root_secret_file)?,
        })
    }

    /// Envoy would not start with two listeners on one address.
    fn check_ports(&self) -> anyhow::Result<()> {
        let pages = [
            ("--status-port", self.status_bind, self.status_port),
            ("--admin-port", Some(self.admin_bind), self.admin_port),
            (
                "--prometheus-port",
                Some(self.prometheus_bind),
                self.prometheus_port,
            ),
        ];
        let any = |bind: &Option<IpAddr>| bind.is_none_or(|ip| ip.is_unspecified());
        for (i, (flag, bind, port)) in pages.iter().enumerate() {
            let meets = |(_, b, p): &&(_, Option<IpAddr>, u16)| {
                *port != 0 && p == port && (b == bind || any(b) || any(bind))
            };
            if let Some((other, ..)) = pages[..i].iter().find(meets) {
                bail!("{flag}: {port} is {other} already; give each its own");
            }
        }
        Ok(())
    }

    fn pod(&self, drain_secret: &str) -> anyhow::Result<Pod> {
        let six = self.ip.is_ipv6() || self.more_ips.iter().any(IpAddr::is_ipv6);
        let any = match six {
            false => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            true => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        ensure!(
            self.status_port != 0,
            "--status-port: readiness needs a port"
        );
        self.check_ports()?;
        let unless_off = |ip, port| (port != 0).then(|| SocketAddr::new(ip, port));
        let socket = absolute(&self.run_dir.join("admin.sock"))?;
        Ok(Pod {
            admin_socket: FilePath::parse_socket(socket.as_str())?,
            status: SocketAddr::new(self.status_bind.unwrap_or(any), self.status_port),
            pages: unless_off(self.admin_bind, self.admin_port),
            prometheus: unless_off(self.prometheus_bind, self.prometheus_port),
            drain: DrainKey::parse(drain_secret)?,
            drain_hold: self.drain_hold,
            probes: None,
            metrics: None,
            max_connections: self.max_connections,
            stats: self.stats.clone(),
        })
    }
}

impl Format {
    fn text(self, value: &Value) -> anyhow::Result<String> {
        Ok(match self {
            Self::Yaml => serde_saphyr::to_string(value)?,
            Self::Json => serde_json::to_string_pretty(value)? + "\n",
        })
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Yaml => "yaml",
            Self::Json => "json",
        }
    }
}

fn label(text: &str) -> Result<(Str, Str), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}` is not key=value"))?;
    Ok((Str::new(key), Str::new(value)))
}

fn interception(text: &str) -> Result<Interception, String> {
    match text {
        "REDIRECT" => Ok(Interception::Redirect),
        "NONE" => Ok(Interception::None),
        "TPROXY" => Ok(Interception::Tproxy),
        _ => Err(format!("`{text}` is none of REDIRECT, TPROXY, NONE")),
    }
}

fn locality(text: &str) -> anyhow::Result<Locality> {
    let mut parts = text.split('/').map(Str::new);
    let locality = Locality {
        region: parts.next().unwrap_or_default(),
        zone: parts.next().unwrap_or_default(),
        sub_zone: parts.next().unwrap_or_default(),
    };
    ensure!(
        parts.next().is_none(),
        "--locality: `{text}` has more than region/zone/sub-zone"
    );
    Ok(locality)
}

fn absolute(path: &Path) -> anyhow::Result<FilePath> {
    let full = std::path::absolute(path).with_context(|| format!("path {}", path.display()))?;
    let text = full
        .to_str()
        .with_context(|| format!("path {} is no UTF-8", full.display()))?;
    Ok(FilePath::parse(text)?)
}

/// 128 random bits, in hexadecimal.
fn create_private_folder(folder: &Path) -> anyhow::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(folder)
        .with_context(|| format!("create folder {}", folder.display()))
}

/// In one step: Envoy never reads half a file.
fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let part = path.with_extension("part");
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&part, path)
    };
    write().with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        bootstrap: Args,
    }

    fn parse(flags: &[&str]) -> anyhow::Result<Bootstrap> {
        let who = [
            "bootstrap",
            "--namespace=shop",
            "--name=reviews-v1",
            "--ip=10.0.0.7",
        ];
        let args = Program::try_parse_from(who.iter().chain(flags))?.bootstrap;
        args.bootstrap("0123456789abcdef")
    }

    #[test]
    fn without_flags_it_is_a_sidecar_of_a_cluster_with_istios_names() {
        let made = parse(&["--labels", "app=reviews,version=v1"]).unwrap();
        assert_eq!(made.workload.cluster, "reviews.shop");
        assert_eq!(made.workload.dns_domain, "shop.svc.cluster.local");
        assert_eq!(
            made.control_plane.server_name.as_str(),
            "istiod.istio-system.svc"
        );
        let secret = made.control_plane.root_secret_file.as_str();
        assert_eq!(secret, "/var/run/secrets/istio/cp-ca-sds.yaml");
        assert_eq!(made.pod.status.to_string(), "0.0.0.0:15021");
        assert_eq!(made.pod.pages.unwrap().to_string(), "127.0.0.1:15000");
        assert_eq!(made.pod.prometheus.unwrap().to_string(), "127.0.0.1:15090");
    }

    #[test]
    fn several_envoys_share_a_machine_without_capture() {
        let flags = [
            "--interception=NONE",
            "--status-bind=127.0.0.9",
            "--status-port=8021",
        ];
        let made =
            parse(&[&flags[..], &["--admin-port=0", "--prometheus-port=0"]].concat()).unwrap();
        assert_eq!(made.pod.status.to_string(), "127.0.0.9:8021");
        assert_eq!((made.pod.pages, made.pod.prometheus), (None, None));
        assert_eq!(made.workload.interception, Interception::None);
    }

    #[test]
    fn a_pod_of_both_families_is_asked_on_both() {
        let made = parse(&["--more-ips=10.0.0.7,fd00::7"]).unwrap();
        assert_eq!(made.workload.ips, "10.0.0.7,fd00::7");
        assert_eq!(made.workload.ip, "10.0.0.7");
        assert_eq!(made.pod.status.to_string(), "[::]:15021");
    }

    #[test]
    fn a_router_captures_nothing() {
        let made = parse(&["--role=router"]).unwrap();
        assert_eq!(made.workload.role, Role::Router);
        assert_eq!(made.workload.interception, Interception::None);
        assert!(parse(&["--role=router", "--interception=NONE"]).is_ok());
        assert!(parse(&["--role=router", "--interception=REDIRECT"]).is_err());
    }

    #[test]
    fn an_address_by_number_is_checked_by_the_name_that_is_given() {
        let made = parse(&[
            "--discovery-address=10.0.0.1:15012",
            "--discovery-name=istiod",
        ])
        .unwrap();
        assert_eq!(made.control_plane.server_name.as_str(), "istiod");
    }

    #[test]
    fn wrong_values_are_refused() {
        for flag in [
            "--role=gateway",
            "--labels=app",
            "--interception=tproxy",
            "--more-ips=fd00::1,x",
            "--locality=a/b/c/d",
            "--discovery-address=istiod",
            "--service-account=a~b",
            "--status-port=0",
            "--token-file=/a:b",
            "--max-connections=0",
            "--admin-port=15021",
            "--labels=a=b,a=c",
        ] {
            assert!(parse(&[flag]).is_err(), "{flag}");
        }
    }

    #[test]
    fn the_run_folder_is_there_when_envoy_starts() {
        let folder = tempfile::tempdir().unwrap();
        let (run_dir, out) = (folder.path().join("deep/run"), folder.path().join("out"));
        let who = ["bootstrap", "--namespace=a", "--name=b", "--ip=10.0.0.7"];
        let flags = [("--run-dir", &run_dir), ("--out-dir", &out)];
        let flags = flags.map(|(flag, path)| format!("{flag}={}", path.display()));
        let line = who.iter().map(ToString::to_string).chain(flags);
        run(&Program::try_parse_from(line).unwrap().bootstrap).unwrap();
        assert!(run_dir.is_dir());
        assert!(out.join("bootstrap.yaml").is_file());
    }

    #[test]
    fn yaml_says_the_same_as_json() {
        let rendered = parse(&["--labels=app=yes,on=1.0,a=~"]).unwrap().render();
        let yaml = Format::Yaml.text(&rendered).unwrap();
        let back: Value = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(back, rendered);
    }
}
