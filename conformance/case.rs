//! One case folder: what it says, what comes out, and how the two are compared.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fairlead::acceptance::Options;
use fairlead::config::Key;
use fairlead::config::decode::yaml::documents;
use fairlead::config::decode::{self, Item};
use fairlead::dump::Dump;
use fairlead::identity::SpiffeId;
use fairlead::model::Settings;
use fairlead::model::proxy::Proxy;
use fairlead::model::proxy::RoutePacking;
use fairlead::offline::Offline;
use fairlead::view::ProxyId;
use fairlead::xds::ResourceType;
use libtest_mimic::Failed;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Outcome;
use super::envoy;
use super::validate::{Dangling, Wrapped, validate};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Compare,
    Update,
}

/// The objects' file, as diagnostics name it.
const FILE: &str = "in.yaml";

pub struct Case {
    folder: PathBuf,
    input: String,
    proxies: Vec<Described>,
    steps: BTreeMap<String, Step>,
}

/// An entry of `proxies.yaml`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Described {
    /// `node.id`; its workload name is the proxy's name in `want.yaml`.
    node: String,
    identity: Option<String>,
    #[serde(default)]
    metadata: Map<String, Value>,
    /// By type (`cds`, `eds`, `lds`, `rds`) the names to show; `*` is all of them.
    #[serde(default)]
    show: Option<BTreeMap<String, Vec<String>>>,
    /// Whether routes name clusters that are not there, as Istio's do for an undefined subset.
    #[serde(default)]
    dangling: bool,
}

/// What one change does to the objects.
#[derive(Default)]
struct Step {
    replaced: String,
    gone: String,
}

