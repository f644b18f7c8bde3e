//! The CA's files: Istio's `cacerts` layout, made at the first start.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use rcgen::KeyPair;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tracing::info;
use zeroize::Zeroizing;

use super::bundle::Bundle;
use super::key::LeafKey;
use super::signer::{Parts, Signer, is_self_issued, self_signed};
use super::{CaError, pem};
use crate::state::{LockedDir, StateError, read_file};

pub const CERTIFICATE: &str = "ca-cert.pem";
pub const KEY: &str = "ca-key.pem";
pub const ROOTS: &str = "root-cert.pem";
pub const CHAIN: &str = "cert-chain.pem";
/// In the order in which they are written.
const FILES: [&str; 4] = [KEY, CERTIFICATE, CHAIN, ROOTS];
/// Where they are in the state directory.
const FOLDER: &str = "ca";
const MAX_FILE: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum CaFilesError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("read {path}: {reason}")]
    Pem { path: PathBuf, reason: String },
    #[error(
        "the CA in {folder} is gone, though {past} shows that a mesh trusts it: a new one would break every \
         connection; restore {folder} from a backup, or, if no workload of the old mesh runs any more, \
         start with an empty state directory"
    )]
    Gone { folder: PathBuf, past: String },
    #[error("the CA in {folder} is incomplete: there is no {missing}")]
    Missing {
        folder: PathBuf,
        missing: &'static str,
    },
    #[error(
        "{0} holds a CA that the mesh may trust already; to use the one given instead, move it away"
    )]
    Occupied(PathBuf),
    #[error("the CA in {folder}: {reason}")]
    Ca { folder: PathBuf, reason: CaError },
}

type Key = Zeroizing<PrivateKeyDer<'static>>;

/// What a folder holds. A crash while a CA was being made, or a user, may have left any part out.
#[derive(Default)]
struct Found {
    certificate: Option<CertificateDer<'static>>,
    key: Option<Key>,
    chain: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
}

/// How far a CA has come.
enum Stage {
    Nothing,
    Key(Key),
    Whole(Parts),
}

/// The CA of this state directory, made if there is none.
///
/// Nobody can trust a root before `root-cert.pem` is there, and that is written last: what a crash
/// interrupted is completed, and a key that is there is never replaced.
///
/// `past` is what shows, if anything does, that there was a CA.
pub fn open(
    dir: &LockedDir,
    trust_domain: &str,
    past: Option<&str>,
    now: SystemTime,
) -> Result<Signer, CaFilesError> {
    let folder = dir.path(FOLDER);
    let wrong = |reason| CaFilesError::Ca {
        folder: folder.clone(),
        reason,
    };
    let parts = match Found::read(&folder)?.stage(&folder)? {
        Stage::Whole(parts) => parts,
        Stage::Key(_) | Stage::Nothing if past.is_some() => {
            let past = past.unwrap_or_default().to_owned();
            return Err(CaFilesError::Gone { folder, past });
        }
        Stage::Key(key) => make_root(dir, key, trust_domain, now)?,
        Stage::Nothing => {
            let key = LeafKey::generate().map_err(wrong)?;
            dir.write(&file(KEY), key.pem().map_err(wrong)?.as_bytes())?;
            make_root(dir, key.der().map_err(wrong)?, trust_domain, now)?
        }
    };
    let signer = Signer::new(parts, now).map_err(wrong)?;
    publish(dir, &signer)?;
    Ok(signer)
}

/// A CA that is plugged in: read where it is, its roots published in the state directory.
pub fn open_plugged(
    dir: &LockedDir,
    folder: &Path,
    now: SystemTime,
) -> Result<Signer, CaFilesError> {
    let Stage::Whole(parts) = Found::read(folder)?.stage(folder)? else {
        return Err(CaFilesError::Missing {
            folder: folder.into(),
            missing: CERTIFICATE,
        });
    };
    let own = dir.path(&file(KEY));
    if own.exists() {
        return Err(CaFilesError::Occupied(dir.path(FOLDER)));
    }
    let signer = Signer::new(parts, now).map_err(|reason| CaFilesError::Ca {
        folder: folder.into(),
        reason,
    })?;
    publish(dir, &signer)?;
    Ok(signer)
}

/// The CA's files by name, as a Secret has them.
pub type Entries = BTreeMap<String, Zeroizing<Vec<u8>>>;

