//! What a request of the client's means: answers to frames, names wanted, versions brought.

use super::due::Mark;
use super::secrets::{Credential, Secrets};
use super::watch::{Watch, claimed, without};
use super::{Event, Output, Refusal, Session, Turn};
use crate::delivery::Limits;
use crate::delivery::pool::{Brought, Held, Touched};
use crate::delivery::roster::{Member, Name, Roster};
use crate::delivery::wire::{Nonce, Request, WILDCARD};
use crate::text::Str;
use crate::view::Resources;
use crate::xds::ResourceType;

impl Session {
    pub fn on_request(&mut self, request: &Request, turn: &mut Turn<'_>) -> Vec<Output> {
        let kind = match &request.kind {
            Ok(kind) => *kind,
            Err(url) => return vec![Output::Event(Event::UnknownType(url.clone()))],
        };
        if let Err(refusal) = self.check(kind, request) {
            return vec![Output::Close(refusal)];
        }
        let mut out = Vec::new();
        if let Some(nonce) = request.answers {
            out.push(Output::Event(self.on_answer(kind, nonce.ok(), request)));
        }
        if kind == ResourceType::Secret {
            out.extend(self.on_secret_names(request, turn));
        } else if self.watches[kind as usize].opened {
            self.on_unsubscribe(kind, request, turn);
            self.on_subscribe(kind, request, turn);
        } else {
            self.on_first(kind, request, turn);
        }
        out.extend(self.flush(turn));
        out
    }
}

impl Session {
    fn check(&self, kind: ResourceType, request: &Request) -> Result<(), Refusal> {
        let Limits {
            names, name_bytes, ..
        } = self.limits;
        let watch = self.watch(kind);
        // Of secrets, refused names are kept only until they are answered.
        let mut kept = watch.names.len();
        if kind == ResourceType::Secret {
            kept += watch.due.len();
        }
        if kept + request.lists.subscribe.count > names {
            let new = request.subscribed().filter(|n| !watch.asks_for(n));
            kept += new.count();
        }
        if kept > names || request.lists.claims.count > names {
            return Err(Refusal::TooManyNames { kind, limit: names });
        }
        let len = request
            .lists
            .subscribe
            .longest
            .max(request.lists.claims.longest);
        if len > name_bytes {
            let limit = name_bytes;
            return Err(Refusal::NameTooLong { len, limit });
        }
        Ok(())
    }

    fn on_answer(&mut self, kind: ResourceType, nonce: Option<Nonce>, request: &Request) -> Event {
        let watch = &mut self.watches[kind as usize];
        let answered = nonce.and_then(|n| Some((n, watch.answered(n, request.error.as_ref())?)));
        let Some((nonce, answered)) = answered else {
            return Event::StaleNonce(kind);
        };
        if kind == ResourceType::Cluster {
            self.gate.clusters_answered(nonce);
        }
        if kind == ResourceType::Secret {
            for stamp in answered.brought.iter().flat_map(|roll| &roll.stamps) {
                self.secrets.acknowledged(&stamp.name);
            }
            let secrets = &self.secrets;
            self.gate.secrets_changed(|n| secrets.lacks(n));
        }
        match &request.error {
            Some(message) => Event::Nacked {
                kind,
                names: answered.refused,
                message: message.clone(),
            },
            None => Event::Acked {
                kind,
                since: answered.since,
            },
        }
    }

    /// The first request of a type on this stream: what the client brings is compared, not sent again.
    fn on_first(&mut self, kind: ResourceType, request: &Request, turn: &mut Turn<'_>) {
        // Envoy withholds its cluster request while a cluster warms for want of its endpoints.
        let one_warms = kind == ResourceType::Endpoint && !self.watch(ResourceType::Cluster).opened;
        let legacy = request.lists.subscribe.count == 0 && has_legacy_wildcard(kind);
        let watch = &mut self.watches[kind as usize];
        watch.opened = true;
        watch.wildcard = legacy || request.lists.subscribe.wildcard;
        let nothing = request.lists.claims.count == 0 && turn.view.count(kind) == 0;
        watch.owed = watch.wildcard && nothing && has_legacy_wildcard(kind);
        watch.names = named(kind, request, turn);
        watch.held = brought(watch, request, turn);
        for name in &*turn.pool.absent(kind, &watch.names, turn.view) {
            watch.due.change(name, None);
        }
        let fresh = |name: &Name| kind == ResourceType::Endpoint && self.fresh.has(name.key());
        if watch.count() > 0 && (one_warms || !self.fresh.is_empty()) {
            let names = watch.names.iter();
            let unsure: Vec<Str> = names
                .filter(|name| one_warms || fresh(name))
                .map(|name| name.text.clone())
                .collect();
            for name in unsure {
                watch.due.ask(&name);
            }
        }
        watch.due.touch(&Touched::All, Mark::ASKED);
        match kind {
            ResourceType::Cluster => {
                self.clusters_by = None;
                let resumes = request.lists.claims.count > 0;
                self.resumes_by = resumes.then(|| turn.now + self.limits.resume);
            }
            ResourceType::Endpoint => {
                // The client may have asked before it knew of them: theirs go as behind any new cluster.
                let names = &self.watches[kind as usize].names;
                let fresh = std::mem::take(&mut self.fresh);
                let shelf = &mut turn.pool.names;
                let others = shelf.rest(&fresh, names);
                self.companions = shelf.union(&self.companions, &others);
                self.gate.endpoints_asked();
            }
            ResourceType::Listener
            | ResourceType::Route
            | ResourceType::ScopedRoute
            | ResourceType::Secret => {}
        }
    }

