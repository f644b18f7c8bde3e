//! The source that the settings name, as a task; with it, the file that holds MeshConfig.

use std::sync::Arc;

use anyhow::Result;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::tasks::{Tasks, fallible};
use crate::cli::settings::{Home, Settings, Source};
use crate::source::Batch;
use crate::source::file::{self, Directory};
use crate::source::kube::{self, Cluster};
use crate::telemetry::metrics::Metrics;

/// Batches of the source that wait for acceptance. The source puts changes together when it is full.
const BATCHES: usize = 4;

/// Gives a first batch with all there is, then one for what changes.
pub async fn run(
    settings: &Settings,
    home: &Home,
    metrics: &Arc<Metrics>,
    stop: &CancellationToken,
    tasks: &mut Tasks,
) -> Result<mpsc::Receiver<Batch>> {
    let mesh = settings.mesh_config.as_deref();
    match &home.source {
        Source::Files(folder) => {
            let directory = Directory::new(folder).with_mesh(mesh);
            Ok(follow("source", directory, metrics, stop, tasks))
        }
        Source::Kubernetes(access) => {
            let cluster = Cluster {
                client: kube::connect(access).await?,
                mesh: mesh
                    .map(|file| follow("mesh file", Directory::alone(file), metrics, stop, tasks)),
                metrics: metrics.clone(),
            };
            let (sink, batches) = mpsc::channel(BATCHES);
            let source = kube::run(cluster, sink, stop.clone());
            tasks.run("source", async {
                source.await;
                Ok(())
            });
            Ok(batches)
        }
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
