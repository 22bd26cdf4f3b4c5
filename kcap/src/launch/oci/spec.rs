//! `config.json` of the bundle: what docker gives a container of the same capabilities.
//!
//! Three things differ from docker's, and cannot be helped without a daemon:
//! - **The network namespace is the host's**, as with `--network host`, unless none is asked for. In a namespace of its own
//!   the executor could pull no base image without a bridge and address translation, which kcap
//!   would have to set up on the host. So docker's `net.ipv4.ip_unprivileged_port_start=0` and
//!   `ping_group_range`, which it sets in the container's own namespace, do not hold: a build that
//!   binds a port below the host's limit asks for NET_BIND_SERVICE here, and needs none under
//!   docker's bridge. The report's `host.sysctl` has the values that held.
//! - The root file system is a plain folder, not an overlay: overlayfs' own checks of SYS_ADMIN do
//!   not occur.
//! - No AppArmor profile or SELinux label is set.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::seccomp;
use crate::{launch::Seccomp, report::Cap};

/// A file or folder of the host that the container sees.
#[derive(Clone, Debug)]
pub struct Bind {
    /// Where on the host, absolute.
    pub source: String,
    /// Where in the container.
    pub destination: &'static str,
    /// The container cannot write to it.
    pub read_only: bool,
}

/// What the container sees of networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// All that the host has.
    Host,
    /// A loopback device alone, which the runtime takes up.
    None,
}

/// What differs from container to container.
#[derive(Debug)]
pub struct Container<'a> {
    /// The program and its arguments.
    pub args: &'a [String],
    /// Its environment, `NAME=VALUE`.
    pub env: &'a [String],
    /// Its working directory.
    pub cwd: &'a str,
    /// Bounding, permitted and effective set, as a mask.
    pub capabilities: u64,
    /// The profile of system calls.
    pub seccomp: Seccomp,
    /// The name of the host, as the container gives it.
    pub hostname: &'a str,
    /// The control group, from the root of each hierarchy.
    pub cgroup: &'a str,
    /// Cgroups have a namespace of their own, as docker gives where only version 2 is mounted.
    pub cgroup_namespace: bool,
    /// Its network.
    pub network: Network,
    /// What the container sees of the host.
    pub binds: &'a [Bind],
}

/// The whole of `config.json`.
///
/// # Errors
/// A capability without a name, which runtimes cannot give; those of the seccomp profile.
pub fn config(container: &Container<'_>) -> Result<Value> {
    let capabilities = names(container.capabilities)?;
    let mut namespaces = vec!["mount", "uts", "pid", "ipc"];
    if container.cgroup_namespace {
        namespaces.push("cgroup");
    }
    if container.network == Network::None {
        namespaces.push("network");
    }
    let namespaces: Vec<Value> = namespaces.iter().map(|ns| json!({"type": ns})).collect();
    let mut mounts = pseudo_filesystems();
    mounts.extend(container.binds.iter().map(|bind| {
        let mut options = vec!["rbind", "rprivate"];
        if bind.read_only {
            options.push("ro");
        }
        json!({
            "destination": bind.destination, "type": "bind",
            "source": bind.source, "options": options,
        })
    }));
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0, "additionalGids": [0]},
            "args": container.args,
            "env": container.env,
            "cwd": container.cwd,
            // Since 20.10.14 docker gives no inheritable, and never an ambient set.
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
            "noNewPrivileges": false,
            "oomScoreAdj": 0,
        },
        "root": {"path": "rootfs", "readonly": false},
        "hostname": container.hostname,
        "mounts": mounts,
        "linux": {
            "cgroupsPath": container.cgroup,
            "namespaces": namespaces,
            "resources": {"devices": devices()},
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
                "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
                "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
            ],
            "readonlyPaths": [
                "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
            ],
        },
    });
    if container.network == Network::None {
        // As docker, in namespaces of its own.
        config["linux"]["sysctl"] = json!({
            "net.ipv4.ip_unprivileged_port_start": "0",
            "net.ipv4.ping_group_range": "0 2147483647",
        });
    }
    if container.seccomp == Seccomp::Docker {
        config["linux"]["seccomp"] = seccomp::docker(container.capabilities)?;
    }
    Ok(config)
}

/// Names as runtimes take them.
fn names(mask: u64) -> Result<Vec<String>> {
    Cap::of_mask(mask)
        .map(|cap| {
            let name = cap.name().with_context(|| {
                format!("capability {cap} has no name that a runtime takes: leave it out")
            })?;
            Ok(format!("CAP_{name}"))
        })
        .collect()
}

