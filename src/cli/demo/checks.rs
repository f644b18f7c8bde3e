//! What is checked, in order, and what the checks share.

mod faults;
mod restart;
mod rotation;
mod routing;
mod split;
mod start;
mod strict;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::bookshop::{self, WORKLOADS};
use super::client::{Answer, Call};
use super::report::{Report, span};
use super::stage::{Pod, Stage};
use super::traffic::{Tally, Traffic};
use super::wait::{Standing, until};
use crate::clock;
use crate::xds::ResourceType;

pub use rotation::Serials;

/// All that a check looks at.
pub struct Demo<'a> {
    pub report: &'a mut Report,
    pub stage: &'a mut Stage,
    /// Runs from the first section to the last, beside everything else.
    pub traffic: &'a Traffic,
    pub serials: Serials,
}

/// The sections, in the order in which they are shown.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Section {
    Start,
    Split,
    Routing,
    Strict,
    Restart,
    Faults,
    Rotation,
}

const SECTIONS: &[Section] = &[
    Section::Start,
    Section::Split,
    Section::Routing,
    Section::Strict,
    Section::Restart,
    Section::Faults,
    // Last, for it counts what happened since the start: a certificate lives a minute.
    Section::Rotation,
];

impl Section {
    fn title(self) -> &'static str {
        match self {
            Self::Start => "1  from YAML to the first request",
            Self::Split => "2  a split, and an edit of it",
            Self::Routing => "3  header route, retry, timeout",
            Self::Strict => "4  PERMISSIVE and STRICT",
            Self::Restart => "5  the control plane is killed",
            Self::Faults => "6  broken files",
            Self::Rotation => "7  certificates that live a minute",
        }
    }

    async fn run(self, demo: &mut Demo<'_>) -> Result<()> {
        match self {
            Self::Start => start::run(demo).await,
            Self::Split => split::run(demo).await,
            Self::Routing => routing::run(demo).await,
            Self::Strict => strict::run(demo).await,
            Self::Restart => restart::run(demo).await,
            Self::Faults => faults::run(demo).await,
            Self::Rotation => rotation::run(demo).await,
        }
    }
}

/// Runs all sections. One that cannot go on is a failed check, and the next one begins.
pub async fn run(demo: &mut Demo<'_>) {
    for section in SECTIONS {
        demo.report.section(section.title());
        let mut ended = section.run(demo).await;
        if ended.is_ok() {
            ended = demo.serials.look(demo.stage).await;
        }
        if let Err(why) = ended {
            demo.report.check("the section ran to its end", Err(why));
            if *section == Section::Start {
                return;
            }
        }
    }
    demo.report.section("in all");
    let alive = demo.stage.check().map(|()| String::new());
    demo.report.check("every process still runs", alive);
    let all = demo.traffic.tally();
    demo.report.check(
        "constant traffic from the first section on",
        demo.lossless(all),
    );
}

impl Demo<'_> {
    /// No request failed, and there were some.
    fn lossless(&self, tally: Tally) -> Result<String> {
        let causes = self.traffic.causes();
        ensure!(tally.failed == 0, "{tally}: {causes}");
        ensure!(tally.sent > 0, "no request was sent");
        Ok(tally.to_string())
    }

    /// Changes the files, and waits until every proxy has ACKed what it was sent of `kind`.
    async fn change(
        &self,
        kind: ResourceType,
        edit: impl FnOnce(&bookshop::Copy) -> Result<()>,
    ) -> Result<Duration> {
        const DEADLINE: Duration = Duration::from_secs(10);
        let plane = &self.stage.plane;
        let before = plane.sync().await?;
        let begin = clock::mono();
        edit(&self.stage.copy)?;
        until(self.report, "the change", DEADLINE, async || {
            let acked = plane.sync().await?.acked_since(&before, kind);
            Ok(if acked == WORKLOADS.len() {
                Standing::Done(())
            } else {
                Standing::Not(format!("ACKed by {acked} of {} proxies", WORKLOADS.len()))
            })
        })
        .await?;
        Ok(clock::mono() - begin)
    }

    /// Versions of `reviews` that answered so many requests of the storefront.
    async fn versions(&self, requests: usize, call: &Call) -> Result<BTreeMap<String, usize>> {
        let storefront = self.stage.pod("storefront")?;
        let mut found = BTreeMap::new();
        let mut connection = super::client::Connection::open(&storefront.egress()).await?;
        for n in 0..requests {
            if !connection.is_open().await {
                connection = super::client::Connection::open(&storefront.egress()).await?;
            }
            let described = Described::of(&connection.call(call).await?)?;
            *found.entry(described.version).or_default() += 1;
            self.report
                .progress(&format!("{} of {requests} requests", n + 1));
        }
        Ok(found)
    }
}

/// What the echo app says of the request it got.
#[derive(Debug, Deserialize)]
struct Described {
    name: String,
    version: String,
    attempt: u32,
    headers: BTreeMap<String, String>,
}

/// Who called and who was called, as the callee's sidecar saw it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Peers {
    by: String,
    uri: String,
    /// Digest of the caller's certificate.
    hash: String,
}

impl Described {
    /// Of an answer that must be the app's 200.
    fn of(answer: &Answer) -> Result<Self> {
        let text = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status.is_success(), "{}: {text}", answer.status);
        answer
            .json()
            .with_context(|| format!("no answer of the app: {text}"))
    }

    /// None when the request came without mTLS.
    fn peers(&self) -> Option<Peers> {
        let header = self.headers.get("x-forwarded-client-cert")?;
        let part = |key: &str| {
            let mut parts = header.split(';').filter_map(|p| p.split_once('='));
            let found = parts.find(|(k, _)| *k == key);
            found.map(|(_, v)| v.trim_matches('"').to_owned())
        };
        Some(Peers {
            by: part("By")?,
            uri: part("URI")?,
            hash: part("Hash")?,
        })
    }
}

/// Calls until the answer is 200: for the moments in which listeners come up.
async fn first_answer(report: &Report, pod: &Pod, service: &str) -> Result<Described> {
    const DEADLINE: Duration = Duration::from_secs(30);
    let what = format!("{} to {service}", pod.workload.name);
    let call = Call::new(service, "/");
    until(report, &what, DEADLINE, async || {
        Ok(match pod.call(&call).await {
            Ok(answer) if answer.status.is_success() => Standing::Done(Described::of(&answer)?),
            Ok(answer) => Standing::Not(answer.status.to_string()),
            Err(error) => Standing::Not(error.to_string()),
        })
    })
    .await
}

/// `3 proxies in 0.4 s`: times of changes, for the reader.
fn acked_in(time: Duration) -> String {
    format!(
        "last of {} proxies ACKed after {}",
        WORKLOADS.len(),
        span(time)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_read_from_the_forwarded_certificate() {
        let header = "By=spiffe://a/ns/b/sa/c;Hash=12ab;Subject=\"\";URI=spiffe://a/ns/b/sa/d";
        let described = Described {
            name: String::new(),
            version: String::new(),
            attempt: 1,
            headers: [("x-forwarded-client-cert".to_owned(), header.to_owned())].into(),
        };
        let peers = described.peers().unwrap();
        assert_eq!(peers.by, "spiffe://a/ns/b/sa/c");
        assert_eq!(peers.uri, "spiffe://a/ns/b/sa/d");
        assert_eq!(peers.hash, "12ab");
    }
}
