//! Each clause of true delta, hitless order and bounds, one test each.

use std::time::Duration;

use super::testing::*;
use super::*;
use crate::xds::Warming;

const WARM: Duration = Duration::from_secs(5);

/// A stream whose client has clusters a and b, their endpoints, a listener and a route, all current.
fn connected() -> World {
    let mut w = World::new();
    w.put(cluster("a", "1")).put(endpoints("a", "1"));
    w.put(cluster("b", "1")).put(endpoints("b", "1"));
    w.put(resource(L, "l", "1"))
        .put(naming(R, "r", "1", &["a"]));
    for (kind, names) in [
        (C, vec![]),
        (E, vec!["a", "b"]),
        (L, vec![]),
        (R, vec!["r"]),
    ] {
        let did = w.subscribe(kind, &names);
        for got in &did.frames {
            assert!(w.ack(got).frames.is_empty());
        }
    }
    w
}

mod subscriptions {
    use super::*;

    #[test]
    fn a_first_cluster_request_without_names_means_all() {
        let mut w = World::new();
        w.put(static_cluster("a", "1"))
            .put(static_cluster("b", "1"));
        assert_eq!(w.subscribe(C, &[]).sent(), ["cds a=1 b=1"]);
        assert_eq!(w.change(static_cluster("c", "1")).sent(), ["cds c=1"]);
    }

    #[test]
    fn an_empty_mesh_is_an_answer_too() {
        let mut w = World::new();
        assert_eq!(w.subscribe(C, &[]).sent(), ["cds"]);
        assert_eq!(w.subscribe(L, &[]).sent(), ["lds"]);
        assert!(w.touched(&[]).sent().is_empty());
    }

    #[test]
    fn a_first_cluster_request_with_names_means_these() {
        let mut w = World::new();
        w.put(static_cluster("a", "1"))
            .put(static_cluster("b", "1"));
        assert_eq!(w.subscribe(C, &["b"]).sent(), ["cds b=1"]);
        assert!(w.change(static_cluster("a", "2")).sent().is_empty());
    }

    #[test]
    fn a_star_means_all_at_any_time() {
        let mut w = World::new();
        w.put(static_cluster("a", "1"))
            .put(static_cluster("b", "1"));
        assert_eq!(w.subscribe(C, &["*", "a"]).sent(), ["cds a=1 b=1"]);
        let mut w = World::new();
        w.put(static_cluster("a", "1"))
            .put(static_cluster("b", "1"));
        w.subscribe(C, &["b"]);
        assert_eq!(w.subscribe(C, &["*"]).sent(), ["cds a=1 b=1"]);
    }

    #[test]
    fn names_beside_the_legacy_wildcard_do_not_end_it() {
        let mut w = World::new();
        w.put(static_cluster("a", "1"));
        w.subscribe(C, &[]);
        w.subscribe(C, &["od"]);
        assert_eq!(w.change(static_cluster("b", "1")).sent(), ["cds b=1"]);
    }

    #[test]
    fn an_unsubscribed_name_is_told_of_no_more() {
        let mut w = connected();
        assert!(w.unsubscribe(E, &["a"]).sent().is_empty());
        assert!(w.change(endpoints("a", "2")).sent().is_empty());
        assert_eq!(w.change(endpoints("b", "2")).sent(), ["eds b=2"]);
    }

    #[test]
    fn unsubscribing_the_star_leaves_the_names() {
        let mut w = World::new();
        w.put(static_cluster("a", "1"))
            .put(static_cluster("b", "1"));
        w.subscribe(C, &["*", "a"]);
        w.unsubscribe(C, &["*"]);
        assert!(w.change(static_cluster("b", "2")).sent().is_empty());
        assert_eq!(w.change(static_cluster("a", "2")).sent(), ["cds a=2"]);
    }

    #[test]
    fn a_name_unsubscribed_under_the_wildcard_is_settled_by_an_answer() {
        let mut w = World::new();
        w.put(static_cluster("a", "1"));
        w.subscribe(C, &["*", "a", "none"]);
        assert_eq!(w.unsubscribe(C, &["a", "none"]).sent(), ["cds a=1 -none"]);
    }

    #[test]
    fn an_unknown_type_is_reported_and_the_stream_goes_on() {
        let mut w = connected();
        let did = w.request(&Asked {
            type_url: "type.googleapis.com/x".into(),
            subscribe: vec!["a".into()],
            ..Default::default()
        });
        assert_eq!(
            did.events,
            [Event::UnknownType("type.googleapis.com/x".into())]
        );
        assert!(did.frames.is_empty() && did.closed.is_none());
        assert_eq!(w.change(static_cluster("a", "2")).sent(), ["cds a=2"]);
    }

