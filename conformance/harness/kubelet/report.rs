//! A pod's status, as controllers read it.

use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

/// Whether all its containers are ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    Ready,
    NotReady,
}

impl Phase {
    pub(super) fn of(initialized: bool) -> Self {
        match initialized {
            true => Self::Running,
            false => Self::Pending,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }
}

pub(super) fn report(
    phase: Phase,
    ip: &str,
    host: &str,
    readiness: Readiness,
    (init, containers): (Vec<Value>, Vec<Value>),
) -> Value {
    let condition = |kind: &str, holds: bool| json!({"type": kind, "status": if holds { "True" } else { "False" }});
    let ready = readiness == Readiness::Ready && phase == Phase::Running;
    json!({
        "phase": phase.text(),
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "hostIP": host,
        "conditions": [
            condition("PodScheduled", true),
            condition("Initialized", phase != Phase::Pending),
            condition("ContainersReady", ready),
            condition("Ready", ready),
        ],
        "initContainerStatuses": init,
        "containerStatuses": containers,
    })
}