/// Puts a CA that is kept elsewhere into the state directory, in the place of any that is there.
pub fn adopt(dir: &LockedDir, entries: &Entries, now: SystemTime) -> Result<(), CaFilesError> {
    let folder = dir.path(FOLDER);
    // What cannot sign must not take the place of what can.
    let Stage::Whole(parts) = Found::among(entries, &folder)?.stage(&folder)? else {
        let missing = CERTIFICATE;
        return Err(CaFilesError::Missing { folder, missing });
    };
    Signer::new(parts, now).map_err(|reason| CaFilesError::Ca {
        folder: folder.clone(),
        reason,
    })?;
    let changed = |name: &&'static str| {
        let there = read_file(&folder.join(name), MAX_FILE).ok().flatten();
        there.as_ref() != entries.get(*name)
    };
    if !FILES.iter().any(changed) {
        return Ok(());
    }
    // What a crash leaves half written is written anew from the same source.
    for name in FILES {
        match entries.get(name) {
            Some(text) => dir.write(&file(name), text)?,
            None => dir.remove(&file(name))?,
        }
    }
    Ok(())
}

/// What [`adopt`] takes.
pub fn entries(dir: &LockedDir) -> Result<Entries, CaFilesError> {
    let mut entries = Entries::new();
    for name in FILES {
        if let Some(text) = read_file(&dir.path(&file(name)), MAX_FILE)? {
            entries.insert(name.to_owned(), Zeroizing::new(text.to_vec()));
        }
    }
    Ok(entries)
}

/// Whether the state directory has a CA that can be opened.
pub fn is_whole(dir: &LockedDir) -> bool {
    let folder = dir.path(FOLDER);
    let found = Found::read(&folder).and_then(|found| found.stage(&folder));
    matches!(found, Ok(Stage::Whole(_)))
}

/// Where a bootstrap finds the roots that verify the control plane.
pub fn roots_path(state_dir: &Path) -> PathBuf {
    state_dir.join(FOLDER).join(ROOTS)
}

impl Found {
    fn among(entries: &Entries, folder: &Path) -> Result<Self, CaFilesError> {
        let path = |name: &str| folder.join(name);
        let certificates = |name: &str| match entries.get(name) {
            None => Ok(Vec::new()),
            Some(text) => {
                pem::certificates(text).map_err(|e| broken(&path(name), &pem::explain(&e)))
            }
        };
        let key = entries.get(KEY).map(|text| pem::private_key(text));
        Ok(Self {
            certificate: certificates(CERTIFICATE)?.into_iter().next(),
            key: key
                .transpose()
                .map_err(|e| broken(&path(KEY), &pem::explain(&e)))?,
            chain: certificates(CHAIN)?,
            roots: certificates(ROOTS)?,
        })
    }

    fn read(folder: &Path) -> Result<Self, CaFilesError> {
        Ok(Self {
            certificate: certificates(folder, CERTIFICATE)?.into_iter().next(),
            key: key(folder)?,
            chain: certificates(folder, CHAIN)?,
            roots: certificates(folder, ROOTS)?,
        })
    }

    fn stage(self, folder: &Path) -> Result<Stage, CaFilesError> {
        let missing = |missing| {
            Err(CaFilesError::Missing {
                folder: folder.into(),
                missing,
            })
        };
        match (self.key, self.certificate) {
            (None, None) if self.roots.is_empty() => Ok(Stage::Nothing),
            (None, _) => missing(KEY),
            (Some(key), None) if self.roots.is_empty() => Ok(Stage::Key(key)),
            (Some(_), None) => missing(CERTIFICATE),
            (Some(key), Some(certificate)) => {
                let own = is_self_issued(&certificate).map_err(|reason| CaFilesError::Ca {
                    folder: folder.into(),
                    reason,
                })?;
                if self.roots.is_empty() && !own {
                    return missing(ROOTS);
                }
                let roots = match self.roots.is_empty() {
                    true => vec![certificate.clone()],
                    false => self.roots,
                };
                Ok(Stage::Whole(Parts {
                    certificate,
                    key,
                    chain: self.chain,
                    roots,
                }))
            }
        }
    }
}

