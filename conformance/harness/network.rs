//! Network namespaces on a bridge, one for each pod.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context as _, Result, ensure};
use rustix::thread::{
    LinkNameSpaceType, move_into_link_name_space, set_thread_gid, set_thread_uid,
};

use super::isolation::shell;

/// Who a process or a client runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    Root,
    /// The sidecar: what it sends is not captured.
    Envoy,
    /// The same with root's capabilities, which transparent sockets take: its group alone tells it.
    TransparentEnvoy,
    /// The workload.
    App,
}

impl User {
    pub fn id(self) -> u32 {
        match self {
            Self::Root | Self::TransparentEnvoy => 0,
            Self::Envoy => 1337,
            Self::App => 1000,
        }
    }

    fn group(self) -> u32 {
        match self {
            Self::TransparentEnvoy => Self::Envoy.id(),
            Self::Root | Self::Envoy | Self::App => self.id(),
        }
    }
}

static NETWORKS: AtomicU8 = AtomicU8::new(0);

/// The second byte of every Service's address; of a pod's it is its network.
const SERVICES: u8 = 96;

/// The node: a bridge of its own, with the control plane's address on it.
pub struct Network {
    index: u8,
    pods: AtomicU8,
    services: AtomicU8,
}

impl Network {
    pub fn new() -> Result<Self> {
        let count = NETWORKS.fetch_add(1, Ordering::Relaxed) + 1;
        ensure!(count < 250, "too many networks in one test program");
        let index = if count < SERVICES { count } else { count + 1 };
        // With an address of its own: it would take the lowest of its ports', another one when a pod comes, and
        // packets to the old one are lost until the neighbours have noticed.
        shell(&format!(
            "ip link add br{index} address 02:00:0a:00:00:{index:02x} type bridge\n\
             ip addr add 10.{index}.0.1/16 dev br{index}\n\
             ip link set br{index} up"
        ))?;
        Ok(Self {
            index,
            pods: AtomicU8::new(0),
            services: AtomicU8::new(0),
        })
    }

    pub fn index(&self) -> u8 {
        self.index
    }

    /// The node's own address, where the control plane listens.
    pub fn node(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.index, 0, 1)
    }

    /// An address for a Service. Nothing answers there: only a sidecar knows where it leads.
    pub fn service_address(&self) -> Ipv4Addr {
        let n = self.services.fetch_add(1, Ordering::Relaxed) + 1;
        Ipv4Addr::new(10, SERVICES, self.index, n)
    }

    /// A new pod with an address and a route to the others. Its users may bind any port, as in Kubernetes.
    pub fn namespace(&self) -> Result<NamespaceOwner> {
        let n = self.pods.fetch_add(1, Ordering::Relaxed) + 1;
        let (index, ip) = (self.index, Ipv4Addr::new(10, self.index, 1, n));
        let name = format!("pod{index}-{n}");
        shell(&format!(
            "ip netns add {name}\n\
             ip link add v{index}-{n} type veth peer name eth0 netns {name}\n\
             ip link set v{index}-{n} master br{index} up\n\
             ip -n {name} addr add {ip}/16 dev eth0\n\
             ip -n {name} link set lo up\n\
             ip -n {name} link set eth0 up\n\
             ip -n {name} route add default via 10.{index}.0.1\n\
             ip netns exec {name} sh -c 'echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start'"
        ))?;
        Ok(NamespaceOwner(Namespace { name, ip }))
    }
}

/// The address of IPv6 that goes with a pod's, or the node's.
pub fn six(ip: Ipv4Addr) -> Ipv6Addr {
    let [_, network, third, last] = ip.octets().map(u16::from);
    Ipv6Addr::new(0xfd00, 10, network, 0, 0, 0, third, last)
}

impl Drop for Network {
    fn drop(&mut self) {
        // What cannot be removed goes with the test program's own namespace.
        let _ = shell(&format!("ip link del br{}", self.index));
    }
}

/// One pod's network, as long as its pod lives.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    ip: Ipv4Addr,
}

impl Namespace {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// Gives the pod its address of IPv6, besides.
    pub fn add_ipv6(&self) -> Result<()> {
        let Self { name, ip } = self;
        let [_, network, ..] = ip.octets();
        let (own, node) = (six(*ip), six(Ipv4Addr::new(10, network, 0, 1)));
        shell(&format!(
            "ip -6 addr replace {node}/48 dev br{network} nodad\n\
             ip -n {name} -6 addr add {own}/48 dev eth0 nodad\n\
             ip -n {name} -6 route add default via {node}"
        ))
        .map(drop)
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/run/netns/{}", self.name))
    }

    /// A command that will run inside, as `user`.
    pub fn command(&self, user: User, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display()));
        if user != User::Root {
            let id = user.id();
            let group = user.group();
            command.args([format!("--setuid={id}"), format!("--setgid={group}")]);
        }
        command.arg("--").arg(program);
        command
    }

    /// Runs `work` on a thread that is inside, as `user`. Sockets that it opens stay inside.
    pub fn inside<T: Send>(&self, user: User, work: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.move_this_thread(user)?;
                Ok(work())
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// For threads that end inside; a thread never comes back.
    pub fn move_this_thread(&self, user: User) -> Result<()> {
        use std::os::fd::AsFd as _;
        let path = self.path();
        let namespace =
            std::fs::File::open(&path).with_context(|| format!("open {}", path.display()))?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("enter {}", path.display()))?;
        if user != User::Root {
            set_thread_gid(rustix::thread::Gid::from_raw(user.group()))
                .context("become another group")?;
            set_thread_uid(rustix::thread::Uid::from_raw(user.id()))
                .context("become another user")?;
        }
        Ok(())
    }
}

/// Takes a pod's network away.
#[derive(Debug)]
pub struct NamespaceOwner(pub Namespace);

impl Drop for NamespaceOwner {
    fn drop(&mut self) {
        let _ = shell(&format!("ip netns del {}", self.0.name));
    }
}
