//! The bookshop: its workloads, its files in the run folder, and edits of them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

pub const NAMESPACE: &str = "bookshop";
/// Where each sidecar takes calls, and where its app calls out.
pub const INGRESS_PORT: u16 = 9080;
pub const EGRESS_PORT: u16 = 8000;

/// One workload, as `workloads.yaml` and `sidecars.yaml` describe it.
#[derive(Debug)]
pub struct Workload {
    pub name: &'static str,
    pub app: &'static str,
    pub version: &'static str,
    pub service_account: &'static str,
    pub address: Ipv4Addr,
}

pub const WORKLOADS: &[Workload] = &[
    workload("storefront", "storefront", "v1", [127, 40, 1, 1]),
    workload("catalog", "catalog", "v1", [127, 40, 2, 1]),
    workload("ratings", "ratings", "v1", [127, 40, 3, 1]),
    workload("reviews-v1", "reviews", "v1", [127, 40, 4, 1]),
    workload("reviews-v2", "reviews", "v2", [127, 40, 4, 2]),
    workload("reviews-v3", "reviews", "v3", [127, 40, 4, 3]),
];

/// The services by which the workloads call each other.
pub const SERVICES: &[&str] = &["storefront", "catalog", "ratings", "reviews"];

const fn workload(
    name: &'static str,
    app: &'static str,
    version: &'static str,
    [a, b, c, d]: [u8; 4],
) -> Workload {
    Workload {
        name,
        app,
        version,
        service_account: app,
        address: Ipv4Addr::new(a, b, c, d),
    }
}

impl Workload {
    pub fn identity(&self) -> String {
        spiffe(self.service_account)
    }

    pub fn ingress(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.address), INGRESS_PORT)
    }

    pub fn egress(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.address), EGRESS_PORT)
    }
}

pub fn spiffe(service_account: &str) -> String {
    format!("spiffe://cluster.local/ns/{NAMESPACE}/sa/{service_account}")
}

/// The files of `examples/bookshop`, carried by the program: it runs wherever it is installed.
const FILES: &[(&str, &str)] = &[
    (MESH, include_str!("../../../examples/bookshop/mesh.yaml")),
    (
        NAMESPACES,
        include_str!("../../../examples/bookshop/namespace.yaml"),
    ),
    (
        "services.yaml",
        include_str!("../../../examples/bookshop/services.yaml"),
    ),
    (
        "workloads.yaml",
        include_str!("../../../examples/bookshop/workloads.yaml"),
    ),
    (
        "sidecars.yaml",
        include_str!("../../../examples/bookshop/sidecars.yaml"),
    ),
    (
        ROUTING,
        include_str!("../../../examples/bookshop/routing.yaml"),
    ),
];

const MESH: &str = "mesh.yaml";
pub const NAMESPACES: &str = "namespace.yaml";
pub const ROUTING: &str = "routing.yaml";

/// What `sidecars.yaml` calls the folder of the apps' sockets.
const SOCKETS: &str = "/run/bookshop";

/// The copy that the control plane reads.
#[derive(Debug)]
pub struct Copy {
    pub folder: PathBuf,
    /// Beside it, on the same file system: a new version is made here and then moved in.
    draft: PathBuf,
}

impl Copy {
    /// Puts the files into `<run>/config`.
    pub fn make(run: &Path, sockets: &Path) -> Result<Self> {
        let copy = Self {
            folder: run.join("config"),
            draft: run.join("draft"),
        };
        fs::create_dir(&copy.folder)
            .with_context(|| format!("create {}", copy.folder.display()))?;
        let sockets = sockets
            .to_str()
            .context("the run folder's name is no UTF-8")?;
        for (name, text) in FILES {
            copy.write(name, &text.replace(SOCKETS, sockets))?;
        }
        Ok(copy)
    }

    pub fn read(&self, name: &str) -> Result<String> {
        let path = self.folder.join(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    /// Replaces a file as a whole: a reader sees the old one or the new one.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&self.draft, text)
            .and_then(|()| fs::rename(&self.draft, &path))
            .with_context(|| format!("replace {}", path.display()))
    }

    /// Replaces texts that stand in the file exactly once.
    pub fn edit(&self, name: &str, changes: &[(&str, &str)]) -> Result<()> {
        let mut text = self.read(name)?;
        for (old, new) in changes {
            text = replaced(&text, old, new).with_context(|| format!("edit {name}"))?;
        }
        self.write(name, &text)
    }
}

fn replaced(text: &str, old: &str, new: &str) -> Result<String> {
    let count = text.matches(old).count();
    ensure!(count == 1, "`{old}` stands there {count} times");
    Ok(text.replacen(old, new, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_stands_in_the_files_with_its_address() {
        let run = tempfile::tempdir().unwrap();
        let copy = Copy::make(run.path(), Path::new("/tmp/x")).unwrap();
        let (entries, sidecars) = (
            copy.read("workloads.yaml").unwrap(),
            copy.read("sidecars.yaml").unwrap(),
        );
        for workload in WORKLOADS {
            let address = format!("address: {}\n", workload.address);
            assert!(entries.contains(&address), "{workload:?}");
            let socket = format!("defaultEndpoint: unix:///tmp/x/{}.sock\n", workload.name);
            assert!(sidecars.contains(&socket), "{workload:?}");
        }
        assert!(!sidecars.contains(SOCKETS));
    }

    #[test]
    fn every_file_of_the_example_is_carried() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/bookshop");
        let mut found: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| n.ends_with(".yaml"))
            .collect();
        let mut carried: Vec<_> = FILES.iter().map(|(n, _)| (*n).to_owned()).collect();
        found.sort();
        carried.sort();
        assert_eq!(found, carried);
    }

    #[test]
    fn an_edit_that_finds_its_place_twice_changes_nothing() {
        let run = tempfile::tempdir().unwrap();
        let copy = Copy::make(run.path(), Path::new("/tmp/x")).unwrap();
        let before = copy.read(ROUTING).unwrap();
        assert!(copy.edit(ROUTING, &[("host: reviews", "host: x")]).is_err());
        assert_eq!(copy.read(ROUTING).unwrap(), before);
        copy.edit(ROUTING, &[("weight: 90", "weight: 50")]).unwrap();
        assert_ne!(copy.read(ROUTING).unwrap(), before);
    }
}
