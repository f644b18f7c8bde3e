//! Every setting of `fairlead discovery`: flag, environment, default, help. Checked once, here.

use std::ffi::OsStr;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};

use super::address::{self, Listen};
use super::logging::Format;
use super::span;
use crate::model::proxy::RoutePacking;
use crate::source::kube::Access;

const DEBUG_PAGES: &str = "\
Debug pages (/debug/syncz, /debug/adsz, /debug/config_dump?proxyID=NAME.NAMESPACE on --http-addr) need a token of the mesh:
  curl -H \"Authorization: Bearer $(fairlead token --state-dir DIR --namespace istio-system --service-account reader)\" \
localhost:8080/debug/syncz
An identity of the root namespace (istio-system) sees every proxy, any other those of its own namespace.";

/// Flags are kebab-case; the spellings of `pilot-discovery` are accepted beside them.
#[derive(Args, Clone, Debug)]
#[command(after_help = DEBUG_PAGES)]
pub struct Settings {
    /// Folder of Kubernetes-style YAML (a GitOps checkout), watched for changes.
    #[arg(
        long,
        env = "FAIRLEAD_CONFIG_DIR",
        visible_alias = "configDir",
        value_name = "DIR"
    )]
    pub config_dir: Option<PathBuf>,

    /// Private folder for the CA, the token issuer's key and the accepted configuration; made if absent.
    #[arg(long, env = "FAIRLEAD_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Folder of a CA to use instead of our own: ca-cert.pem, ca-key.pem, root-cert.pem, cert-chain.pem.
    #[arg(long, env = "FAIRLEAD_CA_DIR", value_name = "DIR")]
    pub ca_dir: Option<PathBuf>,

    /// Names and addresses under which proxies reach us, besides the usual ones.
    #[arg(
        long,
        env = "ISTIOD_CUSTOM_HOST",
        value_delimiter = ',',
        value_name = "NAME"
    )]
    pub custom_host: Vec<String>,

    /// Kubeconfig of the API server to serve from. Without it and --config-dir, KUBECONFIG or the pod's own service account says.
    #[arg(long, env = "FAIRLEAD_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// File with MeshConfig. Without it, the ConfigMap `istio` of the root namespace decides.
    #[arg(
        long,
        env = "FAIRLEAD_MESH_CONFIG",
        visible_alias = "meshConfig",
        value_name = "FILE"
    )]
    pub mesh_config: Option<PathBuf>,

    /// DNS domain of Services.
    #[arg(long, env = "FAIRLEAD_DOMAIN", default_value = "cluster.local", value_parser = address::domain)]
    pub domain: String,

    /// Listen address for xDS and certificates over TLS; a port of 0 takes a free one.
    #[arg(
        long,
        env = "FAIRLEAD_SECURE_GRPC_ADDR",
        visible_alias = "secureGRPCAddr",
        default_value = ":15012",
        value_name = "ADDRESS"
    )]
    pub secure_grpc_addr: Listen,

    /// Listen address for xDS without TLS or identity: never a secret. Off when empty.
    #[arg(
        long,
        env = "FAIRLEAD_GRPC_ADDR",
        visible_alias = "grpcAddr",
        default_value = "",
        value_name = "ADDRESS"
    )]
    pub grpc_addr: Listen,

    /// Listen address for readiness and debug pages.
    #[arg(
        long,
        env = "FAIRLEAD_HTTP_ADDR",
        visible_alias = "httpAddr",
        default_value = ":8080",
        value_name = "ADDRESS"
    )]
    pub http_addr: Listen,

    /// Listen address for metrics and version.
    #[arg(
        long,
        env = "FAIRLEAD_MONITORING_ADDR",
        visible_alias = "monitoringAddr",
        default_value = ":15014",
        value_name = "ADDRESS"
    )]
    pub monitoring_addr: Listen,

    /// Listen address for the webhooks that inject sidecars and validate objects; :15017 in a cluster unless
    /// given, off without one.
    #[arg(
        long,
        env = "FAIRLEAD_HTTPS_ADDR",
        visible_alias = "httpsAddr",
        value_name = "ADDRESS"
    )]
    pub https_addr: Option<Listen>,

    /// Namespace that this control plane is installed in: its authority's Secret and its Lease are there.
    #[arg(
        long,
        env = "POD_NAMESPACE",
        default_value = "istio-system",
        value_name = "NAME"
    )]
    pub namespace: String,

    /// Revision of this control plane, as in the label istio.io/rev.
    #[arg(long, env = "REVISION", default_value = "default", value_name = "NAME")]
    pub revision: String,

    /// While the API server does not answer, take tokens by the cluster's public keys if their pod is still known.
    #[arg(
        long,
        env = "FAIRLEAD_TOKEN_STANDBY",
        default_value_t = true,
        action = ArgAction::Set,
        num_args = 0..=1,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        value_name = "BOOL"
    )]
    pub token_standby: bool,

    /// Keep a snapshot of all configuration and endpoints in this folder, and serve from it where a start finds the API
    /// server away.
    #[arg(long, env = "FAIRLEAD_SNAPSHOT_DIR", value_name = "DIR")]
    pub snapshot_dir: Option<PathBuf>,

    /// Service account of this control plane: by its identity replicas know each other.
    #[arg(
        long,
        env = "SERVICE_ACCOUNT",
        default_value = "istiod",
        value_name = "NAME"
    )]
    pub service_account: String,

    /// Watch Secrets, so that gateways can show their certificates. Without, a Gateway's `credentialName` is of no use,
    /// and the control plane needs no right to read Secrets.
    #[arg(
        long,
        env = "PILOT_ENABLE_GATEWAY_SECRETS",
        default_value_t = true,
        action = ArgAction::Set,
        num_args = 0..=1,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        value_name = "BOOL"
    )]
    pub gateway_secrets: bool,

    /// Write into the status of Istio's objects whether they are in force, and in how many proxies.
    #[arg(
        long,
        env = "PILOT_ENABLE_STATUS",
        default_value_t = true,
        action = ArgAction::Set,
        num_args = 0..=1,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        value_name = "BOOL"
    )]
    pub status: bool,

    /// Name of this replica, as its Lease shows it; the pod's.
    #[arg(
        long,
        env = "POD_NAME",
        default_value = "fairlead",
        value_name = "NAME"
    )]
    pub pod_name: String,

    /// Let --grpc-addr be reached from other machines, where anybody may read any proxy's configuration.
    #[arg(long, env = "FAIRLEAD_INSECURE_UNAUTHENTICATED_XDS")]
    pub insecure_unauthenticated_xds: bool,

    /// Write {listener: address} as JSON to this file once all listeners are bound.
    #[arg(long, env = "FAIRLEAD_PORTS_FILE", value_name = "FILE")]
    pub ports_file: Option<PathBuf>,

    /// Keep the version in force of a VirtualService or DestinationRule while a new one refers to what is not there yet.
    #[arg(
        long,
        env = "FAIRLEAD_HOLD_UNRESOLVED",
        default_value_t = true,
        action = ArgAction::Set,
        num_args = 0..=1,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        value_name = "BOOL"
    )]
    pub hold_unresolved: bool,

    /// How route tables come to proxies: rds (one a port), scoped (one a host and port, by scopes), on-demand
    /// (the same, tables and clusters sent when a request first needs them), or auto: rds or scoped, by
    /// the number of hosts. A pod's annotation fairlead.dev/route-packing goes before.
    #[arg(
        long,
        env = "FAIRLEAD_ROUTE_PACKING",
        default_value_t,
        value_name = "PACKING"
    )]
    pub route_packing: RoutePacking,

    /// How long routes and listeners wait for a cluster that they newly name and that is still warming.
    #[arg(long, env = "FAIRLEAD_WARMING_TIMEOUT", default_value = "5s", value_parser = span::parse)]
    pub warming_timeout: Duration,

    /// Lifetime of workload certificates; they are renewed at half of it.
    #[arg(long, env = "DEFAULT_WORKLOAD_CERT_TTL", default_value = "24h", value_parser = span::parse)]
    pub workload_cert_ttl: Duration,

    /// The longest lifetime that a certificate request may ask for.
    #[arg(long, env = "MAX_WORKLOAD_CERT_TTL", default_value = "2160h", value_parser = span::parse)]
    pub max_workload_cert_ttl: Duration,

    /// xDS connections end after this long (with jitter) and come back without a resend.
    #[arg(
        long,
        env = "FAIRLEAD_KEEPALIVE_MAX_SERVER_CONNECTION_AGE",
        visible_alias = "keepaliveMaxServerConnectionAge",
        default_value = "30m",
        value_parser = span::parse
    )]
    pub keepalive_max_server_connection_age: Duration,

    /// How long a stop on SIGTERM may take: proxies are told to go, then connections are closed.
    #[arg(long, env = "FAIRLEAD_SHUTDOWN_DURATION", visible_alias = "shutdownDuration", default_value = "10s", value_parser = span::parse)]
    pub shutdown_duration: Duration,

    /// Log levels, as in `default:info,ads:debug`.
    #[arg(
        long,
        env = "FAIRLEAD_LOG_OUTPUT_LEVEL",
        visible_alias = "log_output_level",
        default_value = "default:info",
        value_name = "LEVELS"
    )]
    pub log_output_level: String,

    /// Write the log as JSON.
    #[arg(long, env = "FAIRLEAD_LOG_AS_JSON", visible_alias = "log_as_json")]
    pub log_as_json: bool,
}

