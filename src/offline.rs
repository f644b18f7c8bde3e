//! A control plane without a network: objects in, any proxy's configuration out. For `dump`, `analyze` and tests.

use std::net::IpAddr;

use crate::acceptance::{Acceptance, Options};
use crate::analyze;
use crate::config::{Change, Kind, Source, decode};
use crate::diagnostic::{Code, Diagnostic, Level};
use crate::dump::{self, Dump};
use crate::model::Settings;
use crate::model::proxy::Proxy;
use crate::model::workloads::Place;
use crate::source::Event;
use crate::text::Str;
use crate::view::{Engine, ProxyId};
use crate::xds::json::JsonError;

pub struct Offline {
    acceptance: Acceptance,
    engine: Engine,
    domain: Str,
    settings: Settings,
    next: u64,
}

impl Offline {
    pub fn new(options: Options, settings: Settings) -> Self {
        Self {
            domain: options.domain.clone(),
            acceptance: Acceptance::new(options),
            engine: Engine::new(settings.clone()),
            settings,
            next: 0,
        }
    }

    /// Takes a source's events; the names that this touched are compared by nobody here.
    pub fn on(&mut self, events: Vec<Event>) {
        let changes = self.acceptance.on(events);
        self.engine.apply(&changes);
    }

    /// Takes a text as the whole of what there is.
    pub fn load(&mut self, file: &str, text: &str) {
        let found = Event::File(decode::documents(text, file));
        self.on(vec![Event::Init, found, Event::InitDone]);
    }

    /// Takes a text as what a file holds now.
    pub fn replace(&mut self, file: &str, text: &str) {
        self.on(vec![Event::File(decode::documents(text, file))]);
    }

    /// Findings about single objects and about all of them together.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        let mut found = analyze::findings(&self.acceptance, &self.domain);
        found.extend(self.unmet().iter().map(|source| {
            let (file, line) = self.acceptance.place(&source.key, &source.field).unzip();
            Diagnostic {
                level: Level::Warning,
                code: Code::Unresolved,
                resource: Some(source.key.subject()),
                field: source.field.clone(),
                file,
                line: line.flatten(),
                message: "this patch meets nothing of any workload that is described here".into(),
            }
        }));
        found
    }

    /// Patches of EnvoyFilters that do nothing to the proxies of the workloads that there are.
    fn unmet(&self) -> Vec<Source> {
        let snapshot = self.engine.snapshot();
        if snapshot.envoy_filters.is_empty() || snapshot.workloads.is_empty() {
            return Vec::new();
        }
        let changes = self.acceptance.objects().map(|object| Change {
            key: object.key(),
            object: Some(object.clone()),
        });
        let changes: Vec<Change> = changes.collect();
        let mut engine = Engine::new(self.settings.clone());
        engine.apply(&changes);
        engine.unmet_patches()
    }

    /// The address that a Pod or WorkloadEntry of this name has.
    pub fn address(&self, namespace: &str, name: &str) -> Option<IpAddr> {
        let workloads = &self.engine.snapshot().workloads;
        let (namespace, name) = (Str::new(namespace), Str::new(name));
        let named = |kind| workloads.named(kind, &namespace, &name);
        let found = named(Kind::Pod).or_else(|| named(Kind::WorkloadEntry))?;
        found.places.iter().find_map(|place| match place {
            Place::Ip(ip) => Some(*ip),
            Place::Name(_) | Place::Pipe(_) => None,
        })
    }

    pub fn attach(&mut self, proxy: Proxy) -> ProxyId {
        self.next += 1;
        let id = ProxyId(self.next);
        self.engine.attach(id, proxy);
        id
    }

    /// Empty for a proxy that was never attached.
    pub fn dump(&self, id: ProxyId) -> Result<Dump, JsonError> {
        let scope = self.engine.scope_of(id);
        let entries = scope.and_then(|scope| self.engine.entries(scope));
        let entries = entries.unwrap_or_default();
        dump::dump(entries.iter(), &|key, field| {
            self.acceptance.place(key, field)
        })
    }
}
