//! What kind of host this is, as far as it bears on what a build is asked for or on what can be
//! traced. Every fact is optional: kcap runs without privileges, too, and then says what it could
//! not see.

use std::collections::BTreeMap;
use std::env;
use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

use procfs::process::Process;

use super::detached::Detached;
use super::preemption::Preemption;

/// Settings that change what is asked or refused; recorded where the kernel has them. Those under
/// `net` are of kcap's own network namespace.
pub const SYSCTLS: [&str; 13] = [
    "fs.protected_fifos",
    "fs.protected_hardlinks",
    "fs.protected_regular",
    "fs.protected_symlinks",
    "kernel.dmesg_restrict",
    "kernel.kptr_restrict",
    "kernel.perf_event_paranoid",
    "kernel.unprivileged_bpf_disabled",
    "kernel.yama.ptrace_scope",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "vm.mmap_min_addr",
    "vm.overcommit_memory",
];

/// Programs that build or run containers.
pub const ENGINES: [&str; 5] = ["docker", "podman", "buildah", "runc", "crun"];

/// Inode number of the initial user namespace, the same on every kernel.
const INITIAL_USER_NS: u64 = 0xEFFF_FFFD;

/// Whether `/proc/kallsyms` shows addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kallsyms {
    /// It does.
    Readable,
    /// All are zero: `CAP_SYSLOG` or `kernel.kptr_restrict` hides them.
    Hidden,
    /// The file cannot be read; why.
    Unreadable(String),
}

/// CPUs that could ever come online.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpus {
    /// How many: as many as a per-CPU map has values.
    pub count: u32,
    /// One more than the highest number: more than `count` where there are gaps.
    pub ids: u32,
}

impl Cpus {
    /// Reads a list such as `0-3,8`.
    fn parse(text: &str) -> Option<Self> {
        let mut cpus = Self { count: 0, ids: 0 };
        for range in text.trim().split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
            cpus.count = cpus
                .count
                .checked_add(last.checked_sub(first)?.checked_add(1)?)?;
            cpus.ids = cpus.ids.max(last.checked_add(1)?);
        }
        Some(cpus)
    }
}

/// The host.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub arch: String,
    /// Preemption mode.
    pub preemption: Preemption,
    /// Active security modules, in order; `None` where not shown.
    pub lsm: Option<Vec<String>>,
    /// `none`, `integrity` or `confidentiality`; `None` where not shown, as without that module.
    pub lockdown: Option<String>,
    /// Those of [`SYSCTLS`] that could be read.
    pub sysctl: BTreeMap<String, String>,
    /// `kernel.pid_max`.
    pub pid_max: Option<u32>,
    /// CPUs that could ever come online.
    pub cpus: Option<Cpus>,
    /// Effective capabilities of this process, as a mask.
    pub effective: Option<u64>,
    /// This process is in the initial user namespace, where capabilities count for BPF.
    pub initial_user_ns: Option<bool>,
    /// BPF programs are compiled; `None` where not shown.
    pub jit: Option<bool>,
    /// Kernel addresses.
    pub kallsyms: Kallsyms,
    /// Seccomp mode of this process: `none`, `strict`, `filter` or `unknown`.
    pub seccomp: &'static str,
    /// Those of [`ENGINES`] found in PATH, in that order.
    pub engines: Vec<(&'static str, PathBuf)>,
    /// A Docker daemon's socket; that something answers there is not known.
    pub docker_socket: Option<PathBuf>,
}

impl Facts {
    /// Reads them all. Never fails: what cannot be read is absent.
    pub fn read() -> Self {
        let uname = Uname::read();
        let status = Process::myself().and_then(|p| p.status()).ok();
        Self {
            preemption: Preemption::detect(&uname.release, &uname.version),
            kernel: uname.release,
            arch: uname.machine,
            lsm: securityfs(c"lsm").map(|text| words(&text)),
            lockdown: securityfs(c"lockdown").and_then(|text| bracketed(&text)),
            sysctl: SYSCTLS
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), sysctl(name)?)))
                .collect(),
            pid_max: sysctl("kernel.pid_max").and_then(|v| v.parse().ok()),
            cpus: fs::read_to_string("/sys/devices/system/cpu/possible")
                .ok()
                .and_then(|text| Cpus::parse(&text)),
            effective: status.as_ref().map(|s| s.capeff),
            initial_user_ns: fs::metadata("/proc/self/ns/user")
                .ok()
                .map(|m| m.ino() == INITIAL_USER_NS),
            jit: sysctl("net.core.bpf_jit_enable").map(|v| v != "0"),
            kallsyms: kallsyms(),
            seccomp: match status.and_then(|s| s.seccomp) {
                Some(0) => "none",
                Some(1) => "strict",
                Some(2) => "filter",
                _ => "unknown",
            },
            engines: engines(),
            docker_socket: docker_socket(),
        }
    }

    /// Whether this process holds the capability of that number.
    pub fn holds(&self, capability: u32) -> bool {
        self.effective
            .is_some_and(|mask| mask >> capability & 1 == 1)
    }

    /// `vm.mmap_min_addr` in bytes, where it could be read.
    pub fn mmap_min_addr(&self) -> Option<u64> {
        self.sysctl.get("vm.mmap_min_addr")?.parse().ok()
    }

    /// The inode number of the initial user namespace, a constant of the kernel's.
    pub const fn initial_user_ns_inode() -> u64 {
        INITIAL_USER_NS
    }

    /// Inode number of the mount namespace that the host's own programs run in: that of its first
    /// process, or where that one cannot be looked at, kcap's own; 0 where neither can be read.
    pub fn host_mount_ns_inode() -> u32 {
        fs::metadata("/proc/1/ns/mnt")
            .or_else(|_| fs::metadata("/proc/self/ns/mnt"))
            .map_or(0, |ns| ns.ino() as u32)
    }
}

