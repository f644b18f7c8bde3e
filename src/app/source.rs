//! The source that the settings name, as a task; with it, the file that holds MeshConfig.

use std::sync::Arc;

use anyhow::Result;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryFutureExt};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::tasks::{Tasks, fallible};
use crate::ca::review::{self, Unmade};
use crate::cli::settings::{Home, Settings, Source};
use crate::controllers::Installed;
use crate::source::Batch;
use crate::source::file::{self, Directory};
use crate::source::kube::{self, Cluster};
use crate::telemetry::metrics::Metrics;
use crate::text::Str;

/// Batches of the source that wait for acceptance. The source puts changes together when it is full.
const BATCHES: usize = 4;

/// A source that runs.
pub struct Started {
    /// A first batch with all there is, then one for what changes.
    pub batches: mpsc::Receiver<Batch>,
    /// Where it is a cluster: who knows its tokens.
    pub cluster: Option<Arc<dyn review::Cluster>>,
    /// And where we are installed in it.
    pub installed: Option<Installed>,
}

/// Starts the source that the settings name.
pub async fn run(
    settings: &Settings,
    home: &Home,
    metrics: &Arc<Metrics>,
    stop: &CancellationToken,
    tasks: &mut Tasks,
) -> Result<Started> {
    let mesh = settings.mesh_config.as_deref();
    match &home.source {
        Source::Files(folder) => {
            let directory = Directory::new(folder).with_mesh(mesh);
            Ok(Started {
                batches: follow("source", directory, metrics, stop, tasks),
                cluster: None,
                installed: None,
            })
        }
        Source::Kubernetes(access) => {
            let clients = kube::connect(access).await?;
            let installed = Installed {
                client: clients.requests.clone(),
                namespace: Str::new(&settings.namespace),
                revision: Str::new(&settings.revision),
            };
            let objects = Objects(kube::Objects::new(clients.requests));
            let cluster = Cluster {
                client: clients.watches,
                home: kube::Home {
                    namespace: installed.namespace.clone(),
                    revision: installed.revision.clone(),
                },
                mesh: mesh
                    .map(|file| follow("mesh file", Directory::alone(file), metrics, stop, tasks)),
                secrets: settings.gateway_secrets,
                metrics: metrics.clone(),
            };
            let (sink, batches) = mpsc::channel(BATCHES);
            let source = kube::run(cluster, sink, stop.clone());
            tasks.run("source", async {
                source.await;
                Ok(())
            });
            Ok(Started {
                batches,
                cluster: Some(Arc::new(objects)),
                installed: Some(installed),
            })
        }
    }
}

struct Objects(kube::Objects);

impl review::Cluster for Objects {
    fn create<'a>(
        &'a self,
        collection: &'static str,
        object: Value,
    ) -> BoxFuture<'a, Result<Value, Unmade>> {
        let made = self.0.create(collection, object);
        made.map_err(|why| match why {
            kube::Uncreated::Away(why) => Unmade::Away(why),
            kube::Uncreated::Refused(why) => Unmade::Refused(why),
        })
        .boxed()
    }
}

fn follow(
    name: &'static str,
    directory: Directory,
    metrics: &Arc<Metrics>,
    stop: &CancellationToken,
    tasks: &mut Tasks,
) -> mpsc::Receiver<Batch> {
    let (sink, batches) = mpsc::channel(BATCHES);
    let source = file::run(directory, sink, stop.clone(), metrics.clone());
    tasks.run(name, fallible(source));
    batches
}
