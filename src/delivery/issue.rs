//! What the CA says to a session's wish for a secret.

use std::time::{Duration, Instant, SystemTime};

use tracing::warn;

use super::session::{Answer, Ask};
use crate::backoff::jittered;
use crate::ca::authority::{Authority, Standing};
use crate::ca::lease::Lease;
use crate::identity::SpiffeId;

/// Now, on both clocks: certificates live by the wall's, sessions wait by the monotonic one.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub wall: SystemTime,
    pub mono: Instant,
}

/// A CA that cannot sign now may soon. Sessions do not ask again all in the same second.
const AGAIN: Duration = Duration::from_secs(5);
/// A lease that is due while it is handed out is not asked for in a loop.
const SOONEST: Duration = Duration::from_secs(1);

/// A version that is still good costs no certificate; everything else is answered by a new one.
pub fn answer(authority: &Authority, identity: &SpiffeId, ask: &Ask, now: Now) -> Answer {
    if let Some(version) = &ask.held
        && let Standing::Good(lease) = authority.recognise(&ask.name, version, identity, now.wall)
    {
        return Answer::StillGood {
            version: version.clone(),
            renew: lease.map(|l| renewal(l, now)),
        };
    }
    match authority.secret(&ask.name, identity, now.wall) {
        Ok(issued) => Answer::Fresh {
            encoded: issued.encoded,
            renew: issued.certificate.map(|fresh| renewal(fresh.lease, now)),
        },
        Err(reason) => {
            warn!(%identity, secret = %ask.name, %reason, "secret not made; it is tried again");
            Answer::Unavailable {
                retry: now.mono + jittered(AGAIN),
            }
        }
    }
}

fn renewal(lease: Lease, now: Now) -> Instant {
    let wait = lease.renew_at.duration_since(now.wall);
    now.mono + wait.unwrap_or_default().max(SOONEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::testing::{authority, id};
    use crate::clock;
    use crate::text::Str;

    fn ask(name: &str, held: Option<&Str>) -> Ask {
        Ask {
            name: name.into(),
            held: held.cloned(),
        }
    }

    #[test]
    fn a_version_that_is_still_good_costs_no_certificate() {
        let now = Now {
            wall: clock::wall(),
            mono: clock::mono(),
        };
        let ca = authority(now.wall);
        let got = answer(&ca, &id("reviews"), &ask("default", None), now);
        let Answer::Fresh { encoded, renew } = got else {
            panic!("{got:?}");
        };
        assert!(renew.is_some_and(|at| at > now.mono));
        let held = ask("default", Some(&encoded.version));
        let good = answer(&ca, &id("reviews"), &held, now);
        assert!(matches!(good, Answer::StillGood { .. }), "{good:?}");
        assert_eq!(ca.issued(), 1);
        // Somebody else's version is worth nothing.
        let other = answer(&ca, &id("ratings"), &held, now);
        assert!(matches!(other, Answer::Fresh { .. }));
        assert_eq!(ca.issued(), 2);
    }
}
