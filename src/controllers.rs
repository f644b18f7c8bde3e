//! What Fairlead keeps right in its cluster, beside serving proxies.
//!
//! One replica does it, the holder of a Lease; every replica reads the authority's Secret and the injector's
//! ConfigMap. Only this room and `source::kube` speak to the API server.

pub mod authority;
mod conditions;
pub mod default_revision;
pub mod events;
pub mod ingress;
pub mod injector;
pub mod keys;
pub mod leader;
pub mod roots;
mod served;
pub mod status;
pub mod webhooks;

use std::time::Duration;

use kube::Client;
use kube::runtime::watcher;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::text::Str;

/// Where the control plane itself is installed.
#[derive(Clone)]
pub struct Installed {
    pub client: Client,
    /// `istio-system`, usually.
    pub namespace: Str,
    /// `default`, or the name that stands in `istio.io/rev`.
    pub revision: Str,
}

/// Who writes, as the API server records it.
const MANAGER: &str = "fairlead";
/// Waits between two looks at what may have changed in this process.
const LOOK: Duration = Duration::from_secs(5);

impl Installed {
    /// `name`, or `name-<revision>`.
    fn revised(&self, name: &str) -> String {
        match self.revision.as_str() {
            "" | "default" => name.to_owned(),
            revision => format!("{name}-{revision}"),
        }
    }
}

/// In seconds: a watch that goes on longer is lost.
const WATCH: u32 = 120;

/// One object by its name.
fn named(name: &str) -> watcher::Config {
    watcher::Config::default()
        .timeout(WATCH)
        .fields(&format!("metadata.name={name}"))
}

/// Does `work`, from its beginning, each time this replica comes to lead; until `stop`.
async fn while_leading<F: Future<Output = ()>>(
    mut leading: watch::Receiver<bool>,
    stop: CancellationToken,
    work: impl Fn() -> F,
) {
    let turns = async {
        while leading.wait_for(|leads| *leads).await.is_ok() {
            tokio::select! {
                _ = leading.wait_for(|leads| !*leads) => {}
                () = work() => {}
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = turns => {}
    }
}
