//! Renders the match of a route from Istio's HTTPMatchRequest.
//!
//! Conditions on the client (`sourceLabels`, `sourceNamespace`, `gateways`) and on the listener (`port`)
//! are decided before a route comes here.

use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{HeaderMatcher, QueryParameterMatcher, RouteMatch};
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};

use crate::config::value::StringMatch;
use crate::config::virtual_service::{HeaderMatch, HttpMatchRequest};
use crate::text::Str;
use crate::xds::proto;

/// Every request.
pub fn all() -> RouteMatch {
    RouteMatch {
        path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
        ..Default::default()
    }
}

/// Requests that meet all conditions of one match.
pub fn one(matches: &HttpMatchRequest) -> RouteMatch {
    RouteMatch {
        case_sensitive: proto::boolean(!matches.ignore_uri_case),
        headers: headers(matches),
        query_parameters: matches.query_params.iter().map(query_parameter).collect(),
        path_specifier: Some(path(matches.uri.as_ref())),
        ..Default::default()
    }
}

fn path(uri: Option<&StringMatch>) -> PathSpecifier {
    match uri {
        None => PathSpecifier::Prefix("/".to_owned()),
        Some(StringMatch::Exact(path)) => PathSpecifier::Path(path.to_string()),
        Some(StringMatch::Prefix(prefix)) => PathSpecifier::Prefix(prefix.to_string()),
        Some(StringMatch::Segments(path)) => PathSpecifier::PathSeparatedPrefix(path.to_string()),
        Some(StringMatch::Regex(text)) if text == "*" => PathSpecifier::Prefix("/".to_owned()),
        // Envoy refuses an empty expression; like it, an empty path matches no request.
        Some(StringMatch::Regex(text)) if text.is_empty() => PathSpecifier::Path(String::new()),
        Some(StringMatch::Regex(text)) => PathSpecifier::SafeRegex(regex(text)),
    }
}

/// By name, then what is asked of the request line.
fn headers(matches: &HttpMatchRequest) -> Vec<HeaderMatcher> {
    let wanted = matches.headers.iter().map(|(name, m)| header(name, m));
    let unwanted = matches
        .without_headers
        .iter()
        .map(|(name, m)| absent(name, m));
    let mut all: Vec<HeaderMatcher> = wanted.chain(unwanted).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let line = [
        (":method", &matches.method),
        (":authority", &matches.authority),
        (":scheme", &matches.scheme),
    ];
    let line = line
        .into_iter()
        .filter_map(|(name, m)| Some((name, m.as_ref()?)));
    all.extend(line.map(|(name, m)| HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(value(m)),
        ..Default::default()
    }));
    all
}

fn header(name: &Str, wanted: &HeaderMatch) -> HeaderMatcher {
    HeaderMatcher {
        name: name.to_string(),
        header_match_specifier: Some(match wanted {
            HeaderMatch::Present => HeaderMatchSpecifier::PresentMatch(true),
            HeaderMatch::Value(m) => value(m),
        }),
        ..Default::default()
    }
}

/// A request without the header passes: unless presence itself is what is unwanted, it counts as empty.
fn absent(name: &Str, unwanted: &HeaderMatch) -> HeaderMatcher {
    let matcher = header(name, unwanted);
    let presence = matches!(
        matcher.header_match_specifier,
        Some(HeaderMatchSpecifier::PresentMatch(_))
    );
    HeaderMatcher {
        invert_match: true,
        treat_missing_header_as_empty: !presence,
        ..matcher
    }
}

fn value(m: &StringMatch) -> HeaderMatchSpecifier {
    match text(m) {
        None => HeaderMatchSpecifier::PresentMatch(true),
        Some(matcher) => HeaderMatchSpecifier::StringMatch(matcher),
    }
}

fn query_parameter((name, wanted): (&Str, &HeaderMatch)) -> QueryParameterMatcher {
    let matcher = match wanted {
        HeaderMatch::Present => None,
        HeaderMatch::Value(m) => text(m),
    };
    QueryParameterMatcher {
        name: name.to_string(),
        query_parameter_match_specifier: Some(match matcher {
            None => QueryParameterMatchSpecifier::PresentMatch(true),
            Some(matcher) => QueryParameterMatchSpecifier::StringMatch(matcher),
        }),
    }
}

