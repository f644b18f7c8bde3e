//! Which replica writes: the holder of a Lease, by the rules of Kubernetes' own components.
//!
//! Clocks are never compared: a holder is gone when its Lease was not renewed for its whole duration, as seen here.
//! (The crate made for this follows an older kube.)

use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Installed;
use super::default_revision::is_default;
use crate::backoff::jittered;
use crate::clock;
use crate::text::Str;

/// As in client-go: a lease lasts 15 s, its holder gives up after 10 s, and everybody looks every 2 s.
const DURATION: Duration = Duration::from_secs(15);
const RENEW: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);
/// One question of the API server.
const ASK: Duration = Duration::from_secs(5);

/// What there is to be led.
pub enum Led {
    /// What a control plane of one revision keeps.
    Revision,
    /// What all revisions of a namespace see: the status of objects that belong to none. One leader of each wants it, and
    /// the default revision goes before the others.
    Common {
        leads: watch::Receiver<bool>,
        /// The revision that the tag `default` leads to.
        tagged: watch::Receiver<Option<Str>>,
    },
}

impl Led {
    fn lease(&self, installed: &Installed) -> String {
        match self {
            Self::Revision => installed.revised("fairlead-leader"),
            Self::Common { .. } => "fairlead-status".to_owned(),
        }
    }

    /// The holder's name says its revision, where that decides.
    fn me(&self, installed: &Installed, me: String) -> String {
        match self {
            Self::Revision => me,
            Self::Common { .. } => format!("{}{BY}{me}", installed.revision),
        }
    }

    fn is_wanted(&self) -> bool {
        match self {
            Self::Revision => true,
            Self::Common { leads, .. } => *leads.borrow(),
        }
    }

    fn rank(&self, revision: &str) -> Rank {
        match self {
            Self::Revision => Rank::Equal,
            Self::Common { tagged, .. } => {
                let tagged = tagged.borrow();
                match is_default(revision, tagged.as_ref()) {
                    true => Rank::Before(tagged.clone()),
                    false => Rank::Equal,
                }
            }
        }
    }
}

/// No name of a revision or a pod has one.
const BY: char = '_';

/// Whom this replica need not wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rank {
    Equal,
    /// Whoever is not of the default revision, which has this tag, if any.
    Before(Option<Str>),
}

impl Rank {
    fn passes(&self, holder: &str) -> bool {
        match self {
            Self::Equal => false,
            Self::Before(tagged) => {
                let revision = holder.split(BY).next().unwrap_or_default();
                !is_default(revision, tagged.as_ref())
            }
        }
    }
}

/// Tells whether this replica leads, until `stop`; then it lets go, so that another need not wait.
pub async fn run(
    installed: Installed,
    led: Led,
    me: String,
    leading: watch::Sender<bool>,
    stop: CancellationToken,
) -> Result<()> {
    let mut candidate = Candidate {
        api: Api::namespaced(installed.client.clone(), &installed.namespace),
        name: led.lease(&installed),
        election: Election::new(led.me(&installed, me)),
        renewed: None,
        told: false,
    };
    loop {
        candidate.election.rank = led.rank(&installed.revision);
        let holds = match led.is_wanted() {
            true => candidate.turn().await,
            false => {
                if *leading.borrow() {
                    candidate.let_go().await;
                }
                false
            }
        };
        if leading.send_replace(holds) != holds {
            match holds {
                true => info!(lease = %candidate.name, "this replica leads"),
                false => warn!(lease = %candidate.name, "this replica leads no more"),
            }
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = time::sleep(jittered(RETRY)) => {}
        }
    }
    if leading.send_replace(false) {
        candidate.let_go().await;
    }
    Ok(())
}

struct Candidate {
    api: Api<Lease>,
    name: String,
    election: Election,
    /// When this replica last wrote that it holds the lease.
    renewed: Option<Instant>,
    /// Whether a failure was told.
    told: bool,
}

impl Candidate {
    /// One look, and one write if there is reason for one. Whether this replica leads.
    async fn turn(&mut self) -> bool {
        let now = clock::mono();
        match time::timeout(ASK, self.attempt(now)).await {
            Ok(Ok(holds)) => {
                self.told = false;
                self.renewed = holds.then_some(now);
            }
            Ok(Err(error)) => self.tell(&error.to_string()),
            Err(_) => self.tell("no answer in time"),
        }
        self.renewed
            .is_some_and(|at| clock::mono().duration_since(at) < RENEW)
    }

    fn tell(&mut self, why: &str) {
        if !self.told {
            warn!(lease = %self.name, %why, "the lease cannot be read or written; it is tried again");
            self.told = true;
        }
    }