/// As istiod's.
const WEBHOOKS: u16 = 15017;

/// Whether the environment gives this setting.
pub fn is_in_environment(name: &OsStr) -> bool {
    #[expect(clippy::disallowed_methods, reason = "settings are read here")]
    std::env::var_os(name).is_some()
}

/// Where configuration and state live, after the checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    pub source: Source,
    pub state: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Files(PathBuf),
    Kubernetes(Access),
}

impl Settings {
    pub fn log_format(&self) -> Format {
        if self.log_as_json {
            Format::Json
        } else {
            Format::Text
        }
    }

    /// Refuses what contradicts itself or is not built, before anything is started.
    pub fn check(&self) -> Result<Home> {
        if let Some(open) = self.grpc_addr.address().filter(|a| !a.ip().is_loopback())
            && !self.insecure_unauthenticated_xds
        {
            bail!(
                "--grpc-addr {open}: anybody who reaches it reads any proxy's configuration; \
                 use a loopback address, or add --insecure-unauthenticated-xds"
            );
        }
        for (flag, value) in [
            ("--workload-cert-ttl", self.workload_cert_ttl),
            ("--max-workload-cert-ttl", self.max_workload_cert_ttl),
            (
                "--keepalive-max-server-connection-age",
                self.keepalive_max_server_connection_age,
            ),
        ] {
            if value < Duration::from_secs(1) {
                bail!("{flag}: this must be a second or more");
            }
        }
        if self.workload_cert_ttl > self.max_workload_cert_ttl {
            bail!(
                "--workload-cert-ttl: {} s is longer than --max-workload-cert-ttl, {} s",
                self.workload_cert_ttl.as_secs(),
                self.max_workload_cert_ttl.as_secs()
            );
        }
        let source = self.source(surroundings())?;
        let Some(state) = self.state_dir.clone() else {
            bail!("--state-dir is missing: the folder that keeps the CA over a restart")
        };
        if self.https(&source) != Listen::Off && matches!(source, Source::Files(_)) {
            bail!("--https-addr: webhooks are for an API server, and --config-dir has none");
        }
        Ok(Home { source, state })
    }