    #[test]
    fn too_many_or_too_long_names_close_the_stream() {
        let limits = Limits {
            names: 2,
            name_bytes: 3,
            ..Limits::default()
        };
        let mut w = World::with(limits, Credential::Proven);
        assert!(w.subscribe(E, &["a", "b"]).closed.is_none());
        assert!(w.subscribe(E, &["a", "b"]).closed.is_none());
        let closed = w.subscribe(E, &["c"]).closed;
        assert_eq!(closed, Some(Refusal::TooManyNames { kind: E, limit: 2 }));
        let closed = w.subscribe(R, &["long"]).closed;
        assert_eq!(closed, Some(Refusal::NameTooLong { len: 4, limit: 3 }));
    }
}

mod unknown_names {
    use super::*;

    #[test]
    fn endpoints_of_nothing_are_an_empty_assignment() {
        let mut w = World::new();
        assert_eq!(w.subscribe(E, &["a"]).sent(), ["eds a=absent"]);
    }

    #[test]
    fn a_route_of_nothing_is_an_empty_table() {
        let mut w = World::new();
        assert_eq!(w.subscribe(R, &["r"]).sent(), ["rds r=absent"]);
        assert_eq!(w.change(resource(R, "r", "1")).sent(), ["rds r=1"]);
    }

    #[test]
    fn a_route_the_client_had_and_nothing_defines_is_removed_which_envoy_ignores() {
        let mut w = World::new();
        assert_eq!(w.resume(R, &["r"], &[("r", "1")]).sent(), ["rds -r"]);
    }

    #[test]
    fn a_cluster_of_nothing_is_an_empty_one_until_it_exists() {
        let mut w = World::new();
        w.subscribe(C, &[]);
        assert_eq!(w.subscribe(C, &["od"]).sent(), ["cds od=absent"]);
        assert_eq!(w.change(static_cluster("od", "1")).sent(), ["cds od=1"]);
        assert_eq!(w.remove(C, "od").sent(), ["cds od=absent"]);
    }

    #[test]
    fn to_a_client_that_names_its_clusters_one_of_nothing_is_removed() {
        let mut w = World::new();
        assert_eq!(w.subscribe(C, &["a"]).sent(), ["cds -a"]);
    }

    #[test]
    fn an_empty_answer_is_not_repeated_after_a_reconnect() {
        let mut w = World::new();
        w.subscribe(C, &[]);
        let did = w.resume(E, &["a"], &[("a", "absent")]);
        assert!(did.sent().is_empty());
    }
}

mod true_delta {
    use super::*;

    #[test]
    fn a_touched_resource_with_an_equal_version_is_not_sent() {
        let mut w = connected();
        let did = w.touched(&[(C, "a"), (E, "a"), (L, "l"), (R, "r")]);
        assert!(did.sent().is_empty());
    }

    #[test]
    fn a_changed_eds_cluster_takes_its_endpoints_along_whatever_their_version() {
        let mut w = connected();
        assert_eq!(w.change(cluster("a", "2")).sent(), ["cds a=2", "eds a=1"]);
    }

    #[test]
    fn a_new_eds_cluster_takes_its_endpoints_along_and_its_subscribe_is_no_question() {
        let mut w = connected();
        w.put(endpoints("c", "1"));
        assert_eq!(w.change(cluster("c", "1")).sent(), ["cds c=1", "eds c=1"]);
        assert!(w.subscribe(E, &["c"]).sent().is_empty());
        // Only the first subscribe is passed over.
        assert_eq!(w.subscribe(E, &["c"]).sent(), ["eds c=1"]);
    }

    #[test]
    fn a_subscribe_for_some_of_those_that_went_behind_is_no_question_either() {
        let mut w = connected();
        for name in ["c", "d"] {
            w.put(endpoints(name, "1")).put(cluster(name, "1"));
        }
        let did = w.touched(&[(C, "c"), (C, "d")]);
        assert_eq!(did.sent(), ["cds c=1 d=1", "eds c=1 d=1"]);
        assert!(w.subscribe(E, &["d"]).sent().is_empty());
        // One that was told, and one that was not.
        w.put(endpoints("e", "1"));
        assert_eq!(w.subscribe(E, &["c", "e"]).sent(), ["eds e=1"]);
        assert_eq!(w.subscribe(E, &["d"]).sent(), ["eds d=1"]);
    }

