//! By what an Envoy's admin pages show that it has applied a change, and when it did.

use std::time::Duration;

use super::stamp::Stamp;

#[derive(Clone, Debug)]
pub enum Probe {
    /// This page of `/config_dump` has this text, and beside each resource when Envoy took it in.
    Dump(String, String),
    /// The numbers on this page of `/stats` are milliseconds since 1970.
    Stats(String),
    /// This page has this text, now.
    Text(String, String),
}

/// Envoy's times are cut to whole ones.
const TICK: Duration = Duration::from_millis(1);

impl Probe {
    pub fn page(&self) -> &str {
        let (Self::Dump(page, _) | Self::Stats(page) | Self::Text(page, _)) = self;
        page
    }

    /// When what was begun then was there, as its page shows at this moment. None if it is not there.
    pub fn seen(&self, page: &str, begun: Stamp, now: Stamp) -> Option<Stamp> {
        let ours = |time: &Stamp| time.after(TICK) > begun;
        match self {
            Self::Dump(_, text) => {
                let there = page.contains(text.as_str()).then(|| last_updated(page));
                there.flatten().filter(ours)
            }
            Self::Stats(_) => {
                let latest = values(page).max()?;
                Some(Stamp::of_wall(latest.saturating_mul(1_000_000))).filter(ours)
            }
            Self::Text(_, text) => page.contains(text.as_str()).then_some(now),
        }
    }
}

/// Those on a page of `name: value` lines that are numbers.
pub fn values(page: &str) -> impl Iterator<Item = u64> {
    let values = page.lines().filter_map(|line| line.rsplit_once(": "));
    values.filter_map(|(_, value)| value.trim().parse().ok())
}

/// The latest time on a page of `/config_dump`.
fn last_updated(page: &str) -> Option<Stamp> {
    let page: serde_json::Value = serde_json::from_str(page).ok()?;
    let resources = page["configs"].as_array()?.iter();
    let times = resources.filter_map(|resource| resource["last_updated"].as_str());
    let times = times.filter_map(|time| time.parse::<jiff::Timestamp>().ok());
    let latest = times.max()?.as_nanosecond();
    Some(Stamp::of_wall(u64::try_from(latest).ok()?))
}