    /// Where the webhooks listen.
    pub fn https(&self, source: &Source) -> Listen {
        match (self.https_addr, source) {
            (Some(address), Source::Files(_) | Source::Kubernetes(_)) => address,
            (None, Source::Files(_)) => Listen::Off,
            (None, Source::Kubernetes(_)) => {
                Listen::On(SocketAddr::from((Ipv6Addr::UNSPECIFIED, WEBHOOKS)))
            }
        }
    }

    fn source(&self, surroundings: Option<Access>) -> Result<Source> {
        match (&self.config_dir, &self.kubeconfig) {
            (Some(_), Some(_)) => {
                bail!("--config-dir and --kubeconfig: configuration comes from one of them")
            }
            (Some(folder), None) => Ok(Source::Files(folder.clone())),
            (None, Some(file)) => Ok(Source::Kubernetes(Access::Kubeconfig(file.clone()))),
            (None, None) => match surroundings {
                Some(access) => Ok(Source::Kubernetes(access)),
                None => bail!(
                    "--config-dir or --kubeconfig is missing: the folder of YAML, or the API server to serve"
                ),
            },
        }
    }
}

/// Whether the surroundings name an API server, as they do in a pod.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment"
)]
fn surroundings() -> Option<Access> {
    ["KUBECONFIG", "KUBERNETES_SERVICE_HOST"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
        .then_some(Access::Surroundings)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    fn settings(flags: &[&str]) -> Settings {
        let base = ["discovery", "--config-dir", "conf", "--state-dir", "state"];
        Line::try_parse_from(base.iter().chain(flags))
            .unwrap()
            .settings
    }

    #[test]
    fn pilot_discoverys_spellings_are_understood() {
        let got = settings(&[
            "--secureGRPCAddr=127.0.0.1:0",
            "--grpcAddr=localhost:15010",
            "--httpAddr=",
            "--monitoringAddr=:9",
            "--httpsAddr=",
            "--meshConfig=mesh.yaml",
            "--domain=mesh.local",
            "--keepaliveMaxServerConnectionAge=1h",
            "--shutdownDuration=1s",
            "--log_output_level=default:warn",
            "--log_as_json",
        ]);
        assert_eq!(got.secure_grpc_addr.to_string(), "127.0.0.1:0");
        assert_eq!(got.http_addr, Listen::Off);
        assert_eq!(
            got.keepalive_max_server_connection_age,
            Duration::from_secs(3600)
        );
        assert_eq!(got.log_format(), Format::Json);
        let source = got.check().unwrap().source;
        assert_eq!(source, Source::Files(PathBuf::from("conf")));
    }

    #[test]
    fn holding_is_on_unless_switched_off() {
        assert!(settings(&[]).hold_unresolved);
        assert!(settings(&["--hold-unresolved"]).hold_unresolved);
        for off in [
            &["--hold-unresolved=false"][..],
            &["--hold-unresolved", "false"],
            &["--hold-unresolved=0"],
        ] {
            assert!(!settings(off).hold_unresolved, "{off:?}");
        }
        assert!(settings(&["--hold-unresolved", "--log_as_json"]).log_as_json);
    }

    #[test]
    fn plaintext_beyond_loopback_needs_the_word_insecure() {
        let why = settings(&["--grpc-addr=:15010"])
            .check()
            .unwrap_err()
            .to_string();
        assert!(why.contains("--insecure-unauthenticated-xds"), "{why}");
        assert!(settings(&["--grpc-addr=127.0.0.1:15010"]).check().is_ok());
        assert!(
            settings(&["--grpc-addr=:15010", "--insecure-unauthenticated-xds"])
                .check()
                .is_ok()
        );
    }

    #[test]
    fn webhooks_are_a_clusters_alone() {
        let why = settings(&["--https-addr=:15017"]).check().unwrap_err();
        assert!(why.to_string().contains("API server"), "{why}");
        let files = Source::Files(PathBuf::from("x"));
        let cluster = Source::Kubernetes(Access::Surroundings);
        assert_eq!(settings(&[]).https(&files), Listen::Off);
        assert_eq!(settings(&[]).https(&cluster).to_string(), "[::]:15017");
        assert_eq!(settings(&["--https-addr="]).https(&cluster), Listen::Off);
    }

    #[test]
    fn configuration_comes_from_one_source() {
        let why = settings(&["--kubeconfig=x"]).check().unwrap_err();
        assert!(why.to_string().contains("one of them"), "{why}");
        let bare = |flags: &[&str]| Settings {
            config_dir: None,
            ..settings(flags)
        };
        let named = Source::Kubernetes(Access::Kubeconfig(PathBuf::from("x")));
        let pod = Some(Access::Surroundings);
        let source = |flags: &[&str], around| bare(flags).source(around).ok();
        assert_eq!(source(&["--kubeconfig=x"], pod.clone()), Some(named));
        assert_eq!(
            source(&[], pod),
            Some(Source::Kubernetes(Access::Surroundings))
        );
        assert_eq!(source(&[], None), None);
    }

    #[test]
    fn a_certificate_may_not_outlive_the_longest_lifetime() {
        let why = settings(&["--workload-cert-ttl=48h", "--max-workload-cert-ttl=24h"]).check();
        assert!(why.is_err());
    }
}