    /// A name asked for again is answered, except where its endpoints went behind its cluster unasked.
    fn on_subscribe(&mut self, kind: ResourceType, request: &Request, turn: &mut Turn<'_>) {
        if kind == ResourceType::Endpoint && self.were_told(request, turn) {
            return;
        }
        let watch = &mut self.watches[kind as usize];
        let mut names = Vec::new();
        for name in request.subscribed() {
            if name == WILDCARD {
                watch.wildcard = true;
                let all = turn.view.of(kind).map(|entry| &entry.name);
                let seen: Vec<_> = all.filter(|n| watch.sees(turn.view, n).is_some()).collect();
                for name in seen {
                    watch.due.ask(name);
                }
                continue;
            }
            let name = shared(kind, name, turn.view);
            let name = Name::new(kind, name);
            if kind == ResourceType::Endpoint && self.behind.has(name.key()) {
                watch.due.change(&name.text, None);
            } else {
                watch.due.ask(&name.text);
            }
            names.push(name);
        }
        if names.is_empty() {
            return;
        }
        let shelf = &mut turn.pool.names;
        if kind == ResourceType::Endpoint && !self.behind.is_empty() {
            self.behind = shelf.edit(&self.behind, [], names.iter().map(Name::key));
        }
        watch.names = shelf.edit(&watch.names, names, []);
    }

    /// Whether the endpoints of all these went behind their clusters: then they are compared, not answered.
    fn were_told(&mut self, request: &Request, turn: &mut Turn<'_>) -> bool {
        if self.behind.is_empty()
            || request.lists.subscribe.wildcard
            || request.lists.subscribe.count == 0
        {
            return false;
        }
        let names = named(ResourceType::Endpoint, request, turn);
        let shelf = &mut turn.pool.names;
        let left = shelf.rest(&self.behind, &names);
        if left.len() + names.len() != self.behind.len() {
            return false;
        }
        self.behind = left;
        let watch = &mut self.watches[ResourceType::Endpoint as usize];
        watch.names = shelf.union(&watch.names, &names);
        watch.due.touch(&Touched::All, Mark::changed(None));
        true
    }

    fn on_unsubscribe(&mut self, kind: ResourceType, request: &Request, turn: &mut Turn<'_>) {
        if request.lists.unsubscribe.wildcard {
            self.narrow(kind, turn);
        }
        let watch = &mut self.watches[kind as usize];
        let mut gone = Vec::new();
        for name in request.unsubscribed().filter(|name| *name != WILDCARD) {
            let name = Name::new(kind, Str::new(name));
            if !watch.wildcard {
                watch.settle(&name.text);
            } else if watch.names.has(name.key()) {
                // Envoy no longer knows whether it may keep it: the answer is the resource, or its removal.
                watch.due.ask(&name.text);
            }
            gone.push(name.key());
        }
        if gone.is_empty() {
            return;
        }
        let names = &mut turn.pool.names;
        watch.names = names.edit(&watch.names, [], gone.iter().copied());
        if !watch.wildcard {
            watch.held = without(&watch.held, &gone, &mut turn.pool.stamps);
            if kind == ResourceType::Endpoint && !self.behind.is_empty() {
                self.behind = names.edit(&self.behind, [], gone);
            }
        }
    }

