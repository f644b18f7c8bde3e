//! The real server and its Envoys, which go on working while the null server is measured.

use anyhow::Result;

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

impl Company {
    /// They are given another change of this sort, as they were when the real server was measured.
    pub async fn work(&mut self, edit: Edit) -> Result<()> {
        let change = self.mesh.next(edit);
        self.source.apply(&change).await.map(drop)
    }
}
