//! A split over subsets on real requests, before and after an edit.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use super::{Demo, acked_in};
use crate::cli::demo::bookshop::ROUTING;
use crate::cli::demo::client::Call;
use crate::xds::ResourceType;

const REQUESTS: usize = 1000;

pub async fn run(demo: &mut Demo<'_>) -> Result<()> {
    let ninety = check(demo, 90).await;
    demo.report.check("90/10 over v1 and v2", ninety);
    let edit = demo
        .change(ResourceType::Route, |copy| {
            copy.edit(
                ROUTING,
                &[("weight: 90", "weight: 50"), ("weight: 10", "weight: 50")],
            )
        })
        .await;
    demo.report
        .check("edited to 50/50 in routing.yaml", edit.map(acked_in));
    let fifty = check(demo, 50).await;
    demo.report.check("50/50 over v1 and v2", fifty);
    Ok(())
}

/// `v1` gets its share of real requests, `v2` the rest, `v3` nothing.
pub async fn check(demo: &Demo<'_>, v1_percent: usize) -> Result<String> {
    let found = demo.versions(REQUESTS, &Call::new("reviews", "/")).await?;
    within(&found, v1_percent)
}

/// Four standard deviations: a right split fails once in 16,000 runs.
fn within(found: &BTreeMap<String, usize>, v1_percent: usize) -> Result<String> {
    let of = |version: &str| found.get(version).copied().unwrap_or(0);
    let (v1, v2) = (of("v1"), of("v2"));
    let total: usize = found.values().sum();
    let (n, p) = (as_real(total), as_real(v1_percent) / 100.0);
    let bound = 4.0 * (n * p * (1.0 - p)).sqrt();
    let told = format!("v1 {v1}, v2 {v2} of {total} requests");
    ensure!(v1 + v2 == total, "{told}: others answered too: {found:?}");
    ensure!(
        n.mul_add(-p, as_real(v1)).abs() <= bound,
        "{told}: expected {:.0} ± {bound:.0} for v1",
        n * p
    );
    Ok(format!("{told} (v1 expected {:.0} ± {bound:.0})", n * p))
}

fn as_real(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(v1: usize, v2: usize, v3: usize) -> BTreeMap<String, usize> {
        let all = [("v1", v1), ("v2", v2), ("v3", v3)];
        all.map(|(k, n)| (k.to_owned(), n)).into()
    }

    #[test]
    fn a_split_passes_within_chance_and_no_further() {
        assert!(within(&found(900, 100, 0), 90).is_ok());
        assert!(within(&found(863, 137, 0), 90).is_ok());
        assert!(within(&found(860, 140, 0), 90).is_err());
        assert!(within(&found(900, 99, 1), 90).is_err());
        assert!(within(&found(500, 500, 0), 90).is_err());
    }
}
