//! The law of delivery: whatever happens, clients converge and never refer to what they lack.
//!
//! The client here behaves as stock Envoy was observed to: it applies frames in order, drops endpoints
//! that come before their cluster, withholds the answer to a cluster frame while one warms, and after a
//! reconnect withholds its cluster request for the same reason.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use super::testing::*;
use super::*;
use crate::view::Resources;
use crate::xds::Warming;

const CLUSTERS: [&str; 4] = ["c0", "c1", "c2", "c3"];
const LISTENERS: [&str; 2] = ["l0", "l1"];
const ROUTES: [&str; 3] = ["r0", "r1", "r2"];

#[derive(Clone, Debug)]
enum Op {
    Cluster(usize, Nature),
    Endpoints(usize),
    Listener(usize, u8),
    Route(usize, u8),
    Remove(ResourceType, usize),
    /// Several of the above in one batch.
    Batch(Vec<Op>),
    /// Some of the client's queued requests arrive.
    Deliver(usize),
    /// The connection takes what it was handed.
    Taken,
    Resolved,
    Wait(u8),
    Disconnect,
    Connect(Memory),
    Resubscribe(usize),
    /// A cluster comes to all from now on, or only to who asks.
    Switch(usize),
    /// A request needs a cluster: a client that has to ask for it does, once.
    Demand(usize),
    Moved,
}

#[derive(Clone, Copy, Debug)]
enum Nature {
    Eds,
    Static,
    Dns,
    /// Refused by the client.
    Bad,
}

#[derive(Clone, Copy, Debug)]
enum Memory {
    Whole,
    /// It lost what is at the odd places.
    Half,
    None,
}

#[derive(Default)]
struct Envoy {
    online: bool,
    held: BTreeMap<(ResourceType, String), String>,
    /// Clusters that wait for endpoints, and those that wait for their name to resolve.
    unfed: BTreeSet<String>,
    unresolved: BTreeSet<String>,
    /// Clusters of which some form is warm: it serves while a newer one warms.
    warm: BTreeSet<String>,
    endpoint_names: BTreeSet<String>,
    /// Clusters asked for by name: for ever, and again on every stream.
    demanded: BTreeSet<String>,
    queue: VecDeque<Asked>,
    cluster_answers: Vec<Asked>,
    cluster_request: Option<Asked>,
}

struct Law {
    world: World,
    envoy: Envoy,
    /// What each version of a resource was.
    made: BTreeMap<(ResourceType, String, String), Made>,
    count: u32,
    /// Frames of clusters on this stream, with the time they were sent, and the latest one answered.
    clusters_at: BTreeMap<String, (String, Duration)>,
    answered: String,
    /// Types of which a request arrived on this stream.
    asked: BTreeSet<ResourceType>,
    clock: Duration,
    sent: Vec<Got>,
}

#[derive(Clone)]
struct Made {
    nature: Nature,
    names: BTreeSet<String>,
}

