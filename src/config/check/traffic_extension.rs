//! TrafficExtension: selector, ports, and one filter of one kind.

use super::{NotYet, fault, port, selector};
use crate::config::decode::reader::Fault;
use crate::config::traffic_extension::TrafficExtension;
use crate::diagnostic::Code;

/// A script of more bytes is no filter any more; all proxies that it selects are sent it.
const MAX_CODE: usize = 64 << 10;

pub(super) fn faults(spec: &TrafficExtension, not_yet: &NotYet) -> Vec<Fault> {
    let mut out = Vec::new();
    if let Some(chosen) = &spec.selector {
        out.extend(selector("spec.selector.matchLabels", &chosen.match_labels));
    }
    for (i, matched) in spec.matches.iter().enumerate() {
        for (j, own) in matched.ports.iter().enumerate() {
            out.extend(port(
                &format!("spec.match[{i}].ports[{j}].number"),
                own.number,
            ));
        }
    }
    let by_wasm = not_yet.iter().any(|path| path.starts_with("spec.wasm"));
    let attached = !spec.target_refs.is_empty();
    match &spec.lua {
        Some(_) if by_wasm => out.push(fault("spec", "a filter is `wasm` or `lua`, not both")),
        Some(_) if attached && spec.selector.is_some() => {
            out.push(fault(
                "spec.targetRefs",
                "say a selector or targetRefs, not both",
            ));
        }
        Some(lua) if lua.inline_code.is_empty() => {
            out.push(fault("spec.lua.inlineCode", "the script is empty"));
        }
        Some(lua) if lua.inline_code.contains('\0') => {
            out.push(fault(
                "spec.lua.inlineCode",
                "the script has a character NUL",
            ));
        }
        Some(lua) if lua.inline_code.len() > MAX_CODE => {
            let message = format!("a script has at most {MAX_CODE} bytes");
            out.push(fault("spec.lua.inlineCode", message));
        }
        Some(_) => {}
        None if by_wasm => {}
        None => out.push(fault("spec", "a filter is `wasm` or `lua`; this is none")),
    }
    if attached && spec.lua.is_some() {
        let message = "targetRefs are not in effect yet, so the filter is nowhere";
        out.push(Fault::warning(Code::NotYetInEffect, "spec", message));
    }
    out
}