/// None asks for presence only: an empty text, or `*`, which is no regular expression.
pub(super) fn text(m: &StringMatch) -> Option<StringMatcher> {
    let pattern = match m {
        StringMatch::Exact(text)
        | StringMatch::Prefix(text)
        | StringMatch::Regex(text)
        | StringMatch::Segments(text)
            if text.is_empty() =>
        {
            return None;
        }
        StringMatch::Regex(text) if text == "*" => return None,
        StringMatch::Exact(text) => MatchPattern::Exact(text.to_string()),
        StringMatch::Prefix(text) | StringMatch::Segments(text) => {
            MatchPattern::Prefix(text.to_string())
        }
        StringMatch::Regex(text) => MatchPattern::SafeRegex(regex(text)),
    };
    Some(StringMatcher {
        match_pattern: Some(pattern),
        ignore_case: false,
    })
}

pub(super) fn regex(text: &str) -> RegexMatcher {
    RegexMatcher {
        regex: text.to_owned(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::xds::json::shown;

    fn by_uri(uri: StringMatch) -> Value {
        shown(&one(&HttpMatchRequest {
            uri: Some(uri),
            ..HttpMatchRequest::default()
        }))
    }

    #[test]
    fn a_match_without_conditions_takes_every_path() {
        let all_paths = json!({"prefix": "/", "caseSensitive": true});
        assert_eq!(shown(&one(&HttpMatchRequest::default())), all_paths);
        assert_eq!(by_uri(StringMatch::Regex("*".into())), all_paths);
    }

    #[test]
    fn each_kind_of_path_has_its_specifier() {
        let sure = |specifier: Value| {
            let mut matcher = specifier;
            matcher["caseSensitive"] = json!(true);
            matcher
        };
        assert_eq!(
            by_uri(StringMatch::Exact("/a".into())),
            sure(json!({"path": "/a"}))
        );
        assert_eq!(
            by_uri(StringMatch::Prefix("/a".into())),
            sure(json!({"prefix": "/a"}))
        );
        let regex = json!({"safeRegex": {"regex": "/a.*"}});
        assert_eq!(by_uri(StringMatch::Regex("/a.*".into())), sure(regex));
    }

    #[test]
    fn headers_come_by_name_and_the_request_line_last() {
        let exact = |text: &str| StringMatch::Exact(text.into());
        let value = |text: &str| HeaderMatch::Value(exact(text));
        let matches = HttpMatchRequest {
            method: Some(exact("GET")),
            headers: [("z".into(), value("1")), ("b".into(), HeaderMatch::Present)].into(),
            without_headers: [("a".into(), value("2")), ("c".into(), HeaderMatch::Present)].into(),
            ignore_uri_case: true,
            ..HttpMatchRequest::default()
        };
        let expected = json!({
            "prefix": "/",
            "caseSensitive": false,
            "headers": [
                {"name": "a", "stringMatch": {"exact": "2"}, "invertMatch": true, "treatMissingHeaderAsEmpty": true},
                {"name": "b", "presentMatch": true},
                {"name": "c", "presentMatch": true, "invertMatch": true},
                {"name": "z", "stringMatch": {"exact": "1"}},
                {"name": ":method", "stringMatch": {"exact": "GET"}},
            ]
        });
        assert_eq!(shown(&one(&matches)), expected);
    }

    #[test]
    fn an_empty_text_or_a_star_asks_for_presence() {
        let queries = ["exact", "star"].map(Str::new);
        let wanted = [
            StringMatch::Exact(Str::default()),
            StringMatch::Regex("*".into()),
        ];
        let matches = HttpMatchRequest {
            query_params: queries
                .into_iter()
                .zip(wanted.map(HeaderMatch::Value))
                .collect(),
            ..HttpMatchRequest::default()
        };
        let expected = json!([
            {"name": "exact", "presentMatch": true},
            {"name": "star", "presentMatch": true},
        ]);
        assert_eq!(shown(&one(&matches))["queryParameters"], expected);
    }
}
