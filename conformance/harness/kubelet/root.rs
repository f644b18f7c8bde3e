//! What a container sees of this machine: programs and libraries, and files of its own.
//!
//! Made of bind mounts, which a user namespace may do too. The suite's mount namespace takes them away with it.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::super::isolation::output;

/// Of the machine, where they are: folders or links.
const SHARED: &[&str] = &[
    "usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt",
];
const BOUND: &[&str] = &["proc", "dev", "sys", "etc/alternatives", "etc/ssl"];
/// Where the images' programs are.
const PROGRAMS: &str = "image";

/// A container's root folder.
pub(super) struct Root {
    path: PathBuf,
}

impl Root {
    pub(super) fn make(path: PathBuf, hosts: &str) -> Result<Self> {
        let root = Self { path };
        for folder in ["etc", "run", "tmp", "var", PROGRAMS] {
            std::fs::create_dir_all(root.path.join(folder))?;
        }
        for open in ["tmp", "run"] {
            let everyone = std::fs::Permissions::from_mode(0o1777);
            std::fs::set_permissions(root.path.join(open), everyone)?;
        }
        // Relative: what is made below it stays in this root.
        symlink("../run", root.path.join("var/run"))?;
        for name in SHARED {
            let there = Path::new("/").join(name);
            match std::fs::read_link(&there) {
                Ok(target) => symlink(target, root.path.join(name))?,
                Err(_) if there.is_dir() => root.bind(&there, &format!("/{name}"))?,
                Err(_) => {}
            }
        }
        for name in BOUND {
            let there = Path::new("/").join(name);
            if there.is_dir() {
                root.bind(&there, &format!("/{name}"))?;
            }
        }
        let write = |name: &str, text: &str| std::fs::write(root.path.join("etc").join(name), text);
        write("hosts", hosts)?;
        write(
            "resolv.conf",
            "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
        )?;
        write("nsswitch.conf", "hosts: files\n")?;
        write("passwd", "root:x:0:0::/:/bin/sh\n")?;
        write("group", "root:x:0:\n")?;
        Ok(root)
    }

    /// Makes a folder (or file) of the machine be at a path of the container.
    pub(super) fn bind(&self, there: &Path, here: &str) -> Result<()> {
        let place = self.path.join(here.trim_start_matches('/'));
        if there.is_dir() {
            std::fs::create_dir_all(&place)?;
        } else {
            place.parent().map(std::fs::create_dir_all).transpose()?;
            std::fs::write(&place, "")?;
        }
        let mut mount = Command::new("mount");
        mount.arg("--rbind").arg(there).arg(&place);
        output(&mut mount).with_context(|| format!("mount {here}"))?;
        Ok(())
    }

    /// Brings an image's program in; its path inside.
    pub(super) fn bring(&self, program: &Path) -> Result<String> {
        let name = program
            .file_name()
            .context("a program has a name")?
            .to_string_lossy();
        let inside = format!("/{PROGRAMS}/{name}");
        self.bind(program, &inside)?;
        Ok(inside)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // Lazily: a process of it may still be ending.
        let _ = Command::new("umount")
            .args(["--recursive", "--lazy"])
            .arg(&self.path)
            .output();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let prefix = self.path.to_string_lossy();
        let of_root = |line: &str| line.split(' ').nth(1).map(str::to_owned);
        let inside: Vec<String> = mounts
            .lines()
            .filter_map(of_root)
            .filter(|m| m.starts_with(&*prefix))
            .collect();
        for mount in inside.iter().rev() {
            let _ = Command::new("umount").arg("--lazy").arg(mount).output();
        }
    }
}