impl Case {
    pub fn open(folder: &Path) -> Result<Self, Failed> {
        let proxies = folder.join("proxies.yaml");
        let mut steps: BTreeMap<String, Step> = BTreeMap::new();
        for file in fs::read_dir(folder.join("changes"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = file.file_name().to_string_lossy().into_owned();
            let text = read(&file.path())?;
            let stem = name
                .strip_suffix(".yaml")
                .ok_or(format!("changes/{name}: not a .yaml file"))?;
            match stem.strip_suffix(".gone") {
                Some(step) => steps.entry(step.to_owned()).or_default().gone = text,
                None => steps.entry(stem.to_owned()).or_default().replaced = text,
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            input: read(&folder.join("in.yaml"))?,
            proxies: serde_saphyr::from_str(&read(&proxies)?)
                .map_err(|e| format!("{}: {e}", proxies.display()))?,
            steps,
        })
    }

    pub fn check(&self, mode: Mode) -> Outcome {
        let got = serde_saphyr::to_string(&self.outcome()?)?;
        let path = self.folder.join("want.yaml");
        if mode == Mode::Update {
            fs::write(&path, got).map_err(|e| format!("write {}: {e}", path.display()))?;
            return Ok(());
        }
        let want = read(&path)?;
        if want == got {
            Ok(())
        } else {
            Err(difference(&path, &want, &got).into())
        }
    }

    /// Every state of every proxy goes through the real Envoy.
    pub fn validate(&self, packing: RoutePacking) -> Outcome {
        let mut run = Run::start(self, packing)?;
        run.validate(self)?;
        for step in self.steps.values() {
            run.change(step);
            run.validate(self)?;
        }
        Ok(())
    }

    /// The program, a process of its own, prints what was computed here: the same bytes, whatever the
    /// process, and the same sources.
    pub fn check_program(&self, program: &Path) -> Outcome {
        let run = Run::start(self, RoutePacking::default())?;
        let checkout = tempfile::tempdir()?;
        fs::write(checkout.path().join(FILE), &self.input)?;
        for ((name, id), described) in run.ids.iter().zip(&self.proxies) {
            let mut command = Command::new(program);
            command.args([
                "dump",
                "-o",
                "json",
                "--node",
                &described.node,
                "--config-dir",
            ]);
            command.arg(checkout.path());
            command.args([
                "--metadata",
                &Value::from(described.metadata.clone()).to_string(),
            ]);
            command.args(
                described
                    .identity
                    .iter()
                    .flat_map(|identity| ["--identity", identity]),
            );
            let output = command.output()?;
            let printed: Value = serde_json::from_slice(&output.stdout)
                .map_err(|e| format!("{name}: {e}: {}", String::from_utf8_lossy(&output.stderr)))?;
            if printed != serde_json::to_value(run.mesh.dump(*id)?)? {
                return Err(
                    format!("{}: {name}: `fairlead dump` differs", self.folder.display()).into(),
                );
            }
        }
        Ok(())
    }

    fn outcome(&self) -> Result<Value, Failed> {
        let mut run = Run::start(self, RoutePacking::default())?;
        let mut want = Map::new();
        let diagnostics = run.told();
        if !diagnostics.is_empty() {
            want.insert("diagnostics".to_owned(), json!(diagnostics));
        }
        want.insert("proxies".to_owned(), run.shown(self)?);
        let mut changes = Map::new();
        for (name, step) in &self.steps {
            changes.insert(name.clone(), run.step(step)?);
        }
        if !changes.is_empty() {
            want.insert("changes".to_owned(), changes.into());
        }
        Ok(want.into())
    }
}

/// A case while it runs: the mesh and its proxies.
struct Run {
    mesh: Offline,
    /// `in.yaml` as the changes so far left it.
    text: String,
    /// In the order of `proxies.yaml`.
    ids: Vec<(String, ProxyId)>,
}

/// Versions by short type and name.
type Versions = BTreeMap<(&'static str, String), String>;

impl Run {
    fn start(case: &Case, packing: RoutePacking) -> Result<Self, Failed> {
        let settings = Settings {
            packing,
            ..Settings::default()
        };
        let options = Options {
            hold_unresolved: true,
            domain: settings.domain.clone(),
        };
        let mut mesh = Offline::new(options, settings);
        mesh.load(FILE, &case.input);
        let mut ids = Vec::new();
        for described in &case.proxies {
            let identity = described
                .identity
                .as_deref()
                .map(SpiffeId::parse)
                .transpose()?;
            let proxy = Proxy::parse(&described.node, described.metadata.clone().into(), identity)?;
            ids.push((
                format!("{}.{}", proxy.name, proxy.namespace),
                mesh.attach(proxy),
            ));
        }
        Ok(Self {
            mesh,
            ids,
            text: case.input.clone(),
        })
    }

    fn shown(&self, case: &Case) -> Result<Value, Failed> {
        let mut proxies = Map::new();
        for ((name, id), described) in self.ids.iter().zip(&case.proxies) {
            let dump = self.mesh.dump(*id)?;
            let mut types = Map::new();
            for (short, names) in described.show.iter().flatten() {
                types.insert(short.clone(), select(&dump, short, names)?);
            }
            proxies.insert(name.clone(), types.into());
        }
        Ok(proxies.into())
    }

    /// What each proxy is sent: names whose version is new or gone, and nothing besides.
    fn step(&mut self, step: &Step) -> Result<Value, Failed> {
        let mut outcome = Map::new();
        let before = self.versions()?;
        let already = self.told();
        self.change(step);
        let told: Vec<String> = self
            .told()
            .into_iter()
            .filter(|d| !already.contains(d))
            .collect();
        if !told.is_empty() {
            outcome.insert("diagnostics".to_owned(), json!(told));
        }
        for ((name, _), (before, after)) in
            self.ids.iter().zip(before.iter().zip(&self.versions()?))
        {
            outcome.insert(name.clone(), delta(before, after));
        }
        Ok(outcome.into())
    }

    fn change(&mut self, step: &Step) {
        let named = [keys(&step.replaced), keys(&step.gone)].concat();
        let stays = documents(&self.text)
            .into_iter()
            .filter(|d| keys(d.text).iter().all(|k| !named.contains(k)));
        let mut texts: Vec<&str> = stays.map(|d| d.text).collect();
        texts.push(&step.replaced);
        self.text = texts.join("\n---\n");
        self.mesh.replace(FILE, &self.text);
    }

    /// Diagnostics as a person sees them.
    fn told(&self) -> Vec<String> {
        self.mesh
            .diagnostics()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    fn versions(&self) -> Result<Vec<Versions>, Failed> {
        self.ids
            .iter()
            .map(|(_, id)| Ok(versions(&self.mesh.dump(*id)?)))
            .collect()
    }

    fn validate(&self, case: &Case) -> Outcome {
        for ((name, id), described) in self.ids.iter().zip(&case.proxies) {
            let dump = serde_json::to_value(self.mesh.dump(*id)?)?;
            let dangling = if described.dangling {
                Dangling::Allowed
            } else {
                Dangling::Refused
            };
            validate(
                &envoy(),
                &Wrapped {
                    dump: &dump,
                    dangling,
                },
            )
            .map_err(|why| format!("{name}: {why:#}"))?;
        }
        Ok(())
    }
}

/// The objects that a text names, whatever is wrong with them.
fn keys(text: &str) -> Vec<Key> {
    let items = decode::documents(text, FILE).items.into_iter();
    let key = |item| match item {
        Item::Object(found) => Some(found.object.key()),
        Item::Rejected(rejected) => rejected.key,
        Item::Notice(_) | Item::Template(_) => None,
    };
    items.filter_map(key).collect()
}

fn select(dump: &Dump, short: &str, names: &[String]) -> Result<Value, Failed> {
    let kind = ResourceType::ALL.into_iter().find(|t| t.short() == short);
    let kind = kind.ok_or(format!(
        "proxies.yaml: `{short}` is no type; it is one of cds, eds, lds, rds, srds"
    ))?;
    let all = dump
        .get(kind.type_url())
        .map(Vec::as_slice)
        .unwrap_or_default();
    let wanted = |name: &str| names.iter().any(|n| n == "*" || n == name);
    let missing = names
        .iter()
        .find(|n| *n != "*" && all.iter().all(|r| r.name != n.as_str()));
    if let Some(missing) = missing {
        let there: Vec<&str> = all.iter().map(|r| r.name.as_str()).collect();
        return Err(format!("proxies.yaml: no {short} `{missing}`; there are {there:?}").into());
    }
    Ok(all
        .iter()
        .filter(|r| wanted(&r.name))
        .map(|r| r.resource.clone())
        .collect())
}

fn versions(dump: &Dump) -> Versions {
    let mut versions = Versions::new();
    for kind in ResourceType::ALL {
        for found in dump.get(kind.type_url()).into_iter().flatten() {
            versions.insert(
                (kind.short(), found.name.to_string()),
                found.version.to_string(),
            );
        }
    }
    versions
}

/// By type: `sent` (new or changed) and `removed`.
fn delta(before: &Versions, after: &Versions) -> Value {
    let mut types: BTreeMap<&str, BTreeMap<&str, Vec<&str>>> = BTreeMap::new();
    for ((kind, name), version) in after {
        if before.get(&(*kind, name.clone())) != Some(version) {
            types
                .entry(kind)
                .or_default()
                .entry("sent")
                .or_default()
                .push(name);
        }
    }
    for (kind, name) in before.keys() {
        if !after.contains_key(&(*kind, name.clone())) {
            types
                .entry(kind)
                .or_default()
                .entry("removed")
                .or_default()
                .push(name);
        }
    }
    json!(types)
}

fn read(path: &Path) -> Result<String, Failed> {
    fs::read_to_string(path).map_err(|e| format!("read {}: {e}", path.display()).into())
}

/// The lines between the first and the last difference, with a little of what is around.
fn difference(path: &Path, want: &str, got: &str) -> String {
    const AROUND: usize = 4;
    let (want, got): (Vec<&str>, Vec<&str>) = (want.lines().collect(), got.lines().collect());
    let same = |(a, b): &(&&str, &&str)| a == b;
    let head = want.iter().zip(&got).take_while(same).count();
    let rest = want.len().min(got.len()) - head;
    let tail = want
        .iter()
        .rev()
        .zip(got.iter().rev())
        .take_while(same)
        .count()
        .min(rest);
    let before = &want[head.saturating_sub(AROUND)..head];
    let after = &want[want.len() - tail..][..tail.min(AROUND)];
    let part = |mark: &str, lines: &[&str]| -> String {
        lines.iter().map(|l| format!("{mark} {l}\n")).collect()
    };
    format!(
        "{}:{}: the outcome differs (UPDATE=1 writes it)\n{}{}{}{}",
        path.display(),
        head + 1,
        part(" ", before),
        part("-", &want[head..want.len() - tail]),
        part("+", &got[head..got.len() - tail]),
        part(" ", after),
    )
}
