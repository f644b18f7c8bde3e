//! What an HTTP rule does with requests: redirect, answer, rewrite, headers, faults, mirrors, CORS.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::{fault, header_value, is_label, key_path, port, regex, span};
use crate::config::decode::reader::Fault;
use crate::config::http_action::{
    CorsPolicy, Delegate, HeaderChanges, HeaderOperations, HttpDirectResponse, HttpFaultInjection,
    HttpRedirect, HttpRewrite, RegexRewrite,
};
use crate::config::value::{GRPC_STATUSES, StringMatch};
use crate::config::virtual_service::HttpRoute;

/// As `RouteConfiguration.max_direct_response_body_size_bytes` is set.
const LONGEST_BODY: usize = 1 << 20;

/// All of a rule but its matches and destinations.
pub(super) fn faults(path: &str, route: &HttpRoute) -> Vec<Fault> {
    let mut out = Vec::new();
    let at = |field: &str| format!("{path}.{field}");
    if let Some(spec) = &route.redirect {
        out.extend(redirect(&at("redirect"), spec));
    }
    if let Some(spec) = &route.direct_response {
        out.extend(direct_response(&at("directResponse"), spec));
    }
    if let Some(spec) = &route.delegate {
        out.extend(delegate(&at("delegate"), spec));
    }
    if let Some(spec) = &route.rewrite {
        out.extend(rewrite(&at("rewrite"), spec));
    }
    if let Some(spec) = &route.fault {
        out.extend(injection(&at("fault"), spec));
    }
    if let Some(spec) = &route.cors_policy {
        out.extend(cors(&at("corsPolicy"), spec));
    }
    if let Some(percent) = route.mirror_percent.filter(|percent| *percent > 100) {
        let message = format!("{percent} is no percentage from 0 to 100");
        out.push(fault(at("mirrorPercent"), message));
    }
    if route.mirror.is_some() && !route.mirrors.is_empty() {
        let message = "a rule has only one of mirror and mirrors";
        out.push(fault(at("mirrors"), message));
    }
    out.extend(headers(&at("headers"), &route.headers));
    for (i, destination) in route.route.iter().enumerate() {
        out.extend(headers(
            &at(&format!("route[{i}].headers")),
            &destination.headers,
        ));
    }
    out
}

fn redirect(path: &str, spec: &HttpRedirect) -> Vec<Fault> {
    let mut out = Vec::new();
    let code = spec.redirect_code;
    if !matches!(code, 0 | 301 | 302 | 303 | 307 | 308) {
        let message = format!("{code} is none of 301, 302, 303, 307, 308");
        out.push(fault(format!("{path}.redirectCode"), message));
    }
    if !matches!(spec.scheme.as_str(), "" | "http" | "https") {
        let message = format!("`{}` is neither http nor https", spec.scheme);
        out.push(fault(format!("{path}.scheme"), message));
    }
    if spec.port.is_some() && spec.derive_port.is_some() {
        let message = "a redirect has only one of port and derivePort";
        out.push(fault(format!("{path}.derivePort"), message));
    }
    if !spec.uri.is_empty() && !spec.prefix_rewrite.is_empty() {
        let message = "a redirect has only one of uri and prefixRewrite";
        out.push(fault(format!("{path}.prefixRewrite"), message));
    }
    for (field, text) in [
        ("uri", &spec.uri),
        ("authority", &spec.authority),
        ("prefixRewrite", &spec.prefix_rewrite),
    ] {
        out.extend(one_line(&format!("{path}.{field}"), text));
    }
    out.extend(
        spec.port
            .and_then(|number| port(&format!("{path}.port"), number)),
    );
    out
}

/// Envoy refuses what would break a header apart.
fn one_line(path: &str, text: &str) -> Option<Fault> {
    text.bytes()
        .any(|b| matches!(b, 0 | b'\r' | b'\n'))
        .then(|| fault(path, "this must be one line"))
}

fn direct_response(path: &str, spec: &HttpDirectResponse) -> Vec<Fault> {
    let mut out = Vec::new();
    if !(200..600).contains(&spec.status) {
        let message = format!("{} is no status from 200 to 599", spec.status);
        out.push(fault(format!("{path}.status"), message));
    }
    let body = &spec.body;
    if !body.string.is_empty() && !body.bytes.is_empty() {
        let message = "a body has only one of string and bytes";
        out.push(fault(format!("{path}.body"), message));
    }
    let length = match BASE64_STANDARD.decode(&body.bytes) {
        Ok(bytes) => bytes.len().max(body.string.len()),
        Err(why) => {
            out.push(fault(
                format!("{path}.body.bytes"),
                format!("this is no Base64: {why}"),
            ));
            0
        }
    };
    if length > LONGEST_BODY {
        let message = format!("the body has {length} bytes, more than {LONGEST_BODY}");
        out.push(fault(format!("{path}.body"), message));
    }
    out
}

fn delegate(path: &str, spec: &Delegate) -> Vec<Fault> {
    let mut out = Vec::new();
    if spec.name.is_empty() {
        out.push(fault(
            format!("{path}.name"),
            "a delegate is named by its VirtualService",
        ));
    }
    if !spec.namespace.is_empty() && !is_label(&spec.namespace) {
        let message = format!("`{}` is no namespace", spec.namespace);
        out.push(fault(format!("{path}.namespace"), message));
    }
    out
}

