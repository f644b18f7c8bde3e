//! Which route tables come as scopes, and the names that lead to a scope.

use super::Loading;
use crate::model::proxy::RoutePacking;
use crate::text::Str;

/// How the route tables of one client's ports come to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Packing {
    /// One table a port, by RDS: the least to hold, and a change sends it whole.
    #[default]
    Whole,
    /// One table a host and port, by scopes: a change sends that one.
    Scoped(Loading),
}

/// Virtual hosts of one table from which on it comes as scopes.
const MANY: usize = 200;
/// Virtual hosts below which it comes whole again. Between the two the packing stays as it is, so that one
/// Service more or less does not make every proxy change its listeners.
const FEW: usize = 150;

impl Packing {
    /// The packing for a largest table of this many virtual hosts, where another was in force.
    pub fn chosen(wish: RoutePacking, before: Self, virtual_hosts: usize) -> Self {
        match (wish, before) {
            (RoutePacking::Rds, _) => Self::Whole,
            (RoutePacking::Scoped, _) => Self::Scoped(Loading::AtOnce),
            (RoutePacking::OnDemand, _) => Self::Scoped(Loading::OnDemand),
            (RoutePacking::Auto, Self::Whole) if virtual_hosts > MANY => {
                Self::Scoped(Loading::AtOnce)
            }
            (RoutePacking::Auto, Self::Scoped(_)) if virtual_hosts < FEW => Self::Whole,
            (RoutePacking::Auto, before) => before,
        }
    }

    /// How this table comes.
    pub fn of(self, table: &str) -> Self {
        match self {
            Self::Scoped(loading) if has_scopes(table) => Self::Scoped(loading),
            Self::Scoped(_) | Self::Whole => Self::Whole,
        }
    }

    /// When tables and clusters come that a client may never use.
    pub fn loading(self) -> Loading {
        match self {
            Self::Whole => Loading::AtOnce,
            Self::Scoped(loading) => loading,
        }
    }
}

/// The tables of a port have scopes; those of one host (`<host>:<port>`) are small already.
pub fn has_scopes(table: &str) -> bool {
    !table.contains(':')
}

/// The name under which the scope of a request's host is found, if the domain has a scope of its own.
///
/// Wildcards stand in the fallback table. A listener takes the dot off the end and puts `_` for the colons of
/// an IPv6 address, for a colon ends the host in the key.
pub fn key_of(table: &str, domain: &str) -> Option<Str> {
    let one_host = !domain.contains('*') && !domain.ends_with('.');
    one_host.then(|| Str::new(format!("{table}/{}", domain.replace(':', "_"))))
}

/// The key, and the table, of what no other scope of the table has.
pub fn fallback_of(table: &str) -> Str {
    Str::new(format!("{table}/*"))
}

/// The table of one host's virtual host.
pub fn table_of(table: &str, host: &str) -> Str {
    Str::new(format!("{table}/{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_more_or_less_does_not_change_the_packing_back_and_forth() {
        let mut packing = Packing::default();
        let mut seen = Vec::new();
        for count in [199, 200, 201, 200, 199, 150, 149, 150, 200] {
            packing = Packing::chosen(RoutePacking::Auto, packing, count);
            seen.push(packing == Packing::Scoped(Loading::AtOnce));
        }
        assert_eq!(
            seen,
            [false, false, true, true, true, true, false, false, false]
        );
    }

    #[test]
    fn a_wish_that_names_a_packing_has_it_at_any_size() {
        for count in [0, 10_000] {
            for before in [Packing::Whole, Packing::Scoped(Loading::AtOnce)] {
                let chosen = |wish| Packing::chosen(wish, before, count);
                assert_eq!(chosen(RoutePacking::Rds), Packing::Whole);
                for (wish, loading) in [
                    (RoutePacking::Scoped, Loading::AtOnce),
                    (RoutePacking::OnDemand, Loading::OnDemand),
                ] {
                    assert_eq!(chosen(wish), Packing::Scoped(loading));
                }
            }
        }
    }

    #[test]
    fn keys_are_what_a_listener_makes_of_a_host() {
        let key = |domain| key_of("80", domain);
        assert_eq!(key("reviews.shop").unwrap(), "80/reviews.shop");
        assert_eq!(key("[fd00::7]").unwrap(), "80/[fd00__7]");
        assert_eq!(key("reviews.shop."), None);
        assert_eq!(key("*.example.com"), None);
    }
}
