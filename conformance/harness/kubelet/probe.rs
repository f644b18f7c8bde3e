//! Probes and hooks: asked from the node, as the kubelet does.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use fairlead::clock;
use serde_json::Value;

use super::super::client::{Call, Target};

/// A probe and how it went so far.
pub(super) struct Probe {
    spec: Value,
    container: Value,
    due: Instant,
    successes: u64,
    failures: u64,
    /// What was told last; a change needs as many outcomes in a row as the spec says.
    told: Option<bool>,
}

impl Probe {
    pub(super) fn new(spec: &Value, container: &Value) -> Self {
        Self {
            spec: spec.clone(),
            container: container.clone(),
            due: clock::mono(),
            successes: 0,
            failures: 0,
            told: None,
        }
    }

    fn number(&self, key: &str, default: u64) -> u64 {
        self.spec[key]
            .as_u64()
            .filter(|n| *n > 0)
            .unwrap_or(default)
    }

    /// The container has just begun.
    pub(super) fn begin(&mut self) {
        let delay = self.spec["initialDelaySeconds"].as_u64().unwrap_or(0);
        self.due = clock::mono() + Duration::from_secs(delay);
        (self.successes, self.failures, self.told) = (0, 0, None);
    }

    /// Asks if it is due. Some when enough outcomes in a row say so: it is well, or it is not.
    pub(super) fn outcome(&mut self, ip: &str) -> Option<bool> {
        if clock::mono() < self.due {
            return None;
        }
        let well = ask(&self.spec, &self.container, ip).is_ok();
        self.due = clock::mono() + Duration::from_secs(self.number("periodSeconds", 10));
        match well {
            true => (self.successes, self.failures) = (self.successes + 1, 0),
            false => (self.successes, self.failures) = (0, self.failures + 1),
        }
        if self.successes >= self.number("successThreshold", 1) {
            self.told = Some(true);
            return Some(true);
        }
        // What has not been well yet is not well from the first failure on, but is not ended for it.
        let limit = self.number("failureThreshold", 3);
        (self.failures >= limit).then_some(false)
    }
}

/// One question of a probe or a hook; an error says why the answer is no.
pub(super) fn ask(handler: &Value, container: &Value, ip: &str) -> Result<()> {
    let http = &handler["httpGet"];
    if http.is_object() {
        let host = http["host"].as_str().unwrap_or(ip);
        let address: SocketAddr = format!("{host}:{}", port(&http["port"], container)?).parse()?;
        let path = http["path"].as_str().unwrap_or("/");
        let mut call = Call::get(Target::Tcp(address), &address.to_string(), path);
        for header in http["httpHeaders"].as_array().into_iter().flatten() {
            let text = |key: &str| header[key].as_str().unwrap_or_default();
            call = call.header(text("name"), text("value"));
        }
        let reply = call.send_from_node()?;
        ensure!(
            (200..400).contains(&reply.status),
            "{} {}",
            reply.status,
            reply.text()
        );
        return Ok(());
    }
    let tcp = &handler["tcpSocket"];
    if tcp.is_object() {
        let address: SocketAddr = format!("{ip}:{}", port(&tcp["port"], container)?).parse()?;
        TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        return Ok(());
    }
    if let Some(seconds) = handler["sleep"]["seconds"].as_u64() {
        #[expect(clippy::disallowed_methods, reason = "the hook is to sleep")]
        std::thread::sleep(Duration::from_secs(seconds));
        return Ok(());
    }
    bail!("this kubelet asks by httpGet and tcpSocket alone")
}

fn port(value: &Value, container: &Value) -> Result<u64> {
    if let Some(number) = value.as_u64() {
        return Ok(number);
    }
    let name = value.as_str().unwrap_or_default();
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let ports = container["ports"].as_array().into_iter().flatten();
    let mut named = ports.filter(|port| port["name"] == name);
    let found = named.next().and_then(|port| port["containerPort"].as_u64());
    found.with_context(|| format!("no port {name}"))
}
