//! Which secrets a client wants and has; `ca` makes them. No key is kept once it is sent.

use std::sync::Arc;
use std::time::Instant;

use crate::delivery::credentials;
use crate::text::Str;
use crate::xds::Encoded;

/// Whether the stream's credential proves an identity; without one no secret is ever served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    Proven,
    Absent,
}

/// The names any workload may have, always its own: certificate with key, and the mesh's roots. Besides them there are
/// the Secrets of gateways.
pub const SERVED: [&str; 2] = ["default", "ROOTCA"];

/// Secrets of one session. A gateway shows a few, or a few dozen.
pub const MOST: usize = 500;

/// Secrets asked for at one time; the others wait for an answer to one of them.
pub const AT_ONCE: usize = 4;

/// A request to `ca` for one secret of this session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub name: Str,
    /// The version the client has; if it is still good, none is to be made.
    pub held: Option<Str>,
}

/// What `ca` said to an `Ask`.
#[derive(Clone, Debug)]
pub enum Answer {
    Fresh {
        encoded: Arc<Encoded>,
        renew: Option<Instant>,
    },
    StillGood {
        version: Str,
        renew: Option<Instant>,
    },
    /// It could not be made now; it is asked for again then.
    Unavailable { retry: Instant },
    /// There is none. It is asked for again when there may be.
    Missing,
}

#[derive(Debug, Default)]
pub struct Secrets {
    /// Ordered by name: those that are served and the client asks for.
    slots: Vec<(Str, Slot)>,
}

#[derive(Debug, Default)]
struct Slot {
    version: Option<Str>,
    /// The client has acknowledged one, or brought one that is still good.
    in_use: bool,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// To be asked for as soon as there is room; `offer` is a version the client brought.
    Wanted {
        offer: Option<Str>,
    },
    /// An answer is owed. A second wish meanwhile is answered by the same secret; one that may be others by then is
    /// asked for again.
    Asked {
        outdated: bool,
    },
    Settled {
        again: Option<Instant>,
    },
    #[default]
    New,
}

impl Slot {
    /// What the answer makes of it, and what of it is to be sent.
    fn settle(&mut self, answer: Answer) -> Option<Arc<Encoded>> {
        match answer {
            Answer::Fresh { encoded, renew } => {
                self.version = Some(encoded.version.clone());
                self.state = State::Settled { again: renew };
                Some(encoded)
            }
            Answer::StillGood { version, renew } => {
                self.version = Some(version);
                self.in_use = true;
                self.state = State::Settled { again: renew };
                None
            }
            Answer::Unavailable { retry } => {
                self.state = State::Settled { again: Some(retry) };
                None
            }
            Answer::Missing => {
                self.state = State::Settled { again: None };
                None
            }
        }
    }
}

impl Secrets {
    pub fn is_served(name: &str) -> bool {
        SERVED.contains(&name) || credentials::named(name).is_some() || credentials::is_file(name)
    }

    /// Whether there is room for one more name. The workload's own have theirs.
    pub fn has_room_for(&self, name: &str) -> bool {
        SERVED.contains(&name) || self.find(name).is_ok() || self.slots.len() < MOST
    }

    pub fn want(&mut self, name: &Str, offer: Option<Str>) {
        let at = self.find(name).unwrap_or_else(|at| {
            self.slots.reserve_exact(1);
            self.slots.insert(at, (name.clone(), Slot::default()));
            at
        });
        let slot = &mut self.slots[at].1;
        if !matches!(slot.state, State::Asked { .. }) {
            slot.state = State::Wanted { offer };
        }
    }

    pub fn drop_interest(&mut self, name: &str) {
        self.slots.retain(|(n, _)| n != name);
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.slots.binary_search_by(|(n, _)| n.as_str().cmp(name))
    }

    fn get_mut(&mut self, name: &str) -> Option<&mut Slot> {
        let at = self.find(name).ok()?;
        Some(&mut self.slots[at].1)
    }

    /// The roots or the signer changed: whoever holds a secret offers its version again.
    pub fn reconsider(&mut self) {
        self.reconsider_those(|name| SERVED.contains(&name));
    }

    /// The same of some names.
    pub fn reconsider_those(&mut self, which: impl Fn(&str) -> bool) {
        for (name, slot) in &mut self.slots {
            if !which(name) {
                continue;
            }
            match &mut slot.state {
                State::Settled { .. } => {
                    let offer = slot.version.clone();
                    slot.state = State::Wanted { offer };
                }
                State::Asked { outdated } => *outdated = true,
                State::Wanted { .. } | State::New => {}
            }
        }
    }

    /// What to ask `ca` for now: wishes, and renewals whose time has come.
    pub fn asks(&mut self, now: Instant) -> Vec<Ask> {
        let mut asks = Vec::new();
        let asked = |slot: &Slot| matches!(slot.state, State::Asked { .. });
        let mut room = AT_ONCE.saturating_sub(self.slots.iter().filter(|(_, s)| asked(s)).count());
        for (name, slot) in &mut self.slots {
            if room == 0 {
                break;
            }
            let held = match &mut slot.state {
                State::Wanted { offer } => offer.take(),
                State::Settled { again: Some(at) } if *at <= now => None,
                State::Settled { .. } | State::Asked { .. } | State::New => continue,
            };
            room -= 1;
            slot.state = State::Asked { outdated: false };
            asks.push(Ask {
                name: name.clone(),
                held,
            });
        }
        asks
    }

    /// Gives the resource to send, if any. An answer nobody waits for is dropped.
    pub fn answer(&mut self, name: &str, answer: Answer) -> Option<Arc<Encoded>> {
        let slot = self.get_mut(name)?;
        let outdated = matches!(slot.state, State::Asked { outdated: true });
        let sent = slot.settle(answer);
        if outdated {
            let offer = slot.version.clone();
            slot.state = State::Wanted { offer };
        }
        sent
    }

    pub fn acknowledged(&mut self, name: &str) {
        if let Some(slot) = self.get_mut(name) {
            slot.in_use = true;
        }
    }

    /// Whether the client has none of that name in use.
    pub fn lacks(&self, name: &str) -> bool {
        !self.find(name).is_ok_and(|at| self.slots[at].1.in_use)
    }

    pub fn deadline(&self) -> Option<Instant> {
        let again = |slot: &Slot| match slot.state {
            State::Settled { again } => again,
            State::Wanted { .. } | State::Asked { .. } | State::New => None,
        };
        self.slots.iter().filter_map(|(_, s)| again(s)).min()
    }
}