    /// The client wants no longer everything, but the names it asked for.
    fn narrow(&mut self, kind: ResourceType, turn: &mut Turn<'_>) {
        let watch = &mut self.watches[kind as usize];
        watch.wildcard = false;
        let stamps = watch.held.iter().flat_map(Roster::iter);
        let unwanted = stamps.filter(|stamp| !watch.names.has(stamp.key()));
        let unwanted: Vec<_> = unwanted.map(|stamp| stamp.key()).collect();
        watch.held = without(&watch.held, &unwanted, &mut turn.pool.stamps);
        let mut due = std::mem::take(&mut watch.due.named);
        due.retain(|name, _| watch.asks_for(name));
        let mut nacks = std::mem::take(&mut watch.nacks);
        nacks.retain(|name, _| watch.asks_for(name));
        (watch.due.named, watch.nacks) = (due, nacks);
    }

    /// Names that are served become wishes, asked of `ca` when there is room; the others are refused.
    fn on_secret_names(&mut self, request: &Request, turn: &mut Turn<'_>) -> Vec<Output> {
        if self.credential == Credential::Absent {
            return Vec::new();
        }
        let kind = ResourceType::Secret;
        let watch = &mut self.watches[kind as usize];
        let first = !std::mem::replace(&mut watch.opened, true);
        let stamps = &mut turn.pool.stamps;
        for name in request.unsubscribed() {
            let key = Name::new(kind, Str::new(name)).key();
            watch.names = turn.pool.names.edit(&watch.names, [], [key]);
            watch.forget(name, stamps);
            self.secrets.drop_interest(name);
        }
        let claims = request.claimed().filter(|_| first);
        let claims: Vec<_> = claims
            .filter(|(name, _)| Secrets::is_served(name))
            .collect();
        watch.held = match claims.is_empty() {
            true => watch.held.clone(),
            false => claimed(kind, claims.iter().copied(), turn.view, stamps),
        };
        let mut refused = Vec::new();
        for name in request.subscribed() {
            let name = Str::new(name);
            if !Secrets::is_served(&name) || !self.secrets.has_room_for(&name) {
                watch.due.ask(&name);
                refused.push(Output::Event(Event::SecretRefused(name)));
                continue;
            }
            let offer = claims.iter().rfind(|(claim, _)| *claim == name);
            let offer = offer.map(|(_, version)| Str::new(version));
            self.secrets.want(&name, offer);
            let name = Name::new(kind, name);
            watch.names = turn.pool.names.edit(&watch.names, [name], []);
        }
        refused
    }
}

/// The names of a request, shared with whoever asked for the same.
fn named(kind: ResourceType, request: &Request, turn: &mut Turn<'_>) -> Roster<Name> {
    if let Some(known) = turn.pool.names.find(request.lists.subscribe.digest) {
        return known;
    }
    let explicit = request.subscribed().filter(|name| *name != WILDCARD);
    let names = explicit.map(|name| Name::new(kind, shared(kind, name, turn.view)));
    turn.pool.names.edit(&Roster::EMPTY, names, [])
}

/// What a reconnecting client holds of what it wants.
fn brought(watch: &Watch, request: &Request, turn: &mut Turn<'_>) -> Held {
    let (kind, view) = (watch.kind, turn.view);
    let now = view.digest(kind);
    let all = watch.wildcard || watch.names.digest() == now.names;
    if all && request.lists.claims.content == now.content {
        return view.layers().map(|layer| turn.pool.whole(layer, kind));
    }
    if request.lists.claims.count == 0 {
        return Held::default();
    }
    let what = Brought {
        kind,
        layers: view.layers().map(|layer| layer.digest(kind).content),
        on_demand: view.on_demand().digest(kind).content,
        wanted: (!watch.wildcard).then(|| watch.names.digest()),
        claims: request.lists.claims,
    };
    turn.pool.brought(what, |stamps| {
        let wanted = request.claimed().filter(|(name, _)| watch.wants(name));
        claimed(kind, wanted, view, stamps)
    })
}

/// Types whose first request without names means all (xDS: legacy wildcard).
fn has_legacy_wildcard(kind: ResourceType) -> bool {
    match kind {
        ResourceType::Cluster | ResourceType::Listener | ResourceType::ScopedRoute => true,
        ResourceType::Endpoint | ResourceType::Route | ResourceType::Secret => false,
    }
}

/// The name as the resource itself holds it, so that sessions share one copy.
fn shared(kind: ResourceType, name: &str, view: Resources<'_>) -> Str {
    view.get(kind, name)
        .map_or_else(|| Str::new(name), |e| e.name.clone())
}
