//! Users' own filters on the way of requests.

use serde::Serialize;

use crate::config::traffic_extension::{Phase, Side};
use crate::model::extensions::Chosen;
use crate::text::Str;

/// A filter in Lua.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Extension {
    /// `<namespace>.<name>`, as in the names of Istio's filters.
    pub name: Str,
    pub phase: Phase,
    pub script: Str,
}

/// Those that see what passes on this side at this port, in their order.
pub fn passed(chosen: &Chosen, side: Side, port: u16) -> Vec<Extension> {
    let all = chosen.iter().flat_map(|all| all.iter());
    let seeing = all.filter(|extension| extension.spec.sees(side, port));
    seeing
        .filter_map(|extension| {
            let (key, spec) = (&extension.key, &extension.spec);
            Some(Extension {
                name: Str::new(format!("{}.{}", key.namespace, key.name)),
                phase: spec.phase,
                script: spec.lua.as_ref()?.inline_code.clone(),
            })
        })
        .collect()
}
