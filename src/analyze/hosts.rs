//! Hosts that a ServiceEntry shares with an object that counts before it.

use std::collections::BTreeMap;

use super::Mesh;
use crate::config::{Object, Spec};
use crate::diagnostic::{Code, Diagnostic};
use crate::text::{Hostname, Str};

/// Istio's would be IST0177 where ports differ; here the whole host is the first one's.
pub(super) fn of_several(mesh: &Mesh<'_>) -> Vec<Diagnostic> {
    let mut owners: BTreeMap<Hostname, Vec<(&Object, usize)>> = BTreeMap::new();
    for object in mesh.objects.iter().copied() {
        match &object.spec {
            Spec::Service(_) => {
                let (name, namespace) = (&object.meta.name, &object.meta.namespace);
                if let Ok(host) = Hostname::expand(name, namespace, mesh.domain) {
                    owners.entry(host).or_default().push((object, 0));
                }
            }
            Spec::ServiceEntry(spec) => {
                for (i, host) in spec.hosts.iter().enumerate() {
                    if let Ok(host) = Hostname::parse(host) {
                        owners.entry(host).or_default().push((object, i));
                    }
                }
            }
            _ => {}
        }
    }
    let mut out = Vec::new();
    for (host, mut objects) in owners {
        objects.sort_by_key(|(object, _)| rank(object));
        let mut objects = objects.into_iter();
        let Some((first, _)) = objects.next() else {
            continue;
        };
        for (later, i) in objects.filter(|(later, _)| later.key() != first.key()) {
            let message = format!(
                "{} has the host {host} and counts before this object, of which nothing holds for it (IST0177)",
                first.key()
            );
            let field = format!("spec.hosts[{i}]");
            out.push(mesh.warning(Code::Conflict, &later.key(), field, message));
        }
    }
    out
}

/// As the model has it: a Service, else the oldest.
fn rank(object: &Object) -> (bool, i64, Str, Str) {
    let meta = &object.meta;
    let entry = matches!(object.spec, Spec::ServiceEntry(_));
    (
        entry,
        meta.creation_timestamp,
        meta.name.clone(),
        meta.namespace.clone(),
    )
}