    #[test]
    fn endpoints_that_changed_before_that_subscribe_are_sent_at_it() {
        let mut w = connected();
        w.put(endpoints("c", "1"));
        w.change(cluster("c", "1"));
        w.change(endpoints("c", "2"));
        assert_eq!(w.subscribe(E, &["c"]).sent(), ["eds c=2"]);
    }

    #[test]
    fn a_new_cluster_without_endpoints_takes_an_empty_assignment_along() {
        let mut w = connected();
        assert_eq!(
            w.change(cluster("c", "1")).sent(),
            ["cds c=1", "eds c=absent"]
        );
    }

    #[test]
    fn a_cluster_that_is_not_eds_takes_nothing_along() {
        let mut w = connected();
        w.put(endpoints("c", "1"));
        assert_eq!(w.change(static_cluster("c", "1")).sent(), ["cds c=1"]);
    }

    #[test]
    fn a_cluster_that_came_again_is_answered_again() {
        let mut w = connected();
        w.drop(E, "a");
        w.remove(C, "a");
        w.unsubscribe(E, &["a"]);
        w.put(endpoints("a", "1"));
        assert_eq!(w.change(cluster("a", "1")).sent(), ["cds a=1", "eds a=1"]);
        assert!(w.subscribe(E, &["a"]).sent().is_empty());
    }

    #[test]
    fn before_the_first_endpoint_request_a_cluster_goes_alone() {
        let mut w = World::new();
        w.put(cluster("a", "1")).put(endpoints("a", "1"));
        assert_eq!(w.subscribe(C, &[]).sent(), ["cds a=1"]);
    }

    #[test]
    fn the_first_endpoint_request_is_answered_in_full_for_clusters_sent_on_this_stream() {
        let mut w = World::new();
        w.put(cluster("a", "2")).put(endpoints("a", "1"));
        w.put(cluster("b", "1")).put(endpoints("b", "1"));
        let did = w.resume(C, &[], &[("a", "1"), ("b", "1")]);
        assert_eq!(did.sent(), ["cds a=2"]);
        // Both claims are equal; a was sent on this stream and warms, b was not.
        let did = w.resume(E, &["a", "b"], &[("a", "1"), ("b", "1")]);
        assert_eq!(did.sent(), ["eds a=1"]);
    }

    #[test]
    fn an_endpoint_request_before_the_cluster_request_means_warming_and_is_answered_in_full() {
        let mut w = World::new();
        w.put(cluster("a", "1")).put(endpoints("a", "1"));
        let did = w.resume(E, &["a"], &[("a", "1")]);
        assert_eq!(did.sent(), ["eds a=1"]);
        assert!(w.resume(C, &["*", "a"], &[("a", "1")]).sent().is_empty());
    }

    #[test]
    fn names_of_a_first_request_that_bring_the_current_version_are_not_sent() {
        let mut w = World::new();
        w.put(static_cluster("a", "1"));
        w.put(resource(R, "r", "2")).put(resource(R, "s", "1"));
        w.resume(C, &[], &[("a", "1")]);
        let did = w.resume(R, &["r", "s", "t"], &[("r", "1"), ("s", "1")]);
        assert_eq!(did.sent(), ["rds r=2 t=absent"]);
    }

    #[test]
    fn a_name_subscribed_again_later_is_answered_though_its_version_is_equal() {
        let mut w = connected();
        assert_eq!(w.subscribe(R, &["r"]).sent(), ["rds r=1"]);
        assert_eq!(w.subscribe(C, &["a"]).sent(), ["cds a=1", "eds a=1"]);
    }

    #[test]
    fn a_resumed_wildcard_is_sent_the_difference_alone() {
        let mut w = World::new();
        w.put(resource(L, "same", "1"))
            .put(resource(L, "other", "2"));
        w.put(resource(L, "new", "1"));
        let did = w.resume(L, &[], &[("same", "1"), ("other", "1"), ("gone", "1")]);
        assert_eq!(did.sent(), ["lds new=1 other=2 -gone"]);
    }

    #[test]
    fn versions_brought_later_than_the_first_request_are_ignored() {
        let mut w = connected();
        let did = w.resume(L, &["l"], &[("l", "1")]);
        assert_eq!(did.sent(), ["lds l=1"]);
    }