fn pseudo_filesystems() -> Vec<Value> {
    let mount = |kind: &str, source: &str, destination: &str, options: &str| {
        json!({
            "destination": destination, "type": kind, "source": source,
            "options": options.split(' ').collect::<Vec<_>>(),
        })
    };
    vec![
        mount("proc", "proc", "/proc", "nosuid noexec nodev"),
        mount(
            "tmpfs",
            "tmpfs",
            "/dev",
            "nosuid strictatime mode=755 size=65536k",
        ),
        mount(
            "devpts",
            "devpts",
            "/dev/pts",
            "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5",
        ),
        mount("sysfs", "sysfs", "/sys", "nosuid noexec nodev ro"),
        mount(
            "cgroup",
            "cgroup",
            "/sys/fs/cgroup",
            "ro nosuid noexec nodev",
        ),
        mount("mqueue", "mqueue", "/dev/mqueue", "nosuid noexec nodev"),
        mount(
            "tmpfs",
            "shm",
            "/dev/shm",
            "nosuid noexec nodev mode=1777 size=67108864",
        ),
    ]
}

/// Docker's rules: any device node can be made, few can be used. The nodes themselves (null, zero,
/// full, random, urandom, tty) every runtime makes.
fn devices() -> Vec<Value> {
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    for kind in ["c", "b"] {
        rules.push(json!({"allow": true, "type": kind, "access": "m"}));
    }
    // null, zero, full, random, urandom, tty, console, ptmx.
    for (major, minor) in [
        (1, 3),
        (1, 5),
        (1, 7),
        (1, 8),
        (1, 9),
        (5, 0),
        (5, 1),
        (5, 2),
    ] {
        rules.push(json!({
            "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm",
        }));
    }
    // Terminals of its own /dev/pts.
    rules.push(json!({"allow": true, "type": "c", "major": 136, "access": "rwm"}));
    rules
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{LinuxNamespaceType, Spec};

    use super::*;

    fn sample(capabilities: u64, seccomp: Seccomp) -> Value {
        networked(capabilities, seccomp, Network::Host)
    }

    fn networked(capabilities: u64, seccomp: Seccomp, network: Network) -> Value {
        let args = ["/kaniko/executor".to_owned(), "--no-push".to_owned()];
        let env = ["PATH=/kaniko".to_owned()];
        let bind = Bind {
            source: "/home/me/a b".into(),
            destination: "/kaniko-context",
            read_only: true,
        };
        config(&Container {
            args: &args,
            env: &env,
            cwd: "/workspace",
            capabilities,
            seccomp,
            hostname: "host",
            cgroup: "/kcap-oci-1-0",
            cgroup_namespace: false,
            network,
            binds: &[bind],
        })
        .unwrap()
    }

    #[test]
    fn it_reads_as_a_runtime_specification() {
        let text = sample(Cap::CHOWN.bit() | Cap::SETFCAP.bit(), Seccomp::Docker).to_string();
        let spec: Spec = serde_json::from_str(&text).unwrap();
        let process = spec.process().as_ref().unwrap();
        let sets = process.capabilities().as_ref().unwrap();
        let held = sets.bounding().as_ref().unwrap();
        assert_eq!(held.len(), 2);
        assert_eq!(sets.effective().as_ref(), Some(held));
        assert_eq!(sets.permitted().as_ref(), Some(held));
        assert!(sets.inheritable().is_none() && sets.ambient().is_none());
        assert_eq!(process.no_new_privileges(), Some(false));
        let linux = spec.linux().as_ref().unwrap();
        let kinds: Vec<_> = linux
            .namespaces()
            .iter()
            .flatten()
            .map(|ns| ns.typ())
            .collect();
        assert!(!kinds.contains(&LinuxNamespaceType::Network));
        assert!(!kinds.contains(&LinuxNamespaceType::User));
        assert!(kinds.contains(&LinuxNamespaceType::Pid));
        assert!(linux.seccomp().is_some());
    }

    #[test]
    fn what_the_host_lends_is_read_only_where_told() {
        let config = sample(0, Seccomp::None);
        let context = config["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .find(|m| m["destination"] == "/kaniko-context")
            .unwrap();
        assert_eq!(context["source"], "/home/me/a b");
        assert_eq!(context["options"], json!(["rbind", "rprivate", "ro"]));
        assert!(config["linux"].get("seccomp").is_none());
        assert_eq!(config["process"]["capabilities"]["bounding"], json!([]));
    }

    #[test]
    fn a_network_of_its_own_has_dockers_settings() {
        let config = networked(0, Seccomp::None, Network::None).to_string();
        let spec: Spec = serde_json::from_str(&config).unwrap();
        let linux = spec.linux().as_ref().unwrap();
        let network = |ns: &oci_spec::runtime::LinuxNamespace| {
            ns.typ() == LinuxNamespaceType::Network && ns.path().is_none()
        };
        assert!(linux.namespaces().iter().flatten().any(network));
        let sysctl = linux.sysctl().as_ref().unwrap();
        assert_eq!(sysctl["net.ipv4.ip_unprivileged_port_start"], "0");
        let host = sample(0, Seccomp::None);
        assert!(host["linux"].get("sysctl").is_none());
    }

    #[test]
    fn capabilities_without_a_name_are_refused() {
        let error = names(1 << 62).unwrap_err().to_string();
        assert!(error.contains("62"), "{error}");
        assert_eq!(names(Cap::CHOWN.bit()).unwrap(), ["CAP_CHOWN"]);
    }
}