fn rewrite(path: &str, spec: &HttpRewrite) -> Vec<Fault> {
    let mut out = Vec::new();
    if spec.uri.is_empty() && spec.authority.is_empty() && spec.uri_regex_rewrite.is_none() {
        let message = "a rewrite has one of uri, authority, uriRegexRewrite";
        out.push(fault(path, message));
    }
    if !spec.uri.is_empty() && spec.uri_regex_rewrite.is_some() {
        let message = "a rewrite has only one of uri and uriRegexRewrite";
        out.push(fault(format!("{path}.uriRegexRewrite"), message));
    }
    out.extend(one_line(&format!("{path}.uri"), &spec.uri));
    out.extend(one_line(&format!("{path}.authority"), &spec.authority));
    if let Some(RegexRewrite { matches, rewrite }) = &spec.uri_regex_rewrite {
        let path = format!("{path}.uriRegexRewrite");
        match regex::groups(matches) {
            Err(why) => out.push(fault(format!("{path}.match"), why)),
            Ok(groups) => {
                let checked = substitution(rewrite, groups);
                out.extend(
                    checked
                        .err()
                        .map(|why| fault(format!("{path}.rewrite"), why)),
                );
            }
        }
    }
    out
}

/// As RE2 reads it: `\0` to `\9` are what was matched, `\\` is itself.
fn substitution(text: &str, groups: usize) -> Result<(), String> {
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match (c, (c == '\\').then(|| rest.next()).flatten()) {
            ('\\', Some('\\')) => {}
            ('\\', Some(digit)) => match digit.to_digit(10) {
                Some(group) if group as usize <= groups => {}
                Some(group) => {
                    return Err(format!(
                        "`\\{group}` names no group: the expression has {groups}"
                    ));
                }
                None => return Err(format!("`\\{digit}` is neither a group nor `\\\\`")),
            },
            ('\\', None) => return Err("it ends within `\\`".to_owned()),
            ('\r' | '\n' | '\0', _) => return Err("this must be one line".to_owned()),
            (_, _) => {}
        }
    }
    Ok(())
}

fn injection(path: &str, spec: &HttpFaultInjection) -> Vec<Fault> {
    let mut out = Vec::new();
    if let Some(delay) = &spec.delay {
        out.extend(span(&format!("{path}.delay.fixedDelay"), delay.fixed_delay));
        if delay.percent > 100 {
            let message = format!("{} is no percentage from 0 to 100", delay.percent);
            out.push(fault(format!("{path}.delay.percent"), message));
        }
    }
    if let Some(abort) = &spec.abort {
        let status = abort.http_status.filter(|s| !(200..600).contains(s));
        out.extend(status.map(|status| {
            let message = format!("{status} is no status from 200 to 599");
            fault(format!("{path}.abort.httpStatus"), message)
        }));
        let grpc = abort.grpc_status.as_str();
        let number = grpc.parse::<usize>();
        let known = GRPC_STATUSES.contains(&grpc) || number.is_ok_and(|n| n < GRPC_STATUSES.len());
        if !grpc.is_empty() && !known {
            let message = format!("`{grpc}` is no status of gRPC");
            out.push(fault(format!("{path}.abort.grpcStatus"), message));
        }
        if !grpc.is_empty() && abort.http_status.is_some() {
            let message = "an abort has only one of httpStatus and grpcStatus";
            out.push(fault(format!("{path}.abort"), message));
        }
    }
    out
}

fn cors(path: &str, spec: &CorsPolicy) -> Vec<Fault> {
    let mut out = Vec::new();
    for (i, origin) in spec.allow_origins.iter().enumerate() {
        let path = format!("{path}.allowOrigins[{i}]");
        if let StringMatch::Regex(text) = origin
            && let Err(why) = regex::compiles(text)
        {
            out.push(fault(format!("{path}.regex"), why));
        }
    }
    if let Some(age) = spec.max_age.filter(|age| age.0.subsec_nanos() != 0) {
        let message = format!("{age} is no whole number of seconds");
        out.push(fault(format!("{path}.maxAge"), message));
    }
    out
}

pub(super) fn headers(path: &str, changes: &HeaderChanges) -> Vec<Fault> {
    let mut out = operations(&format!("{path}.request"), &changes.request);
    out.extend(operations(&format!("{path}.response"), &changes.response));
    out
}

fn operations(path: &str, spec: &HeaderOperations) -> Vec<Fault> {
    let mut out = Vec::new();
    for (field, map) in [("set", &spec.set), ("add", &spec.add)] {
        for (name, value) in map {
            let at = key_path(&format!("{path}.{field}"), name);
            out.extend(header_name(&at, name));
            out.extend(header_value::sound(value).err().map(|why| fault(at, why)));
        }
    }
    for (i, name) in spec.remove.iter().enumerate() {
        out.extend(header_name(&format!("{path}.remove[{i}]"), name));
    }
    out
}

/// The request line's own names are taken, and left aside where they are no host.
fn header_name(path: &str, name: &str) -> Option<Fault> {
    let word = name.strip_prefix(':').unwrap_or(name);
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let sound = !word.is_empty() && word.bytes().all(token);
    (!sound).then(|| fault(path, format!("`{name}` is no header name")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_substitution_names_only_groups_that_are_there() {
        assert_eq!(substitution(r"/a/\1\\", 1), Ok(()));
        for wrong in [r"\2", r"\x", "a\\"] {
            assert!(substitution(wrong, 1).is_err(), "{wrong}");
        }
    }
}
