//! The real server and its Envoys, which go on working while the null server is measured.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::envoys::Envoys;
use super::mesh::Mesh;
use super::mesh::changes::Edit;
use super::server::Server;
use super::source::Source;

/// Fields are dropped in this order.
pub struct Company {
    pub envoys: Envoys,
    pub server: Server,
    pub source: Source,
    pub mesh: Mesh,
}

/// How much of a main thread shows that it has begun to work, and how long that is waited for.
const BEGUN: Duration = Duration::from_micros(200);
const PATIENCE: Duration = Duration::from_secs(2);

impl Company {
    /// They are given another change of this sort, as they were when the real server was measured; until the first
    /// Envoy works on it.
    pub async fn work(&mut self, edit: Edit) -> Result<()> {
        let change = self.mesh.next(edit);
        let before = self.envoys.spent();
        self.source.apply(&change).await?;
        let begun = async {
            loop {
                let used = self.envoys.spent().into_iter().zip(&before);
                if used.map(|(now, then)| now - then).fold(0.0, f64::max) > BEGUN.as_secs_f64() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, begun).await;
        waited.context("no Envoy heard of a change while the null server waited")
    }
}
