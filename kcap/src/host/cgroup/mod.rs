//! Control groups: which hierarchy defines the scope of a trace, and a group of kcap's own for the
//! command it traces. The group's id is what the kernel side compares, so it is made, and known,
//! before the command's first instruction.

mod group;
mod stale;

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use procfs::ProcessCGroup;
use procfs::process::{MountInfo, Process};

pub use group::{Cgroup, enter, pids};

/// Controllers whose version 1 hierarchy can define the scope, best first. Those that restrict
/// little come first; `cpuset` is left out, as a new group there takes no process before its CPUs
/// and memory nodes are set.
const CONTROLLERS: [&str; 13] = [
    "pids",
    "freezer",
    "memory",
    "devices",
    "cpuacct",
    "blkio",
    "net_cls",
    "perf_event",
    "net_prio",
    "hugetlb",
    "rdma",
    "misc",
    "cpu",
];

/// Id of a hierarchy's root group, on every kernel since 5.5.
const ROOT_ID: u64 = 1;

/// Which versions of control groups are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Version 1 hierarchies only.
    V1,
    /// The unified hierarchy only.
    V2,
    /// Both.
    Hybrid,
}

impl Kind {
    /// The word in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Hybrid => "hybrid",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How control groups are laid out, and the hierarchy that defines the scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Which versions are mounted.
    pub kind: Kind,
    /// Number of the hierarchy, 0 for the unified one.
    pub hierarchy: u32,
    /// The controller by which a version 1 hierarchy is known; `None` for the unified one.
    pub controller: Option<&'static str>,
    /// Where the hierarchy is mounted.
    pub mount: PathBuf,
    /// The folder of kcap's own group; the mount where that cannot be seen from here.
    pub own: PathBuf,
}

/// A group to trace that someone else made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its id.
    pub id: u64,
    /// Its folder.
    pub path: PathBuf,
}

impl Layout {
    /// Looks at this process's mounts and groups.
    ///
    /// # Errors
    /// Where no hierarchy that can define a scope is mounted, or `/proc` cannot be read.
    pub fn detect() -> Result<Self> {
        let myself = Process::myself().context("cannot read /proc/self: mount /proc")?;
        let mounts = myself
            .mountinfo()
            .context("cannot read /proc/self/mountinfo")?;
        let groups = myself.cgroups().context("cannot read /proc/self/cgroup")?;
        let memberships: Vec<Membership> = groups.0.into_iter().map(Membership::from).collect();
        Self::choose(&mounts.0, &memberships)
    }

    fn choose(mounts: &[MountInfo], memberships: &[Membership]) -> Result<Self> {
        // Of several mounts of a hierarchy, the one that shows most of it.
        let widest = |wanted: &dyn Fn(&MountInfo) -> bool| {
            mounts
                .iter()
                .filter(|m| wanted(m))
                .min_by_key(|m| m.root.len())
        };
        let unified = widest(&|m| m.fs_type == "cgroup2");
        let legacy = mounts.iter().any(|m| m.fs_type == "cgroup");
        let kind = match (unified, legacy) {
            (Some(_), true) => Kind::Hybrid,
            (Some(_), false) => Kind::V2,
            (None, true) => Kind::V1,
            (None, false) => {
                bail!("no cgroups are mounted: mount -t cgroup2 none /sys/fs/cgroup")
            }
        };
        let layout = |mount: &MountInfo, membership: Option<&Membership>, controller| {
            let point = PathBuf::from(unescape(&mount.mount_point));
            Self {
                kind,
                hierarchy: membership.map_or(0, |m| m.hierarchy),
                controller,
                own: match membership.and_then(|m| below(&mount.root, &m.path)) {
                    None | Some("") => point.clone(),
                    Some(below) => point.join(below),
                },
                mount: point,
            }
        };
        if let Some(mount) = unified {
            let membership = memberships.iter().find(|m| m.hierarchy == 0);
            return Ok(layout(mount, membership, None));
        }
        CONTROLLERS
            .iter()
            .find_map(|&controller| {
                let membership = memberships
                    .iter()
                    .find(|m| m.controllers.iter().any(|c| c == controller))?;
                if membership.controllers.iter().any(|c| c == "cpuset") {
                    return None;
                }
                let mount =
                    widest(&|m| m.fs_type == "cgroup" && m.super_options.contains_key(controller))?;
                Some(layout(mount, Some(membership), Some(controller)))
            })
            .context(
                "no cgroup hierarchy can define a scope: mount cgroup2, or the pids controller: \
                 mkdir -p /sys/fs/cgroup/pids && mount -t cgroup -o pids none /sys/fs/cgroup/pids",
            )
    }

