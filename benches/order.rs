//! What the runner tells its client processes and the null server, and what they answer: a JSON line each.

use std::net::SocketAddr;
use std::path::PathBuf;

use fairlead::xds::ResourceType;
use serde::{Deserialize, Serialize};

use super::facts::Sums;
use super::proxy::{Least, Opening, Secrets};
use super::stamp::Stamp;

/// One member of a crew before it connects.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recruit {
    /// The encoded `Node`.
    pub node: Vec<u8>,
    pub secrets: Secrets,
    pub opening: Opening,
    /// The `authorization` header.
    pub token: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Target {
    pub address: SocketAddr,
    /// The certificates to trust; TLS is spoken if there are any.
    pub roots: Option<PathBuf>,
}

/// Bytes by which a response of a type shows that it brings a change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Marker {
    #[serde(with = "short")]
    pub kind: ResourceType,
    pub bytes: Vec<u8>,
}

impl Marker {
    pub fn new(kind: ResourceType, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            kind,
            bytes: bytes.into(),
        }
    }
}

/// What the runner waits for on each proxy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Goal {
    /// All that the mesh has for it.
    Whole(Least),
    /// Each of these markers, and nothing that still waits for a part. Only these seats; all, if none is named.
    Markers(Vec<Marker>, Option<Vec<usize>>),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Members that connect at once, besides those there are.
    Enlist(Target, Vec<Recruit>),
    Aim(Goal),
    /// Answered when all have reached the goal, or it is too late.
    Await {
        limit_ms: u64,
    },
    /// Answered when nothing came for a while.
    Quiet {
        silence_ms: u64,
    },
    Count,
    /// The sums of what each seat holds.
    Census,
    /// All that a seat holds, in words.
    Facts {
        seat: usize,
    },
    Versions {
        seat: usize,
    },
    /// From here on the responses to a seat are kept, for the null server to repeat.
    Record {
        seat: usize,
    },
    /// The kept responses, into a file.
    Keep {
        file: PathBuf,
    },
    /// These seats stop reading, until none is named.
    Stall {
        seats: Vec<usize>,
    },
    /// On the next stream, versions of this type are said to be of another build.
    Estrange {
        #[serde(with = "short::option")]
        kind: Option<ResourceType>,
    },
    /// Endpoints whose address begins so are events, numbered by the two bytes that follow.
    Trail {
        prefix: String,
        events: usize,
    },
    /// What became of the events.
    Arrivals,
    /// All streams end.
    Leave,
}

/// Counted over all seats since they were made.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Volume {
    pub messages: u64,
    pub resources: u64,
    pub bytes: [u64; ResourceType::COUNT],
    /// Bytes of the messages that showed a marker.
    pub marked: u64,
    /// Bytes to seats that the goal leaves out.
    pub elsewhere: u64,
}

impl Volume {
    pub fn total(&self) -> u64 {
        self.bytes.iter().sum()
    }

    pub fn add(&mut self, other: &Self) {
        self.messages += other.messages;
        self.resources += other.resources;
        self.marked += other.marked;
        self.elsewhere += other.elsewhere;
        for (sum, more) in self.bytes.iter_mut().zip(other.bytes) {
            *sum += more;
        }
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Arrivals {
    /// When each event reached the last seat that it reached, if any.
    pub last: Vec<Option<Stamp>>,
    /// How many seats it reached.
    pub seats: Vec<usize>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Report {
    Done,
    /// When each seat reached the goal. `aimed` at so many; `lost` says why streams ended.
    Reached {
        times: Vec<Stamp>,
        aimed: usize,
        lost: Vec<String>,
    },
    Volume(Volume),
    Census(Vec<Sums>),
    Words(Vec<String>),
    Arrivals(Arrivals),
    Failed(String),
}

/// What the null server is told; it answers each with a line, empty or an address.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum NullOrder {
    /// What each client is sent when it first asks for a type: the responses in a file.
    Script(PathBuf),
    /// Sends the responses in a file to every client.
    Send(PathBuf),
}

/// Resource types by Istio's short names.
pub mod short {
    use fairlead::xds::ResourceType;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(kind: &ResourceType, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(kind.short())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ResourceType, D::Error> {
        let text = String::deserialize(from)?;
        find(&text).ok_or_else(|| D::Error::custom("no resource type"))
    }

    fn find(text: &str) -> Option<ResourceType> {
        ResourceType::ALL.into_iter().find(|k| k.short() == text)
    }

    pub mod option {
        use super::{Deserialize, Deserializer, ResourceType, Serializer, find};

        pub fn serialize<S: Serializer>(
            kind: &Option<ResourceType>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            to.serialize_str(kind.map_or("", ResourceType::short))
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<ResourceType>, D::Error> {
            Ok(find(&String::deserialize(from)?))
        }
    }
}
