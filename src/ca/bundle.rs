//! The roots that the mesh trusts, in one canonical order.

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::CaError;
use super::pem;
use crate::text::Str;

/// One or more roots. Sorted, so that equal sets are equal bundles whatever order a file lists them in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    roots: Vec<CertificateDer<'static>>,
    version: Str,
}

/// Raise it when the resource made of an equal bundle gets other bytes.
const EPOCH: u8 = 1;

impl Bundle {
    pub fn new(mut roots: Vec<CertificateDer<'static>>) -> Result<Self, CaError> {
        roots.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
        roots.dedup();
        if roots.is_empty() {
            return Err(CaError::NoRoot);
        }
        let mut input = vec![EPOCH];
        for root in &roots {
            input.extend_from_slice(digest(&SHA256, root).as_ref());
        }
        let version = HEXLOWER.encode(&digest(&SHA256, &input).as_ref()[..16]);
        Ok(Self {
            roots,
            version: Str::new(version),
        })
    }

    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    pub fn pem(&self) -> String {
        pem::encode_certificates(&self.roots)
    }

    /// Of the content alone: equal in every replica and after every restart.
    pub fn version(&self) -> &Str {
        &self.version
    }

    /// Both bundles' roots, for the time in which certificates of either are about.
    pub fn with(&self, other: &Bundle) -> Result<Self, CaError> {
        Self::new([&self.roots[..], &other.roots[..]].concat())
    }

    pub fn store(&self) -> Result<RootCertStore, CaError> {
        let mut store = RootCertStore::empty();
        for root in &self.roots {
            store.add(root.clone()).map_err(CaError::Root)?;
        }
        Ok(store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(byte: u8) -> CertificateDer<'static> {
        CertificateDer::from(vec![byte; 10])
    }

    #[test]
    fn order_and_repetition_do_not_make_another_bundle() {
        let one = Bundle::new(vec![root(1), root(2)]).unwrap();
        let two = Bundle::new(vec![root(2), root(1), root(2)]).unwrap();
        assert_eq!(one, two);
        assert_eq!(one.version(), two.version());
        assert_ne!(one.version(), Bundle::new(vec![root(1)]).unwrap().version());
    }

    #[test]
    fn two_bundles_join_for_an_overlap() {
        let one = Bundle::new(vec![root(1)]).unwrap();
        let two = Bundle::new(vec![root(2)]).unwrap();
        assert_eq!(one.with(&two).unwrap().roots(), [root(1), root(2)]);
        assert!(Bundle::new(vec![]).is_err());
    }
}
