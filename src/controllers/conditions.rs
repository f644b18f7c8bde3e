//! What the status of an object says, as values: Istio's `Reconciled`, and the two by which Flux and Argo CD go.
//!
//! `Reconciling` and `Stalled` stand there only while they are true, as kstatus has it
//! (sigs.k8s.io/cli-utils, `pkg/kstatus/README.md`).

use serde_json::{Value, json};

use crate::acceptance::{Outcome, Verdict};
use crate::distribution::tally::Tally;

/// `status.conditions[]`, as Istio's API has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub kind: String,
    pub status: String,
    pub reason: String,
    pub message: String,
    pub observed_generation: i64,
    /// RFC 3339.
    pub last_transition_time: String,
}

const RECONCILED: &str = "Reconciled";
const RECONCILING: &str = "Reconciling";
const STALLED: &str = "Stalled";
/// Ours: what else stands among the conditions is somebody else's.
const OURS: &[&str] = &[RECONCILED, RECONCILING, STALLED];

/// In bytes; Envoy's message on a large resource is long.
const LONGEST: usize = 2048;

/// Whether there is more to come without another edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is looked at again when the object's form is another one, or a proxy rejects something of it.
    Done,
    Going,
    /// Rejected by proxies: how many, and why, may change.
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub conditions: Vec<Condition>,
    pub progress: Progress,
}

/// What is to be said of an object's present form, `now` in RFC 3339.
pub fn say(verdict: &Verdict, tally: &Tally, now: &str) -> Said {
    let why = verdict.why.as_ref().map(|why| match why.field.as_str() {
        "" => why.message.clone(),
        field => format!("{field}: {}", why.message),
    });
    let why = why.unwrap_or_default();
    let (status, reason, message, also) = match verdict.outcome {
        Outcome::Rejected => ("False", "Rejected", why, Some(STALLED)),
        Outcome::Waiting => ("False", "Waiting", why, Some(RECONCILING)),
        Outcome::Accepted => distribution(tally),
    };
    let condition = |kind: &str, status: &str| Condition {
        kind: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: cut(&message),
        observed_generation: verdict.generation,
        last_transition_time: now.to_owned(),
    };
    let mut conditions = vec![condition(RECONCILED, status)];
    conditions.extend(also.map(|kind| condition(kind, "True")));
    // What waits for another object is looked at again when that comes.
    let progress = match (verdict.outcome, also) {
        (Outcome::Accepted, Some(STALLED)) => Progress::Refused,
        (Outcome::Accepted, Some(_)) => Progress::Going,
        (_, _) => Progress::Done,
    };
    Said {
        conditions,
        progress,
    }
}

