//! The configuration of Kaniko's container, after what Docker gives a container by default.

use std::path::Path;

use serde_json::{Value, json};

/// Docker's default capabilities.
const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Character devices that a container may open: null, zero, full, random, urandom, tty, ptmx.
const DEVICES: [(u32, u32); 7] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)];

/// The runtime configuration of a container that runs the executor with `flags`, on the host's
/// network, with the Dockerfile, its context and the bundle's own files mounted.
pub fn config(
    name: &str,
    dockerfile: &Path,
    context: &Path,
    bundle: &Path,
    flags: &[String],
) -> Value {
    let mut args = vec!["/kaniko/executor".to_owned()];
    args.extend_from_slice(flags);
    let namespaces = ["pid", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.0.2",
        "hostname": "kcap-demo",
        "root": {"path": "rootfs"},
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "cwd": "/workspace",
            "args": args,
            "env": [
                "HOME=/root",
                "USER=root",
                "PATH=/usr/local/bin:/kaniko",
                "SSL_CERT_DIR=/kaniko/ssl/certs",
                "DOCKER_CONFIG=/kaniko/.docker/",
            ],
            "capabilities": {
                "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES,
            },
            "noNewPrivileges": false,
        },
        "mounts": mounts(dockerfile, context, bundle),
        "linux": {
            // At the root of every hierarchy, so that nothing is left behind above it.
            "cgroupsPath": format!("/{name}"),
            "namespaces": namespaces,
            "resources": {"devices": devices()},
            "maskedPaths": [
                "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
                "/sys/firmware",
            ],
            "readonlyPaths": [
                "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
            ],
        },
    })
}

fn mounts(dockerfile: &Path, context: &Path, bundle: &Path) -> Vec<Value> {
    let special = |place: &str, kind: &str, options: &[&str]| json!({"destination": place, "type": kind, "source": kind, "options": options});
    let bind = |place: &str, source: &Path| {
        json!({
            "destination": place, "type": "bind", "source": source.to_string_lossy(),
            "options": ["rbind", "rprivate", "ro"],
        })
    };
    vec![
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
        bind("/etc/resolv.conf", &bundle.join("resolv.conf")),
        bind("/etc/hosts", &bundle.join("hosts")),
        bind("/etc/hostname", &bundle.join("hostname")),
        bind("/Dockerfile", dockerfile),
        bind("/context", context),
    ]
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
