//! Connections that have not shown yet who they are: counted by address, and soon at an end.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

/// How many such connections each address has.
#[derive(Debug, Default)]
pub struct Strangers {
    open: Mutex<BTreeMap<IpAddr, usize>>,
}

/// One of them, counted as long as this lives.
#[derive(Debug)]
pub struct Stranger {
    among: Arc<Strangers>,
    address: IpAddr,
}

impl Strangers {
    /// None when the address has `most` already: it may not take the room of all others.
    pub fn admit(self: &Arc<Self>, remote: SocketAddr, most: usize) -> Option<Stranger> {
        let address = remote.ip().to_canonical();
        let mut open = self.open();
        let count = open.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Stranger {
            among: self.clone(),
            address,
        })
    }

    fn open(&self) -> std::sync::MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut open = self.among.open();
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_its_own_bound_and_gets_its_places_back() {
        let strangers = Arc::new(Strangers::default());
        let admit = |from: &str| strangers.admit(from.parse().unwrap(), 2);
        let first = admit("10.0.0.1:1").unwrap();
        let _second = admit("[::ffff:10.0.0.1]:2").unwrap();
        assert!(admit("10.0.0.1:3").is_none());
        assert!(admit("10.0.0.2:3").is_some());
        drop(first);
        assert!(admit("10.0.0.1:3").is_some());
        assert_eq!(strangers.open().len(), 1);
    }
}
