//! Case folders: objects in, a proxy's Envoy configuration out, and Envoy's own verdict on it.
//!
//! `conformance/cases/<area>/<sentence>/` holds
//! - `in.yaml`: the objects;
//! - `proxies.yaml`: for each proxy its `node`, and what to `show` of it;
//! - `want.yaml`: diagnostics and those resources, as canonical proto JSON written in YAML;
//! - `changes/<step>.yaml` (objects that replace their former version) and `changes/<step>.gone.yaml`
//!   (objects that go): `want.yaml` then names what each proxy is sent again, and nothing else may be;
//! - `README.md` where the outcome differs from Istio's, with the reason.
//!
//! `UPDATE=1 cargo test --test cases` writes `want.yaml` anew; read the difference before it is committed.

#![expect(
    clippy::disallowed_methods,
    reason = "the entry point reads UPDATE and ENVOY_BIN"
)]

mod case;
#[path = "harness/validate.rs"]
mod validate;

use std::path::{Path, PathBuf};

use fairlead::model::proxy::RoutePacking;
use libtest_mimic::{Arguments, Failed, Trial};

use self::case::{Case, Mode};

fn main() {
    let arguments = Arguments::from_args();
    let mode = if std::env::var_os("UPDATE").is_some() {
        Mode::Update
    } else {
        Mode::Compare
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/cases");
    let all = folders(&root);
    let mut trials: Vec<Trial> = folders(&root)
        .into_iter()
        .flat_map(|folder| {
            let name = folder
                .strip_prefix(&root)
                .unwrap_or(&folder)
                .display()
                .to_string();
            let by_envoy = |packing: RoutePacking| {
                let folder = folder.clone();
                Trial::test(format!("{name} (envoy, {packing})"), move || {
                    Case::open(&folder)?.validate(packing)
                })
            };
            let accepted = [
                RoutePacking::Rds,
                RoutePacking::Scoped,
                RoutePacking::OnDemand,
            ]
            .map(by_envoy);
            let checked = Trial::test(name, move || Case::open(&folder)?.check(mode));
            accepted.into_iter().chain([checked])
        })
        .collect();
    trials.push(Trial::test(
        "the program's own dump says the same",
        move || {
            let program = Path::new(env!("CARGO_BIN_EXE_fairlead"));
            all.iter()
                .try_for_each(|folder| Case::open(folder)?.check_program(program))
        },
    ));
    libtest_mimic::run(&arguments, trials).exit();
}

/// Every folder with an `in.yaml`, in order.
fn folders(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        if folder.join("in.yaml").is_file() {
            found.push(folder);
            continue;
        }
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        open.extend(entries.map(|e| e.path()).filter(|p| p.is_dir()));
    }
    found.sort();
    found
}

/// The Envoy of `ENVOY_BIN`, else the one that `make prerequisites` fetched.
fn envoy() -> PathBuf {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/envoy/envoy");
    std::env::var_os("ENVOY_BIN").map_or(fetched, PathBuf::from)
}

/// What every step of a case ends with.
type Outcome = Result<(), Failed>;
