//! The CA's files: Istio's `cacerts` layout, made at the first start.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rcgen::KeyPair;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::bundle::Bundle;
use super::key::LeafKey;
use super::signer::{Parts, Signer, is_self_issued, self_signed};
use super::{CaError, pem};
use crate::state::{LockedDir, StateError, read_file};

const CERTIFICATE: &str = "ca-cert.pem";
const KEY: &str = "ca-key.pem";
const ROOTS: &str = "root-cert.pem";
const CHAIN: &str = "cert-chain.pem";
/// Where they are in the state directory.
const FOLDER: &str = "ca";
const MAX_FILE: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum CaFilesError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("read {path}: {reason}")]
    Pem { path: PathBuf, reason: String },
    #[error("the CA in {folder} is incomplete: there is no {missing}")]
    Missing {
        folder: PathBuf,
        missing: &'static str,
    },
    #[error(
        "{0} holds a CA that the mesh may trust already; to use the one given instead, move it away"
    )]
    Occupied(PathBuf),
    #[error("the CA in {folder}: {source}")]
    Ca { folder: PathBuf, source: CaError },
}

/// What a folder holds. A crash while a CA was being made, or a user, may have left any part out.
#[derive(Default)]
struct Found {
    certificate: Option<CertificateDer<'static>>,
    key: Option<PrivateKeyDer<'static>>,
    chain: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
}

/// How far a CA has come.
enum Stage {
    Nothing,
    Key(PrivateKeyDer<'static>),
    Whole(Parts),
}

/// The CA of this state directory, made if there is none.
///
/// Nobody can trust a root before `root-cert.pem` is there, and that is written last: what a crash
/// interrupted is completed, and a key that is there is never replaced.
pub fn open(dir: &LockedDir, trust_domain: &str, now: SystemTime) -> Result<Signer, CaFilesError> {
    let folder = dir.path(FOLDER);
    let wrong = |source| CaFilesError::Ca {
        folder: folder.clone(),
        source,
    };
    let parts = match Found::read(&folder)?.stage(&folder)? {
        Stage::Whole(parts) => parts,
        Stage::Key(key) => make_root(dir, key, trust_domain, now)?,
        Stage::Nothing => {
            let key = LeafKey::generate().map_err(wrong)?;
            dir.write(&file(KEY), key.pem().map_err(wrong)?.as_bytes())?;
            let key = PrivatePkcs8KeyDer::from(key.pkcs8().map_err(wrong)?.to_vec());
            make_root(dir, key.into(), trust_domain, now)?
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
    let signer = Signer::new(parts, now).map_err(|source| CaFilesError::Ca {
        folder: folder.into(),
        source,
    })?;
    publish(dir, &signer)?;
    Ok(signer)
}

/// Where a bootstrap finds the roots that verify the control plane.
pub fn roots_path(state_dir: &Path) -> PathBuf {
    state_dir.join(FOLDER).join(ROOTS)
}

impl Found {
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
                let own = is_self_issued(&certificate).map_err(|source| CaFilesError::Ca {
                    folder: folder.into(),
                    source,
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
    key: PrivateKeyDer<'static>,
    trust_domain: &str,
    now: SystemTime,
) -> Result<Parts, CaFilesError> {
    let wrong = |source| CaFilesError::Ca {
        folder: dir.path(FOLDER),
        source,
    };
    let pair = KeyPair::try_from(&key).map_err(|e| wrong(CaError::Key(e)))?;
    let root = self_signed(&pair, trust_domain, now).map_err(wrong)?;
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
    if found.is_empty() {
        return Err(broken(&path, &"no certificate in it"));
    }
    Ok(found)
}

fn key(folder: &Path) -> Result<Option<PrivateKeyDer<'static>>, CaFilesError> {
    let path = folder.join(KEY);
    let text = read_file(&path, MAX_FILE)?;
    text.map(|t| pem::private_key(&t).map_err(|e| broken(&path, &e)))
        .transpose()
}

fn broken(path: &Path, reason: &impl ToString) -> CaFilesError {
    CaFilesError::Pem {
        path: path.into(),
        reason: reason.to_string(),
    }
}
