//! Sidecars and DestinationRules of a namespace that are for the same, of which only the older counts.

use std::collections::BTreeMap;

use super::Mesh;
use crate::config::destination_rule::DestinationRule;
use crate::config::meta::Labels;
use crate::config::sidecar::Sidecar;
use crate::config::{Key, Object, Spec};
use crate::diagnostic::{Code, Diagnostic};
use crate::text::{Hostname, Str};

/// Several for the whole namespace (IST0111), or for one workload (IST0110).
pub(super) fn of_one_workload(mesh: &Mesh<'_>) -> Vec<Diagnostic> {
    let mut by_namespace: BTreeMap<&Str, Vec<(&Object, &Sidecar)>> = BTreeMap::new();
    for object in mesh.objects.iter().copied() {
        if let Spec::Sidecar(spec) = &object.spec {
            let of_namespace = by_namespace.entry(&object.meta.namespace).or_default();
            of_namespace.push((object, spec));
        }
    }
    let mut out = Vec::new();
    for (namespace, mut sidecars) in by_namespace {
        sidecars.sort_by(|(a, _), (b, _)| a.meta.age().cmp(&b.meta.age()));
        let mut whole: Option<Key> = None;
        let mut chosen: BTreeMap<Key, Key> = BTreeMap::new();
        for (object, spec) in sidecars {
            let key = object.key();
            let warning = |field: &str, message| {
                mesh.warning(Code::Conflict, &key, field.to_owned(), message)
            };
            let Some(selector) = labels(spec) else {
                match &whole {
                    Some(first) => {
                        let message = format!(
                            "{first} is older and for the whole namespace too; this one does not count (IST0111)"
                        );
                        out.push(warning("", message));
                    }
                    None => whole = Some(key.clone()),
                }
                continue;
            };
            let own = mesh.pods.selected(selector);
            let own: Vec<Key> = own
                .into_iter()
                .filter(|pod| pod.meta.namespace == *namespace)
                .map(Object::key)
                .collect();
            if let Some((pod, first)) = own.iter().find_map(|pod| chosen.get_key_value(pod)) {
                let message = format!("{first} is older and selects {pod} too (IST0110)");
                out.push(warning("spec.workloadSelector", message));
            }
            for pod in own {
                chosen.entry(pod).or_insert_with(|| key.clone());
            }
        }
    }
    out
}

/// None is for the whole namespace.
fn labels(spec: &Sidecar) -> Option<&Labels> {
    let selector = spec.workload_selector.as_ref();
    selector.map(|s| &s.labels).filter(|l| !l.is_empty())
}

/// DestinationRules of one namespace and host are one: of two policies, and of two subsets of a name, the older's counts.
pub(super) fn of_one_host(mesh: &Mesh<'_>) -> Vec<Diagnostic> {
    let mut by_host: BTreeMap<_, Vec<(&Object, &DestinationRule)>> = BTreeMap::new();
    for object in mesh.objects.iter().copied() {
        if let Spec::DestinationRule(spec) = &object.spec
            && let Ok(host) = Hostname::expand(&spec.host, &object.meta.namespace, mesh.domain)
        {
            let chosen = spec.workload_selector.as_ref().map(|s| &s.match_labels);
            let place = (&object.meta.namespace, host, chosen, &spec.export_to);
            by_host.entry(place).or_default().push((object, spec));
        }
    }
    let mut out = Vec::new();
    for mut rules in by_host.into_values().filter(|rules| rules.len() > 1) {
        rules.sort_by(|(a, _), (b, _)| a.meta.age().cmp(&b.meta.age()));
        let mut policy: Option<Key> = None;
        let mut subsets: BTreeMap<&Str, Key> = BTreeMap::new();
        for (object, spec) in rules {
            let key = object.key();
            let warning = |field, first: &Key, what: &str| {
                let message = format!(
                    "{first} is older and has {what} for the host too; this one does not count"
                );
                mesh.warning(Code::Conflict, &key, field, message)
            };
            if spec.traffic_policy.is_some() {
                match &policy {
                    Some(first) => {
                        out.push(warning("spec.trafficPolicy".to_owned(), first, "a policy"));
                    }
                    None => policy = Some(key.clone()),
                }
            }
            for (i, subset) in spec.subsets.iter().enumerate() {
                match subsets.get(&subset.name) {
                    Some(first) if *first != key => {
                        let what = format!("a subset {}", subset.name);
                        out.push(warning(format!("spec.subsets[{i}]"), first, &what));
                    }
                    Some(_) => {}
                    None => drop(subsets.insert(&subset.name, key.clone())),
                }
            }
        }
    }
    out
}
