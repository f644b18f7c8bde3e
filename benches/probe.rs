//! By what an Envoy's admin pages show that it has applied a change, and when it did.

use std::time::Duration;

use super::stamp::Stamp;

#[derive(Clone, Debug)]
pub enum Probe {
    /// This page has this text, and beside each resource when Envoy took it in.
    Dated(String, String),
    /// This page has this text. When it came there Envoy does not say.
    Text(String, String),
    /// This page does not have it any more.
    Gone(String, String),
}

/// Envoy's times are cut to whole ones.
const TICK: Duration = Duration::from_millis(1);

impl Probe {
    pub fn page(&self) -> &str {
        let (Self::Dated(page, _) | Self::Text(page, _) | Self::Gone(page, _)) = self;
        page
    }

    /// Whether it matters not when it is asked.
    pub fn is_dated(&self) -> bool {
        matches!(self, Self::Dated(..))
    }

    /// When what was begun then was there, as its page shows at this moment. None if it is not there.
    pub fn seen(&self, page: &str, begun: Stamp, now: Stamp) -> Option<Stamp> {
        match self {
            Self::Dated(_, text) => {
                let updated = last_updated(page)?;
                let ours = updated.after(TICK) > begun;
                (ours && page.contains(text.as_str())).then_some(updated)
            }
            Self::Text(_, text) => page.contains(text.as_str()).then_some(now),
            Self::Gone(_, text) => (!page.contains(text.as_str())).then_some(now),
        }
    }
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
