//! Opens connections as the pod would and sees whether capture takes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::capture::{Capture, Family};

/// What the connection says, so that a stranger's connection is not taken for it.
type Cookie = [u8; 16];

/// `Ok(Err(why))` when a connection was not captured; as Envoy's own user what comes in is tried, else what goes out.
pub(super) fn run(
    capture: &Capture,
    family: Family,
    port: u16,
    wait: Duration,
) -> anyhow::Result<Result<(), String>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (uid, gid) = own_ids(&std::fs::read_to_string("/proc/self/status")?)
        .context("/proc/self/status names no user")?;
    let is_proxy = capture.proxy_uids.contains(&uid) || capture.proxy_gids.contains(&gid);
    let (target, lands) = if is_proxy {
        // Envoy's connections to its own pod by a service address are taken as inbound.
        let target = SocketAddr::new(own_address(family)?, port);
        let taken = capture.takes_inbound(port);
        (taken.then_some(target), capture.inbound_port)
    } else {
        (capture.outbound_probe(port, family), capture.outbound_port)
    };
    let Some(target) = target else {
        eprintln!("fairlead: nothing to validate: this capture leaves port {port} alone");
        return Ok(Ok(()));
    };
    runtime.block_on(try_connection(target, lands, wait))
}

/// Connects to `target` and waits for the connection to arrive at our own listener on port `lands`.
async fn try_connection(
    target: SocketAddr,
    lands: u16,
    wait: Duration,
) -> anyhow::Result<Result<(), String>> {
    let any = match target {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, lands)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, lands)),
    };
    let listener = TcpListener::bind(any)
        .await
        .with_context(|| format!("validation must run before Envoy: listen on {any}"))?;
    let mut cookie = Cookie::default();
    aws_lc_rs::rand::fill(&mut cookie)
        .ok()
        .context("no random numbers")?;
    let connect = async {
        let mut stream = TcpStream::connect(target).await?;
        stream.write_all(&cookie).await?;
        // Held open until the other side has read.
        std::future::pending::<std::io::Result<()>>().await
    };
    let arrive = async {
        loop {
            let (mut stream, _) = listener.accept().await?;
            let mut got = Cookie::default();
            if stream.read_exact(&mut got).await.is_ok() && got == cookie {
                return Ok::<(), std::io::Error>(());
            }
        }
    };
    let tried = async {
        tokio::select! {
            failed = connect => failed,
            arrived = arrive => arrived,
        }
    };
    Ok(match tokio::time::timeout(wait, tried).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(format!(
            "a connection to {target} did not arrive on port {lands}: {e}"
        )),
        Err(_) => Err(format!(
            "a connection to {target} did not arrive on port {lands} within {wait:?}"
        )),
    })
}

/// Effective user and group id.
fn own_ids(status: &str) -> Option<(u32, u32)> {
    let effective = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    Some((effective("Uid:")?, effective("Gid:")?))
}

/// The address that this pod sends from. Nothing is sent: connecting a UDP socket only asks for the route.
fn own_address(family: Family) -> anyhow::Result<IpAddr> {
    let (any, there): (IpAddr, IpAddr) = match family {
        Family::V4 => (
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv4Addr::new(192, 0, 2, 1).into(),
        ),
        Family::V6 => (
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        ),
    };
    let socket = std::net::UdpSocket::bind((any, 0))?;
    socket
        .connect((there, 9))
        .context("find the pod's own address")?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_effective_ones() {
        let status = "Name:\tx\nUid:\t0\t1337\t0\t0\nGid:\t5\t6\t7\t8\n";
        assert_eq!(own_ids(status), Some((1337, 6)));
        assert_eq!(own_ids("Name:\tx\n"), None);
    }
}
