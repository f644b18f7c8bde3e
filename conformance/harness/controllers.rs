//! Kubernetes' own controllers on an API server: Deployments make pods, Services get EndpointSlices, namespaces an account.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use super::api_server::ApiServer;
use super::process::Process;

/// Those that pods and Services need. What watches over nodes is left out: nobody sends their heartbeats.
const CONTROLLERS: &[&str] = &[
    "deployment-controller",
    "replicaset-controller",
    "statefulset-controller",
    "daemonset-controller",
    "job-controller",
    "endpointslice-controller",
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
    "namespace-controller",
    "garbage-collector-controller",
];

/// Ends with its owner.
pub struct Controllers {
    process: Process,
}

impl Controllers {
    pub fn start(server: &ApiServer, folder: &Path) -> Result<Self> {
        let program = program()?;
        let mut command = Command::new(&program);
        command.arg("--kubeconfig").arg(server.kubeconfig());
        command.arg(format!("--controllers={}", CONTROLLERS.join(",")));
        command
            .arg("--root-ca-file")
            .arg(server.certificate_authority());
        command.args([
            "--leader-elect=false",
            "--secure-port=0",
            "--bind-address=127.0.0.1",
            "--kube-api-qps=300",
            "--kube-api-burst=600",
            "--concurrent-gc-syncs=2",
            "--v=0",
        ]);
        Ok(Self {
            process: Process::start("kube-controller-manager", folder, command)?,
        })
    }

    pub fn log(&self) -> String {
        self.process.log()
    }
}

fn program() -> Result<PathBuf> {
    let program = super::api_server::programs()?.join("kube-controller-manager");
    ensure!(
        program.exists(),
        "no {}: run `make prerequisites`, or put it beside kube-apiserver in KUBEBUILDER_ASSETS",
        program.display()
    );
    Ok(program)
}
