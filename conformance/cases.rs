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
//! `UPDATE=1 cargo test --test cases` writes `want.yaml` anew. It refuses to, where a resource changed
//! under an unchanged version: then the renderer's EPOCH must be raised (`versions.lock`).

#![expect(clippy::disallowed_methods, reason = "the entry point reads UPDATE")]

mod case;
mod validate;

use std::path::{Path, PathBuf};

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
    let mut trials: Vec<Trial> = folders(&root)
        .into_iter()
        .flat_map(|folder| {
            let name = folder
                .strip_prefix(&root)
                .unwrap_or(&folder)
                .display()
                .to_string();
            let (want, envoy) = (folder.clone(), folder);
            [
                Trial::test(name.clone(), move || Case::open(&want)?.check(mode)),
                Trial::test(format!("{name} (envoy)"), move || {
                    Case::open(&envoy)?.validate()
                }),
            ]
        })
        .collect();
    trials.push(Trial::test(
        "no resource changes under its version",
        move || case::check_versions(&root, &folders(&root), mode),
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

/// What every step of a case ends with.
type Outcome = Result<(), Failed>;