fn make_root(
    dir: &LockedDir,
    key: Key,
    trust_domain: &str,
    now: SystemTime,
) -> Result<Parts, CaFilesError> {
    let wrong = |reason| CaFilesError::Ca {
        folder: dir.path(FOLDER),
        reason,
    };
    let pair = KeyPair::try_from(&*key).map_err(|e| wrong(CaError::Key(e)))?;
    let root = self_signed(&pair, trust_domain, now).map_err(wrong)?;
    let fingerprint = HEXLOWER.encode(digest(&SHA256, &root).as_ref());
    let folder = dir.path(FOLDER);
    info!(folder = %folder.display(), sha256 = %fingerprint, "made a certificate authority");
    let roots = vec![root.clone()];
    let text = pem::encode_certificates(&roots);
    dir.write(&file(CERTIFICATE), text.as_bytes())?;
    dir.write(&file(CHAIN), text.as_bytes())?;
    Ok(Parts {
        certificate: root,
        key,
        chain: Vec::new(),
        roots,
    })
}

fn publish(dir: &LockedDir, signer: &Signer) -> Result<(), CaFilesError> {
    let published = certificates(&dir.path(FOLDER), ROOTS)?;
    if Bundle::new(published).is_ok_and(|b| b == signer.bundle) {
        return Ok(());
    }
    Ok(dir.write(&file(ROOTS), signer.bundle.pem().as_bytes())?)
}

fn file(name: &str) -> String {
    format!("{FOLDER}/{name}")
}

fn certificates(folder: &Path, name: &str) -> Result<Vec<CertificateDer<'static>>, CaFilesError> {
    let path = folder.join(name);
    let Some(text) = read_file(&path, MAX_FILE)? else {
        return Ok(Vec::new());
    };
    let found = pem::certificates(&text).map_err(|e| broken(&path, &e))?;
    // A root that signs itself has nothing between it and its leaves.
    if found.is_empty() && name != CHAIN {
        return Err(broken(&path, &"no certificate in it"));
    }
    Ok(found)
}

fn key(folder: &Path) -> Result<Option<Key>, CaFilesError> {
    let path = folder.join(KEY);
    let text = read_file(&path, MAX_FILE)?;
    text.map(|t| pem::private_key(&t).map_err(|e| broken(&path, &pem::explain(&e))))
        .transpose()
}

