use serde_json::json;

use super::*;

fn unfit(name: &str, json: &serde_json::Value) -> Vec<(String, String)> {
    let found = read(message(name).unwrap(), json).unwrap_err();
    found.into_iter().map(|u| (u.path, u.message)).collect()
}

#[test]
fn names_and_numbers_may_be_written_in_both_ways() {
    let cluster = message("envoy.config.cluster.v3.Cluster").unwrap();
    let snake = json!({"connect_timeout": "1.5s", "lb_policy": "RANDOM", "per_connection_buffer_limit_bytes": "7"});
    let camel =
        json!({"connectTimeout": "1.500s", "lbPolicy": 3, "perConnectionBufferLimitBytes": 7});
    assert_eq!(
        read(cluster.clone(), &snake).unwrap(),
        read(cluster, &camel).unwrap()
    );
}

#[test]
fn every_fault_has_its_path() {
    let url = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua";
    let filter = "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter";
    let got = unfit(
        filter,
        &json!({"nam": "x", "typed_config": {"@type": url, "source_codes": {"a": {"inline_strin": ""}}}}),
    );
    let paths: Vec<&str> = got.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["nam", "typed_config.source_codes.a.inline_strin"]);
    let got = unfit(filter, &json!({"typed_config": {"@type": "a/own.Type"}}));
    let wanted = (
        "typed_config.@type".to_owned(),
        "Envoy's API has no `own.Type`".to_owned(),
    );
    assert_eq!(got, [wanted]);
}

#[test]
fn what_a_typed_struct_says_is_judged_by_the_type_that_it_names() {
    let config = "envoy.config.core.v3.TypedExtensionConfig";
    let json = json!({"name": "x", "typed_config": {
        "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
        "type_url": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
        "value": {"inline_code": 7},
    }});
    let got = unfit(config, &json);
    assert_eq!(got[0].0, "typed_config.value.inline_code");
}

#[test]
fn a_whole_message_keeps_the_bounds_and_a_part_of_one_only_where_it_is_set() {
    let limit = message("envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit").unwrap();
    let json = json!({"token_bucket": {"max_tokens": 0, "fill_interval": "0s"}});
    let read = read(limit, &json).unwrap();
    let paths = |extent| -> Vec<String> {
        let found = broken(&read, extent);
        found.into_iter().map(|u| u.path).collect()
    };
    let whole = paths(Extent::Whole);
    assert!(whole.contains(&"stat_prefix".to_owned()), "{whole:?}");
    assert!(
        whole.contains(&"token_bucket.fill_interval".to_owned()),
        "{whole:?}"
    );
    let part = paths(Extent::Part);
    assert!(!part.contains(&"stat_prefix".to_owned()), "{part:?}");
}

#[test]
fn one_of_several_is_required() {
    let route = message("envoy.config.route.v3.Route").unwrap();
    let route = read(route, &json!({"match": {"prefix": "/"}})).unwrap();
    let found = broken(&route, Extent::Whole);
    assert!(found[0].message.contains("direct_response"), "{found:?}");
}