    #[test]
    fn a_move_to_another_scope_sends_the_difference_alone() {
        let mut w = connected();
        w.put(cluster("a", "2")).put(naming(R, "r", "2", &["a"]));
        w.drop(C, "b").drop(E, "b");
        assert_eq!(
            w.moved().sent(),
            ["cds a=2", "eds a=1", "rds r=2", "cds -b", "eds -b"]
        );
    }
}

mod answers {
    use super::*;

    #[test]
    fn a_nack_is_remembered_with_envoys_words_and_nothing_is_sent_again() {
        let mut w = connected();
        let did = w.change(static_cluster("bad", "1"));
        let after = w.nack(&did.frames[0], "no such filter");
        assert!(after.frames.is_empty());
        assert_eq!(
            after.events,
            [Event::Nacked {
                kind: C,
                names: vec!["bad".into()],
                message: "no such filter".into()
            }]
        );
        assert!(w.touched(&[(C, "bad")]).sent().is_empty());
        let standing = w.session.standing(C);
        assert_eq!(
            (standing.acked, standing.nacked, standing.pending),
            (2, 1, 0)
        );
        assert_eq!(&*standing.refusals[0].1.message, "no such filter");
    }

    #[test]
    fn a_refused_resource_recovers_with_its_next_content() {
        let mut w = connected();
        let did = w.change(static_cluster("bad", "1"));
        w.nack(&did.frames[0], "no");
        let did = w.change(static_cluster("bad", "2"));
        assert_eq!(did.sent(), ["cds bad=2"]);
        assert_eq!(w.session.standing(C).nacked, 1);
        w.ack(&did.frames[0]);
        let standing = w.session.standing(C);
        assert_eq!(
            (standing.acked, standing.nacked, standing.pending),
            (3, 0, 0)
        );
    }

    #[test]
    fn a_refused_resource_is_sent_again_when_asked_for() {
        let mut w = connected();
        let did = w.change(static_cluster("bad", "1"));
        w.nack(&did.frames[0], "no");
        assert_eq!(w.subscribe(C, &["bad"]).sent(), ["cds bad=1"]);
    }

    #[test]
    fn a_stale_nonce_is_counted_and_its_subscriptions_still_taken() {
        let mut w = connected();
        let did = w.request(&Asked {
            nonce: "ffffffff".into(),
            ..subscribe(R, &["s"], &[])
        });
        assert_eq!(did.events, [Event::StaleNonce(R)]);
        assert_eq!(did.sent(), ["rds s=absent"]);
    }

    #[test]
    fn an_answer_given_twice_is_stale() {
        let mut w = connected();
        let did = w.change(static_cluster("x", "1"));
        w.ack(&did.frames[0]);
        assert_eq!(w.ack(&did.frames[0]).events, [Event::StaleNonce(C)]);
    }

    #[test]
    fn an_ack_tells_when_the_change_happened() {
        let mut w = connected();
        let at = w.now;
        let did = w.change(static_cluster("x", "1"));
        w.now += Duration::from_secs(1);
        let since = Some(at);
        assert_eq!(
            w.ack(&did.frames[0]).events,
            [Event::Acked { kind: C, since }]
        );
    }

    #[test]
    fn unanswered_frames_are_pending() {
        let mut w = connected();
        let did = w.change(static_cluster("x", "1"));
        assert_eq!(w.session.standing(C).pending, 1);
        w.ack(&did.frames[0]);
        assert_eq!(w.session.standing(C).pending, 0);
    }
}

mod order {
    use super::*;

    #[test]
    fn one_flush_adds_clusters_first_and_removes_them_last() {
        let mut w = connected();
        w.put(cluster("c", "1")).put(endpoints("c", "1"));
        w.put(endpoints("b", "2")).put(resource(L, "l", "2"));
        w.put(naming(R, "r", "2", &["c"]));
        w.drop(C, "a").drop(E, "a");
        let all = [
            (C, "a"),
            (E, "a"),
            (E, "b"),
            (C, "c"),
            (E, "c"),
            (L, "l"),
            (R, "r"),
        ];
        assert_eq!(
            w.touched(&all).sent(),
            [
                "cds c=1", "eds c=1", "eds b=2", "lds l=2", "rds r=2", "cds -a", "eds -a"
            ]
        );
    }

    #[test]
    fn a_cluster_on_its_way_out_keeps_its_endpoints_till_then() {
        let mut w = connected();
        w.drop(E, "b");
        // The cluster stays: its endpoints are none at once.
        assert_eq!(w.touched(&[(E, "b")]).sent(), ["eds b=absent"]);
        w.drop(C, "a").drop(E, "a");
        w.put(naming(R, "r", "2", &["b"]));
        let did = w.touched(&[(C, "a"), (E, "a"), (R, "r")]);
        assert_eq!(did.sent(), ["rds r=2", "cds -a", "eds -a"]);
    }

