//! Where a request lands, by an Envoy's configuration alone.
//!
//! Pure, and written from Envoy's documentation of route configuration, not from the renderer: the two must meet in the
//! middle. `dump` is what `fairlead dump` says of a proxy.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::Value;

/// A request, as it comes to a listener.
#[derive(Clone, Debug)]
pub struct Asked {
    pub host: String,
    pub method: String,
    /// With its query.
    pub path: String,
    pub headers: Vec<(String, String)>,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Landing {
    /// At one of these clusters, with this path and host.
    Clusters {
        clusters: BTreeSet<String>,
        path: String,
        host: String,
    },
    /// Envoy answers by itself.
    Status(u16),
}

const NOT_FOUND: Landing = Landing::Status(404);
const MOVED: u16 = 301;
const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";

/// By the route table of this name.
pub fn land(dump: &Value, table: &str, asked: &Asked) -> Landing {
    let tables = dump[ROUTES].as_array().into_iter().flatten();
    let mut tables = tables.map(|entry| &entry["resource"]);
    let Some(table) = tables.find(|t| t["name"] == table) else {
        return NOT_FOUND;
    };
    let host = match table["ignorePortInHostMatching"].as_bool() {
        Some(true) => without_port(&asked.host),
        _ => asked.host.as_str(),
    };
    let Some(virtual_host) = virtual_host(table, &host.to_ascii_lowercase()) else {
        return NOT_FOUND;
    };
    if virtual_host["requireTls"] == "ALL" {
        return Landing::Status(MOVED);
    }
    let mut routes = virtual_host["routes"].as_array().into_iter().flatten();
    routes
        .find(|route| matches(&route["match"], asked))
        .map_or(NOT_FOUND, |route| act(route, asked))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Exact domains first, then the longest that begins with a star, then the longest that ends with one, then `*`.
fn virtual_host<'t>(table: &'t Value, host: &str) -> Option<&'t Value> {
    let hosts = table["virtualHosts"].as_array()?.iter();
    let mut best: Option<((u8, usize), &Value)> = None;
    for one in hosts {
        for domain in one["domains"].as_array()?.iter().filter_map(Value::as_str) {
            let domain = domain.to_ascii_lowercase();
            let rank = if domain == host {
                (3, domain.len())
            } else if domain == "*" {
                (0, 0)
            } else if let Some(suffix) = domain.strip_prefix('*')
                && host.len() > suffix.len()
                && host.ends_with(suffix)
            {
                (2, domain.len())
            } else if let Some(prefix) = domain.strip_suffix('*')
                && host.len() > prefix.len()
                && host.starts_with(prefix)
            {
                (1, domain.len())
            } else {
                continue;
            };
            if best.is_none_or(|(known, _)| rank > known) {
                best = Some((rank, one));
            }
        }
    }
    best.map(|(_, one)| one)
}

/// All that a match says.
fn matches(m: &Value, asked: &Asked) -> bool {
    let each = |list: &str| m[list].as_array().cloned().unwrap_or_default();
    matches_path(m, asked)
        && each("headers").iter().all(|h| matches_header(h, asked))
        && each("queryParameters")
            .iter()
            .all(|q| matches_query(q, asked))
}

fn split(path: &str) -> (&str, &str) {
    path.split_once('?').unwrap_or((path, ""))
}

fn matches_path(m: &Value, asked: &Asked) -> bool {
    let (path, _) = split(&asked.path);
    let ignore_case = m["caseSensitive"] == false;
    let fold = |text: &str| match ignore_case {
        true => text.to_ascii_lowercase(),
        false => text.to_owned(),
    };
    let path = fold(path);
    if let Some(prefix) = m["prefix"].as_str() {
        return path.starts_with(&fold(prefix));
    }
    if let Some(exact) = m["path"].as_str() {
        return path == fold(exact);
    }
    if let Some(prefix) = m["pathSeparatedPrefix"].as_str() {
        let rest = path.strip_prefix(&fold(prefix));
        return rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    }
    if let Some(regex) = m["safeRegex"]["regex"].as_str() {
        return is_whole(regex, &path);
    }
    false
}

/// RE2 as Envoy uses it: the whole text.
fn is_whole(regex: &str, text: &str) -> bool {
    Regex::new(&format!("^(?:{regex})$")).is_ok_and(|regex| regex.is_match(text))
}

