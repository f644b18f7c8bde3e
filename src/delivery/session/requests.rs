//! What a request of the client's means: answers to frames, names wanted, versions brought.

use std::sync::Arc;

use super::secrets::{Credential, Secrets};
use super::watch::{Due, Watch, mark};
use super::{Event, Output, Refusal, Session, Turn};
use crate::delivery::Limits;
use crate::delivery::wire::{DeltaRequest, Nonce};
use crate::text::Str;
use crate::view::Resources;
use crate::xds::ResourceType;

const WILDCARD: &str = "*";
/// Envoy's error detail is kept up to this many bytes.
const MESSAGE: usize = 2048;
/// So is the name of a type nobody serves.
const TYPE_URL: usize = 256;

impl Session {
    pub fn on_request(&mut self, request: &DeltaRequest, turn: &mut Turn<'_>) -> Vec<Output> {
        let Some(kind) = ResourceType::from_type_url(&request.type_url) else {
            let cut = cut(&request.type_url, TYPE_URL);
            return vec![Output::Event(Event::UnknownType(Str::new(cut)))];
        };
        if let Err(refusal) = self.check(kind, request) {
            return vec![Output::Close(refusal)];
        }
        let mut out = Vec::new();
        if !request.nonce.is_empty() {
            out.push(Output::Event(self.on_answer(kind, request)));
        }
        if kind == ResourceType::Secret {
            out.extend(self.on_secret_names(request));
        } else if self.watches[kind as usize].opened {
            self.on_unsubscribe(kind, &request.unsubscribe);
            self.on_subscribe(kind, &request.subscribe, turn.view);
        } else {
            self.on_first(kind, request, turn);
        }
        out.extend(self.flush(turn));
        out
    }
}

impl Session {
    fn check(&self, kind: ResourceType, request: &DeltaRequest) -> Result<(), Refusal> {
        let Limits {
            names, name_bytes, ..
        } = self.limits;
        let watch = self.watch(kind);
        let known = |n: &&String| watch.names.contains(n.as_str());
        let new = request.subscribe.iter().filter(|n| !known(n)).count();
        // Of secrets, refused names are kept only until they are answered.
        let kept = match kind {
            ResourceType::Secret => watch.due.len(),
            _ => 0,
        };
        if watch.names.len() + kept + new > names || request.initial_versions.len() > names {
            return Err(Refusal::TooManyNames { kind, limit: names });
        }
        let given = request
            .subscribe
            .iter()
            .chain(request.initial_versions.keys());
        match given.map(String::len).max() {
            Some(len) if len > name_bytes => Err(Refusal::NameTooLong {
                len,
                limit: name_bytes,
            }),
            _ => Ok(()),
        }
    }

    fn on_answer(&mut self, kind: ResourceType, request: &DeltaRequest) -> Event {
        let watch = &mut self.watches[kind as usize];
        let nonce = Nonce::parse(&request.nonce);
        let answered = nonce.and_then(|nonce| Some((nonce, watch.answered(nonce)?)));
        let Some((nonce, since)) = answered else {
            return Event::StaleNonce(kind);
        };
        let event = match &request.error {
            Some(error) => {
                let message: Arc<str> = cut(&error.message, MESSAGE).into();
                Event::Nacked {
                    kind,
                    names: watch.refused(nonce, &message),
                    message,
                }
            }
            None => Event::Acked { kind, since },
        };
        watch.accepted();
        if kind == ResourceType::Cluster {
            self.gate.clusters_answered(nonce);
        }
        if kind == ResourceType::Secret {
            for (name, held) in &watch.held {
                if held.frame <= watch.acked && !watch.nacks.contains_key(name) {
                    self.secrets.acknowledged(name);
                }
            }
            let secrets = &self.secrets;
            self.gate.secrets_changed(|n| secrets.lacks(n));
        }
        event
    }

