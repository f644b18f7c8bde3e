//! The authority's Secret: `cacerts` (plugged in by the user) or `istio-ca-secret` (made once, shared by replicas).
//!
//! The state directory holds a copy, by which a replica starts while the API server is away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use zeroize::{Zeroize as _, Zeroizing};

use super::Installed;
use crate::backoff::jittered;
use crate::ca::files::{self, Entries};
use crate::state::LockedDir;
use crate::telemetry::metrics::Metrics;

/// Istio's names.
const PLUGGED: &str = "cacerts";
const OWN: &str = "istio-ca-secret";
const TYPE: &str = "istio.io/ca-root";
/// What a Secret of type `kubernetes.io/tls` calls them.
const TLS_KEYS: &[(&str, &str)] = &[
    ("tls.crt", files::CERTIFICATE),
    ("tls.key", files::KEY),
    ("ca.crt", files::ROOTS),
];
const LOOK: Duration = Duration::from_secs(60);
const ASK: Duration = Duration::from_secs(10);
/// Two replicas may start at once: one of them makes the Secret.
const TRIES: usize = 3;

/// Brings the state directory to what the cluster's Secret says, making both where there is neither.
pub async fn settle(
    installed: &Installed,
    dir: &LockedDir,
    trust_domain: &str,
    now: SystemTime,
) -> Result<()> {
    let secrets = Secrets(Api::namespaced(
        installed.client.clone(),
        &installed.namespace,
    ));
    for _ in 0..TRIES {
        match secrets.find().await {
            Ok(Some((name, entries))) => {
                info!(namespace = %installed.namespace, secret = name, "certificate authority");
                files::adopt(dir, &entries, now)
                    .with_context(|| format!("use the authority of Secret {name}"))?;
                return Ok(());
            }
            Ok(None) => {
                // What is made here holds only once the cluster has it.
                files::open(dir, trust_domain, None, now)?;
                match secrets.create(&files::entries(dir)?).await? {
                    Created::Yes => {
                        info!(namespace = %installed.namespace, secret = OWN, "certificate authority made");
                        return Ok(());
                    }
                    Created::ByAnother => {}
                    Created::NoNamespace => {
                        warn!(
                            namespace = %installed.namespace,
                            "the namespace is not there: the authority is kept in the state directory alone"
                        );
                        return Ok(());
                    }
                }
            }
            Err(why) if files::is_whole(dir) => {
                warn!(
                    why = format!("{why:#}"),
                    "the authority's Secret cannot be read; the copy in the state directory is used"
                );
                return Ok(());
            }
            Err(why) => {
                return Err(why.context(format!(
                    "read Secret {OWN} of namespace {}: allow `get` and `create` of secrets there, or give a CA by --ca-dir",
                    installed.namespace
                )));
            }
        }
    }
    bail!("Secret {OWN} comes and goes; is somebody else deleting it?")
}

/// Looks whether the Secret is still the one in force: what is plugged in later takes effect at the next start alone,
/// and until all replicas were started anew, those of the two authorities do not trust each other.
pub async fn watch_over(
    installed: Installed,
    dir: Arc<LockedDir>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> Result<()> {
    let secrets = Secrets(Api::namespaced(
        installed.client.clone(),
        &installed.namespace,
    ));
    let mut told = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = time::sleep(jittered(LOOK)) => {}
        }
        let (Ok(found), Ok(own)) = (secrets.find().await, files::entries(&dir)) else {
            continue;
        };
        let differs = found.as_ref().is_some_and(|(_, entries)| {
            entries.get(files::KEY) != own.get(files::KEY)
                || entries.get(files::CERTIFICATE) != own.get(files::CERTIFICATE)
        });
        metrics.authority_differs.set(u64::from(differs));
        if differs && !told {
            let name = found.map_or("", |(name, _)| name);
            error!(
                namespace = %installed.namespace, secret = name,
                "the authority's Secret is not the one in force; start all replicas anew, or put it back"
            );
        }
        told = differs;
    }
}

enum Created {
    Yes,
    ByAnother,
    NoNamespace,
}

struct Secrets(Api<Secret>);

impl Secrets {
    async fn find(&self) -> Result<Option<(&'static str, Entries)>> {
        for name in [PLUGGED, OWN] {
            let found = time::timeout(ASK, self.0.get_opt(name)).await;
            if let Some(secret) = found.context("no answer in time")?? {
                return Ok(Some((name, entries(secret))));
            }
        }
        Ok(None)
    }

    async fn create(&self, entries: &Entries) -> Result<Created> {
        let data = entries
            .iter()
            .map(|(k, v)| (k.clone(), ByteString(v.to_vec())));
        let mut secret = Secret {
            metadata: ObjectMeta {
                name: Some(OWN.to_owned()),
                ..ObjectMeta::default()
            },
            type_: Some(TYPE.to_owned()),
            data: Some(data.collect()),
            ..Secret::default()
        };
        let post = PostParams::default();
        let made = time::timeout(ASK, self.0.create(&post, &secret)).await;
        if let Some(data) = &mut secret.data {
            data.values_mut().for_each(|v| v.0.zeroize());
        }
        match made.context("create the authority's Secret: no answer in time")? {
            Ok(_) => Ok(Created::Yes),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Created::ByAnother),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Created::NoNamespace),
            Err(error) => Err(anyhow::Error::new(error).context(format!(
                "create Secret {OWN}: allow `create` of secrets, or give a CA by --ca-dir"
            ))),
        }
    }
}

/// By the names of the state directory's files. What is empty is absent, as in Istio's own Secret.
fn entries(secret: Secret) -> Entries {
    let named = |key: &str| match TLS_KEYS.iter().find(|(tls, _)| *tls == key) {
        Some((_, name)) => (*name).to_owned(),
        None => key.to_owned(),
    };
    let data: BTreeMap<String, ByteString> = secret.data.unwrap_or_default();
    let present = data.into_iter().filter(|(_, value)| !value.0.is_empty());
    let present = present.map(|(key, value)| (named(&key), Zeroizing::new(value.0)));
    let mut entries: Entries = present.collect();
    // Of a TLS Secret the intermediates stand behind the certificate itself.
    if !entries.contains_key(files::CHAIN)
        && let Some(certificate) = entries.get(files::CERTIFICATE)
    {
        entries.insert(files::CHAIN.to_owned(), certificate.clone());
    }
    entries
}
