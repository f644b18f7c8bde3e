//! What stands whether or not a host asks for it: the Sidecar's egress listeners with a port.

use std::collections::BTreeMap;

use crate::config::Source;
use crate::ir::client::Client;
use crate::ir::outbound::{self, Asks, ListenerEntry};
use crate::model::protocol::{Class, Protocol};
use crate::model::sidecars::Egress;
use crate::text::Str;
use crate::view::places::Place;

/// An egress listener with an HTTP port stands even while no host is called through it.
pub fn listeners(client: &Client, egress: &[Egress]) -> BTreeMap<Place, ListenerEntry> {
    let Some(sidecar) = &client.sidecar else {
        return BTreeMap::new();
    };
    let mut out = BTreeMap::new();
    for (index, listener) in egress.iter().enumerate() {
        let Some(port) = &listener.spec.port else {
            continue;
        };
        if Protocol::of_word(&port.protocol).class() != Class::Http {
            continue;
        }
        let bind = listener.spec.bind.parse();
        let address = bind.unwrap_or_else(|_| outbound::http_address(client.interception));
        // Port 0 is a socket's, which is not in effect yet.
        if port.number == 0 || outbound::is_taken(address, port.number, client.taken) {
            continue;
        }
        let entry = ListenerEntry {
            address,
            port: port.number,
            asks: Asks::Http {
                table: Str::new(port.number.to_string()),
            },
            source: Source {
                key: sidecar.key.clone(),
                field: Str::new(format!("spec.egress[{index}]")),
            },
        };
        out.insert((address, port.number), entry);
    }
    out
}