    async fn attempt(&mut self, now: Instant) -> Result<bool, kube::Error> {
        let found = self.api.get_opt(&self.name).await?;
        let spec = found.as_ref().and_then(|lease| lease.spec.as_ref());
        let next = match self.election.step(spec, now) {
            Step::Wait => return Ok(false),
            Step::Renew => self.spec(spec, spec.and_then(|s| s.acquire_time.clone())),
            Step::Take => self.spec(spec, None),
        };
        let post = PostParams::default();
        let written = match found {
            // With its version: whoever else wrote meanwhile goes before.
            Some(mut lease) => {
                lease.spec = Some(next);
                self.api.replace(&self.name, &post, &lease).await
            }
            None => {
                let metadata = ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                };
                let lease = Lease {
                    metadata,
                    spec: Some(next),
                };
                self.api.create(&post, &lease).await
            }
        };
        match written {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// `acquired` is kept where the lease is renewed.
    fn spec(&self, before: Option<&LeaseSpec>, acquired: Option<MicroTime>) -> LeaseSpec {
        let now = MicroTime(Timestamp::try_from(clock::wall()).unwrap_or_default());
        let transitions = before.and_then(|s| s.lease_transitions).unwrap_or(0);
        let held = before.and_then(|s| s.holder_identity.as_ref()) == Some(&self.election.me);
        LeaseSpec {
            holder_identity: Some(self.election.me.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            lease_transitions: Some(if held { transitions } else { transitions + 1 }),
            acquire_time: acquired.or_else(|| Some(now.clone())),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }
    }

    /// Leaves an empty holder, if the lease is still ours.
    async fn let_go(&self) {
        let released = time::timeout(ASK, async {
            let Some(mut lease) = self.api.get_opt(&self.name).await? else {
                return Ok(());
            };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_ref() == Some(&self.election.me) {
                spec.holder_identity = Some(String::new());
                self.api
                    .replace(&self.name, &PostParams::default(), &lease)
                    .await?;
            }
            Ok::<_, kube::Error>(())
        });
        if !matches!(released.await, Ok(Ok(()))) {
            info!(lease = %self.name, "the lease was not given back; it ends by itself");
        }
    }
}

/// What to do about the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Take,
    Renew,
    Wait,
}

/// Decides by what was seen, and when.
struct Election {
    me: String,
    rank: Rank,
    seen: Option<(Seen, Instant)>,
}

#[derive(Clone, Debug, PartialEq)]
struct Seen {
    holder: String,
    renewed: Option<MicroTime>,
}

impl Election {
    fn new(me: String) -> Self {
        Self {
            me,
            rank: Rank::Equal,
            seen: None,
        }
    }

    fn step(&mut self, lease: Option<&LeaseSpec>, now: Instant) -> Step {
        let Some(lease) = lease else {
            return Step::Take;
        };
        let seen = Seen {
            holder: lease.holder_identity.clone().unwrap_or_default(),
            renewed: lease.renew_time.clone(),
        };
        if seen.holder == self.me {
            return Step::Renew;
        }
        if seen.holder.is_empty() || self.rank.passes(&seen.holder) {
            return Step::Take;
        }
        let lasts = lease
            .lease_duration_seconds
            .and_then(|s| u64::try_from(s).ok());
        let lasts = lasts.map_or(DURATION, Duration::from_secs);
        match &self.seen {
            Some((before, at)) if *before == seen => match now.duration_since(*at) >= lasts {
                true => Step::Take,
                false => Step::Wait,
            },
            Some(_) | None => {
                self.seen = Some((seen, now));
                Step::Wait
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_that_is_renewed_is_let_alone_and_one_that_is_not_is_taken() {
        let mut election = Election::new("b".to_owned());
        let start = clock::mono();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(election.step(Some(&lease("a", 1)), at(0)), Step::Wait);
        assert_eq!(election.step(Some(&lease("a", 1)), at(14)), Step::Wait);
        // Its holder lives; whatever its clock says, the time counts anew here.
        assert_eq!(election.step(Some(&lease("a", -5)), at(14)), Step::Wait);
        assert_eq!(election.step(Some(&lease("a", -5)), at(28)), Step::Wait);
        assert_eq!(election.step(Some(&lease("a", -5)), at(29)), Step::Take);
    }

    #[test]
    fn the_default_revision_waits_for_no_other_and_no_other_passes_it() {
        let now = clock::mono();
        let held_by = |revision: &str| lease(&format!("{revision}_pod_1"), 1);
        let step = |rank: Rank, holder: &str| {
            let mut election = Election::new("canary_pod_2".to_owned());
            election.rank = rank;
            election.step(Some(&held_by(holder)), now)
        };
        assert_eq!(step(Rank::Equal, "default"), Step::Wait);
        assert_eq!(step(Rank::Before(None), "canary"), Step::Take);
        // Of one revision the replicas are alike.
        assert_eq!(step(Rank::Before(None), "default"), Step::Wait);
        let tagged = Rank::Before(Some(Str::new_static("canary")));
        assert_eq!(step(tagged.clone(), "default"), Step::Take);
        assert_eq!(step(tagged, "canary"), Step::Wait);
    }

    #[test]
    fn ones_own_is_renewed_and_a_free_one_taken_at_once() {
        let mut election = Election::new("b".to_owned());
        let now = clock::mono();
        assert_eq!(election.step(None, now), Step::Take);
        assert_eq!(election.step(Some(&lease("", 1)), now), Step::Take);
        assert_eq!(election.step(Some(&lease("b", 1)), now), Step::Renew);
    }
}
