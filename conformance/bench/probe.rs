//! What an Envoy shows of a change, and whose clock counts.

use std::time::Duration;

use super::push::probe::Probe;
use super::push::stamp::Stamp;

/// A page as Envoy writes it, with what it took in then.
fn page(updated: &str, text: &str) -> String {
    format!(r#"{{"configs": [{{"route_config": "{text}", "last_updated": "{updated}"}}]}}"#)
}

const FIRST: &str = "1970-01-01T00:00:00.001Z";

fn dated(text: &str) -> Probe {
    Probe::Dated("/".into(), text.into())
}

#[test]
fn a_page_that_shows_an_older_update_or_another_text_shows_nothing() {
    let now = Stamp::now();
    let seen = |page: &str| dated("7").seen(page, now, now);
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
    let seen = dated("7").seen(&page, begun, begun.after(asked));
    let after = seen.unwrap().since(begun);
    assert!(
        after > Duration::from_millis(25) && after < asked,
        "{after:?}"
    );
}

#[test]
fn what_it_does_not_date_is_there_when_it_is_seen() {
    let now = Stamp::now();
    let text = Probe::Text("/".into(), "7".into());
    let gone = Probe::Gone("/".into(), "7".into());
    assert_eq!(text.seen("it is 7", now, now), Some(now));
    assert_eq!(text.seen("it is 8", now, now), None);
    assert_eq!(gone.seen("it is 8", now, now), Some(now));
    assert_eq!(gone.seen("it is 7", now, now), None);
}
