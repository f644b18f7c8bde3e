//! Foreign YAML in bulk, on real Envoys: a sidecar and a gateway take every folder of it, and refuse nothing.
//!
//! That it decodes is `conformance/corpus.rs`'. `FAIRLEAD_CORPUS` names the folder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::harness::client::{Call, Target};
use crate::harness::isolation::shell;
use crate::harness::mesh::Mesh;
use crate::harness::pod::{App, Pod, PodSpec};
use crate::harness::wait::eventually;

/// Below the corpus; each folder with files is applied as a whole.
const PARTS: &[&str] = &["samples", "configs"];

/// A port that no object of the corpus has.
const MARKER_PORT: u16 = 28099;

/// What follows once all of it was taken, in the order of files.
const MARKER: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: marker, namespace: edge}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 28099, name: http-marker, protocol: HTTP}, hosts: [marker.tale]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: marker, namespace: edge}
spec:
  hosts: [marker.tale]
  gateways: [edge/marker]
  http: [{directResponse: {status: 200, body: {string: 'NUMBER'}}}]
";

pub(crate) fn every_folder(root: &Path) -> Result<()> {
    let folders = folders(root)?;
    ensure!(folders.len() > 3, "few folders below {}", root.display());
    let mesh = Mesh::start(&[])?;
    mesh.add_namespace("edge")?;
    let sidecar = PodSpec::new("productpage").service_account("bookinfo-productpage");
    let sidecar = sidecar.label("app", "productpage").label("version", "v1");
    let lookups = Refused::start()?;
    let sidecar = Pod::start(&mesh, sidecar.serves(9080, App::Http))?;
    let gateway = PodSpec::new("gateway").in_namespace("edge").at_the_edge();
    let gateway = gateway.label("istio", "ingressgateway");
    let gateway = gateway.label("app", "istio-ingressgateway");
    let gateway = Pod::start(&mesh, gateway)?;
    drop(lookups);
    let mut faults = Vec::new();
    for (number, (folder, files)) in folders.iter().enumerate() {
        let mut applied = Vec::new();
        for (i, file) in files.iter().enumerate() {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("read {}", file.display()))?;
            applied.push(mesh.apply(&format!("corpus-{i}"), &text)?);
        }
        let marker = MARKER.replace("NUMBER", &number.to_string());
        mesh.configure("marker", &marker)?;
        until_marked(&gateway, number).with_context(|| format!("with {folder}"))?;
        for refusal in settled(&mesh)? {
            faults.push(format!("{folder}: {refusal}"));
        }
        drop(applied);
    }
    drop(sidecar);
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

/// Names of the corpus are looked up by Envoys that begin while this stands, and each is refused at once: no name server is
/// where they ask. Else a cluster would wait for its names, and Envoy for the cluster.
struct Refused;

impl Refused {
    fn start() -> Result<Self> {
        shell(
            "echo nameserver 127.0.0.1 > /run/resolv.conf; mount --bind /run/resolv.conf /etc/resolv.conf",
        )?;
        Ok(Self)
    }
}

impl Drop for Refused {
    fn drop(&mut self) {
        // It goes with the suite's own mounts at the latest.
        let _ = shell("umount /etc/resolv.conf");
    }
}

/// Folders with YAML in them, and their files.
fn folders(root: &Path) -> Result<Vec<(String, Vec<PathBuf>)>> {
    let mut out = Vec::new();
    let mut open: Vec<PathBuf> = PARTS.iter().map(|part| root.join(part)).collect();
    while let Some(folder) = open.pop() {
        let entries = std::fs::read_dir(&folder);
        let entries = entries.with_context(|| format!("read {}", folder.display()))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        paths.sort();
        let is_yaml = |path: &PathBuf| path.extension().is_some_and(|e| e == "yaml" || e == "yml");
        let files: Vec<PathBuf> = paths.iter().filter(|p| is_yaml(p)).cloned().collect();
        open.extend(paths.into_iter().filter(|path| path.is_dir()));
        if !files.is_empty() {
            out.push((folder.display().to_string(), files));
        }
    }
    out.sort();
    Ok(out)
}

fn until_marked(gateway: &Pod, number: usize) -> Result<()> {
    let target = Target::Tcp(gateway.at(MARKER_PORT));
    eventually("the gateway has all of it", || {
        let reply = gateway.send(&Call::get(target.clone(), "marker.tale", "/"))?;
        ensure!(reply.text() == number.to_string(), "{}", reply.text());
        Ok(())
    })
}

/// What the proxies refused, once nothing is on its way to them.
fn settled(mesh: &Mesh) -> Result<BTreeSet<String>> {
    eventually("both proxies have answered", || {
        let items = mesh.control_plane()?.seen_by_mesh("/debug/syncz")?;
        let items = items.as_array().cloned().unwrap_or_default();
        ensure!(items.len() == 2, "{} proxies", items.len());
        let mut refused = BTreeSet::new();
        for item in &items {
            for (kind, counts) in item["types"].as_object().into_iter().flatten() {
                let proxy = &item["proxy"];
                ensure!(counts["pending"] == 0, "{proxy} owes {kind}: {counts}");
                let refusals = counts["refusals"].as_array().into_iter().flatten();
                refused.extend(refusals.map(|r: &Value| format!("{proxy} refused {kind} {r}")));
                if counts["nacked"] != 0 {
                    refused.insert(format!("{proxy} refused {kind}: {counts}"));
                }
            }
        }
        Ok(refused)
    })
}
