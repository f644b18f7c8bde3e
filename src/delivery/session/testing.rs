//! A session with a view and a clock that tests turn by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Buf;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse,
};
use envoy_types::pb::google::rpc::Status;
use prost::Message;

use super::{Answer, Ask, Credential, Event, Output, Refusal, Session, Turn, Volume};
use crate::delivery::Limits;
use crate::delivery::frame::Frame;
use crate::delivery::lists::Known;
use crate::delivery::pool::{Pool, Told};
use crate::delivery::wire::Request;
use crate::text::Str;
use crate::view::{Layer, Resources};
use crate::xds::encode::encode_with_version;
use crate::xds::{Encoded, Ref, ResourceType, Stamp, Warming};

pub(super) use ResourceType::{
    Cluster as C, Endpoint as E, Listener as L, Route as R, Secret as S,
};

pub(super) struct World {
    pub(super) session: Session,
    limits: Limits,
    pub(super) own: Layer,
    /// Names that are put into `own`.
    pub(super) owned: &'static [&'static str],
    pub(super) shared: Layer,
    /// Clusters that are put into `on_demand`.
    pub(super) demanded: &'static [&'static str],
    pub(super) on_demand: Layer,
    pub(super) pool: Pool,
    pub(super) now: Instant,
    /// What the connection was handed and has not taken.
    pub(super) handed: Volume,
    pub(super) taken: Volume,
}

/// A request, before it is encoded.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    pub(super) type_url: String,
    pub(super) subscribe: Vec<String>,
    pub(super) unsubscribe: Vec<String>,
    pub(super) initial_versions: BTreeMap<String, String>,
    pub(super) nonce: String,
    pub(super) error: Option<String>,
}

impl Asked {
    fn received(&self) -> Request {
        let asked = self.clone();
        let message = DeltaDiscoveryRequest {
            type_url: asked.type_url,
            resource_names_subscribe: asked.subscribe,
            resource_names_unsubscribe: asked.unsubscribe,
            initial_resource_versions: asked.initial_versions.into_iter().collect(),
            response_nonce: asked.nonce,
            error_detail: asked.error.map(|message| Status {
                code: 13,
                message,
                ..Default::default()
            }),
            ..Default::default()
        };
        Request::parse(message.encode_to_vec().into(), &Known::default()).expect("our own form")
    }
}

/// What a session did, in the client's terms.
#[derive(Debug, Default)]
pub(super) struct Did {
    pub(super) frames: Vec<Got>,
    pub(super) asks: Vec<Ask>,
    pub(super) events: Vec<Event>,
    pub(super) closed: Option<Refusal>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) kind: ResourceType,
    pub(super) resources: Vec<(String, String)>,
    pub(super) removed: Vec<String>,
    pub(super) nonce: String,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(Limits::default(), Credential::Proven)
    }

    pub(super) fn with(limits: Limits, credential: Credential) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "an origin to count from; never asked again"
        )]
        let now = Instant::now();
        Self {
            session: Session::new(limits, credential, now),
            limits,
            own: Layer::default(),
            owned: &[],
            shared: Layer::default(),
            demanded: &[],
            on_demand: Layer::default(),
            pool: Pool::default(),
            now,
            handed: Volume::default(),
            taken: Volume::default(),
        }
    }

    /// The client reconnects: a new stream, the same mesh.
    pub(super) fn reconnect(&mut self) {
        self.session = Session::new(self.limits, Credential::Proven, self.now);
        (self.handed, self.taken) = (Volume::default(), Volume::default());
    }

    pub(super) fn put(&mut self, encoded: Encoded) -> &mut Self {
        let encoded = Arc::new(encoded);
        let name = encoded.name.as_str();
        let layer = if encoded.kind == C && self.demanded.contains(&name) {
            &mut self.on_demand
        } else if self.owned.contains(&name) {
            &mut self.own
        } else {
            &mut self.shared
        };
        layer.insert(encoded);
        self
    }

    pub(super) fn drop(&mut self, kind: ResourceType, name: &str) -> &mut Self {
        let name = Str::new(name);
        self.own.remove(kind, &name);
        self.shared.remove(kind, &name);
        self.on_demand.remove(kind, &name);
        self
    }

    /// A cluster that is there comes to all from now on, or only to who asks. Says whether it is there.
    pub(super) fn switch(&mut self, cluster: &str) -> bool {
        if let Some(encoded) = self.on_demand.take(C, &cluster.into()) {
            self.shared.insert(encoded);
            return true;
        }
        let taken = self.shared.take(C, &cluster.into());
        taken
            .map(|encoded| self.on_demand.insert(encoded))
            .is_some()
    }

    pub(super) fn view(&self) -> Resources<'_> {
        Resources::new(&self.own, &self.shared, &self.on_demand)
    }

    fn act(&mut self, f: impl FnOnce(&mut Session, &mut Turn<'_>) -> Vec<Output>) -> Did {
        let mut turn = Turn {
            view: Resources::new(&self.own, &self.shared, &self.on_demand),
            pool: &mut self.pool,
            now: self.now,
        };
        let outputs = f(&mut self.session, &mut turn);
        let mut did = Did::default();
        for output in outputs {
            match output {
                Output::Send(frame) => {
                    self.handed.frames += 1;
                    self.handed.bytes += frame.bytes() as u64;
                    did.frames.push(read(frame));
                }
                Output::Issue(ask) => did.asks.push(ask),
                Output::Event(event) => did.events.push(event),
                Output::Close(refusal) => did.closed = Some(refusal),
            }
        }
        did
    }

    pub(super) fn request(&mut self, request: &Asked) -> Did {
        let request = request.received();
        self.act(|s, turn| s.on_request(&request, turn))
    }

    pub(super) fn subscribe(&mut self, kind: ResourceType, names: &[&str]) -> Did {
        self.request(&subscribe(kind, names, &[]))
    }

    pub(super) fn unsubscribe(&mut self, kind: ResourceType, names: &[&str]) -> Did {
        self.request(&Asked {
            unsubscribe: names.iter().map(ToString::to_string).collect(),
            ..subscribe(kind, &[], &[])
        })
    }

    pub(super) fn resume(
        &mut self,
        kind: ResourceType,
        names: &[&str],
        held: &[(&str, &str)],
    ) -> Did {
        self.request(&subscribe(kind, names, held))
    }

    pub(super) fn ack(&mut self, got: &Got) -> Did {
        self.request(&Asked {
            nonce: got.nonce.clone(),
            ..subscribe(got.kind, &[], &[])
        })
    }

    pub(super) fn nack(&mut self, got: &Got, message: &str) -> Did {
        self.request(&Asked {
            nonce: got.nonce.clone(),
            error: Some(message.into()),
            ..subscribe(got.kind, &[], &[])
        })
    }

    /// Tells the session that these may have changed, as the hub does.
    pub(super) fn touched(&mut self, names: &[(ResourceType, &str)]) -> Did {
        let names = names.iter().map(|(kind, name)| (*kind, Str::new(name)));
        for told in Told::of(&names.collect(), self.view()) {
            self.session.touch(&told, self.now);
        }
        self.act(|s, turn| s.flush(turn))
    }

    /// Puts it and tells of it.
    pub(super) fn change(&mut self, encoded: Encoded) -> Did {
        let (kind, name) = (encoded.kind, encoded.name.clone());
        self.put(encoded);
        self.touched(&[(kind, &name)])
    }

    pub(super) fn remove(&mut self, kind: ResourceType, name: &str) -> Did {
        self.drop(kind, name);
        self.touched(&[(kind, name)])
    }

    pub(super) fn moved(&mut self) -> Did {
        let now = self.now;
        self.act(|s, turn| s.on_moved(now, turn))
    }

    pub(super) fn secret(&mut self, name: &str, answer: Answer) -> Did {
        self.act(|s, turn| s.on_secret(name, answer, turn))
    }

    pub(super) fn trust_changed(&mut self) -> Did {
        self.act(Session::on_trust_changed)
    }

    /// The connection takes everything it was handed.
    pub(super) fn taken(&mut self) -> Did {
        self.taken = self.handed;
        let taken = self.taken;
        self.act(|s, turn| s.on_taken(taken, turn))
    }

    pub(super) fn after(&mut self, wait: Duration) -> Did {
        self.now += wait;
        self.act(Session::on_tick)
    }
}