    #[test]
    fn each_cluster_frame_is_followed_by_its_own_endpoints() {
        let limits = Limits {
            frame_bytes: 1,
            ..Limits::default()
        };
        let mut w = World::with(limits, Credential::Proven);
        w.subscribe(C, &[]);
        w.subscribe(E, &["x"]);
        for name in ["a", "b"] {
            w.put(cluster(name, "1")).put(endpoints(name, "1"));
        }
        let did = w.touched(&[(C, "a"), (E, "a"), (C, "b"), (E, "b")]);
        assert_eq!(did.sent(), ["cds a=1", "eds a=1", "cds b=1", "eds b=1"]);
    }

    #[test]
    fn a_resumed_client_keeps_its_clusters_until_its_routes_are_known() {
        let mut w = World::new();
        w.put(static_cluster("new", "1"));
        w.put(naming(R, "r", "2", &["new"]));
        let did = w.resume(C, &[], &[("old", "1")]);
        assert_eq!(did.sent(), ["cds new=1"]);
        assert_eq!(w.resume(L, &[], &[]).sent(), ["lds"]);
        let did = w.resume(R, &["r"], &[("r", "1")]);
        assert_eq!(did.sent(), ["rds r=2", "cds -old"]);
    }

    #[test]
    fn a_resumed_client_that_has_no_routes_loses_old_clusters_a_second_later() {
        let mut w = World::new();
        assert!(w.resume(C, &[], &[("old", "1")]).sent().is_empty());
        assert_eq!(w.session.deadline(), Some(w.now + Duration::from_secs(1)));
        assert_eq!(w.after(Duration::from_secs(1)).sent(), ["cds -old"]);
        assert_eq!(w.session.deadline(), None);
    }

    #[test]
    fn routes_wait_for_the_cluster_request_that_a_warming_cluster_holds_back() {
        let mut w = World::new();
        w.put(cluster("a", "1")).put(endpoints("a", "1"));
        w.put(static_cluster("new", "1"));
        w.put(naming(R, "r", "2", &["new"]))
            .put(resource(R, "s", "2"));
        w.resume(E, &["a"], &[]);
        let did = w.resume(R, &["r", "s"], &[("r", "1"), ("s", "1")]);
        assert_eq!(did.sent(), ["rds s=2"]);
        let did = w.resume(C, &["*", "a"], &[("a", "1")]);
        assert_eq!(did.sent(), ["cds new=1", "rds r=2"]);
    }

    #[test]
    fn routes_to_a_new_cluster_wait_for_the_endpoints_request_of_a_resumed_client() {
        let mut w = World::new();
        w.put(cluster("new", "1")).put(endpoints("new", "1"));
        w.put(naming(R, "r", "2", &["new"]));
        let did = w.resume(C, &[], &[("old", "1")]);
        assert_eq!(did.sent(), ["cds new=1"]);
        assert!(w.resume(R, &["r"], &[("r", "1")]).sent().is_empty());
        assert_eq!(w.resume(L, &[], &[]).sent(), ["lds"]);
        let did = w.resume(E, &["new"], &[]);
        assert_eq!(did.sent(), ["eds new=1", "rds r=2", "cds -old"]);
    }

    #[test]
    fn an_endpoints_request_that_crossed_a_new_cluster_is_followed_by_its_endpoints() {
        let mut w = World::new();
        w.put(cluster("old", "1")).put(endpoints("old", "1"));
        w.put(cluster("new", "1")).put(endpoints("new", "1"));
        w.put(naming(R, "r", "2", &["new"]));
        w.resume(C, &[], &[("old", "1")]);
        let did = w.resume(E, &["old"], &[("old", "1")]);
        assert_eq!(did.sent(), ["eds new=1"]);
        assert_eq!(w.resume(R, &["r"], &[("r", "1")]).sent(), ["rds r=2"]);
        // The request for them that was under way needs no second answer.
        assert!(w.subscribe(E, &["new"]).sent().is_empty());
    }

    #[test]
    fn a_client_that_never_asks_for_endpoints_gets_its_routes_in_time() {
        let mut w = World::new();
        w.put(cluster("new", "1"));
        w.put(naming(R, "r", "2", &["new"]));
        w.resume(C, &[], &[("other", "1")]);
        assert!(w.resume(R, &["r"], &[("r", "1")]).sent().is_empty());
        assert!(w.after(WARM).sent().contains(&"rds r=2".to_owned()));
    }

