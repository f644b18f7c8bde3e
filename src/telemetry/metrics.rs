//! Every metric: name, type, help, labels. Istio's names where they mean the same.

use super::exposition::{Counter, CounterByType, Gauge, Histogram, Page};
use super::objects::{Rejections, Standings};
use super::retries::Retries;
use super::watching::{Config, CounterByKind, Events, Registry};

macro_rules! metrics {
    ($($field:ident: $kind:ty, $name:literal, $help:literal;)*) => {
        /// Shared by whoever counts; written to by atomics, but for what is set as a whole.
        #[derive(Debug, Default)]
        pub struct Metrics { $(#[doc = $help] pub $field: $kind,)* }

        impl Metrics {
            /// All of them in Prometheus' text form.
            pub fn write(&self, page: &mut Page) {
                $(page.put($name, $help, &self.$field);)*
            }

            pub const NAMES: &[&str] = &[$($name,)*];
        }
    };
}

metrics! {
    sessions: Gauge, "pilot_xds", "Proxies connected by xDS.";
    pushes: CounterByType, "pilot_xds_pushes", "Responses sent.";
    rejects: CounterByType, "pilot_total_xds_rejects", "Responses that a proxy rejected.";
    stale: CounterByType, "pilot_xds_expired_nonce", "Answers to a response that is not outstanding.";
    cds_reject: Gauge, "pilot_xds_cds_reject", "Clusters in a form that its proxy rejected, now.";
    eds_reject: Gauge, "pilot_xds_eds_reject", "Load assignments in a form that its proxy rejected, now.";
    lds_reject: Gauge, "pilot_xds_lds_reject", "Listeners in a form that its proxy rejected, now.";
    rds_reject: Gauge, "pilot_xds_rds_reject", "Route tables in a form that its proxy rejected, now.";
    srds_reject: Gauge, "pilot_xds_srds_reject", "Route scopes in a form that its proxy rejected, now.";
    services: Gauge, "pilot_services", "Services in the mesh.";
    virtual_services: Gauge, "pilot_virt_services", "VirtualServices in force.";
    registry_events: Events<Registry>, "pilot_k8s_reg_events", "Kubernetes' own objects that came, changed or went at the API server.";
    config_events: Events<Config>, "pilot_k8s_cfg_events", "Configuration objects that came, changed or went at the API server.";
    rejections: Rejections, "pilot_total_rejected_configs", "Forms of objects that were rejected, by kind; what was accepted before stays.";
    objects: Standings, "fairlead_objects", "Objects by kind and standing: in_force; rejected (the present form has a fault); held (it waits for a partner); kept (the file cannot be read).";
    unreadable: Gauge, "fairlead_unreadable_files", "Files with a document that does not say which object it is.";
    convergence: Histogram, "pilot_proxy_convergence_time", "Seconds from a change, as its source saw it, to a proxy's ACK of a response that tells of it; once for each such ACK.";
    settled: Histogram, "fairlead_change_settled_seconds", "Seconds from a change, as its source saw it, to the last proxy's answer; once for each batch of changes.";
    push_time: Histogram, "pilot_xds_push_time", "Seconds from the start of work on a batch of changes to its last response being queued.";
    issued: Counter, "citadel_server_success_cert_issuance_count", "Certificates issued, our own among them.";
    unauthenticated: Counter, "citadel_server_authentication_failure_count", "Calls refused for want of a valid credential: xDS, certificate requests, debug pages.";
    root_expiry: Gauge, "citadel_server_root_cert_expiry_timestamp", "When the longest-lived root ends, in seconds since 1970.";
    chain_expiry: Gauge, "citadel_server_cert_chain_expiry_timestamp", "When the first certificate of the CA's chain ends, in seconds since 1970.";
    resources: CounterByType, "fairlead_resources_sent_total", "Resources sent.";
    removed: CounterByType, "fairlead_resources_removed_total", "Names of removed resources sent.";
    bytes: CounterByType, "fairlead_bytes_sent_total", "Bytes of responses, before HTTP/2 and TLS.";
    renders: CounterByType, "fairlead_renders_total", "Resources rendered; what is equal is rendered once.";
    opened: Counter, "fairlead_streams_opened_total", "xDS streams accepted.";
    closed: Counter, "fairlead_streams_closed_total", "xDS streams closed by us: over a bound, or not reading.";
    warming: Counter, "fairlead_clusters_still_warming_total", "Clusters that were not warm when the wait for them ended.";
    secrets_refused: Counter, "fairlead_secrets_refused_total", "Secrets asked for that nobody is served.";
    retries: Retries, "fairlead_retries_total", "Failures after which the same is tried again, by what was tried.";
    batches: Counter, "fairlead_batches_total", "Batches of changes worked on.";
    coalesced: Counter, "fairlead_changes_coalesced_total", "Objects whose change went out together with one that was waiting already.";
    queue: Gauge, "fairlead_queue_depth", "Messages that waited for the hub when it last looked.";
    changes: Counter, "fairlead_changes_total", "Objects that came, changed or went.";
    faulty_objects: CounterByKind, "fairlead_k8s_faulty_objects_total", "Objects that came from the API server with a fault inside.";
    watch_failures: CounterByKind, "fairlead_k8s_watch_failures_total", "Watches and listings that broke off and were tried again.";
    relists: CounterByKind, "fairlead_k8s_relists_total", "Listings after the first, for what happened meanwhile is forgotten by the API server.";
    injections: Counter, "sidecar_injection_requests_total", "Pods that the API server asked about.";
    injection_successes: Counter, "sidecar_injection_success_total", "Pods that got a sidecar.";
    injection_failures: Counter, "sidecar_injection_failure_total", "Pods refused because they could not get the sidecar they want.";
    injection_skips: Counter, "sidecar_injection_skip_total", "Pods left as they are: by their own word, a selector, or as they cannot have a sidecar.";
    injection_time: Histogram, "sidecar_injection_time_seconds", "Seconds from a question about a pod to its answer.";
    validations_passed: Counter, "galley_validation_passed", "Objects found valid.";
    validations_failed: Counter, "galley_validation_failed", "Objects refused, with the reason.";
    validation_errors: Counter, "galley_validation_http_error", "Questions about objects that could not be read.";
    webhook_patches: Counter, "webhook_patch_attempts_total", "Roots put into webhook configurations.";
    webhook_patch_failures: Counter, "webhook_patch_failures_total", "Of these, those that failed.";
    by_standby: Counter, "fairlead_tokens_taken_by_keys_total", "Callers let in by the cluster's public keys alone, while the API server did not answer.";
    authority_differs: Gauge, "fairlead_authority_differs", "1 while the authority's Secret is not the one in force.";
    in_flight: Gauge, "fairlead_in_flight_bytes", "Bytes of responses that connections have not taken yet.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn istios_names_are_there_as_dashboards_ask_for_them() {
        let mut page = Page::default();
        Metrics::default().write(&mut page);
        let text = page.finish();
        for line in [
            "pilot_xds 0",
            "pilot_xds_pushes{type=\"cds\"} 0",
            "pilot_total_xds_rejects{type=\"lds\"} 0",
            "pilot_xds_expired_nonce{type=\"rds\"} 0",
            "pilot_xds_eds_reject 0",
            "pilot_services 0",
            "pilot_virt_services 0",
            "pilot_k8s_reg_events{type=\"EndpointSlice\",event=\"update\"} 0",
            "pilot_k8s_cfg_events{type=\"VirtualService\",event=\"add\"} 0",
            "pilot_proxy_convergence_time_count 0",
            "pilot_xds_push_time_bucket{le=\"0.1\"} 0",
            "citadel_server_success_cert_issuance_count 0",
            "citadel_server_authentication_failure_count 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn no_name_stands_twice() {
        let names: BTreeSet<_> = Metrics::NAMES.iter().collect();
        assert_eq!(names.len(), Metrics::NAMES.len());
    }
}
