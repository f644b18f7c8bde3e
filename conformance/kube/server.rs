//! What the other scenarios rely on: an API server that keeps what it is given over its own end.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::Scenario;
use super::harness::api_server::ApiServer;

pub const SCENARIOS: &[Scenario] = &[(
    "an_api_server_keeps_objects_over_a_restart_and_a_compaction",
    keeps_objects,
)];

fn keeps_objects() -> Result<()> {
    let mut server = ApiServer::start()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let names = |server: &ApiServer| {
        runtime.block_on(async {
            let request = http::Request::get("/api/v1/namespaces").body(Vec::new())?;
            let list: Value = server.client().await?.request(request).await?;
            let items = list["items"].as_array().cloned().unwrap_or_default();
            let name = |item: &Value| item["metadata"]["name"].as_str().map(str::to_owned);
            Ok::<_, anyhow::Error>(items.iter().filter_map(name).collect::<Vec<_>>())
        })
    };
    runtime.block_on(async {
        let shop = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
        let request = http::Request::post("/api/v1/namespaces").body(serde_json::to_vec(&shop)?)?;
        let _: Value = server.client().await?.request(request).await?;
        server.compact().await
    })?;
    let before = names(&server)?;
    ensure!(before.contains(&"shop".to_owned()), "{before:?}");
    server.restart()?;
    let after = names(&server)?;
    ensure!(after == before, "{after:?} after {before:?}");
    Ok(())
}