    #[test]
    fn that_wait_is_bounded() {
        let mut w = World::new();
        w.put(naming(R, "r", "2", &["new"]));
        w.resume(E, &["a"], &[]);
        assert!(w.resume(R, &["r"], &[("r", "1")]).sent().is_empty());
        assert_eq!(w.session.deadline(), Some(w.now + WARM));
        assert_eq!(w.after(WARM).sent(), ["rds r=2"]);
        assert_eq!(w.session.deadline(), None);
    }
}

mod gate {
    use super::*;

    fn with_dns() -> (World, Did) {
        let mut w = connected();
        w.put(warming("dns", "1", Warming::Dns));
        w.put(naming(R, "r", "2", &["a", "dns"]));
        let did = w.touched(&[(C, "dns"), (R, "r")]);
        assert_eq!(did.sent(), ["cds dns=1"]);
        (w, did)
    }

    #[test]
    fn a_route_that_newly_names_a_warming_cluster_waits_for_the_cluster_ack() {
        let (mut w, did) = with_dns();
        assert_eq!(w.ack(&did.frames[0]).sent(), ["rds r=2"]);
    }

    #[test]
    fn a_nack_ends_the_wait_too() {
        let (mut w, did) = with_dns();
        assert_eq!(w.nack(&did.frames[0], "bad dns").sent(), ["rds r=2"]);
    }

    #[test]
    fn an_ack_of_an_earlier_frame_does_not_end_the_wait() {
        let mut w = connected();
        let earlier = w.change(static_cluster("x", "1"));
        w.put(warming("dns", "1", Warming::Dns));
        w.put(naming(R, "r", "2", &["dns"]));
        let did = w.touched(&[(C, "dns"), (R, "r")]);
        assert!(w.ack(&earlier.frames[0]).sent().is_empty());
        assert_eq!(w.ack(&did.frames[0]).sent(), ["rds r=2"]);
    }

    #[test]
    fn after_five_seconds_the_route_goes_and_the_cluster_is_reported() {
        let (mut w, _) = with_dns();
        assert_eq!(w.session.deadline(), Some(w.now + WARM));
        let did = w.after(WARM);
        assert_eq!(did.events, [Event::StillWarming(vec!["dns".into()])]);
        assert_eq!(did.sent(), ["rds r=2"]);
        assert_eq!(w.session.deadline(), None);
    }

    #[test]
    fn a_warming_cluster_that_changes_waits_for_its_last_frame_but_no_longer_than_from_its_first() {
        let mut w = connected();
        w.put(warming("dns", "1", Warming::Dns));
        w.put(warming("other", "1", Warming::HealthCheck));
        w.put(naming(R, "r", "2", &["a", "dns"]));
        w.put(naming(R, "s", "1", &["other"]));
        let first = w.touched(&[(C, "dns"), (C, "other"), (R, "r")]);
        assert_eq!(first.sent(), ["cds dns=1 other=1"]);
        assert!(w.subscribe(R, &["s"]).sent().is_empty());
        assert!(w.after(WARM / 2).sent().is_empty());
        w.put(warming("dns", "2", Warming::Dns));
        assert_eq!(w.touched(&[(C, "dns")]).sent(), ["cds dns=2"]);
        assert_eq!(w.ack(&first.frames[0]).sent(), ["rds s=1"]);
        let did = w.after(WARM / 2);
        assert_eq!(did.events, [Event::StillWarming(vec!["dns".into()])]);
        assert_eq!(did.sent(), ["rds r=2"]);
    }

    #[test]
    fn nothing_else_waits_meanwhile() {
        let (mut w, _) = with_dns();
        w.put(endpoints("a", "2")).put(resource(L, "m", "1"));
        w.put(static_cluster("y", "1"));
        let did = w.touched(&[(E, "a"), (L, "m"), (C, "y")]);
        assert_eq!(did.sent(), ["cds y=1", "eds a=2", "lds m=1"]);
    }

    #[test]
    fn a_route_that_named_it_before_does_not_wait() {
        let mut w = connected();
        w.change(naming(R, "r", "2", &["a", "dns"]));
        w.put(warming("dns", "1", Warming::Dns));
        w.put(naming(R, "r", "3", &["dns"]));
        let did = w.touched(&[(C, "dns"), (R, "r")]);
        assert_eq!(did.sent(), ["cds dns=1", "rds r=3"]);
    }

