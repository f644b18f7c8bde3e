//! What an Envoy shows of a change, and whose clock counts.

use std::time::Duration;

use super::push::probe::Probe;
use super::push::stamp::Stamp;

/// A page as Envoy writes it, with what it took in then.
fn page(updated: &str, text: &str) -> String {
    format!(r#"{{"configs": [{{"route_config": "{text}", "last_updated": "{updated}"}}]}}"#)
}

const FIRST: &str = "1970-01-01T00:00:00.001Z";

fn dump(text: &str) -> Probe {
    Probe::Dump("/".into(), text.into())
}

#[test]
fn a_page_that_shows_an_older_update_or_another_text_shows_nothing() {
    let now = Stamp::now();
    let seen = |page: &str| dump("7").seen(page, now, now);
    assert_eq!(seen(&page(FIRST, "7")), None);
    assert_eq!(seen("{}"), None);
    assert_eq!(seen(&page(FIRST, "8")), None);
}

#[test]
fn what_envoy_dates_was_there_at_that_time_whenever_it_was_asked() {
    let begun = Stamp::now();
    let soon = jiff::Timestamp::try_from(fairlead::clock::wall()).unwrap();
    let soon = soon + Duration::from_millis(30);
    let page = page(&soon.to_string(), "7");
    let asked = Duration::from_secs(600);
    let seen = dump("7").seen(&page, begun, begun.after(asked));
    let after = seen.unwrap().since(begun);
    assert!(
        after > Duration::from_millis(25) && after < asked,
        "{after:?}"
    );
}

#[test]
fn a_number_on_a_page_of_statistics_is_a_time_too() {
    let begun = Stamp::now();
    let soon = jiff::Timestamp::try_from(fairlead::clock::wall()).unwrap();
    let soon = soon.as_millisecond() + 30;
    let probe = Probe::Stats("/".into());
    let seen = |time: i64| {
        let page = format!("cluster.a.update_time: 0\ncluster.b.update_time: {time}\n");
        probe.seen(&page, begun, begun)
    };
    assert!(seen(soon).unwrap().since(begun) > Duration::from_millis(25));
    assert_eq!(seen(soon - 60_000), None);
}
