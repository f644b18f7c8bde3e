//! Patches on a cluster.

use prost_reflect::{DynamicMessage, Value};

use super::merge::{self, Lists};
use super::{Act, Applied, act, merge_typed, put_list, take_list};
use crate::ir::patches::Patch;
use crate::schema::{child, text};

/// None where it is removed. `patches` are those that meet it.
pub fn cluster(
    mut cluster: DynamicMessage,
    patches: &[&Patch],
    applied: &mut Applied,
) -> Option<DynamicMessage> {
    for patch in patches {
        match act(patch) {
            Act::Remove => {
                applied.note(patch);
                return None;
            }
            Act::Merge(value, lists) => {
                applied.note(patch);
                merge_cluster(&mut cluster, value, lists);
            }
            Act::Replace(_) | Act::Put(_) | Act::Nothing => {}
        }
    }
    Some(cluster)
}

/// A transport socket is merged into the one of its name, be that for all endpoints or for some of them. Where there is
/// none it takes the place of the one for all; beside some for some it would be refused.
fn merge_cluster(cluster: &mut DynamicMessage, value: &DynamicMessage, lists: Lists) {
    let Some(new) = child(value, "transport_socket") else {
        merge::merge(cluster, value, lists);
        return;
    };
    let mut rest = value.clone();
    rest.clear_field_by_name("transport_socket");
    merge::merge(cluster, &rest, lists);
    let name = text(&new, "name");
    let mut by_endpoint = take_list(cluster, "transport_socket_matches");
    if by_endpoint.is_empty() {
        let socket = match child(cluster, "transport_socket") {
            Some(old) if text(&old, "name") == name => merge_typed(&old, &new),
            Some(_) | None => new,
        };
        cluster.set_field_by_name("transport_socket", Value::Message(socket));
        return;
    }
    let matches = by_endpoint.iter_mut().filter_map(Value::as_message_mut);
    for one in matches {
        if let Some(old) = child(one, "transport_socket").filter(|s| text(s, "name") == name) {
            let merged = merge_typed(&old, &new);
            one.set_field_by_name("transport_socket", Value::Message(merged));
            break;
        }
    }
    put_list(cluster, "transport_socket_matches", by_endpoint);
}
