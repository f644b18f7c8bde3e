//! Listeners bound by name, and the ports file that tells scripts where they are.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpSocket};

/// Addresses in force, by the names that scripts know: `secure-grpc`, `grpc`, `http`, `monitoring`.
#[derive(Debug, Default)]
pub struct Ports(BTreeMap<&'static str, SocketAddr>);

impl Ports {
    /// Binds and notes the address; None when `address` is, for a listener that is not wanted.
    pub fn bind(
        &mut self,
        name: &'static str,
        address: Option<SocketAddr>,
    ) -> Result<Option<TcpListener>> {
        let Some(address) = address else {
            return Ok(None);
        };
        let tried = || format!("listen on {address} ({name})");
        let listener = bind(address).with_context(tried)?;
        self.0
            .insert(name, listener.local_addr().with_context(tried)?);
        Ok(Some(listener))
    }

    /// Removes what an earlier run wrote: whoever waits for the file waits for this run's.
    pub fn forget(path: &Path) -> Result<()> {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(e).with_context(|| format!("remove the old ports file {}", path.display()))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Writes the file that is wanted, if one is.
    pub fn tell(&self, path: Option<&Path>) -> Result<()> {
        path.map_or(Ok(()), |path| self.write(path))
    }

    /// Whoever finds the file finds it whole, with every listener already accepting.
    fn write(&self, path: &Path) -> Result<()> {
        let folder = path
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let tried = || format!("write the ports file {}", path.display());
        let mut partial = tempfile::NamedTempFile::new_in(folder).with_context(tried)?;
        let text = serde_json::to_string_pretty(&self.0).with_context(tried)?;
        writeln!(partial, "{text}").with_context(tried)?;
        partial.persist(path).with_context(tried)?;
        Ok(())
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each: Vec<String> = self
            .0
            .iter()
            .map(|(name, at)| format!("{name} {at}"))
            .collect();
        f.write_str(&each.join(", "))
    }
}

/// Connections that wait to be accepted. All proxies may come at once, and one whose knock was lost waits a second or
/// more before it knocks again; the kernel's own bound (`net.core.somaxconn`) is seldom above.
const WAITING: u32 = 4096;

/// `[::]` takes IPv4 too; where the machine has no IPv6 at all, IPv4 alone is every address.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match listen(address) {
        Err(e) if is_any_v6(address) && no_ipv6(&e) => {
            listen((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        bound => bound,
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(WAITING)
}

fn is_any_v6(address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

fn no_ipv6(error: &io::Error) -> bool {
    // EAFNOSUPPORT on Linux; the standard library has no name for it.
    const UNSUPPORTED_FAMILY: i32 = 97;
    error.kind() == ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(UNSUPPORTED_FAMILY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_ports_file_names_what_is_bound_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ports.json");
        let mut ports = Ports::default();
        let any = "127.0.0.1:0".parse().ok();
        let listener = ports.bind("http", any).unwrap().unwrap();
        assert!(ports.bind("grpc", None).unwrap().is_none());
        ports.write(&file).unwrap();
        let found: BTreeMap<String, SocketAddr> =
            serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let bound = listener.local_addr().unwrap();
        assert_eq!(found, [("http".to_owned(), bound)].into());
        assert_ne!(bound.port(), 0);
        Ports::forget(&file).unwrap();
        assert!(!file.exists());
        Ports::forget(&file).unwrap();
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let mut ports = Ports::default();
        let first = ports
            .bind("http", "127.0.0.1:0".parse().ok())
            .unwrap()
            .unwrap();
        let taken = first.local_addr().unwrap();
        let why = ports.bind("monitoring", Some(taken)).unwrap_err();
        assert!(
            why.to_string()
                .contains(&format!("listen on {taken} (monitoring)")),
            "{why}"
        );
    }
}
