//! Docker's default seccomp profile, with what it opens by capability resolved.
//!
//! `seccomp-docker.json` is `profiles/seccomp/default.json` of Docker 26.1.5, as Debian distributes
//! it (package golang-github-docker-docker-dev 26.1.5+dfsg1; Apache-2.0), unchanged. A build with
//! fewer capabilities meets EPERM or ENOSYS from it before the kernel asks for any, as it would
//! under docker.

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::report::Cap;

const PROFILE: &str = include_str!("seccomp-docker.json");

/// The profile as Docker writes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: u32,
    arch_map: Vec<Arch>,
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arch {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<Value>>,
    #[serde(default)]
    includes: Condition,
    #[serde(default)]
    excludes: Condition,
}

/// Of includes every part must hold, of excludes none may. Their `minKernel` is not read: the only
/// one is 4.8, and kcap needs more.
#[derive(Default, Deserialize)]
struct Condition {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
}

impl Rule {
    fn applies(&self, capabilities: u64, arch: &str) -> bool {
        let held = |name: &String| {
            name.parse::<Cap>()
                .is_ok_and(|cap| capabilities & cap.bit() != 0)
        };
        let Self {
            includes, excludes, ..
        } = self;
        includes.caps.iter().all(held)
            && !excludes.caps.iter().any(held)
            && (includes.arches.is_empty() || includes.arches.iter().any(|a| a == arch))
            && !excludes.arches.iter().any(|a| a == arch)
    }
}