fn broken(path: &Path, reason: &impl ToString) -> CaFilesError {
    CaFilesError::Pem {
        path: path.into(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::ca::testing::{intermediate, now, root_parts};
    use crate::state::StateDir;

    const DAY: Duration = Duration::from_secs(86_400);

    fn locked(root: &Path) -> LockedDir {
        StateDir::prepare(root).unwrap().lock().unwrap()
    }

    fn start(root: &Path) -> Result<Signer, CaFilesError> {
        open(&locked(root), "cluster.local", None, now())
    }

    fn write(folder: &Path, parts: &Parts) {
        fs::create_dir_all(folder).unwrap();
        let key = pem::encode_private_key(parts.key.secret_der());
        let certificate = pem::encode_certificates(std::slice::from_ref(&parts.certificate));
        fs::write(folder.join(KEY), &*key).unwrap();
        fs::write(folder.join(CERTIFICATE), certificate).unwrap();
        fs::write(folder.join(CHAIN), pem::encode_certificates(&parts.chain)).unwrap();
        fs::write(folder.join(ROOTS), pem::encode_certificates(&parts.roots)).unwrap();
    }

    #[test]
    fn the_ca_is_made_once_and_is_the_same_after_each_restart() {
        let state = tempfile::tempdir().unwrap();
        let first = start(state.path()).unwrap();
        let published = fs::read(roots_path(state.path())).unwrap();
        let again = open(
            &locked(state.path()),
            "cluster.local",
            Some("accepted.json"),
            now() + DAY,
        )
        .unwrap();
        assert_eq!(first.bundle, again.bundle);
        assert_eq!(fs::read(roots_path(state.path())).unwrap(), published);
        assert_eq!(published, first.bundle.pem().as_bytes());
        assert!(!first.bundle.pem().contains("PRIVATE"));
        let (id, lease) = (
            crate::ca::testing::id("a"),
            crate::ca::lease::Lease::new(now(), now() + DAY, 1),
        );
        let version = first.seal.version(&id, lease);
        assert_eq!(again.seal.recognise(&version, &id), Some(lease));
    }

    /// Files are written in this order, each as a whole; a crash may come between any two.
    #[test]
    fn a_crash_between_any_two_files_leaves_one_ca() {
        for survivors in 1..=3 {
            let state = tempfile::tempdir().unwrap();
            start(state.path()).unwrap();
            let folder = state.path().join(FOLDER);
            for lost in &[KEY, CERTIFICATE, CHAIN, ROOTS][survivors..] {
                fs::remove_file(folder.join(lost)).unwrap();
            }
            let key = fs::read(folder.join(KEY)).unwrap();
            let completed = start(state.path()).unwrap();
            assert_eq!(fs::read(folder.join(KEY)).unwrap(), key, "{survivors}");
            assert_eq!(start(state.path()).unwrap().bundle, completed.bundle);
        }
    }

    #[test]
    fn a_ca_that_lost_a_part_is_refused_not_replaced() {
        for lost in [KEY, CERTIFICATE] {
            let state = tempfile::tempdir().unwrap();
            start(state.path()).unwrap();
            let roots = fs::read(roots_path(state.path())).unwrap();
            fs::remove_file(state.path().join(FOLDER).join(lost)).unwrap();
            let refused = start(state.path()).err().unwrap();
            assert!(refused.to_string().contains(lost), "{refused}");
            assert_eq!(fs::read(roots_path(state.path())).unwrap(), roots);
        }
    }

    #[test]
    fn a_ca_that_was_there_before_is_not_made_anew() {
        let state = tempfile::tempdir().unwrap();
        let past = Some("accepted.json");
        let refused = open(&locked(state.path()), "cluster.local", past, now());
        let refused = refused.err().unwrap().to_string();
        for word in ["is gone, though accepted.json", "restore", "backup"] {
            assert!(refused.contains(word), "{refused}");
        }
        assert!(!state.path().join(FOLDER).exists());
    }

    #[test]
    fn an_empty_key_file_says_what_to_do() {
        let state = tempfile::tempdir().unwrap();
        start(state.path()).unwrap();
        fs::write(state.path().join(FOLDER).join(KEY), "").unwrap();
        let refused = start(state.path()).err().unwrap().to_string();
        assert!(
            refused.contains("no private key in it; restore it"),
            "{refused}"
        );
    }

    #[test]
    fn garbage_and_a_foreign_key_are_refused_by_name() {
        let state = tempfile::tempdir().unwrap();
        start(state.path()).unwrap();
        let folder = state.path().join(FOLDER);
        let key = fs::read(folder.join(KEY)).unwrap();
        fs::write(folder.join(KEY), "garbage").unwrap();
        let refused = start(state.path()).err().unwrap().to_string();
        assert!(refused.contains(KEY), "{refused}");

        let other = root_parts(now());
        fs::write(
            folder.join(KEY),
            &*pem::encode_private_key(other.key.secret_der()),
        )
        .unwrap();
        let refused = start(state.path()).err().unwrap().to_string();
        assert!(refused.contains("does not belong"), "{refused}");
        fs::write(folder.join(KEY), key).unwrap();
        start(state.path()).unwrap();
    }

    #[test]
    fn a_plugged_in_ca_signs_and_its_roots_are_published() {
        let outside = tempfile::tempdir().unwrap();
        let parts = intermediate(&root_parts(now()), 30 * DAY, now());
        write(outside.path(), &parts);
        let state = tempfile::tempdir().unwrap();
        let signer = open_plugged(&locked(state.path()), outside.path(), now()).unwrap();
        assert_eq!(signer.intermediates(), [parts.certificate]);
        assert_eq!(signer.not_after(), now() + 30 * DAY);
        let published = fs::read_to_string(roots_path(state.path())).unwrap();
        assert_eq!(published, pem::encode_certificates(&parts.roots));
        open_plugged(&locked(state.path()), outside.path(), now()).unwrap();
    }

    #[test]
    fn a_plugged_in_ca_does_not_replace_one_the_mesh_trusts() {
        let outside = tempfile::tempdir().unwrap();
        write(outside.path(), &root_parts(now()));
        let state = tempfile::tempdir().unwrap();
        let own = start(state.path()).unwrap();
        let refused = open_plugged(&locked(state.path()), outside.path(), now());
        assert!(matches!(refused, Err(CaFilesError::Occupied(_))));
        assert_eq!(start(state.path()).unwrap().bundle, own.bundle);
    }

    #[test]
    fn a_plugged_in_ca_must_be_whole() {
        let parts = intermediate(&root_parts(now()), DAY, now());
        for lost in [KEY, CERTIFICATE, ROOTS] {
            let outside = tempfile::tempdir().unwrap();
            write(outside.path(), &parts);
            fs::remove_file(outside.path().join(lost)).unwrap();
            let state = tempfile::tempdir().unwrap();
            let refused = open_plugged(&locked(state.path()), outside.path(), now());
            let refused = refused.err().unwrap().to_string();
            assert!(refused.contains(lost), "{refused}");
        }
    }
}