impl Law {
    fn new(limits: Limits) -> Self {
        let mut law = Self {
            world: World::with(limits, Credential::Proven),
            envoy: Envoy::default(),
            made: BTreeMap::new(),
            count: 0,
            clusters_at: BTreeMap::new(),
            answered: String::new(),
            asked: BTreeSet::new(),
            clock: Duration::ZERO,
            sent: Vec::new(),
        };
        law.connect(Memory::None);
        law
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Batch(ops) => {
                let touched: Vec<_> = ops.iter().filter_map(|op| self.edit(op)).collect();
                self.tell(&touched);
            }
            Op::Deliver(n) => (0..*n).for_each(|_| self.deliver()),
            Op::Taken if self.envoy.online => {
                let did = self.world.taken();
                self.receive(did);
            }
            Op::Resolved => {
                self.envoy.unresolved.clear();
                self.settle();
            }
            Op::Wait(seconds) => self.wait(*seconds),
            Op::Disconnect => self.envoy.online = false,
            Op::Connect(memory) => self.connect(*memory),
            Op::Resubscribe(i) if self.envoy.online => {
                let request = subscribe(R, &[ROUTES[*i]], &[]);
                self.envoy.queue.push_back(request);
            }
            Op::Demand(i) if self.envoy.online => {
                let name = CLUSTERS[*i].to_owned();
                let known = self.envoy.held.contains_key(&(C, name.clone()));
                if !known && self.envoy.demanded.insert(name.clone()) {
                    match &mut self.envoy.cluster_request {
                        // Nothing of a type goes before its first request.
                        Some(first) => first.subscribe.extend(["*".to_owned(), name]),
                        None => self.envoy.queue.push_back(subscribe(C, &[&name], &[])),
                    }
                }
            }
            Op::Moved if self.envoy.online => {
                let did = self.world.moved();
                self.receive(did);
            }
            Op::Taken | Op::Resubscribe(_) | Op::Demand(_) | Op::Moved => {}
            edit => {
                let touched = self.edit(edit);
                self.tell(touched.as_slice());
            }
        }
    }

    /// Changes the mesh without telling the session.
    fn edit(&mut self, op: &Op) -> Option<(ResourceType, &'static str)> {
        self.count += 1;
        let version = format!("v{}", self.count);
        let picked = |bits: u8| -> Vec<&str> {
            let bit = |i: &usize| bits >> *i & 1 == 1;
            (0..CLUSTERS.len())
                .filter(bit)
                .map(|i| CLUSTERS[i])
                .collect()
        };
        let (encoded, nature, names) = match op {
            Op::Cluster(i, nature) => {
                let encoded = match nature {
                    Nature::Eds => cluster(CLUSTERS[*i], &version),
                    Nature::Static | Nature::Bad => static_cluster(CLUSTERS[*i], &version),
                    Nature::Dns => warming(CLUSTERS[*i], &version, Warming::Dns),
                };
                (encoded, *nature, vec![])
            }
            Op::Endpoints(i) => (endpoints(CLUSTERS[*i], &version), Nature::Static, vec![]),
            Op::Listener(i, bits) => {
                let names = picked(*bits);
                (
                    naming(L, LISTENERS[*i], &version, &names),
                    Nature::Static,
                    names,
                )
            }
            Op::Route(i, bits) => {
                let names = picked(*bits);
                (
                    naming(R, ROUTES[*i], &version, &names),
                    Nature::Static,
                    names,
                )
            }
            Op::Remove(kind, i) => {
                let name = names_of(*kind)[i % names_of(*kind).len()];
                self.world.drop(*kind, name);
                return Some((*kind, name));
            }
            Op::Switch(i) => {
                let name = CLUSTERS[*i];
                return self.world.switch(name).then_some((C, name));
            }
            _ => return None,
        };
        let kind = encoded.kind;
        let name = names_of(kind).iter().find(|n| **n == encoded.name)?;
        let names = names.into_iter().map(String::from).collect();
        let made = Made { nature, names };
        self.made.insert((kind, (*name).to_owned(), version), made);
        self.world.put(encoded);
        Some((kind, name))
    }

    fn tell(&mut self, touched: &[(ResourceType, &str)]) {
        if self.envoy.online {
            let did = self.world.touched(touched);
            self.receive(did);
        }
    }

    fn wait(&mut self, seconds: u8) {
        let wait = Duration::from_secs(seconds.into());
        self.clock += wait;
        let did = self.world.after(wait);
        if self.envoy.online {
            self.receive(did);
        }
    }

    fn deliver(&mut self) {
        let Some(request) = self.envoy.queue.pop_front().filter(|_| self.envoy.online) else {
            return;
        };
        let kind = ResourceType::from_type_url(&request.type_url).expect("one of ours");
        self.asked.insert(kind);
        if kind == C {
            self.answered = self.answered.clone().max(request.nonce.clone());
        }
        let did = self.world.request(&request);
        self.receive(did);
    }

    fn connect(&mut self, memory: Memory) {
        let envoy = &mut self.envoy;
        let mut place = 0;
        envoy.held.retain(|_, _| {
            place += 1;
            match memory {
                Memory::Whole => true,
                Memory::Half => place % 2 == 0,
                Memory::None => false,
            }
        });
        let held = envoy.held.clone();
        let has = |c: &String| held.contains_key(&(C, c.clone()));
        envoy.unfed.retain(has);
        envoy.unresolved.retain(has);
        envoy.warm.retain(has);
        let made = &self.made;
        let fed = held.iter().filter(|((k, n), v)| {
            *k == C
                && made
                    .get(&(C, n.clone(), (*v).clone()))
                    .is_some_and(|m| m.nature.is_eds())
        });
        envoy.endpoint_names = fed.map(|((_, n), _)| n.clone()).collect();
        // What a cluster lost is asked for again.
        for name in &envoy.endpoint_names {
            if !held.contains_key(&(E, name.clone())) {
                envoy.unfed.insert(name.clone());
            }
        }
        envoy
            .held
            .retain(|(k, n), _| *k != E || envoy.endpoint_names.contains(n));
        let claims = |kind: ResourceType| -> Vec<(&str, &str)> {
            let of = envoy.held.iter().filter(|((k, _), _)| *k == kind);
            of.map(|((_, n), v)| (n.as_str(), v.as_str())).collect()
        };
        let names: Vec<&str> = envoy.endpoint_names.iter().map(String::as_str).collect();
        let mut queue = VecDeque::new();
        let demanded = envoy.demanded.iter().map(String::as_str);
        let all = (!envoy.demanded.is_empty()).then_some("*");
        let asked: Vec<&str> = all.into_iter().chain(demanded).collect();
        let clusters = subscribe(C, &asked, &claims(C));
        let warms = !envoy.unfed.is_empty() || !envoy.unresolved.is_empty();
        envoy.cluster_request = Some(clusters);
        if !warms {
            queue.extend(envoy.cluster_request.take());
        }
        if !names.is_empty() {
            queue.push_back(subscribe(E, &names, &claims(E)));
        }
        queue.push_back(subscribe(L, &[], &claims(L)));
        queue.push_back(subscribe(R, &ROUTES, &claims(R)));
        envoy.queue = queue;
        envoy.cluster_answers.clear();
        envoy.online = true;
        self.world.reconnect();
        self.clusters_at.clear();
        self.answered.clear();
        self.asked.clear();
    }

    /// Applies frames as Envoy does, and checks each against the mesh it was made from.
    fn receive(&mut self, did: Did) {
        assert!(did.closed.is_none(), "{:?}", did.closed);
        self.sent.extend(did.frames.iter().cloned());
        for got in did.frames {
            let mut refused = false;
            for (name, version) in &got.resources {
                refused |= !self.apply(got.kind, name, version, &got.nonce);
            }
            for name in &got.removed {
                self.check_removal(got.kind, name);
                self.envoy.held.remove(&(got.kind, name.clone()));
                if got.kind == C {
                    self.envoy.forget_cluster(name);
                    self.clusters_at.remove(name);
                }
            }
            let answer = Asked {
                nonce: got.nonce.clone(),
                error: refused.then(|| "bad".into()),
                ..subscribe(got.kind, &[], &[])
            };
            if got.kind == C {
                self.envoy.cluster_answers.push(answer);
            } else {
                self.envoy.queue.push_back(answer);
            }
            self.settle();
        }
    }

    /// Whether the client took it.
    fn apply(&mut self, kind: ResourceType, name: &str, version: &str, nonce: &str) -> bool {
        let key = (kind, name.to_owned());
        let made = self.made.get(&(kind, name.to_owned(), version.to_owned()));
        let made = made.cloned();
        match kind {
            C if version == "absent" => {
                let asked = self.envoy.demanded.contains(name);
                assert!(asked, "nobody asked for {name}, which is not there");
                self.envoy.forget_cluster(name);
                self.clusters_at.remove(name);
            }
            C => {
                let made = made.expect("clusters are made");
                if matches!(made.nature, Nature::Bad) {
                    return false;
                }
                self.envoy.unresolved.remove(name);
                if matches!(made.nature, Nature::Dns) {
                    self.envoy.unresolved.insert(name.into());
                }
                let first = self.clusters_at.remove(name).map(|(_, at)| at);
                if matches!(made.nature, Nature::Dns) && !self.envoy.warm.contains(name) {
                    let at = (nonce.to_owned(), first.unwrap_or(self.clock));
                    self.clusters_at.insert(name.into(), at);
                }
                if made.nature.is_eds() {
                    self.envoy.unfed.insert(name.into());
                    if self.envoy.endpoint_names.insert(name.into()) {
                        self.envoy.queue.push_back(subscribe(E, &[name], &[]));
                    }
                } else {
                    self.envoy.stop_feeding(name);
                }
            }
            E => {
                if !self.envoy.endpoint_names.contains(name) {
                    // Came before its cluster: dropped.
                    return true;
                }
                self.envoy.unfed.remove(name);
            }
            L | R => self.check_refs(kind, name, made.as_ref()),
            S | ResourceType::ScopedRoute => unreachable!("none of these here"),
        }
        self.envoy.held.insert(key, version.into());
        true
    }

    fn check_refs(&self, kind: ResourceType, name: &str, made: Option<&Made>) {
        let view = self.view();
        for cluster in made.iter().flat_map(|m| &m.names) {
            let Some(entry) = view.get(C, cluster) else {
                continue;
            };
            let key = (C, cluster.clone(), entry.version.to_string());
            if matches!(self.made[&key].nature, Nature::Bad) {
                continue;
            }
            if self.world.on_demand.get(C, cluster).is_some() {
                continue;
            }
            // A reconnecting client whose cluster request is held back is bound by the patience alone.
            let lacks = !self.envoy.held.contains_key(&(C, cluster.clone()));
            assert!(
                !(self.asked.contains(&C) && lacks),
                "{kind:?} {name} names {cluster}, which the client lacks"
            );
            if let Some((nonce, at)) = self.clusters_at.get(cluster) {
                let old = self.in_force(kind, name);
                let newly = !old.is_some_and(|m| m.names.contains(cluster));
                let waited = self.clock >= *at + Duration::from_secs(5) || self.answered >= *nonce;
                assert!(
                    !newly || waited,
                    "{kind:?} {name} newly names {cluster}, which warms"
                );
            }
        }
    }

    /// A cluster may go only if what the client holds and names it is what the mesh says now.
    fn check_removal(&self, kind: ResourceType, cluster: &str) {
        let known = self.envoy.held.contains_key(&(kind, cluster.into()));
        if kind != C || !known {
            return;
        }
        let there = self.view().get(C, cluster).is_some();
        assert!(!there, "{cluster} is removed and is still there");
        for (kind, name) in [L, R]
            .into_iter()
            .flat_map(|k| names_of(k).iter().map(move |n| (k, *n)))
        {
            let Some(version) = self.envoy.held.get(&(kind, name.to_owned())) else {
                continue;
            };
            let current = self.view().get(kind, name).map(|e| e.version.to_string());
            let named = self
                .in_force(kind, name)
                .is_some_and(|m| m.names.contains(cluster));
            // What the server was not told of in time, it cannot spare.
            let told = self.asked.contains(&kind);
            assert!(
                !named || !told || current.as_ref() == Some(version),
                "{cluster} is removed while {kind:?} {name} still names it"
            );
        }
    }

    fn in_force(&self, kind: ResourceType, name: &str) -> Option<&Made> {
        let version = self.envoy.held.get(&(kind, name.to_owned()))?;
        self.made.get(&(kind, name.to_owned(), version.clone()))
    }

    fn view(&self) -> Resources<'_> {
        self.world.view()
    }

    /// What Envoy held back while clusters warmed goes once none does.
    fn settle(&mut self) {
        let envoy = &mut self.envoy;
        for (kind, name) in envoy.held.keys() {
            let warms = envoy.unfed.contains(name) || envoy.unresolved.contains(name);
            if *kind == C && !warms && envoy.warm.insert(name.clone()) {
                self.clusters_at.remove(name);
            }
        }
        if envoy.unfed.is_empty() && envoy.unresolved.is_empty() {
            envoy.queue.extend(envoy.cluster_request.take());
            envoy.queue.extend(envoy.cluster_answers.drain(..));
        }
    }

    /// Everything on its way arrives; then the client must hold exactly what it asked for.
    fn check_convergence(&mut self) {
        if !self.envoy.online {
            self.connect(Memory::Whole);
        }
        for _ in 0..40 {
            self.run(&Op::Deliver(self.envoy.queue.len()));
            self.run(&Op::Resolved);
            self.run(&Op::Taken);
            self.wait(1);
        }
        assert!(
            self.envoy.unfed.is_empty(),
            "{:?} warm forever",
            self.envoy.unfed
        );
        let view = self.view();
        for kind in [C, E, L, R] {
            for name in names_of(kind) {
                self.check_held(kind, name, view);
            }
        }
    }

    fn check_held(&self, kind: ResourceType, name: &str, view: Resources<'_>) {
        let held = self.envoy.held.get(&(kind, name.to_owned()));
        let want = view.get(kind, name).map(|e| e.version.to_string());
        if kind == C {
            let made = want.clone().map(|v| &self.made[&(C, name.into(), v)]);
            if made.is_some_and(|m| matches!(m.nature, Nature::Bad)) {
                return;
            }
        }
        let unwanted = kind == E && !self.envoy.endpoint_names.contains(name);
        let demanded = kind == C && self.envoy.demanded.contains(name);
        let unasked = kind == C && !demanded && self.world.on_demand.get(C, name).is_some();
        let may_be_empty = matches!(kind, E | R) || demanded;
        let empty = may_be_empty && held.is_some_and(|v| v == "absent");
        let fine = match unasked {
            true => held.is_none() || held == want.as_ref(),
            false => unwanted || held == want.as_ref() || (want.is_none() && empty),
        };
        assert!(
            fine,
            "{kind:?} {name}: client has {held:?}, the mesh {want:?}"
        );
    }
}

