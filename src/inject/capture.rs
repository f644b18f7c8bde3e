//! The container `istio-init`, which captures the pod's traffic; or `istio-validation`, where a CNI plugin does.

use serde_json::{Value, json};

use super::choices::{Addresses, Choices};
use super::envoy::STATUS_PORT;
use super::proxy::USER;
use super::{INIT, InjectError, Injection, VALIDATION, says_something};
use crate::config::proxy_config::InterceptionMode;

/// Never captured: the application's probes, readiness, and Prometheus' page.
const OWN_PORTS: [u16; 3] = [15090, STATUS_PORT, 15020];

pub(super) fn container(
    choices: &Choices,
    injection: &Injection,
) -> Result<Option<Value>, InjectError> {
    let mode = match choices.interception {
        InterceptionMode::None => return Ok(None),
        InterceptionMode::Redirect => "REDIRECT",
        InterceptionMode::Tproxy => "TPROXY",
    };
    let values = &injection.values;
    let init = &values.global.proxy_init;
    if init.image.is_empty() {
        let why = "global.proxy_init.image: say the image with `fairlead init`";
        return Err(InjectError::Values(why.to_owned()));
    }
    let mut args = args(choices, mode);
    if values.global.native_nftables {
        args.push("--native-nftables".to_owned());
    }
    if choices.addresses == Addresses::Both {
        args.push("--dual-stack".to_owned());
    }
    let by_plugin = values.pilot.cni.enabled;
    if by_plugin {
        args.extend(["--run-validation", "--skip-rule-apply"].map(str::to_owned));
    }
    let mut container = json!({
        "name": if by_plugin { VALIDATION } else { INIT },
        "image": values.global.image(&init.image),
        "args": args,
        "securityContext": if by_plugin { unprivileged() } else { privileged() },
    });
    let resources = [&init.resources, &choices.resources]
        .into_iter()
        .find(|r| says_something(r));
    if let Some(resources) = resources {
        container["resources"] = resources.clone();
    }
    if !values.global.image_pull_policy.is_empty() {
        container["imagePullPolicy"] = json!(values.global.image_pull_policy);
    }
    Ok(Some(container))
}

fn args(choices: &Choices, mode: &str) -> Vec<String> {
    let traffic = &choices.traffic;
    let mut own: Vec<u16> = OWN_PORTS.to_vec();
    if choices.status_port != 0 && !own.contains(&choices.status_port) {
        own.push(choices.status_port);
    }
    let own: Vec<String> = own.iter().map(u16::to_string).collect();
    let excluded = [&own.join(","), traffic.exclude_inbound_ports.as_str()].join(",");
    let user = USER.to_string();
    let mut args: Vec<&str> = vec![
        "init", "-p", "15001", "-z", "15006", "-u", &user, "-m", mode,
    ];
    let always = [
        ("-i", traffic.include_outbound_ip_ranges.as_str()),
        ("-x", &traffic.exclude_outbound_ip_ranges),
        ("-b", &traffic.include_inbound_ports),
        ("-d", excluded.trim_end_matches(',')),
    ];
    let said = [
        ("-q", traffic.include_outbound_ports.as_str()),
        ("-o", &traffic.exclude_outbound_ports),
        ("-c", &traffic.exclude_interfaces),
    ];
    let said = said.into_iter().filter(|(_, value)| !value.is_empty());
    args.extend(
        always
            .into_iter()
            .chain(said)
            .flat_map(|(flag, value)| [flag, value]),
    );
    args.into_iter().map(str::to_owned).collect()
}

fn privileged() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]},
        "privileged": false,
        "readOnlyRootFilesystem": false,
        "runAsGroup": 0,
        "runAsNonRoot": false,
        "runAsUser": 0,
    })
}

fn unprivileged() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "privileged": false,
        "readOnlyRootFilesystem": true,
        "runAsGroup": USER,
        "runAsNonRoot": true,
        "runAsUser": USER,
    })
}