/// Status, reason, message, and the condition that goes with it.
type Words = (&'static str, &'static str, String, Option<&'static str>);

fn distribution(tally: &Tally) -> Words {
    let Tally {
        replicas,
        seen,
        proxies,
        current,
        refusing,
        said,
    } = tally;
    // A sum over some replicas is none over all.
    let of = match seen == replicas {
        true => String::new(),
        false => format!("; replicas seen {seen}/{replicas}, the others did not answer"),
    };
    let held = current.saturating_sub(*refusing);
    let counted = format!("{held}/{proxies} proxies up to date{of}");
    if *refusing > 0 {
        let message = format!("{counted}; {refusing} rejected it: {said}");
        return ("False", "RejectedByProxies", message, Some(STALLED));
    }
    if tally.is_complete() {
        return ("True", "Distributed", counted, None);
    }
    ("False", "Distributing", counted, Some(RECONCILING))
}

fn cut(message: &str) -> String {
    let end = (0..=LONGEST.min(message.len())).rfind(|at| message.is_char_boundary(*at));
    message[..end.unwrap_or_default()].to_owned()
}

/// What stands in an object's status is kept as it is where it says the same: `Some` of what to write else.
///
/// Counts of a form that all hold say how many there were then: others are no reason to write again.
pub fn merged(found: &[Value], said: &Said) -> Option<Vec<Value>> {
    let is_ours = |c: &&Value| c["type"].as_str().is_some_and(|kind| OURS.contains(&kind));
    let ours: Vec<&Value> = found.iter().filter(is_ours).collect();
    let known = |c: &Condition| ours.iter().copied().find(|f| f["type"] == *c.kind);
    let all = |c: &Condition| known(c).is_some_and(|f| c.is_said_by(f));
    if ours.len() == said.conditions.len() && said.conditions.iter().all(all) {
        return None;
    }
    let others = found.iter().filter(|c| !is_ours(c)).cloned();
    let said = said.conditions.iter().map(|c| {
        let since = known(c).filter(|f| f["status"] == *c.status);
        let since = since.and_then(|f| f["lastTransitionTime"].as_str());
        json!({
            "type": c.kind,
            "status": c.status,
            "reason": c.reason,
            "message": c.message,
            "observedGeneration": c.observed_generation,
            "lastTransitionTime": since.unwrap_or(&c.last_transition_time),
        })
    });
    Some(others.chain(said).collect())
}

/// Whether it stands there that all held the very form that some lack now: proxies and replicas come and go.
pub fn was_held(found: &[Value], said: &Said) -> bool {
    let is_ours = |c: &&Value| c["type"].as_str().is_some_and(|kind| OURS.contains(&kind));
    let ours: Vec<&Value> = found.iter().filter(is_ours).collect();
    let generation = said.conditions.first().map(|c| c.observed_generation);
    let held = |f: &Value| {
        f["type"] == RECONCILED
            && f["status"] == "True"
            && as_number(&f["observedGeneration"]) == generation
    };
    said.progress == Progress::Going && matches!(ours[..], [only] if held(only))
}

impl Condition {
    fn is_said_by(&self, found: &Value) -> bool {
        let alike = found["status"] == self.status
            && found["reason"] == self.reason
            && as_number(&found["observedGeneration"]) == Some(self.observed_generation);
        let counts = self.kind == RECONCILED && self.status == "True";
        alike && (counts || found["message"] == self.message)
    }
}

/// `IntOrString`, as the API has it.
pub fn as_number(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_i64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::{Code, Diagnostic, Level};
    use crate::text::Str;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn verdict(outcome: Outcome) -> Verdict {
        let why = Diagnostic {
            level: Level::Error,
            code: Code::InvalidValue,
            resource: None,
            field: Str::new_static("spec.hosts"),
            file: None,
            line: None,
            message: "it is empty".to_owned(),
        };
        Verdict {
            generation: 7,
            created: 0,
            outcome,
            why: Some(why),
        }
    }

    fn tally(current: u64, seen: u64, refusing: u64) -> Tally {
        Tally {
            replicas: 2,
            seen,
            proxies: 12,
            current,
            refusing,
            said: "web.shop: LDS x: no such filter".to_owned(),
        }
    }

    fn brief(said: &Said) -> Vec<(&str, &str, &str)> {
        said.conditions
            .iter()
            .map(|c| (c.kind.as_str(), c.status.as_str(), c.reason.as_str()))
            .collect()
    }

    #[test]
    fn a_status_says_how_far_it_got_and_an_incomplete_sum_is_not_complete() {
        let done = say(&verdict(Outcome::Accepted), &tally(12, 2, 0), NOW);
        assert_eq!(brief(&done), [("Reconciled", "True", "Distributed")]);
        assert_eq!(done.conditions[0].message, "12/12 proxies up to date");
        assert_eq!(done.progress, Progress::Done);
        let going = say(&verdict(Outcome::Accepted), &tally(9, 2, 0), NOW);
        let both = [
            ("Reconciled", "False", "Distributing"),
            ("Reconciling", "True", "Distributing"),
        ];
        assert_eq!(
            (brief(&going), going.progress),
            (both.to_vec(), Progress::Going)
        );
        let unseen = say(&verdict(Outcome::Accepted), &tally(12, 1, 0), NOW);
        assert_eq!(
            (brief(&unseen), unseen.progress),
            (both.to_vec(), Progress::Going)
        );
        assert!(unseen.conditions[0].message.contains("replicas seen 1/2"));
    }

    #[test]
    fn what_is_rejected_stalls_and_says_why() {
        let rejected = say(&verdict(Outcome::Rejected), &tally(12, 2, 0), NOW);
        assert_eq!(
            brief(&rejected),
            [
                ("Reconciled", "False", "Rejected"),
                ("Stalled", "True", "Rejected")
            ]
        );
        assert_eq!(rejected.conditions[0].message, "spec.hosts: it is empty");
        let refused = say(&verdict(Outcome::Accepted), &tally(12, 2, 3), NOW);
        assert_eq!(refused.conditions[1].kind, "Stalled");
        let message = &refused.conditions[0].message;
        assert!(
            message.starts_with("9/12 proxies up to date; 3 rejected it: web.shop"),
            "{message}"
        );
    }

    #[test]
    fn nothing_is_written_twice_and_what_others_wrote_stays() {
        let going = say(&verdict(Outcome::Accepted), &tally(9, 2, 0), NOW);
        let other = json!({"type": "Theirs", "observedGeneration": "3", "lastProbeTime": NOW});
        let written = merged(std::slice::from_ref(&other), &going).unwrap();
        assert_eq!((written.len(), &written[0]), (3, &other));
        assert_eq!(merged(&written, &going), None);
        let done = say(
            &verdict(Outcome::Accepted),
            &tally(12, 2, 0),
            "2026-01-01T00:00:09Z",
        );
        let written = merged(&written, &done).unwrap();
        assert_eq!(written.len(), 2, "Reconciling goes");
        assert_eq!(written[1]["lastTransitionTime"], "2026-01-01T00:00:09Z");
        let mut more = tally(13, 2, 0);
        more.proxies = 13;
        let more = say(&verdict(Outcome::Accepted), &more, NOW);
        assert_eq!(merged(&written, &more), None, "counts alone are no reason");
        let later = say(&verdict(Outcome::Accepted), &tally(9, 1, 0), NOW);
        assert!(was_held(&written, &later) && !was_held(&[], &later));
        let refused = say(&verdict(Outcome::Accepted), &tally(12, 2, 1), NOW);
        assert!(!was_held(&written, &refused) && merged(&written, &refused).is_some());
    }
}
