//! What is found on a host, to what it means for tracing: one line each, with what to do.

use super::{BTF, CHECK_HOOKS, Check, Found, HookProbe, State};
use crate::host::facts::{Facts, Kallsyms};

fn ok(name: &str, detail: impl Into<String>) -> Check {
    Check {
        name: name.into(),
        state: State::Ok,
        detail: detail.into(),
        remedy: None,
    }
}

fn degraded(name: &str, detail: impl Into<String>, remedy: impl Into<String>) -> Check {
    let remedy = Some(remedy.into());
    Check {
        name: name.into(),
        state: State::Degraded,
        detail: detail.into(),
        remedy,
    }
}

fn missing(name: &str, detail: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check {
        state: State::Missing,
        ..degraded(name, detail, remedy)
    }
}

/// What the findings mean, in the order in which they are shown.
pub fn diagnose(found: &Found) -> Vec<Check> {
    let facts = &found.facts;
    let mut checks = vec![
        ok("kernel", format!("{} {}", facts.kernel, facts.arch)),
        privileges(facts),
        match &found.btf {
            Ok(()) => ok("btf", BTF),
            Err(e) => missing(
                "btf",
                format!("cannot read {BTF}: {e}"),
                "boot a kernel built with CONFIG_DEBUG_INFO_BTF, with /sys mounted",
            ),
        },
    ];
    checks.extend(hooks(&found.hooks));
    checks.push(preemption(found));
    checks.push(cgroup(found));
    checks.extend([
        lockdown(facts),
        lsm(facts),
        kallsyms(facts),
        jit(facts),
        seccomp(facts),
    ]);
    checks.push(engines(facts));
    checks
}