    #[test]
    fn a_changed_cluster_holds_nothing_for_its_old_form_serves() {
        let (mut w, did) = with_dns();
        w.ack(&did.frames[0]);
        w.put(warming("dns", "2", Warming::Dns));
        w.put(naming(R, "s", "1", &["dns"]));
        w.touched(&[(C, "dns")]);
        assert_eq!(w.subscribe(R, &["s"]).sent(), ["rds s=1"]);
    }

    #[test]
    fn a_cluster_that_a_waiting_route_still_names_is_removed_behind_it() {
        let mut w = connected();
        w.put(warming("dns", "1", Warming::Dns));
        w.put(naming(R, "r", "2", &["dns"]));
        w.drop(C, "a").drop(E, "a");
        let did = w.touched(&[(C, "a"), (E, "a"), (C, "dns"), (R, "r")]);
        assert_eq!(did.sent(), ["cds dns=1"]);
        let after = w.ack(&did.frames[0]);
        assert_eq!(after.sent(), ["rds r=2", "cds -a", "eds -a"]);
    }

    #[test]
    fn a_removed_cluster_holds_nothing() {
        let (mut w, _) = with_dns();
        w.put(naming(R, "r", "3", &["a"])).drop(C, "dns");
        let did = w.touched(&[(C, "dns"), (R, "r")]);
        assert_eq!(did.sent(), ["rds r=3", "cds -dns"]);
        assert_eq!(w.session.deadline(), None);
    }

    #[test]
    fn a_cluster_whose_secret_the_proxy_lacks_holds_until_it_has_it() {
        let mut w = connected();
        let tls = Warming::Secrets(vec!["default".into()]);
        w.put(warming("tls", "1", tls));
        w.put(naming(R, "r", "2", &["tls"]));
        assert_eq!(w.touched(&[(C, "tls"), (R, "r")]).sent(), ["cds tls=1"]);
        w.subscribe(S, &["default"]);
        let did = w.secret("default", secrets_tests::fresh("default", "v1"));
        assert_eq!(did.sent(), ["sds default=v1"]);
        assert_eq!(w.ack(&did.frames[0]).sent(), ["rds r=2"]);
    }

    #[test]
    fn a_cluster_whose_secrets_the_proxy_has_holds_nothing() {
        let mut w = connected();
        w.subscribe(S, &["default"]);
        let did = w.secret("default", secrets_tests::fresh("default", "v1"));
        w.ack(&did.frames[0]);
        let tls = Warming::Secrets(vec!["default".into()]);
        w.put(warming("tls", "1", tls));
        w.put(naming(R, "r", "2", &["tls"]));
        let did = w.touched(&[(C, "tls"), (R, "r")]);
        assert_eq!(did.sent(), ["cds tls=1", "rds r=2"]);
    }
}

pub(super) mod secrets_tests {
    use super::*;

    pub(in crate::delivery::session) fn fresh(name: &str, version: &str) -> Answer {
        Answer::Fresh {
            encoded: Arc::new(resource(S, name, version)),
            renew: None,
        }
    }

    fn ask(name: &str, held: Option<&str>) -> Ask {
        Ask {
            name: name.into(),
            held: held.map(Str::new),
        }
    }

    #[test]
    fn a_subscribed_secret_is_asked_of_the_ca_and_sent() {
        let mut w = World::new();
        let did = w.subscribe(S, &["default", "ROOTCA"]);
        assert_eq!(did.asks, [ask("ROOTCA", None), ask("default", None)]);
        assert!(did.frames.is_empty());
        let did = w.secret("default", fresh("default", "v1"));
        assert_eq!(did.sent(), ["sds default=v1"]);
    }

    #[test]
    fn a_resumed_secret_is_offered_and_not_sent_again_while_good() {
        let mut w = World::new();
        let did = w.resume(S, &["default"], &[("default", "v1")]);
        assert_eq!(did.asks, [ask("default", Some("v1"))]);
        let good = Answer::StillGood {
            version: "v1".into(),
            renew: None,
        };
        assert!(w.secret("default", good).sent().is_empty());
        assert_eq!(w.session.standing(S).acked, 1);
    }

    #[test]
    fn a_later_subscribe_is_answered_by_a_new_one() {
        let mut w = World::new();
        w.subscribe(S, &["default"]);
        w.secret("default", fresh("default", "v1"));
        let did = w.resume(S, &["default"], &[("default", "v1")]);
        assert_eq!(did.asks, [ask("default", None)]);
    }

