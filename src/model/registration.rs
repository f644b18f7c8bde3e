//! A proxy that says which WorkloadGroup it is of, as the WorkloadEntry that it becomes; or why it becomes none.
//!
//! <https://istio.io/latest/docs/ops/configuration/mesh/vm/> tells what for. Who may still come, and when entries go, is
//! decided where entries are kept.

use std::net::IpAddr;

use crate::config::meta::{Labels, Meta};
use crate::config::workload_entry::WorkloadEntry;
use crate::config::workload_group::{GROUP_ANNOTATION, WorkloadGroup};
use crate::config::{Key, Kind, Object, Spec};
use crate::model::proxy::Proxy;
use crate::text::Str;

/// A proxy that asks to be entered.
#[derive(Clone, Debug)]
pub struct Entrant {
    /// `AUTO_REGISTER_GROUP` of its node.
    pub group: Str,
    pub proxy: Proxy,
}

/// Why a proxy is not entered. Its stream is refused, for without an entry nobody would call it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("a proxy without identity cannot be entered into WorkloadGroup `{0}`")]
    NoIdentity(Str),
    #[error("no WorkloadGroup {namespace}/{group}")]
    NoGroup { namespace: Str, group: Str },
    #[error(
        "WorkloadGroup `{group}` is for service account `{wanted}`, the credential says `{proven}`"
    )]
    Account {
        group: Str,
        wanted: Str,
        proven: Str,
    },
    #[error("{0} is there already, and no proxy was entered as it")]
    Taken(Key),
    #[error("{0} is a proxy of service account `{1}`")]
    Another(Key, Str),
    #[error("no one is reached at {0}")]
    Address(IpAddr),
    #[error("{0} proxies of its namespace are entered already, and no more are taken")]
    Full(usize),
    #[error(
        "proxies are entered where configuration comes from files; with an API server create a WorkloadEntry"
    )]
    Elsewhere,
    #[error("nobody keeps entries any more; try again")]
    Ending,
}

/// As which WorkloadEntry a proxy is entered, as in Istio: by group and address.
pub fn key(entrant: &Entrant) -> Key {
    let Entrant { group, proxy } = entrant;
    let address = proxy.ip.to_string().replace(':', "-");
    Key {
        kind: Kind::WorkloadEntry,
        namespace: proxy.namespace.clone(),
        name: Str::new(format!("{group}-{address}")),
    }
}

/// What the proxy says of its labels goes before what the group says, and that before the template.
pub fn entry(group: &WorkloadGroup, entrant: &Entrant) -> Result<Object, Refused> {
    let Entrant { group: name, proxy } = entrant;
    let identity = proxy.identity.as_ref();
    let identity = identity.ok_or_else(|| Refused::NoIdentity(name.clone()))?;
    let (template, proven) = (&group.template, identity.service_account());
    if !template.service_account.is_empty() && template.service_account != *proven {
        return Err(Refused::Account {
            group: name.clone(),
            wanted: template.service_account.clone(),
            proven: proven.clone(),
        });
    }
    let ip = proxy.ip;
    if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() {
        return Err(Refused::Address(ip));
    }
    let said = [&template.labels, &group.metadata.labels, &proxy.labels];
    let tls = (
        Str::new_static("security.istio.io/tlsMode"),
        Str::new_static("istio"),
    );
    // It proved itself by the mesh's own means: it can be called by them, and whatever it says by nothing less.
    let labels = said.into_iter().flat_map(pairs).chain([tls]);
    let labels: Labels = labels.collect();
    let group_of = (GROUP_ANNOTATION, name.clone());
    let annotations = pairs(&group.metadata.annotations).chain([group_of]);
    let locality = match proxy.locality.iter().all(Str::is_empty) {
        true => template.locality.clone(),
        false => Str::new(proxy.locality.join("/").trim_end_matches('/')),
    };
    let key = key(entrant);
    Ok(Object {
        meta: Meta {
            name: key.name,
            namespace: key.namespace,
            labels: labels.clone(),
            annotations: annotations.collect(),
            ..Meta::default()
        },
        spec: Spec::WorkloadEntry(WorkloadEntry {
            address: Str::new(proxy.ip.to_string()),
            labels,
            locality,
            service_account: proven.clone(),
            ..template.clone()
        }),
    })
}

