//! Renders changes of headers. Set goes before add, each in the order of names.

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::config::route::v3::Route;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;

use crate::config::http_action::{HeaderChanges, HeaderOperations};
use crate::text::Str;

/// One after the other.
pub fn of_route(route: &mut Route, all: &[HeaderChanges]) {
    for HeaderChanges { request, response } in all {
        route.request_headers_to_add.extend(added(request));
        route.request_headers_to_remove.extend(removed(request));
        route.response_headers_to_add.extend(added(response));
        route.response_headers_to_remove.extend(removed(response));
    }
}

pub fn of_target(target: &mut ClusterWeight, changes: &HeaderChanges) {
    target.request_headers_to_add = added(&changes.request);
    target.request_headers_to_remove = removed(&changes.request);
    target.response_headers_to_add = added(&changes.response);
    target.response_headers_to_remove = removed(&changes.response);
}

/// What makes up the request line is no header: its host is rewritten elsewhere.
fn is_header(name: &str) -> bool {
    !name.starts_with(':') && !name.eq_ignore_ascii_case("host")
}

fn added(operations: &HeaderOperations) -> Vec<HeaderValueOption> {
    let each = |action: HeaderAppendAction| {
        move |(name, value): (&Str, &Str)| HeaderValueOption {
            header: Some(HeaderValue {
                key: name.to_string(),
                value: value.to_string(),
                ..Default::default()
            }),
            append_action: action.into(),
            ..Default::default()
        }
    };
    let real = |(name, _): &(&Str, &Str)| is_header(name);
    let set = operations.set.iter().filter(real);
    let add = operations.add.iter().filter(real);
    set.map(each(HeaderAppendAction::OverwriteIfExistsOrAdd))
        .chain(add.map(each(HeaderAppendAction::AppendIfExistsOrAdd)))
        .collect()
}

fn removed(operations: &HeaderOperations) -> Vec<String> {
    let real = operations.remove.iter().filter(|name| is_header(name));
    real.map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::xds::json::shown;

    #[test]
    fn what_is_set_replaces_and_what_is_added_stands_beside() {
        let changes: HeaderChanges = serde_json::from_value(json!({
            "request": {"set": {"x-b": "1", "host": "other"}, "add": {"x-a": "2"}, "remove": ["x-c", ":path"]},
        }))
        .unwrap();
        let mut route = Route::default();
        of_route(&mut route, &[changes]);
        let expected = json!({
            "requestHeadersToAdd": [
                {"header": {"key": "x-b", "value": "1"}, "appendAction": "OVERWRITE_IF_EXISTS_OR_ADD"},
                {"header": {"key": "x-a", "value": "2"}},
            ],
            "requestHeadersToRemove": ["x-c"],
        });
        assert_eq!(shown(&route), expected);
    }
}