    #[test]
    fn a_second_wish_while_one_is_made_is_met_by_the_same() {
        let mut w = World::new();
        w.subscribe(S, &["default"]);
        assert!(w.subscribe(S, &["default"]).asks.is_empty());
    }

    #[test]
    fn a_certificate_is_renewed_when_its_time_comes() {
        let mut w = World::new();
        w.subscribe(S, &["default"]);
        let half_life = Duration::from_secs(30);
        let answer = Answer::Fresh {
            encoded: Arc::new(resource(S, "default", "v1")),
            renew: Some(w.now + half_life),
        };
        w.secret("default", answer);
        assert_eq!(w.session.deadline(), Some(w.now + half_life));
        assert_eq!(w.after(half_life).asks, [ask("default", None)]);
        assert_eq!(
            w.secret("default", fresh("default", "v2")).sent(),
            ["sds default=v2"]
        );
    }

    #[test]
    fn new_roots_make_every_secret_be_offered_again() {
        let mut w = World::new();
        w.subscribe(S, &["default"]);
        w.secret("default", fresh("default", "v1"));
        assert_eq!(w.trust_changed().asks, [ask("default", Some("v1"))]);
    }

    #[test]
    fn a_ca_that_cannot_now_is_asked_again() {
        let mut w = World::new();
        w.subscribe(S, &["default"]);
        let retry = w.now + Duration::from_secs(1);
        assert!(
            w.secret("default", Answer::Unavailable { retry })
                .sent()
                .is_empty()
        );
        assert_eq!(w.after(Duration::from_secs(1)).asks, [ask("default", None)]);
    }

    #[test]
    fn other_names_are_refused_and_reported() {
        let mut w = World::new();
        let did = w.subscribe(S, &["kubernetes://shop/tls", "*"]);
        assert_eq!(did.sent(), ["sds -* -kubernetes://shop/tls"]);
        assert_eq!(did.events.len(), 2);
        assert!(did.asks.is_empty());
    }

    #[test]
    fn without_an_identity_no_secret_is_answered() {
        let mut w = World::with(Limits::default(), Credential::Absent);
        let did = w.subscribe(S, &["default", "ROOTCA", "x"]);
        assert!(did.frames.is_empty() && did.asks.is_empty());
    }

    #[test]
    fn a_secret_nobody_wants_any_more_is_dropped() {
        let mut w = World::new();
        w.subscribe(S, &["default"]);
        w.unsubscribe(S, &["default"]);
        assert!(
            w.secret("default", fresh("default", "v1"))
                .sent()
                .is_empty()
        );
    }
}

mod slow_clients {
    use super::*;

    fn narrow() -> World {
        let limits = Limits {
            window_bytes: 200,
            ..Limits::default()
        };
        World::with(limits, Credential::Proven)
    }

    #[test]
    fn past_the_window_changes_gather_and_the_latest_goes() {
        let mut w = narrow();
        w.put(static_cluster("a", "1"));
        w.subscribe(C, &[]);
        w.change(static_cluster("b", "1"));
        assert!(w.change(static_cluster("b", "2")).sent().is_empty());
        assert!(w.change(static_cluster("b", "3")).sent().is_empty());
        assert!(w.session.in_flight() >= 200);
        assert_eq!(w.taken().sent(), ["cds b=3"]);
    }

    #[test]
    fn a_client_that_takes_nothing_is_closed() {
        let mut w = narrow();
        w.put(static_cluster("a", "1"));
        w.subscribe(C, &[]);
        w.change(static_cluster("b", "1"));
        let stall = Limits::default().stall;
        assert_eq!(w.session.deadline(), Some(w.now + stall));
        assert!(w.after(stall / 2).closed.is_none());
        assert_eq!(w.after(stall / 2).closed, Some(Refusal::Stalled(30)));
    }

    #[test]
    fn a_client_that_takes_something_is_not() {
        let mut w = narrow();
        w.put(static_cluster("a", "1"));
        w.subscribe(C, &[]);
        w.change(static_cluster("b", "1"));
        w.after(Limits::default().stall / 2);
        w.taken();
        assert!(w.after(Limits::default().stall).closed.is_none());
    }

    #[test]
    fn secrets_are_not_made_for_a_client_that_does_not_read() {
        let mut w = narrow();
        w.put(static_cluster("a", "1"));
        w.subscribe(C, &[]);
        w.change(static_cluster("b", "1"));
        assert!(w.subscribe(S, &["default"]).asks.is_empty());
        assert_eq!(w.taken().asks.len(), 1);
    }
}
