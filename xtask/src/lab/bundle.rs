//! The configuration of Kaniko's container, after what Docker gives a container by default.

use std::path::Path;

use serde_json::{Value, json};

use super::capabilities::Set;

/// The container's name for itself.
pub const HOSTNAME: &str = "kaniko";

/// Character devices that a container may open: null, zero, full, random, urandom, tty, ptmx.
const DEVICES: [(u32, u32); 7] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)];

/// What a container of the executor's is made from.
#[derive(Debug)]
pub struct Bundle<'a> {
    /// The container's name; its control group is of the same name.
    pub name: &'a str,
    /// The bundle's own folder, see [`super::kaniko::lay_out`].
    pub folder: &'a Path,
    /// The Dockerfile, mounted as `/Dockerfile`.
    pub dockerfile: &'a Path,
    /// The build context, mounted as `/context`.
    pub context: &'a Path,
    /// A folder to write into, mounted as `/out`.
    pub output: Option<&'a Path>,
    /// The executor's flags.
    pub flags: &'a [String],
    /// Environment variables beside those of the executor's image, as `NAME=value`.
    pub variables: &'a [String],
    /// What it may do.
    pub capabilities: Set,
    /// A network namespace in place of the host's.
    pub network: Option<&'a Path>,
}

/// The environment that the executor's image sets.
const VARIABLES: [&str; 5] = [
    "HOME=/root",
    "USER=root",
    "PATH=/usr/local/bin:/kaniko",
    "SSL_CERT_DIR=/kaniko/ssl/certs",
    "DOCKER_CONFIG=/kaniko/.docker/",
];

impl Bundle<'_> {
    /// The runtime's configuration.
    pub fn config(&self) -> Value {
        let mut args = vec!["/kaniko/executor"];
        args.extend(self.flags.iter().map(String::as_str));
        let mut env = VARIABLES.to_vec();
        env.extend(self.variables.iter().map(String::as_str));
        let capabilities: Vec<String> = self
            .capabilities
            .names()
            .iter()
            .map(|name| format!("CAP_{name}"))
            .collect();
        let mut namespaces: Vec<Value> = ["pid", "ipc", "uts", "mount"]
            .map(|kind| json!({ "type": kind }))
            .into();
        if let Some(path) = self.network {
            namespaces.push(json!({"type": "network", "path": path.to_string_lossy()}));
        }
        json!({
            "ociVersion": "1.0.2",
            "hostname": HOSTNAME,
            "root": {"path": "rootfs"},
            "process": {
                "terminal": false,
                "user": {"uid": 0, "gid": 0},
                "cwd": "/workspace",
                "args": args,
                "env": env,
                "capabilities": {
                    "bounding": capabilities, "effective": capabilities,
                    "permitted": capabilities,
                },
                "noNewPrivileges": false,
            },
            "mounts": self.mounts(),
            "linux": {
                // At the root of every hierarchy, so that nothing is left behind above it.
                "cgroupsPath": format!("/{}", self.name),
                "namespaces": namespaces,
                "resources": {"devices": devices()},
                "maskedPaths": [
                    "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys",
                    "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
                    "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
                ],
                "readonlyPaths": [
                    "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
                ],
            },
        })
    }

    fn mounts(&self) -> Vec<Value> {
        let special = |place: &str, kind: &str, options: &[&str]| json!({"destination": place, "type": kind, "source": kind, "options": options});
        let bind = |place: &str, source: &Path, mode: &str| {
            json!({
                "destination": place, "type": "bind", "source": source.to_string_lossy(),
                "options": ["rbind", "rprivate", mode],
            })
        };
        let mut mounts = vec![
            special("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            special(
                "/dev",
                "tmpfs",
                &["nosuid", "strictatime", "mode=755", "size=65536k"],
            ),
            special(
                "/dev/pts",
                "devpts",
                &[
                    "nosuid",
                    "noexec",
                    "newinstance",
                    "ptmxmode=0666",
                    "mode=0620",
                    "gid=5",
                ],
            ),
            special(
                "/dev/shm",
                "tmpfs",
                &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
            ),
            special("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            special("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            special(
                "/sys/fs/cgroup",
                "cgroup",
                &["nosuid", "noexec", "nodev", "ro"],
            ),
            bind("/etc/resolv.conf", &self.folder.join("resolv.conf"), "ro"),
            bind("/etc/hosts", &self.folder.join("hosts"), "ro"),
            bind("/etc/hostname", &self.folder.join("hostname"), "ro"),
            bind("/Dockerfile", self.dockerfile, "ro"),
            bind("/context", self.context, "ro"),
        ];
        mounts.extend(self.output.map(|folder| bind("/out", folder, "rw")));
        mounts
    }
}

fn devices() -> Vec<Value> {
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    for (major, minor) in DEVICES {
        rules.push(json!({
            "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm",
        }));
    }
    rules.push(json!({"allow": true, "type": "c", "major": 136, "access": "rwm"}));
    // Making any device is allowed, opening it is not.
    rules.extend(["c", "b"].map(|kind| json!({"allow": true, "type": kind, "access": "m"})));
    rules
}