/// Whether a proxy was entered as this object.
pub fn is_entered(object: &Object) -> bool {
    object.spec.kind() == Kind::WorkloadEntry
        && object.meta.annotations.contains_key(&GROUP_ANNOTATION)
}

fn pairs(labels: &Labels) -> impl Iterator<Item = (Str, Str)> + '_ {
    labels.iter().map(|(k, v)| (k.clone(), v.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::SpiffeId;

    fn entrant(identity: Option<&str>) -> Entrant {
        let identity = identity.map(|text| SpiffeId::parse(text).unwrap());
        let metadata = serde_json::json!({"LABELS": {"app": "db", "version": "node"}});
        let id = "sidecar~10.9.0.1~vm-1.shop~shop.svc.cluster.local";
        Entrant {
            group: "db".into(),
            proxy: Proxy::parse(id, metadata, identity).unwrap(),
        }
    }

    fn group(service_account: &str) -> WorkloadGroup {
        let labels = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(k, v)| (Str::from(*k), Str::from(*v)));
            pairs.collect::<Labels>()
        };
        let mut group = WorkloadGroup::default();
        group.template.service_account = service_account.into();
        group.template.labels = labels(&[("app", "template"), ("tier", "template")]);
        group.template.locality = "a/b".into();
        group.metadata.labels = labels(&[("tier", "group"), ("version", "group")]);
        group
    }

    #[test]
    fn an_entry_is_the_template_with_what_the_group_and_the_node_say() {
        let by = "spiffe://cluster.local/ns/shop/sa/db";
        let object = entry(&group("db"), &entrant(Some(by))).unwrap();
        assert_eq!(object.key().to_string(), "WorkloadEntry shop/db-10.9.0.1");
        assert!(is_entered(&object));
        let Spec::WorkloadEntry(spec) = &object.spec else {
            panic!("{object:?}")
        };
        let label = |key: &str| spec.labels.get(key).map(Str::as_str);
        assert_eq!(label("app"), Some("db"));
        assert_eq!(label("tier"), Some("group"));
        assert_eq!(label("version"), Some("node"));
        assert_eq!(label("security.istio.io/tlsMode"), Some("istio"));
        let rest = (
            spec.address.as_str(),
            spec.service_account.as_str(),
            spec.locality.as_str(),
        );
        assert_eq!(rest, ("10.9.0.1", "db", "a/b"));
    }

    #[test]
    fn whatever_the_node_says_it_is_called_over_tls_and_at_an_address_of_its_own() {
        let by = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/db").ok();
        let said = |ip: &str| {
            let metadata = serde_json::json!({"LABELS": {"security.istio.io/tlsMode": "disabled"}});
            let id = format!("sidecar~{ip}~vm-1.shop~shop.svc.cluster.local");
            let proxy = Proxy::parse(&id, metadata, by.clone()).unwrap();
            let group_of = "db".into();
            entry(
                &group(""),
                &Entrant {
                    group: group_of,
                    proxy,
                },
            )
        };
        let object = said("10.9.0.1").unwrap();
        let mode = object.meta.labels.get("security.istio.io/tlsMode");
        assert_eq!(mode.map(Str::as_str), Some("istio"));
        let refused = said("127.0.0.1").unwrap_err();
        assert_eq!(refused, Refused::Address([127, 0, 0, 1].into()));
    }

    #[test]
    fn who_proves_nothing_or_something_else_is_not_entered() {
        let refused = entry(&group(""), &entrant(None)).unwrap_err().to_string();
        assert!(refused.contains("without identity"), "{refused}");
        let other = "spiffe://cluster.local/ns/shop/sa/other";
        let refused = entry(&group("db"), &entrant(Some(other)))
            .unwrap_err()
            .to_string();
        assert!(refused.contains("says `other`"), "{refused}");
        assert!(entry(&group(""), &entrant(Some(other))).is_ok());
    }
}
