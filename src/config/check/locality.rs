//! Locality settings: shares of a hundred, regions, labels.

use super::fault;
use crate::config::decode::reader::Fault;
use crate::config::locality::{Failover, LocalityLb};
use crate::text::Str;

const WHOLE: u32 = 100;

pub(super) fn faults(path: &str, spec: &LocalityLb) -> Vec<Fault> {
    let mut out = Vec::new();
    if !spec.distribute.is_empty() && !spec.failover.is_empty() {
        out.push(fault(
            path,
            "either `distribute` or `failover` can be given",
        ));
    }
    for (i, one) in spec.distribute.iter().enumerate() {
        let at = format!("{path}.distribute[{i}]");
        out.extend(place(&format!("{at}.from"), &one.from));
        for to in one.to.keys() {
            out.extend(place(&format!("{at}.to"), to));
        }
        let total: u64 = one.to.values().map(|share| u64::from(*share)).sum();
        if one.to.values().any(|share| *share == 0) {
            out.push(fault(format!("{at}.to"), "a share must be 1 at least"));
        } else if total != u64::from(WHOLE) {
            let message = format!("the shares make {total}, not {WHOLE}");
            out.push(fault(format!("{at}.to"), message));
        }
    }
    out.extend(regions(path, &spec.failover));
    out.extend(labels(path, &spec.failover_priority));
    out
}

/// `failover` below `path`.
pub(super) fn regions(path: &str, failover: &[Failover]) -> Vec<Fault> {
    let mut out = Vec::new();
    for (i, one) in failover.iter().enumerate() {
        let at = format!("{path}.failover[{i}]");
        for (field, region) in [("from", &one.from), ("to", &one.to)] {
            if region.is_empty() || region.contains(['/', '*']) {
                let message = format!("`{region}` is no region");
                out.push(fault(format!("{at}.{field}"), message));
            }
        }
        if one.from == one.to {
            out.push(fault(at, "a region cannot fail over to itself"));
        }
    }
    out
}

/// `failoverPriority` below `path`.
pub(super) fn labels(path: &str, labels: &[Str]) -> Vec<Fault> {
    let mut out = Vec::new();
    for (i, label) in labels.iter().enumerate() {
        let key = label.split('=').next().unwrap_or_default();
        if key.is_empty() {
            let message = format!("`{label}` is no label");
            out.push(fault(format!("{path}.failoverPriority[{i}]"), message));
        }
    }
    out
}

/// `region`, `region/zone` or `region/zone/subzone`; `*` stands for all of the last part.
fn place(path: &str, text: &str) -> Option<Fault> {
    let parts: Vec<&str> = text.split('/').collect();
    let star = parts.iter().position(|part| part.contains('*'));
    let last = parts.len() - 1;
    let sound = parts.len() <= 3
        && parts.iter().all(|part| !part.is_empty())
        && star.is_none_or(|at| at == last && parts[at] == "*");
    (!sound).then(|| {
        let message = format!("`{text}` is none of region, region/zone, region/zone/subzone, with `*` at most at its end");
        fault(path, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_make_a_hundred_and_regions_are_regions() {
        let of = |text: &str| {
            let spec: LocalityLb = serde_json::from_str(text).unwrap();
            let found = faults("p", &spec);
            found.into_iter().map(|f| f.path).collect::<Vec<_>>()
        };
        assert!(
            of(r#"{"distribute": [{"from": "r/z/*", "to": {"r/z/*": 80, "r2": 20}}]}"#).is_empty()
        );
        assert_eq!(
            of(r#"{"distribute": [{"from": "r", "to": {"r": 80}}]}"#),
            ["p.distribute[0].to"]
        );
        assert_eq!(
            of(r#"{"distribute": [{"from": "*/z", "to": {"r": 100}}]}"#),
            ["p.distribute[0].from"]
        );
        assert!(of(r#"{"failover": [{"from": "a", "to": "b"}]}"#).is_empty());
        assert_eq!(
            of(r#"{"failover": [{"from": "a", "to": "a"}]}"#),
            ["p.failover[0]"]
        );
        assert_eq!(
            of(r#"{"failover": [{"from": "a/b", "to": "c"}]}"#),
            ["p.failover[0].from"]
        );
    }
}
