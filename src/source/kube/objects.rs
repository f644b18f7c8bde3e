//! What is written to the API server, object by object. What is read from it is followed by watches.

use ::kube::Client;
use serde_json::Value;

use super::fault::Fault;

/// The cluster's objects, for those who make some.
#[derive(Clone)]
pub struct Objects {
    client: Client,
}

impl Objects {
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Creates an object by its collection's path, and gives what the server made of it, or why it did not.
    pub async fn create(&self, collection: &str, object: Value) -> Result<Value, String> {
        let request = http::Request::post(collection).header("content-type", "application/json");
        let request = request.body(object.to_string().into_bytes());
        let request = request.map_err(|e| e.to_string())?;
        let made = self.client.request(request).await;
        made.map_err(|e| Fault::of(&e).to_string())
    }
}