impl Envoy {
    fn forget_cluster(&mut self, name: &str) {
        self.warm.remove(name);
        self.unresolved.remove(name);
        self.stop_feeding(name);
    }

    fn stop_feeding(&mut self, name: &str) {
        self.unfed.remove(name);
        self.held.remove(&(E, name.to_owned()));
        if self.endpoint_names.remove(name) {
            self.queue.push_back(Asked {
                unsubscribe: vec![name.into()],
                ..subscribe(E, &[], &[])
            });
        }
    }
}

impl Nature {
    fn is_eds(self) -> bool {
        matches!(self, Self::Eds)
    }
}

fn names_of(kind: ResourceType) -> &'static [&'static str] {
    match kind {
        C | E => &CLUSTERS,
        L => &LISTENERS,
        R | S | ResourceType::ScopedRoute => &ROUTES,
    }
}

fn edits() -> impl Strategy<Value = Op> {
    let nature = prop_oneof![
        6 => Just(Nature::Eds), 2 => Just(Nature::Static), 2 => Just(Nature::Dns), 1 => Just(Nature::Bad)
    ];
    let kind = prop_oneof![Just(C), Just(E), Just(L), Just(R)];
    prop_oneof![
        4 => (0..CLUSTERS.len(), nature).prop_map(|(i, n)| Op::Cluster(i, n)),
        3 => (0..CLUSTERS.len()).prop_map(Op::Endpoints),
        2 => (0..LISTENERS.len(), 0..16u8).prop_map(|(i, b)| Op::Listener(i, b)),
        4 => (0..ROUTES.len(), 0..16u8).prop_map(|(i, b)| Op::Route(i, b)),
        4 => (kind, 0..4usize).prop_map(|(k, i)| Op::Remove(k, i)),
    ]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let memory =
        prop_oneof![3 => Just(Memory::Whole), 1 => Just(Memory::Half), 1 => Just(Memory::None)];
    let op = prop_oneof![
        8 => edits(),
        4 => prop::collection::vec(edits(), 2..6).prop_map(Op::Batch),
        8 => (1..5usize).prop_map(Op::Deliver),
        3 => Just(Op::Taken),
        2 => Just(Op::Resolved),
        1 => (0..6u8).prop_map(Op::Wait),
        1 => Just(Op::Disconnect),
        1 => memory.prop_map(Op::Connect),
        1 => (0..ROUTES.len()).prop_map(Op::Resubscribe),
        3 => (0..CLUSTERS.len()).prop_map(Op::Demand),
        2 => (0..CLUSTERS.len()).prop_map(Op::Switch),
        1 => Just(Op::Moved),
    ];
    prop::collection::vec(op, 1..60)
}

