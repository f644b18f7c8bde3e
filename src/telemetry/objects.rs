//! How the configuration's objects stand, by kind: set as a whole by whoever decides it.

use std::sync::{Mutex, PoisonError};

use super::exposition::{Metric, Page};

/// One kind's numbers; the label is the kind's name, of which there are few.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfKind {
    pub kind: &'static str,
    pub in_force: u64,
    pub rejected: u64,
    pub held: u64,
    pub kept: u64,
    pub rejections: u64,
}

/// Now, by kind and standing.
#[derive(Debug, Default)]
pub struct Standings(Mutex<Vec<OfKind>>);

/// Since the start, by kind.
#[derive(Debug, Default)]
pub struct Rejections(Mutex<Vec<OfKind>>);

impl Standings {
    pub fn show(&self, kinds: &[OfKind]) {
        show(&self.0, kinds);
    }
}

impl Rejections {
    pub fn show(&self, kinds: &[OfKind]) {
        show(&self.0, kinds);
    }
}

fn show(shown: &Mutex<Vec<OfKind>>, kinds: &[OfKind]) {
    *shown.lock().unwrap_or_else(PoisonError::into_inner) = kinds.to_vec();
}

fn shown(of: &Mutex<Vec<OfKind>>) -> Vec<OfKind> {
    of.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

impl Metric for Standings {
    const TYPE: &'static str = "gauge";

    fn write(&self, name: &str, page: &mut Page) {
        for one in shown(&self.0) {
            let kind = one.kind;
            for (state, count) in [
                ("in_force", one.in_force),
                ("rejected", one.rejected),
                ("held", one.held),
                ("kept", one.kept),
            ] {
                page.line(name, &format!("kind=\"{kind}\",state=\"{state}\""), count);
            }
        }
    }
}

impl Metric for Rejections {
    const TYPE: &'static str = "counter";

    fn write(&self, name: &str, page: &mut Page) {
        for one in shown(&self.0) {
            page.line(name, &format!("type=\"{}\"", one.kind), one.rejections);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_line_for_each_standing() {
        let standings = Standings::default();
        standings.show(&[OfKind {
            kind: "Sidecar",
            in_force: 2,
            rejected: 1,
            ..OfKind::default()
        }]);
        let mut page = Page::default();
        page.put("fairlead_objects", "x", &standings);
        let text = page.finish();
        for line in [
            "fairlead_objects{kind=\"Sidecar\",state=\"in_force\"} 2",
            "fairlead_objects{kind=\"Sidecar\",state=\"rejected\"} 1",
            "fairlead_objects{kind=\"Sidecar\",state=\"held\"} 0",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line} in\n{text}");
        }
    }
}