/// `linux.seccomp` of a container that holds these capabilities.
///
/// # Errors
/// Where the profile that is built in cannot be read, or does not know this processor.
pub fn docker(capabilities: u64) -> Result<Value> {
    let profile: Profile =
        serde_json::from_str(PROFILE).context("the built-in seccomp profile is damaged")?;
    let arch = crate::image::arch();
    let native = format!("SCMP_ARCH_{}", std::env::consts::ARCH.to_uppercase());
    let architectures: Vec<&String> = profile
        .arch_map
        .iter()
        .filter(|a| a.architecture == native)
        .flat_map(|a| {
            [&a.architecture]
                .into_iter()
                .chain(a.sub_architectures.iter().flatten())
        })
        .collect();
    anyhow::ensure!(
        !architectures.is_empty(),
        "docker's seccomp profile does not know {native}: use --seccomp none"
    );
    let syscalls: Vec<Value> = profile
        .syscalls
        .iter()
        .filter(|rule| rule.applies(capabilities, arch))
        .map(|rule| {
            let mut call = json!({"names": rule.names, "action": rule.action});
            if let Some(errno) = rule.errno_ret {
                call["errnoRet"] = errno.into();
            }
            if let Some(args) = &rule.args {
                call["args"] = args.clone().into();
            }
            call
        })
        .collect();
    Ok(json!({
        "defaultAction": profile.default_action,
        "defaultErrnoRet": profile.default_errno_ret,
        "architectures": architectures,
        "syscalls": syscalls,
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    const ALL: u64 = (1 << 41) - 1;

    /// Calls that are let through whatever their arguments, and what others are answered.
    fn resolved(capabilities: u64) -> (BTreeSet<String>, BTreeMap<String, u64>) {
        let profile = docker(capabilities).unwrap();
        let mut open = BTreeSet::new();
        let mut refused = BTreeMap::new();
        for rule in profile["syscalls"].as_array().unwrap() {
            for name in rule["names"].as_array().unwrap() {
                let name = name.as_str().unwrap().to_owned();
                match rule["action"].as_str().unwrap() {
                    "SCMP_ACT_ALLOW" if rule.get("args").is_none() => {
                        open.insert(name);
                    }
                    "SCMP_ACT_ERRNO" => {
                        refused.insert(name, rule["errnoRet"].as_u64().unwrap());
                    }
                    _ => {}
                }
            }
        }
        (open, refused)
    }

    /// What each capability opens. The groups were read from the profiles that a dockerd generates
    /// for `--cap-drop ALL --cap-add NAME`; those of BPF and PERFMON, which that dockerd did not
    /// know, and single newer calls are the data's.
    const GROUPS: [(Cap, &[&str]); 14] = [
        (Cap::DAC_READ_SEARCH, &["open_by_handle_at"]),
        (
            Cap::SYS_ADMIN,
            &[
                "bpf",
                "clone",
                "clone3",
                "fanotify_init",
                "fsconfig",
                "fsmount",
                "fsopen",
                "fspick",
                "lookup_dcookie",
                "mount",
                "mount_setattr",
                "move_mount",
                "open_tree",
                "perf_event_open",
                "quotactl",
                "quotactl_fd",
                "setdomainname",
                "sethostname",
                "setns",
                "syslog",
                "umount",
                "umount2",
                "unshare",
            ],
        ),
        (Cap::SYS_BOOT, &["reboot"]),
        (Cap::SYS_CHROOT, &["chroot"]),
        (
            Cap::SYS_MODULE,
            &["delete_module", "init_module", "finit_module"],
        ),
        (Cap::SYS_PACCT, &["acct"]),
        // process_vm_* and ptrace are open to all on kernels that kcap runs on.
        (Cap::SYS_PTRACE, &["kcmp", "pidfd_getfd", "process_madvise"]),
        (Cap::SYS_RAWIO, &["iopl", "ioperm"]),
        (
            Cap::SYS_TIME,
            &["settimeofday", "stime", "clock_settime", "clock_settime64"],
        ),
        (Cap::SYS_TTY_CONFIG, &["vhangup"]),
        (
            Cap::SYS_NICE,
            &[
                "get_mempolicy",
                "mbind",
                "set_mempolicy",
                "set_mempolicy_home_node",
            ],
        ),
        (Cap::SYSLOG, &["syslog"]),
        (Cap::BPF, &["bpf"]),
        (Cap::PERFMON, &["perf_event_open"]),
    ];

    #[test]
    fn each_capability_opens_its_calls_and_no_others() {
        let (base, _) = resolved(0);
        for cap in Cap::known() {
            let (open, _) = resolved(cap.bit());
            assert!(open.is_superset(&base), "{cap} closes something");
            let added: BTreeSet<&str> = open.difference(&base).map(String::as_str).collect();
            let expected: BTreeSet<&str> = GROUPS
                .iter()
                .filter(|(c, _)| *c == cap)
                .flat_map(|(_, names)| names.iter().copied())
                .collect();
            assert_eq!(added, expected, "{cap}");
        }
    }

    #[test]
    fn what_is_not_named_is_refused_and_clone3_does_not_exist() {
        let profile = docker(0).unwrap();
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
        assert_eq!(profile["defaultErrnoRet"], libc::EPERM);
        let (open, refused) = resolved(0);
        assert_eq!(
            refused,
            BTreeMap::from([("clone3".into(), libc::ENOSYS as u64)])
        );
        for call in [
            "chown", "setuid", "mknod", "capset", "ptrace", "execve", "setxattr",
        ] {
            assert!(open.contains(call), "{call}");
        }
        for call in [
            "mount",
            "clone",
            "keyctl",
            "add_key",
            "kexec_load",
            "userfaultfd",
        ] {
            assert!(!open.contains(call), "{call}");
        }
        // Even with all, what no capability opens stays shut.
        let (open, refused) = resolved(ALL);
        assert!(refused.is_empty(), "{refused:?}");
        assert!(!open.contains("keyctl") && !open.contains("kexec_load"));
    }

    #[test]
    fn clone_without_sys_admin_makes_no_namespaces() {
        let rules = |mask| -> Vec<Value> {
            docker(mask).unwrap()["syscalls"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|rule| rule["names"] == json!(["clone"]))
                .cloned()
                .collect()
        };
        // Every CLONE_NEW* but CLONE_NEWTIME, none of which may be set.
        let expected = json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args":
            [{"index": 0, "value": 0x7e02_0000_u32, "op": "SCMP_CMP_MASKED_EQ"}]});
        assert_eq!(rules(0), [expected]);
        assert_eq!(rules(Cap::SYS_ADMIN.bit()), [] as [Value; 0]);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn architectures_are_those_that_the_kernel_runs() {
        let profile = docker(0).unwrap();
        let expected = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
        assert_eq!(profile["architectures"], expected);
        let (open, _) = resolved(0);
        assert!(open.contains("arch_prctl") && open.contains("modify_ldt"));
        assert!(!open.contains("riscv_flush_icache") && !open.contains("breakpoint"));
    }
}