    /// The path within the hierarchy of a process, by the lines of its `/proc/PID/cgroup`; `None` where
    /// it has no group there.
    pub fn place(&self, lines: &str) -> Option<PathBuf> {
        lines.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let hierarchy: u32 = parts.next()?.parse().ok()?;
            let path = parts.nth(1)?;
            (hierarchy == self.hierarchy).then(|| path.into())
        })
    }

    /// The folder of a group by its id, wherever it is in this hierarchy; `None` where it is no more, or
    /// the kernel does not say (`open_by_handle_at(2)` takes DAC_READ_SEARCH).
    pub fn folder(&self, id: u64) -> Option<PathBuf> {
        let mount = fs::File::open(&self.mount).ok()?;
        let group = by_handle(&mount, id).ok()?;
        let path = fs::read_link(format!("/proc/self/fd/{}", group.as_raw_fd())).ok()?;
        // One that was removed while it was looked at has another name.
        fs::metadata(&path)
            .is_ok_and(|meta| meta.ino() == id)
            .then_some(path)
    }

    /// A group by its id as `/proc/PID/cgroup` has it for this hierarchy, with the end of the line; `None`
    /// where there is none.
    pub fn line(&self, id: u64) -> Option<String> {
        let folder = self.folder(id)?;
        let path = folder.strip_prefix(&self.mount).ok()?.to_str()?;
        Some(self.line_of(&format!("/{path}")))
    }

    /// A path within this hierarchy as `/proc/PID/cgroup` has it, with the end of the line.
    pub fn line_of(&self, path: &str) -> String {
        let controller = self.controller.unwrap_or_default();
        format!("{}:{controller}:{path}\n", self.hierarchy)
    }

    /// Id of the group that the mount shows as its root: below a namespace of groups, that of the
    /// namespace.
    pub fn top(&self) -> u64 {
        fs::metadata(&self.mount).map_or(ROOT_ID, |meta| meta.ino())
    }

    /// Name of the controller's constant in the kernel's `enum cgroup_subsys_id`; `None` for the
    /// unified hierarchy.
    pub fn subsystem_constant(&self) -> Option<String> {
        // The only one that is called differently inside the kernel.
        let name = match self.controller? {
            "blkio" => "io",
            name => name,
        };
        Some(format!("{name}_cgrp_id"))
    }

    /// Finds a group by its folder, or by its path within the hierarchy as `/proc/<pid>/cgroup`
    /// gives it.
    ///
    /// # Errors
    /// Where there is no such group in this hierarchy, or where it is the root group: everything
    /// on the host would be in scope.
    pub fn resolve(&self, path: &Path) -> Result<Target> {
        let device = fs::metadata(&self.mount)
            .with_context(|| format!("cannot read {}", self.mount.display()))?
            .dev();
        let within = self.mount.join(path.strip_prefix("/").unwrap_or(path));
        let group = |path: &Path| -> io::Result<Option<Target>> {
            let path = path.canonicalize()?;
            let meta = fs::metadata(&path)?;
            let here = meta.is_dir() && meta.dev() == device;
            Ok(here.then(|| Target {
                id: meta.ino(),
                path,
            }))
        };
        let found = [path, &within]
            .into_iter()
            .find_map(|p| group(p).ok().flatten());
        let Some(target) = found else {
            bail!(
                "no cgroup {} in {}: take a path that /proc/PID/cgroup shows for hierarchy {}",
                path.display(),
                self.mount.display(),
                self.hierarchy
            );
        };
        if target.id == ROOT_ID {
            bail!(
                "{} is the root cgroup, which holds every process of the host: name the \
                 container's own cgroup",
                path.display()
            );
        }
        Ok(target)
    }
}

/// Opens a group by its id: cgroup file systems take it for a file handle of type `FILEID_KERNFS`
/// (fs/kernfs/mount.c, Linux 5.5 on).
fn by_handle(mount: &fs::File, id: u64) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        id: u64,
    }
    let handle = Handle {
        bytes: 8,
        kind: 0xfe,
        id,
    };
    // SAFETY: the descriptor is live, and the handle is one with as many bytes as it says.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            &raw const handle,
            libc::O_RDONLY | libc::O_CLOEXEC | libc::O_DIRECTORY,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A line of `/proc/self/cgroup`.
struct Membership {
    hierarchy: u32,
    controllers: Vec<String>,
    path: String,
}

impl From<ProcessCGroup> for Membership {
    fn from(group: ProcessCGroup) -> Self {
        Self {
            hierarchy: group.hierarchy,
            controllers: group.controllers,
            path: group.pathname,
        }
    }
}

/// The part of a group's path that lies below a mount's root; `None` where it lies elsewhere, as
/// behind a cgroup namespace.
fn below<'a>(root: &str, path: &'a str) -> Option<&'a str> {
    if path.split('/').any(|part| part == "..") {
        return None;
    }
    let rest = path.strip_prefix(root.trim_end_matches('/'))?;
    if rest.is_empty() {
        Some("")
    } else {
        rest.strip_prefix('/')
    }
}

/// Undoes mountinfo's octal escapes of blanks and backslashes.
fn unescape(path: &Path) -> String {
    let text = path.to_string_lossy();
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(text.into_owned(), |text, (code, plain)| {
        text.replace(code, plain)
    })
}

#[cfg(test)]
mod tests;