impl Did {
    /// Frames in short form: `cds a=1 b=2 -gone`.
    pub(super) fn sent(&self) -> Vec<String> {
        self.frames.iter().map(ToString::to_string).collect()
    }
}

impl std::fmt::Display for Got {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind.short())?;
        for (name, version) in &self.resources {
            write!(f, " {name}={version}")?;
        }
        for name in &self.removed {
            write!(f, " -{name}")?;
        }
        Ok(())
    }
}

fn read(frame: Frame) -> Got {
    let kinds: BTreeSet<_> = frame.sheets().map(|sheet| sheet.roll.kind).collect();
    let mut rope = frame.into_rope();
    let wire = rope.copy_to_bytes(rope.remaining());
    let message = DeltaDiscoveryResponse::decode(&wire[5..]).expect("a frame decodes");
    let resources = message.resources.into_iter();
    let kind = ResourceType::from_type_url(&message.type_url).expect("a type of ours");
    assert_eq!(kinds, [kind].into());
    Got {
        kind,
        resources: resources.map(|r| (r.name, r.version)).collect(),
        removed: message.removed_resources,
        nonce: message.nonce,
    }
}

pub(super) fn subscribe(kind: ResourceType, names: &[&str], held: &[(&str, &str)]) -> Asked {
    Asked {
        type_url: kind.type_url().into(),
        subscribe: names.iter().map(ToString::to_string).collect(),
        initial_versions: held
            .iter()
            .map(|(n, v)| (n.to_string(), v.to_string()))
            .collect(),
        ..Default::default()
    }
}

pub(super) fn resource(kind: ResourceType, name: &str, version: &str) -> Encoded {
    encode_with_version(kind, &name.into(), version.into(), b"")
}

/// A cluster that takes its endpoints from EDS.
pub(super) fn cluster(name: &str, version: &str) -> Encoded {
    Encoded {
        eds: true,
        ..resource(C, name, version)
    }
}

pub(super) fn static_cluster(name: &str, version: &str) -> Encoded {
    resource(C, name, version)
}

pub(super) fn warming(name: &str, version: &str, warming: Warming) -> Encoded {
    Encoded {
        warming,
        ..resource(C, name, version)
    }
}

pub(super) fn endpoints(name: &str, version: &str) -> Encoded {
    resource(E, name, version)
}

/// A route table or listener that names clusters.
pub(super) fn naming(kind: ResourceType, name: &str, version: &str, clusters: &[&str]) -> Encoded {
    let refs = clusters.iter().map(|name| Ref {
        kind: C,
        name: Str::new(name),
    });
    let stamp = Stamp::new(kind, name.into(), version.into(), Some(refs.collect()));
    Encoded {
        stamp: Arc::new(stamp),
        ..resource(kind, name, version)
    }
}
