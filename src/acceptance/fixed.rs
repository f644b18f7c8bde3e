//! What of MeshConfig holds as long as the program runs: trust domain and root namespace.
//!
//! Certificates, tokens and who sees which page were set up by them at the start. A form that says
//! otherwise waits for a restart as a whole, rather than hold for some parts of the mesh and not for others.

use crate::config::decode::Place;
use crate::config::mesh::MeshConfig;
use crate::config::{Key, Object, Spec};
use crate::diagnostic::{Code, Diagnostic, Level};
use crate::text::Str;

/// The first field of MeshConfig that `wanted` says otherwise than `now`, where only a restart may
/// change it. None of either object means the defaults.
pub(super) fn moved(now: Option<&Object>, wanted: Option<&Object>) -> Option<&'static str> {
    let default = MeshConfig::default();
    let (now, wanted) = (mesh(now, &default)?, mesh(wanted, &default)?);
    if now.trust_domain != wanted.trust_domain {
        return Some("trustDomain");
    }
    (now.root_namespace != wanted.root_namespace).then_some("rootNamespace")
}

fn mesh<'o>(object: Option<&'o Object>, default: &'o MeshConfig) -> Option<&'o MeshConfig> {
    match object.map(|o| &o.spec) {
        None => Some(default),
        Some(Spec::MeshConfig(mesh)) => Some(mesh),
        Some(
            Spec::Namespace(_)
            | Spec::Node(_)
            | Spec::Service(_)
            | Spec::EndpointSlice(_)
            | Spec::Pod(_)
            | Spec::WorkloadEntry(_)
            | Spec::ServiceEntry(_)
            | Spec::VirtualService(_)
            | Spec::DestinationRule(_)
            | Spec::PeerAuthentication(_)
            | Spec::Sidecar(_)
            | Spec::Gateway(_)
            | Spec::WorkloadGroup(_)
            | Spec::ProxyConfig(_)
            | Spec::TrafficExtension(_)
            | Spec::Ingress(_)
            | Spec::IngressClass(_)
            | Spec::EnvoyFilter(_)
            | Spec::Secret(_),
        ) => None,
    }
}

/// The finding about a form (none for a deletion) that waits for a restart.
pub(super) fn finding(key: &Key, field: &'static str, place: Option<&Place>) -> Diagnostic {
    let line = place.map(|p| p.lines.line_of(field));
    Diagnostic {
        level: Level::Error,
        code: Code::RestartNeeded,
        resource: Some(key.subject()),
        field: Str::new_static(field),
        file: place.map(|p| p.file.clone()).filter(|f| !f.is_empty()),
        line: line.filter(|line| *line > 0),
        message:
            "restart needed: this changes only at a start; the form in force stays as a whole \
                  until then"
                .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use crate::acceptance::tests::{file, start};
    use crate::acceptance::{Acceptance, Event};
    use crate::config::decode;
    use crate::config::mesh::MeshConfig;
    use crate::config::{Change, Spec};
    use crate::diagnostic::Code;

    fn mesh(text: &str) -> Event {
        Event::File(decode::decode_mesh(text, "mesh.yaml"))
    }

    fn listed(text: &str) -> Acceptance {
        let mut acceptance = start(&[]);
        acceptance.take([Event::Init, mesh(text), Event::InitDone]);
        acceptance
    }

    fn in_force(acceptance: &Acceptance) -> MeshConfig {
        let found = acceptance.objects().find_map(|o| match &o.spec {
            Spec::MeshConfig(mesh) => Some((**mesh).clone()),
            _ => None,
        });
        found.unwrap_or_default()
    }

    fn told(acceptance: &Acceptance) -> Vec<(Code, String, Option<u32>)> {
        let found = acceptance.diagnostics();
        let line = |d: &crate::diagnostic::Diagnostic| (d.code, d.field.to_string(), d.line);
        found.iter().map(line).collect()
    }

    #[test]
    fn a_live_edit_of_the_trust_domain_waits_for_a_restart_and_says_so() {
        let mut acceptance = Acceptance::new(crate::acceptance::tests::options());
        acceptance.take([Event::Init, mesh("trustDomain: a\n"), Event::InitDone]);
        let edit = "accessLogFile: /dev/stdout\ntrustDomain: b\n";
        let changes: Vec<Change> = acceptance.take([mesh(edit)]).changes;
        assert!(changes.is_empty(), "{changes:?}");
        assert_eq!(in_force(&acceptance).trust_domain, "a");
        let restart = (Code::RestartNeeded, "trustDomain".to_owned(), Some(2));
        assert_eq!(told(&acceptance), [restart]);
        // A start takes it.
        let mut next = Acceptance::restore(
            crate::acceptance::tests::options(),
            acceptance.persist(&|_| true),
        );
        next.take([Event::Init, mesh(edit), Event::InitDone]);
        assert_eq!(in_force(&next).trust_domain, "b");
        assert!(told(&next).is_empty());
        // Back to what holds, with something else in it, is an edit like any other.
        acceptance.take([mesh("accessLogFile: /dev/stdout\ntrustDomain: a\n")]);
        assert_eq!(in_force(&acceptance).access_log_file, "/dev/stdout");
        assert!(told(&acceptance).is_empty());
    }

    #[test]
    fn a_mesh_config_that_comes_or_goes_may_not_move_the_root_namespace_either() {
        let mut acceptance = listed("");
        acceptance.take([mesh("rootNamespace: mesh\n")]);
        assert_eq!(in_force(&acceptance).root_namespace, "istio-system");
        let restart = |line| (Code::RestartNeeded, "rootNamespace".to_owned(), line);
        assert_eq!(told(&acceptance), [restart(Some(1))]);

        let mut acceptance = Acceptance::new(crate::acceptance::tests::options());
        acceptance.take([Event::Init, mesh("rootNamespace: mesh\n"), Event::InitDone]);
        acceptance.take([file("mesh.yaml", "")]);
        assert_eq!(in_force(&acceptance).root_namespace, "mesh");
        assert_eq!(told(&acceptance), [restart(None)]);
        acceptance.take([Event::Init, Event::InitDone]);
        assert_eq!(in_force(&acceptance).root_namespace, "mesh");
    }
}
