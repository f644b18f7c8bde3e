//! A proxy that keeps what it is sent, so that a scenario can ask what a change has brought.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use fairlead::xds::ResourceType;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::client::{Call, Came, Client};
use super::world::{Plane, World};

pub struct Mirror {
    runtime: Arc<Runtime>,
    client: Client,
    held: BTreeMap<(ResourceType, String), Held>,
    /// What came or went since somebody asked.
    came: Vec<String>,
    fences: u32,
}

struct Held {
    version: String,
    bytes: Vec<u8>,
}

/// What it asks for by name besides all clusters' endpoints.
const TABLE: &str = "80";

impl Mirror {
    /// Connects and holds what there is.
    pub fn join(world: &World, plane: &Plane, node: &str) -> Result<Self> {
        let address = plane.address("grpc")?;
        let client = world.runtime.block_on(async {
            let socket = TcpStream::connect(address).await?;
            let call = Call {
                node: Some(node.to_owned()),
                ..Call::default()
            };
            let mut client = Client::over(socket, address, call).await;
            client.subscribe(ResourceType::Cluster, &[]).await;
            client.subscribe(ResourceType::Listener, &[]).await;
            client.subscribe(ResourceType::Route, &[TABLE]).await;
            Ok::<_, anyhow::Error>(client)
        })?;
        let mut mirror = Self {
            runtime: world.runtime.clone(),
            client,
            held: BTreeMap::new(),
            came: Vec::new(),
            fences: 0,
        };
        for kind in [
            ResourceType::Cluster,
            ResourceType::Listener,
            ResourceType::Route,
        ] {
            mirror.until(|m| m.held.keys().any(|(held, _)| *held == kind));
        }
        mirror.settle();
        mirror.came.clear();
        Ok(mirror)
    }

    /// Takes what comes until it is so; it fails when nothing comes.
    pub fn until(&mut self, so: impl Fn(&Self) -> bool) {
        while !so(self) {
            self.take();
        }
    }

    /// Takes what is on its way by now.
    pub fn settle(&mut self) {
        // Its answer comes after everything that was sent before.
        self.fences += 1;
        let fence = format!("fence-{}", self.fences);
        let runtime = self.runtime.clone();
        runtime.block_on(self.client.subscribe(ResourceType::Route, &[&fence]));
        self.until(|m| m.came.iter().any(|name| name.ends_with(&fence)));
        runtime.block_on(self.client.unsubscribe(ResourceType::Route, &[&fence]));
        self.came.retain(|name| !name.ends_with(&fence));
    }

    /// What came and went since this was asked last.
    pub fn news(&mut self) -> Vec<String> {
        self.settle();
        let mut news = std::mem::take(&mut self.came);
        news.sort();
        news
    }

    pub fn version(&self, kind: ResourceType, name: &str) -> &str {
        let held = self.held.get(&(kind, name.to_owned()));
        held.map_or("", |held| &held.version)
    }

    pub fn holds(&self, kind: ResourceType, name: &str) -> bool {
        !self.version(kind, name).is_empty()
    }

    /// Whether a resource has a text in it that no digit follows, so that `10.0.0.1` is not in `10.0.0.12`.
    pub fn says(&self, kind: ResourceType, name: &str, text: &str) -> bool {
        let Some(held) = self.held.get(&(kind, name.to_owned())) else {
            return false;
        };
        let mut windows = held.bytes.windows(text.len()).enumerate();
        windows.any(|(at, window)| {
            let next = held.bytes.get(at + text.len());
            window == text.as_bytes() && !next.is_some_and(u8::is_ascii_digit)
        })
    }

    fn take(&mut self) {
        let runtime = self.runtime.clone();
        runtime.block_on(async {
            match self.client.came().await {
                Came::Message(message) => self.keep(&message).await,
                Came::End(trailers) => panic!("the stream ended: {trailers:?}"),
            }
        });
    }

    async fn keep(&mut self, message: &DeltaDiscoveryResponse) {
        let kind = ResourceType::ALL
            .into_iter()
            .find(|kind| kind.type_url() == message.type_url);
        let kind = kind.unwrap_or_else(|| panic!("{} was not asked for", message.type_url));
        let mut new = Vec::new();
        for resource in &message.resources {
            self.came.push(format!("{kind:?} +{}", resource.name));
            let held = Held {
                version: resource.version.clone(),
                bytes: resource
                    .resource
                    .as_ref()
                    .map(|any| any.value.clone())
                    .unwrap_or_default(),
            };
            let known = self.held.insert((kind, resource.name.clone()), held);
            if known.is_none() && kind == ResourceType::Cluster {
                new.push(resource.name.as_str());
            }
        }
        for name in &message.removed_resources {
            self.came.push(format!("{kind:?} -{name}"));
            self.held.remove(&(kind, name.clone()));
        }
        self.client.ack(message).await;
        let new: Vec<&str> = new
            .into_iter()
            .filter(|name| name.starts_with("outbound|"))
            .collect();
        if !new.is_empty() {
            self.client.subscribe(ResourceType::Endpoint, &new).await;
        }
        if kind == ResourceType::Cluster {
            let gone: Vec<&str> = message
                .removed_resources
                .iter()
                .map(String::as_str)
                .collect();
            if !gone.is_empty() {
                self.client.unsubscribe(ResourceType::Endpoint, &gone).await;
                for name in gone {
                    self.held.remove(&(ResourceType::Endpoint, name.to_owned()));
                }
            }
        }
    }
}
