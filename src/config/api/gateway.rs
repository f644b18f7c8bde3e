//! <https://istio.io/latest/docs/reference/config/networking/gateway/>

use schemars::JsonSchema;
use serde::Deserialize;

use super::{List, Map, Text};

use super::common::{Port, ServerTls};

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    pub servers: Option<List<Server>>,
    pub selector: Option<Map<Text>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    pub port: Option<Port>,
    pub bind: Option<Text>,
    pub hosts: Option<List<Text>>,
    pub tls: Option<ServerTls>,
    pub default_endpoint: Option<Text>,
    pub name: Option<Text>,
}
