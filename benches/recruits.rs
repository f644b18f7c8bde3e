//! The simulated proxies' credentials and what they say of themselves.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use fairlead::ca::token::{AUDIENCE, Bearer, TokenIssuer};
use fairlead::clock;
use fairlead::state::StateDir;
use prost::Message as _;

use super::mesh::{Identity, Mesh, version};
use super::order::Recruit;
use super::proxy::{Opening, Secrets};

const TOKEN_LIFE: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// No credential: the server believes the node.
    Plaintext,
    /// TLS, and a token of the server's own issuer.
    Tls,
}

impl Transport {
    pub fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Tls => "tls",
        }
    }

    /// The server's name for the port.
    pub fn port(self) -> &'static str {
        match self {
            Self::Plaintext => "grpc",
            Self::Tls => "secure-grpc",
        }
    }
}

/// These proxies of the mesh. `state` is where the issuer has its key.
pub fn recruits(
    mesh: &Mesh,
    transport: Transport,
    state: &Path,
    opening: &Opening,
    proxies: impl Iterator<Item = usize>,
) -> Result<Vec<Recruit>> {
    let issuer = match transport {
        Transport::Plaintext => None,
        Transport::Tls => Some(TokenIssuer::beside(StateDir::prepare(state)?)?),
    };
    let recruit = |proxy: usize| {
        let identity = mesh.identity(proxy);
        let token = issuer.as_ref().map(|i| bearer(i, &identity)).transpose()?;
        Ok(Recruit {
            node: node(&identity, proxy / mesh.size.services),
            secrets: match transport {
                Transport::Plaintext => Secrets::Unasked,
                Transport::Tls => Secrets::Asked,
            },
            opening: opening.clone(),
            token,
        })
    };
    proxies.map(recruit).collect()
}

pub fn token(state: &Path, identity: &Identity) -> Result<String> {
    let issuer = TokenIssuer::beside(StateDir::prepare(state)?)?;
    issue(&issuer, identity)
}

fn bearer(issuer: &TokenIssuer, identity: &Identity) -> Result<String> {
    Ok(format!("Bearer {}", issue(issuer, identity)?))
}

fn issue(issuer: &TokenIssuer, identity: &Identity) -> Result<String> {
    let bearer = Bearer {
        namespace: &identity.namespace,
        service_account: &identity.service,
        pod: Some(&identity.pod),
    };
    Ok(issuer.issue(bearer, AUDIENCE, TOKEN_LIFE, clock::wall())?)
}

fn node(identity: &Identity, endpoint: usize) -> Vec<u8> {
    let text = |s: &str| Value {
        kind: Some(Kind::StringValue(s.into())),
    };
    let of = |fields: Vec<(&str, Value)>| Struct {
        fields: fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
    };
    let labels = of(vec![
        ("app", text(&identity.service)),
        ("version", text(version(endpoint))),
    ]);
    let metadata = of(vec![
        ("NAME", text(&identity.pod)),
        ("NAMESPACE", text(&identity.namespace)),
        ("INTERCEPTION_MODE", text("REDIRECT")),
        (
            "LABELS",
            Value {
                kind: Some(Kind::StructValue(labels)),
            },
        ),
    ]);
    let Identity {
        address,
        namespace,
        service,
        pod,
    } = identity;
    let node = Node {
        id: format!("sidecar~{address}~{pod}.{namespace}~{namespace}.svc.cluster.local"),
        cluster: format!("{service}.{namespace}"),
        metadata: Some(metadata),
        user_agent_name: "envoy".into(),
        ..Node::default()
    };
    node.encode_to_vec()
}