fn text_matches(m: &Value, text: &str) -> bool {
    let fold = |text: &str| match m["ignoreCase"].as_bool() {
        Some(true) => text.to_ascii_lowercase(),
        _ => text.to_owned(),
    };
    let text = fold(text);
    let is = |kind: &str, holds: fn(&str, &str) -> bool| {
        m[kind].as_str().is_some_and(|w| holds(&text, &fold(w)))
    };
    is("exact", |text, wanted| text == wanted)
        || is("prefix", |text, wanted| text.starts_with(wanted))
        || is("suffix", |text, wanted| text.ends_with(wanted))
        || is("contains", |text, wanted| text.contains(wanted))
        || m["safeRegex"]["regex"]
            .as_str()
            .is_some_and(|regex| is_whole(regex, &text))
}

/// A header that is not there matches nothing, inverted or not, unless it is to count as empty.
fn matches_header(m: &Value, asked: &Asked) -> bool {
    let name = m["name"].as_str().unwrap_or_default();
    let inverted = m["invertMatch"] == true;
    let value = match name {
        ":method" => Some(asked.method.clone()),
        ":authority" => Some(asked.host.clone()),
        ":path" => Some(asked.path.clone()),
        ":scheme" => Some("http".to_owned()),
        name => {
            let all: Vec<&str> = asked
                .headers
                .iter()
                .filter(|(n, _)| n == name)
                .map(|(_, v)| v.as_str())
                .collect();
            (!all.is_empty()).then(|| all.join(","))
        }
    };
    if let Some(wanted) = m["presentMatch"].as_bool() {
        return (value.is_some() == wanted) != inverted;
    }
    let as_empty = m["treatMissingHeaderAsEmpty"] == true;
    match value.or(as_empty.then(String::new)) {
        None => false,
        Some(value) => text_matches(&m["stringMatch"], &value) != inverted,
    }
}

fn matches_query(m: &Value, asked: &Asked) -> bool {
    let name = m["name"].as_str().unwrap_or_default();
    let (_, query) = split(&asked.path);
    let mut pairs = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let found = pairs.find(|(key, _)| *key == name);
    if let Some(wanted) = m["presentMatch"].as_bool() {
        return found.is_some() == wanted;
    }
    match (found, m["stringMatch"].is_null()) {
        (None, _) => false,
        (Some(_), true) => true,
        (Some((_, value)), false) => text_matches(&m["stringMatch"], value),
    }
}

fn act(route: &Value, asked: &Asked) -> Landing {
    let status = |value: &Value| value.as_u64().and_then(|code| u16::try_from(code).ok());
    if !route["directResponse"].is_null() {
        return Landing::Status(status(&route["directResponse"]["status"]).unwrap_or(0));
    }
    if !route["redirect"].is_null() {
        let code = route["redirect"]["responseCode"].as_str();
        return Landing::Status(match code {
            Some("FOUND") => 302,
            Some("SEE_OTHER") => 303,
            Some("TEMPORARY_REDIRECT") => 307,
            Some("PERMANENT_REDIRECT") => 308,
            _ => MOVED,
        });
    }
    let action = &route["route"];
    let only = action["cluster"].as_str().map(str::to_owned);
    let several = action["weightedClusters"]["clusters"].as_array();
    let weighed = several.into_iter().flatten().filter(|c| c["weight"] != 0);
    let weighed = weighed.filter_map(|c| c["name"].as_str().map(str::to_owned));
    Landing::Clusters {
        clusters: only.into_iter().chain(weighed).collect(),
        path: rewritten(&route["match"], action, &asked.path),
        host: match action["hostRewriteLiteral"].as_str() {
            Some(host) => host.to_owned(),
            None => asked.host.clone(),
        },
    }
}

/// What was matched is replaced: a prefix, or the whole path before its query.
fn rewritten(m: &Value, action: &Value, path: &str) -> String {
    let Some(instead) = action["prefixRewrite"].as_str().filter(|p| !p.is_empty()) else {
        return path.to_owned();
    };
    let (bare, _) = split(path);
    let matched = match (m["prefix"].as_str(), m["pathSeparatedPrefix"].as_str()) {
        (Some(prefix), _) | (_, Some(prefix)) => prefix.len(),
        (None, None) => bare.len(),
    };
    format!("{instead}{}", &path[matched..])
}