    /// The first request of a type on this stream: what the client brings is compared, not sent again.
    fn on_first(&mut self, kind: ResourceType, request: &DeltaRequest, turn: &Turn<'_>) {
        // Envoy withholds its cluster request while a cluster warms for want of its endpoints.
        let one_warms = kind == ResourceType::Endpoint && !self.watch(ResourceType::Cluster).opened;
        let legacy = request.subscribe.is_empty() && has_legacy_wildcard(kind);
        let names: Vec<Str> = request
            .subscribe
            .iter()
            .map(|name| shared(kind, name, turn.view))
            .collect();
        let watch = &mut self.watches[kind as usize];
        watch.opened = true;
        watch.wildcard = legacy || names.iter().any(|n| n == WILDCARD);
        let nothing = request.initial_versions.is_empty() && turn.view.count(kind) == 0;
        watch.owed = watch.wildcard && nothing && has_legacy_wildcard(kind);
        let explicit = names.iter().filter(|n| *n != WILDCARD);
        watch.names = explicit.cloned().collect();
        for (name, version) in &request.initial_versions {
            if watch.wants(name) {
                let current = turn.view.get(kind, name).map(|e| &*e.encoded);
                watch.claim(name, version, current);
            }
        }
        for name in &watch.names {
            let unsure = one_warms || (kind == ResourceType::Endpoint && self.fresh.contains(name));
            if unsure || !watch.held.contains_key(name) {
                mark(&mut watch.due, name, Due::ASKED);
            }
        }
        self.compare_all(kind, None, turn.view);
        match kind {
            ResourceType::Cluster => {
                self.clusters_by = None;
                let resumes = !request.initial_versions.is_empty();
                self.resumes_by = resumes.then(|| turn.now + self.limits.resume);
            }
            ResourceType::Endpoint => {
                // The client may have asked before it knew of them: theirs go as behind any new cluster.
                let names = &self.watches[kind as usize].names;
                let fresh = std::mem::take(&mut self.fresh).into_iter();
                self.companions.extend(fresh.filter(|n| !names.contains(n)));
                self.gate.endpoints_asked();
            }
            ResourceType::Listener | ResourceType::Route | ResourceType::Secret => {}
        }
    }

    /// A name asked for again is answered, except where its endpoints went behind its cluster unasked.
    fn on_subscribe(&mut self, kind: ResourceType, names: &[String], view: Resources<'_>) {
        let watch = &mut self.watches[kind as usize];
        for name in names {
            if name == WILDCARD {
                watch.wildcard = true;
                for entry in view.of(kind) {
                    watch.ask(&entry.encoded.name);
                }
                continue;
            }
            let name = shared(kind, name, view);
            let told = kind == ResourceType::Endpoint && self.behind.remove(&name);
            if told {
                watch.change(&name, None);
            } else {
                watch.ask(&name);
            }
            watch.names.insert(name);
        }
    }

    fn on_unsubscribe(&mut self, kind: ResourceType, names: &[String]) {
        let watch = &mut self.watches[kind as usize];
        for name in names {
            if name == WILDCARD {
                watch.wildcard = false;
                let Watch {
                    names,
                    held,
                    due,
                    nacks,
                    ..
                } = watch;
                held.retain(|n, _| names.contains(n));
                due.retain(|n, _| names.contains(n));
                nacks.retain(|n, _| names.contains(n));
            } else if watch.names.remove(name.as_str()) && watch.wildcard {
                // Envoy no longer knows whether it may keep it: the answer is the resource, or its removal.
                watch.ask(&Str::new(name));
            } else if !watch.wildcard {
                watch.forget(name);
                if kind == ResourceType::Endpoint {
                    self.behind.remove(name.as_str());
                }
            }
        }
    }

    /// Names that are served become wishes, asked of `ca` when there is room; the others are refused.
    fn on_secret_names(&mut self, request: &DeltaRequest) -> Vec<Output> {
        if self.credential == Credential::Absent {
            return Vec::new();
        }
        let watch = &mut self.watches[ResourceType::Secret as usize];
        let first = !std::mem::replace(&mut watch.opened, true);
        for name in &request.unsubscribe {
            watch.names.remove(name.as_str());
            watch.forget(name);
            self.secrets.drop_interest(name);
        }
        let mut refused = Vec::new();
        for name in &request.subscribe {
            let name = Str::new(name);
            if !Secrets::is_served(&name) {
                watch.ask(&name);
                refused.push(Output::Event(Event::SecretRefused(name)));
                continue;
            }
            let offer = request.initial_versions.get(name.as_str());
            let offer = offer.filter(|_| first).map(Str::new);
            if let Some(version) = &offer {
                watch.claim(&name, version, None);
            }
            self.secrets.want(&name, offer);
            watch.names.insert(name);
        }
        refused
    }
}

/// Types whose first request without names means all (xDS: legacy wildcard).
fn has_legacy_wildcard(kind: ResourceType) -> bool {
    match kind {
        ResourceType::Cluster | ResourceType::Listener => true,
        ResourceType::Endpoint | ResourceType::Route | ResourceType::Secret => false,
    }
}

/// The name as the resource itself holds it, so that sessions share one copy.
fn shared(kind: ResourceType, name: &str, view: Resources<'_>) -> Str {
    view.get(kind, name)
        .map_or_else(|| Str::new(name), |e| e.encoded.name.clone())
}

fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rfind(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}
