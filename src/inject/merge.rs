//! Lays a part of a pod over a pod: Kubernetes' strategic merge, as far as pods need it.
//!
//! Objects are merged by key; lists whose items have a merge key, by that key; other lists are replaced. `null`
//! takes a field away, `$patch: delete` an item. Of the ways in which a probe or a hook acts, there is one.
//! See <https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md>.

use serde_json::{Map, Value};

/// By which field the items of a list are told apart, by the list's own name. Fields of a pod alone.
const MERGE_KEYS: &[(&str, &str)] = &[
    ("containers", "name"),
    ("initContainers", "name"),
    ("ephemeralContainers", "name"),
    ("volumes", "name"),
    ("env", "name"),
    ("ports", "containerPort"),
    ("volumeMounts", "mountPath"),
    ("volumeDevices", "devicePath"),
    ("imagePullSecrets", "name"),
    ("hostAliases", "ip"),
    ("topologySpreadConstraints", "topologyKey"),
    ("resourceClaims", "name"),
    ("ownerReferences", "uid"),
];

/// Ways in which a probe or a hook acts. A pod that has two of them at one place is refused.
const WAYS: &[&str] = &["exec", "grpc", "httpGet", "sleep", "tcpSocket"];

/// Changes `base` by what `over` says.
pub(super) fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => object(base, over),
        (base, over) => *base = over.clone(),
    }
}

fn object(base: &mut Map<String, Value>, over: &Map<String, Value>) {
    // A label of such a name is a text.
    let is_way = |key: &str, value: &Value| WAYS.contains(&key) && value.is_object();
    if over.iter().any(|(key, new)| is_way(key, new)) {
        base.retain(|key, old| !is_way(key, old) || over.contains_key(key));
    }
    for (key, new) in over {
        match (base.get_mut(key), new) {
            (_, Value::Null) => drop(base.remove(key)),
            (Some(Value::Array(old)), Value::Array(new)) => list(old, new, key),
            (Some(old), new) => merge(old, new),
            (None, new) => drop(base.insert(key.clone(), without_directives(new))),
        }
    }
}

fn list(base: &mut Vec<Value>, over: &[Value], name: &str) {
    let Some((_, key)) = MERGE_KEYS.iter().find(|(list, _)| *list == name) else {
        *base = over.to_vec();
        return;
    };
    for new in over {
        let at = base
            .iter()
            .position(|old| !old[key].is_null() && old[key] == new[key]);
        match (at, new["$patch"] == "delete") {
            (Some(at), true) => drop(base.remove(at)),
            (None, true) => {}
            (Some(at), false) => merge(&mut base[at], new),
            (None, false) => base.push(new.clone()),
        }
    }
}

/// An item that was to be deleted and is not there is no item.
fn without_directives(value: &Value) -> Value {
    match value {
        Value::Array(items) => {
            let kept = items.iter().filter(|item| item["$patch"] != "delete");
            Value::Array(kept.map(without_directives).collect())
        }
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, v)| !v.is_null());
            let kept = kept.map(|(k, v)| (k.clone(), without_directives(v)));
            Value::Object(kept.collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_with_a_key_are_merged_and_others_replaced() {
        let mut pod = json!({"spec": {
            "containers": [{"name": "a", "image": "1", "args": ["x", "y"], "env": [{"name": "E", "value": "1"}]}],
            "volumes": [{"name": "v"}, {"name": "w"}],
            "hostname": "h",
        }});
        merge(
            &mut pod,
            &json!({"spec": {
                "containers": [
                    {"name": "a", "args": ["z"], "env": [{"name": "F", "value": "2"}]},
                    {"name": "b"},
                ],
                "volumes": [{"name": "v", "$patch": "delete"}],
                "hostname": null,
                "tolerations": [{"key": "k"}],
            }}),
        );
        assert_eq!(
            pod,
            json!({"spec": {
                "containers": [
                    {"name": "a", "image": "1", "args": ["z"],
                     "env": [{"name": "E", "value": "1"}, {"name": "F", "value": "2"}]},
                    {"name": "b"},
                ],
                "volumes": [{"name": "w"}],
                "tolerations": [{"key": "k"}],
            }})
        );
    }

    #[test]
    fn another_way_of_asking_takes_the_place_of_the_first() {
        let mut probe = json!({"httpGet": {"path": "/", "port": 80}, "periodSeconds": 5});
        merge(
            &mut probe,
            &json!({"httpGet": {"port": 81}, "timeoutSeconds": 2}),
        );
        let http = json!({"path": "/", "port": 81});
        assert_eq!(
            probe,
            json!({"httpGet": http, "periodSeconds": 5, "timeoutSeconds": 2})
        );
        merge(&mut probe, &json!({"tcpSocket": {"port": 82}}));
        let tcp = json!({"port": 82});
        assert_eq!(
            probe,
            json!({"tcpSocket": tcp, "periodSeconds": 5, "timeoutSeconds": 2})
        );
    }
}