/// A setting by its dotted name, trimmed, with single blanks.
pub fn sysctl(name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
    Some(text.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
}

struct Uname {
    release: String,
    version: String,
    machine: String,
}

impl Uname {
    fn read() -> Self {
        // SAFETY: utsname is arrays of characters, for which all zero is valid.
        let mut raw: libc::utsname = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel fills the struct that the pointer is to; on failure it stays empty.
        unsafe { libc::uname(&mut raw) };
        let text = |field: &[libc::c_char]| {
            let bytes: Vec<u8> = field
                .iter()
                .map(|&c| c as u8)
                .take_while(|&b| b != 0)
                .collect();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Self {
            release: text(&raw.release),
            version: text(&raw.version),
            machine: text(&raw.machine),
        }
    }
}

fn securityfs(file: &CStr) -> Option<String> {
    fs::read_to_string(format!("/sys/kernel/security/{}", file.to_str().ok()?))
        .or_else(|_| Detached::open(c"securityfs")?.read(file))
        .ok()
}

fn words(text: &str) -> Vec<String> {
    text.trim()
        .split(',')
        .filter(|w| !w.is_empty())
        .map(String::from)
        .collect()
}

/// The selected word, as in `none [integrity] confidentiality`.
fn bracketed(text: &str) -> Option<String> {
    text.split_ascii_whitespace()
        .find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))
        .map(String::from)
}

fn kallsyms() -> Kallsyms {
    /// Per-CPU symbols, of which the first is at zero anyhow, come first on some kernels.
    const LOOK: u64 = 64 * 1024;
    let mut text = Vec::new();
    let read = File::open("/proc/kallsyms").and_then(|f| f.take(LOOK).read_to_end(&mut text));
    match read {
        Err(e) => Kallsyms::Unreadable(plain(&e)),
        Ok(_)
            if text
                .split(|&b| b == b'\n')
                .any(|l| matches!(l.first(), Some(b'1'..=b'9' | b'a'..=b'f'))) =>
        {
            Kallsyms::Readable
        }
        Ok(0) => Kallsyms::Unreadable("it is empty".into()),
        Ok(_) => Kallsyms::Hidden,
    }
}

/// An operating system error without its number.
fn plain(e: &io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn engines() -> Vec<(&'static str, PathBuf)> {
    let path = env::var_os("PATH").unwrap_or_default();
    ENGINES
        .iter()
        .filter_map(|name| {
            env::split_paths(&path)
                .filter(|dir| dir.is_absolute())
                .map(|dir| dir.join(name))
                .find(|file| {
                    fs::metadata(file)
                        .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
                })
                .map(|file| (*name, file))
        })
        .collect()
}

/// Where the docker command would look: `DOCKER_HOST`, the system's socket, the user's.
fn docker_socket() -> Option<PathBuf> {
    let named = env::var("DOCKER_HOST").ok();
    let candidates: Vec<PathBuf> = match named {
        Some(host) => vec![host.strip_prefix("unix://")?.into()],
        None => [Some("/var/run/docker.sock".into())]
            .into_iter()
            .chain([env::var_os("XDG_RUNTIME_DIR").map(|d| PathBuf::from(d).join("docker.sock"))])
            .flatten()
            .collect(),
    };
    candidates
        .into_iter()
        .find(|path| fs::metadata(path).is_ok_and(|m| m.file_type().is_socket()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus() {
        for (text, count, ids) in [
            ("0\n", 1, 1),
            ("0-1\n", 2, 2),
            ("0-3,8-11", 8, 12),
            ("0,5", 2, 6),
        ] {
            assert_eq!(Cpus::parse(text), Some(Cpus { count, ids }), "{text}");
        }
        for text in ["", "x", "0-", "3-1", "0-4294967295", "4294967295"] {
            assert_eq!(Cpus::parse(text), None, "{text}");
        }
    }

    #[test]
    fn selected_and_listed_words() {
        assert_eq!(
            bracketed("none [integrity] confidentiality\n").as_deref(),
            Some("integrity")
        );
        assert_eq!(bracketed("none\n"), None);
        assert_eq!(words("lockdown,capability\n"), ["lockdown", "capability"]);
        assert!(words("\n").is_empty());
    }

    #[test]
    fn this_host_has_a_kernel() {
        let facts = Facts::read();
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        assert_eq!(facts.kernel, release.trim());
        assert_eq!(facts.arch, env::consts::ARCH);
        assert!(facts.pid_max.unwrap() > 300);
        // SAFETY: sysconf(3) takes a number and touches no memory of ours.
        let configured = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) };
        assert!(i64::from(facts.cpus.unwrap().count) >= configured);
        assert!(facts.sysctl.contains_key("vm.overcommit_memory"));
        assert!(["none", "filter", "strict"].contains(&facts.seccomp));
        assert_eq!(
            facts.mmap_min_addr().map(|v| v.to_string()),
            sysctl("vm.mmap_min_addr")
        );
    }

    #[test]
    fn errors_are_plain() {
        assert_eq!(
            plain(&io::Error::from_raw_os_error(libc::EACCES)),
            "Permission denied"
        );
    }
}
