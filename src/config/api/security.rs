//! <https://istio.io/latest/docs/reference/config/security/>

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::value::Span;

use super::{List, Map, Text};

use super::common::{Named, TargetReference, WorkloadSelector};

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizationPolicy {
    pub selector: Option<WorkloadSelector>,
    pub target_ref: Option<TargetReference>,
    pub target_refs: Option<List<TargetReference>>,
    pub rules: Option<List<Rule>>,
    pub action: Option<Action>,
    pub provider: Option<Named>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Action {
    #[serde(rename = "ALLOW")]
    Allow,
    #[serde(rename = "DENY")]
    Deny,
    #[serde(rename = "AUDIT")]
    Audit,
    #[serde(rename = "CUSTOM")]
    Custom,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    #[serde(rename = "from")]
    pub source: Option<List<From>>,
    #[serde(rename = "to")]
    pub target: Option<List<To>>,
    pub when: Option<List<Condition>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct From {
    pub source: Option<Source>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    pub principals: Option<List<Text>>,
    pub not_principals: Option<List<Text>>,
    pub request_principals: Option<List<Text>>,
    pub not_request_principals: Option<List<Text>>,
    pub namespaces: Option<List<Text>>,
    pub not_namespaces: Option<List<Text>>,
    pub service_accounts: Option<List<Text>>,
    pub not_service_accounts: Option<List<Text>>,
    pub trust_domains: Option<List<Text>>,
    pub not_trust_domains: Option<List<Text>>,
    pub ip_blocks: Option<List<Text>>,
    pub not_ip_blocks: Option<List<Text>>,
    pub remote_ip_blocks: Option<List<Text>>,
    pub not_remote_ip_blocks: Option<List<Text>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct To {
    pub operation: Option<RequestOperation>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestOperation {
    pub hosts: Option<List<Text>>,
    pub not_hosts: Option<List<Text>>,
    pub ports: Option<List<Text>>,
    pub not_ports: Option<List<Text>>,
    pub methods: Option<List<Text>>,
    pub not_methods: Option<List<Text>>,
    pub paths: Option<List<Text>>,
    pub not_paths: Option<List<Text>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    pub key: Option<Text>,
    pub values: Option<List<Text>>,
    pub not_values: Option<List<Text>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerAuthentication {
    pub selector: Option<WorkloadSelector>,
    pub mtls: Option<MutualTls>,
    pub port_level_mtls: Option<Map<MutualTls>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MutualTls {
    pub mode: Option<MutualTlsMode>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum MutualTlsMode {
    #[serde(rename = "UNSET")]
    Unset,
    #[serde(rename = "DISABLE")]
    Disable,
    #[serde(rename = "PERMISSIVE")]
    Permissive,
    #[serde(rename = "STRICT")]
    Strict,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestAuthentication {
    pub selector: Option<WorkloadSelector>,
    pub target_ref: Option<TargetReference>,
    pub target_refs: Option<List<TargetReference>>,
    pub jwt_rules: Option<List<JwtRule>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JwtRule {
    pub issuer: Option<Text>,
    pub audiences: Option<List<Text>>,
    pub jwks_uri: Option<Text>,
    pub jwks: Option<Text>,
    pub from_headers: Option<List<JwtHeader>>,
    pub from_params: Option<List<Text>>,
    pub from_cookies: Option<List<Text>>,
    pub output_payload_to_header: Option<Text>,
    pub forward_original_token: Option<bool>,
    pub output_claim_to_headers: Option<List<ClaimToHeader>>,
    pub timeout: Option<Span>,
    pub space_delimited_claims: Option<List<Text>>,
    pub presence: Option<Presence>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Presence {
    #[serde(rename = "OPTIONAL")]
    Optional,
    #[serde(rename = "REQUIRED")]
    Required,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JwtHeader {
    pub name: Option<Text>,
    pub prefix: Option<Text>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimToHeader {
    pub header: Option<Text>,
    pub claim: Option<Text>,
}