fn privileges(facts: &Facts) -> Check {
    const NAME: &str = "privileges";
    const ROOT: &str = "run kcap as root, or its container with --privileged";
    const SYS_PTRACE: u32 = 19;
    const SYS_ADMIN: u32 = 21;
    const SYSLOG: u32 = 34;
    const PERFMON: u32 = 38;
    const BPF: u32 = 39;
    if facts.effective.is_none() {
        return missing(NAME, "cannot read /proc/self/status", "mount /proc");
    }
    if facts.initial_user_ns == Some(false) {
        return missing(
            NAME,
            "in a user namespace, where BPF is refused whatever one holds",
            "run kcap as root in the initial user namespace (no --userns, no rootless engine)",
        );
    }
    let lacking = |wanted: &[(u32, &'static str)]| -> Vec<&'static str> {
        wanted
            .iter()
            .filter(|(n, _)| !facts.holds(*n))
            .map(|(_, name)| *name)
            .collect()
    };
    let load = match facts.holds(SYS_ADMIN) {
        true => Vec::new(),
        false => lacking(&[(BPF, "BPF"), (PERFMON, "PERFMON")]),
    };
    if !load.is_empty() {
        return missing(NAME, format!("without {}", load.join(", ")), ROOT);
    }
    let useful = lacking(&[
        (SYS_ADMIN, "SYS_ADMIN"),
        (SYS_PTRACE, "SYS_PTRACE"),
        (SYSLOG, "SYSLOG"),
    ]);
    if useful.is_empty() {
        return ok(NAME, "all that tracing takes");
    }
    degraded(
        NAME,
        format!(
            "without {}: files that others execute, or names in call paths, may stay unread",
            useful.join(", ")
        ),
        ROOT,
    )
}

fn hooks(probes: &[HookProbe]) -> Vec<Check> {
    const REFUSED: &str = "see what the lines privileges, lockdown and seccomp say";
    if probes.is_empty() {
        return vec![missing(
            "hooks",
            "this kcap was built without tracing",
            "install kcap with its default features",
        )];
    }
    let best = CHECK_HOOKS
        .iter()
        .find(|name| probes.iter().any(|p| p.name == **name && p.result.is_ok()));
    let mut checks: Vec<Check> = probes
        .iter()
        .map(|probe| {
            let name = format!("hook {}", probe.name);
            let alternative = CHECK_HOOKS.contains(&probe.name.as_str());
            match &probe.result {
                Ok(()) => ok(&name, "loads"),
                Err(e) => match best {
                    Some(best) if alternative => degraded(
                        &name,
                        format!("refused: {e}"),
                        format!("nothing: {best} is used instead"),
                    ),
                    _ => missing(&name, format!("refused: {e}"), REFUSED),
                },
            }
        })
        .collect();
    if best.is_none()
        && !probes
            .iter()
            .any(|p| CHECK_HOOKS.contains(&p.name.as_str()))
    {
        checks.push(missing(
            "hooks",
            "none that sees capability checks was tried",
            REFUSED,
        ));
    }
    checks
}

fn preemption(found: &Found) -> Check {
    const NAME: &str = "preemption";
    let preemption = found.facts.preemption;
    let mode = preemption.mode;
    let exact = found
        .hooks
        .iter()
        .any(|p| p.name == CHECK_HOOKS[0] && p.result.is_ok());
    let detail = match preemption.source {
        "" => mode.to_string(),
        source => format!("{mode} (by {source})"),
    };
    if exact || !mode.preempts_kernel() {
        return ok(NAME, detail);
    }
    degraded(
        NAME,
        format!("{detail}: the kernel may skip programs; skips are counted as loss"),
        "boot with preempt=voluntary, or a kernel from 6.14 on",
    )
}

fn cgroup(found: &Found) -> Check {
    const NAME: &str = "cgroup";
    // These errors say themselves what to do.
    let missing = |detail| Check {
        state: State::Missing,
        ..ok(NAME, detail)
    };
    match &found.cgroup {
        Err(e) => missing(e.clone()),
        Ok((layout, Err(e))) => missing(format!("{}: {e}", layout.kind)),
        Ok((layout, Ok(()))) => {
            let by = layout.controller.unwrap_or("the unified hierarchy");
            ok(
                NAME,
                format!(
                    "{}: scope by {by} at {}",
                    layout.kind,
                    layout.mount.display()
                ),
            )
        }
    }
}

fn lockdown(facts: &Facts) -> Check {
    const NAME: &str = "lockdown";
    match facts.lockdown.as_deref() {
        None => ok(NAME, "not shown"),
        Some("confidentiality") => degraded(
            NAME,
            "confidentiality: BPF may not read kernel memory, kprobes are refused",
            "boot with lockdown=integrity, or without",
        ),
        Some(mode) => ok(NAME, mode),
    }
}

fn lsm(facts: &Facts) -> Check {
    match &facts.lsm {
        Some(list) => ok("lsm", list.join(" ")),
        None => degraded(
            "lsm",
            "not shown: a module may refuse what a capability granted",
            "mount -t securityfs none /sys/kernel/security",
        ),
    }
}

fn kallsyms(facts: &Facts) -> Check {
    const NAME: &str = "kallsyms";
    const LOST: &str = "rules that look at call paths say unsure";
    match &facts.kallsyms {
        Kallsyms::Readable => ok(NAME, "addresses are shown"),
        Kallsyms::Hidden => degraded(
            NAME,
            format!("addresses are hidden: {LOST}"),
            "run kcap as root (SYSLOG), with sysctl kernel.kptr_restrict=1",
        ),
        Kallsyms::Unreadable(e) => degraded(
            NAME,
            format!("cannot read /proc/kallsyms: {e}: {LOST}"),
            "mount /proc, on a kernel built with CONFIG_KALLSYMS",
        ),
    }
}

fn jit(facts: &Facts) -> Check {
    const REMEDY: &str = "sysctl -w net.core.bpf_jit_enable=1";
    match facts.jit {
        Some(true) => ok("jit", "BPF programs are compiled"),
        Some(false) => degraded(
            "jit",
            "BPF programs are interpreted: the build is slowed",
            REMEDY,
        ),
        None => degraded("jit", "not shown: the build may be slowed", REMEDY),
    }
}

fn seccomp(facts: &Facts) -> Check {
    match facts.seccomp {
        "none" => ok("seccomp", "none"),
        mode => degraded(
            "seccomp",
            format!("{mode}: the traced command inherits it, and refusals by it ask nothing"),
            "run kcap outside of a container, or with --security-opt seccomp=unconfined",
        ),
    }
}

fn engines(facts: &Facts) -> Check {
    const NAME: &str = "engines";
    let names: Vec<&str> = facts.engines.iter().map(|(name, _)| *name).collect();
    if names.is_empty() {
        return degraded(
            NAME,
            "none in PATH: kcap run works, kcap build has nothing to build with",
            "install docker, podman, runc or crun",
        );
    }
    if names.contains(&"docker") && facts.docker_socket.is_none() {
        return degraded(
            NAME,
            format!("{}; docker has no daemon's socket", names.join(" ")),
            "start the Docker daemon, or set DOCKER_HOST, to build with docker",
        );
    }
    ok(NAME, names.join(" "))
}
