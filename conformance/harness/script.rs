//! Scenarios that are written as data: what is applied, what is asked, what comes back.
//!
//! `conformance/scenarios/README.md` says how they are written. All scenarios of a file are applied at once and stand
//! beside each other, for each has a host of its own; so one more costs its requests alone.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use fairlead::clock;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Call, Protocol, Reply, Target};
use super::pki::Tls;
use super::pod::Pod;
use super::wait::eventually;

/// The scenarios of one file.
pub struct Script {
    pub file: &'static str,
    pub scenarios: Vec<Scenario>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The sentence that it proves.
    pub name: String,
    #[serde(default)]
    objects: Vec<Value>,
    /// Short for a VirtualService of `{host}` with these rules.
    http: Option<Value>,
    asks: Vec<Ask>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Ask {
    from: String,
    /// Where the connection goes: a name of the stage, with a port.
    to: String,
    host: String,
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: String,
    over: Over,
    /// The name that a client within TLS asks for.
    tls: Option<String>,
    times: u32,
    gets: Gets,
}

impl Default for Ask {
    fn default() -> Self {
        Self {
            from: String::new(),
            to: String::new(),
            host: "{host}".to_owned(),
            method: "GET".to_owned(),
            path: "/".to_owned(),
            headers: BTreeMap::new(),
            body: String::new(),
            over: Over::Http1,
            tls: None,
            times: 1,
            gets: Gets::default(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Over {
    Http1,
    Http2,
    Grpc,
    /// Bytes; what is said of an answer is `name` and `version` alone.
    Tcp,
    /// Bytes, where the server speaks first.
    Server,
}

/// All that is said must hold; what is not said is not looked at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Gets {
    /// 200 where nothing is said.
    status: Option<u16>,
    /// Of the workload that answers.
    version: Option<String>,
    name: Option<String>,
    /// What the workload saw, by JSON pointer; null for nothing.
    seen: BTreeMap<String, Value>,
    headers: BTreeMap<String, String>,
    /// Headers that are there, and that are not.
    has: Vec<String>,
    lacks: Vec<String>,
    trailers: BTreeMap<String, String>,
    body: Option<String>,
    /// Of several requests, how many at least and at most get each status or version.
    counts: BTreeMap<String, (u32, u32)>,
    /// Of several requests, all go to one version.
    one_version: bool,
    /// At least and at most so many milliseconds.
    takes: Option<(u64, u64)>,
    /// No answer at all.
    refused: bool,
}

/// Where scenarios play.
pub trait Stage {
    /// The pod that asks; the usual one for an empty name.
    fn pod(&self, name: &str) -> Result<&Pod>;
    /// The usual one for an empty name.
    fn address(&self, name: &str) -> Result<SocketAddr>;
    fn tls(&self, name: &str) -> Result<Tls>;
    /// What stands for names in braces, besides the scenario's own.
    fn words(&self) -> Vec<(String, String)>;
}

impl Script {
    pub fn read(file: &'static str, text: &str) -> Result<Self> {
        let scenarios = serde_saphyr::from_str(text).with_context(|| format!("read {file}"))?;
        Ok(Self { file, scenarios })
    }

    /// Of a scenario, as a test.
    pub fn name(&self, at: usize) -> String {
        format!("{}/{}", self.file, self.scenarios[at].name)
    }

    /// The objects of all its scenarios.
    pub fn objects(&self, stage: &impl Stage) -> Result<String> {
        let each = self.scenarios.iter().enumerate();
        each.map(|(at, scenario)| scenario.yaml(&self.words(at, stage)))
            .collect()
    }

    pub fn check(&self, at: usize, stage: &impl Stage) -> Result<()> {
        let scenario = &self.scenarios[at];
        let mut words = self.words(at, stage);
        words.push(Default::default());
        let mut attempt = 0;
        eventually(&scenario.name, || {
            attempt += 1;
            if let Some(last) = words.last_mut() {
                *last = ("fresh".to_owned(), attempt.to_string());
            }
            scenario.asks.iter().try_for_each(|ask| {
                let ask = ask.with(&words)?;
                let said = || format!("{} {}{} {:?}", ask.method, ask.host, ask.path, ask.headers);
                ask.check(stage).with_context(said)
            })
        })
    }

    /// `{host}` is the scenario's own, `{id}` is for names of objects.
    fn words(&self, at: usize, stage: &impl Stage) -> Vec<(String, String)> {
        let own = [
            ("host".to_owned(), format!("n{at}.{}.tale", self.file)),
            ("id".to_owned(), format!("{}-{at}", self.file)),
        ];
        stage.words().into_iter().chain(own).collect()
    }
}

impl Scenario {
    fn yaml(&self, words: &[(String, String)]) -> Result<String> {
        let routed = self.http.iter().map(|http| {
            json!({
                "apiVersion": "networking.istio.io/v1",
                "kind": "VirtualService",
                "metadata": {"name": "{id}", "namespace": "shop"},
                "spec": {"hosts": ["{host}"], "http": http},
            })
        });
        let all = self.objects.iter().cloned().chain(routed);
        let text: String = all.map(|object| format!("---\n{object}\n")).collect();
        Ok(filled(&text, words))
    }
}

fn filled(text: &str, words: &[(String, String)]) -> String {
    words.iter().fold(text.to_owned(), |text, (word, value)| {
        text.replace(&format!("{{{word}}}"), value)
    })
}

impl Ask {
    fn with(&self, words: &[(String, String)]) -> Result<Self> {
        let fill = |text: &str| filled(text, words);
        let headers = self.headers.iter().map(|(k, v)| (k.clone(), fill(v)));
        let seen = self.gets.seen.iter().map(|(k, v)| {
            let value = serde_json::from_str(&fill(&v.to_string()))?;
            Ok((k.clone(), value))
        });
        let there = self.gets.headers.iter().map(|(k, v)| (k.clone(), fill(v)));
        Ok(Self {
            to: fill(&self.to),
            host: fill(&self.host),
            path: fill(&self.path),
            tls: self.tls.as_deref().map(fill),
            headers: headers.collect(),
            gets: Gets {
                seen: seen.collect::<Result<_>>()?,
                headers: there.collect(),
                ..self.gets.clone()
            },
            ..self.clone()
        })
    }

    fn check(&self, stage: &impl Stage) -> Result<()> {
        let from = stage.pod(&self.from)?;
        let to = stage.address(&self.to)?;
        let mut tally: BTreeMap<String, u32> = BTreeMap::new();
        for _request in 0..self.times {
            let before = clock::mono();
            let outcome = match self.over {
                Over::Http1 | Over::Http2 | Over::Grpc => from.send(&self.call(stage, to)?),
                Over::Tcp => greeted(from.tcp(to)),
                Over::Server => greeted(from.server_first(to)),
            };
            let took = (clock::mono() - before).as_millis() as u64;
            let outcome = match outcome {
                Err(_) if self.gets.refused => continue,
                Err(fault) => return Err(fault),
                Ok(reply) if self.gets.refused => anyhow::bail!("answered {}", reply.status),
                Ok(reply) => reply,
            };
            if let Some((least, most)) = self.gets.takes {
                ensure!((least..=most).contains(&took), "it took {took} ms");
            }
            for key in self.gets.check(&outcome)? {
                *tally.entry(key).or_default() += 1;
            }
        }
        self.gets.counted(&tally)
    }

    fn call(&self, stage: &impl Stage, to: SocketAddr) -> Result<Call> {
        let call = Call::get(Target::Tcp(to), &self.host, &self.path);
        let call = call.method(self.method.parse()?).over(match self.over {
            Over::Http2 => Protocol::Http2,
            Over::Grpc => Protocol::Grpc,
            Over::Http1 | Over::Tcp | Over::Server => Protocol::Http1,
        });
        let mut call = Call {
            body: Bytes::from(self.body.clone()),
            headers: self.headers.clone().into_iter().collect(),
            ..call
        };
        if let Some(name) = &self.tls {
            call = call.within(stage.tls(name)?);
        }
        Ok(call)
    }
}

/// What a workload says over TCP, as if it were the answer to a request.
fn greeted(greeting: Result<super::client::Greeting>) -> Result<Reply> {
    let greeting = greeting?;
    let said = json!({
        "name": greeting.name, "version": greeting.version, "peer": greeting.peer.to_string(),
    });
    Ok(Reply {
        status: 200,
        headers: http::HeaderMap::new(),
        body: Bytes::from(said.to_string()),
        trailers: http::HeaderMap::new(),
    })
}

impl Gets {
    /// Under what the answer counts.
    fn check(&self, reply: &Reply) -> Result<Vec<String>> {
        let seen = reply.seen().unwrap_or_default();
        let text = |name: &str| seen[name].as_str().unwrap_or_default().to_owned();
        if self.counts.is_empty() || self.status.is_some() {
            let wanted = self.status.unwrap_or(200);
            ensure!(
                reply.status == wanted,
                "status {} {}",
                reply.status,
                reply.text()
            );
        }
        for (key, wanted) in [("version", &self.version), ("name", &self.name)] {
            if let Some(wanted) = wanted {
                ensure!(text(key) == *wanted, "answered by {}", text(key));
            }
        }
        for (path, wanted) in &self.seen {
            let got = seen.pointer(path).unwrap_or(&Value::Null);
            ensure!(got == wanted, "{path} is {got}, not {wanted}");
        }
        for (name, wanted) in &self.headers {
            let got = reply.header(name);
            ensure!(got == wanted, "{name} is `{got}`, not `{wanted}`");
        }
        for (name, wanted) in &self.trailers {
            let got = reply.trailers.get(name).or(reply.headers.get(name));
            let got = got.and_then(|v| v.to_str().ok()).unwrap_or_default();
            ensure!(got == wanted, "{name} is `{got}`, not `{wanted}`");
        }
        for name in &self.has {
            ensure!(reply.headers.contains_key(name), "{name} is not there");
        }
        for name in &self.lacks {
            ensure!(reply.headers.get(name).is_none(), "{name} is there");
        }
        if let Some(wanted) = &self.body {
            ensure!(reply.text() == *wanted, "it says {}", reply.text());
        }
        Ok(vec![reply.status.to_string(), text("version")])
    }

    fn counted(&self, tally: &BTreeMap<String, u32>) -> Result<()> {
        for (key, (least, most)) in &self.counts {
            let got = tally.get(key).copied().unwrap_or(0);
            ensure!((*least..=*most).contains(&got), "{key}: {tally:?}");
        }
        if self.one_version {
            let versions = tally.keys().filter(|key| key.starts_with('v')).count();
            ensure!(versions == 1, "{tally:?}");
        }
        Ok(())
    }
}