fn limits() -> impl Strategy<Value = Limits> {
    let sizes = prop_oneof![
        Just((1 << 20, 2 << 20)),
        Just((1, 2 << 20)),
        Just((1, 200)),
        Just((300, 1))
    ];
    sizes.prop_map(|(frame_bytes, window_bytes)| Limits {
        frame_bytes,
        window_bytes,
        // The law is about order; what becomes of a client that stops reading has its own tests.
        stall: Duration::from_secs(3600),
        ..Limits::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn clients_converge_and_never_refer_to_what_they_lack(
        limits in limits(),
        owned in prop_oneof![Just(&[][..]), Just(&["c0", "l1"][..])],
        demanded in prop_oneof![Just(&[][..]), Just(&["c1", "c2", "c3"][..])],
        ops in ops(),
    ) {
        let mut law = Law::new(limits);
        law.world.owned = owned;
        law.world.demanded = demanded;
        for op in &ops {
            law.run(op);
        }
        law.check_convergence();
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn short_ways_send_the_same_frames_as_looking_at_each_name(
        limits in limits(),
        demanded in prop_oneof![Just(&[][..]), Just(&["c2", "c3"][..])],
        ops in ops(),
    ) {
        let mut short = Law::new(limits);
        let mut long = Law::new(limits);
        short.world.demanded = demanded;
        long.world.demanded = demanded;
        long.world.pool.name_by_name = true;
        for op in &ops {
            short.run(op);
            long.run(op);
            prop_assert_eq!(&short.sent, &long.sent, "after {:?}", op);
        }
        short.check_convergence();
        long.check_convergence();
        prop_assert_eq!(&short.sent, &long.sent);
    }
}
