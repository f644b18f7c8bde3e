//! What is written to the API server, object by object. What is read from it is followed by watches.

use ::kube::Client;
use serde_json::Value;

use super::fault::Fault;

/// Why an object was not created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uncreated {
    /// No answer, or the server's word that it is not well.
    Away(String),
    Refused(String),
}

impl Uncreated {
    fn of(error: &::kube::Error) -> Self {
        let fault = Fault::of(error);
        let well = matches!(error, ::kube::Error::Api(status) if status.code < 500);
        match fault {
            Fault::Broken(why) => Self::Away(why),
            other if well => Self::Refused(other.to_string()),
            other => Self::Away(other.to_string()),
        }
    }
}

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
    pub async fn create(&self, collection: &str, object: Value) -> Result<Value, Uncreated> {
        let request = http::Request::post(collection).header("content-type", "application/json");
        let request = request.body(object.to_string().into_bytes());
        let request = request.map_err(|e| Uncreated::Refused(e.to_string()))?;
        let made = self.client.request(request).await;
        made.map_err(|e| Uncreated::of(&e))
    }
}
