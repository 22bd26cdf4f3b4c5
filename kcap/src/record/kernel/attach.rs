//! Attaches programs to what they see, and says in one line what the kernel refused.

use std::io;

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Btf, Ebpf,
    programs::{BtfTracePoint, FEntry, KProbe, Program},
};
use kcap_common::abi::key::site;

use super::{config::Config, hook::Hook, target::Kernel};

/// Follows what runs, whichever hook sees checks: program, tracepoint.
pub const LINEAGE: [(&str, &str); 4] = [
    ("kcap_newtask", "task_newtask"),
    ("kcap_exec", "sched_process_exec"),
    ("kcap_exit", "sched_process_exit"),
    ("kcap_attach", "cgroup_attach_task"),
];

/// Settles outcomes, and recognises needs that ask nothing: program, tracepoint.
pub const OUTCOMES: (&str, &str) = ("kcap_sys_exit", "sys_exit");

/// Checks that a compiler may have inlined: site, system call that tells, function, programs.
pub const INLINED: [(u8, u16, &str, &str, &str); 3] = [
    (
        site::CAPSET,
        126,
        "cap_capset",
        "kcap_capset_f",
        "kcap_capset_k",
    ),
    (
        site::PRCTL,
        157,
        "cap_task_prctl",
        "kcap_prctl_f",
        "kcap_prctl_k",
    ),
    (
        site::MMAP_ADDR,
        9,
        "cap_mmap_addr",
        "kcap_mmap_f",
        "kcap_mmap_k",
    ),
];

/// Loads and attaches everything that is always needed, and the hook. The program on `sys_exit` takes
/// the verifier as long as all others do, so it goes side by side with them.
pub fn attach_all(ebpf: &mut Ebpf, config: &Config, kernel: &Kernel) -> Result<Hook> {
    let mut programs: std::collections::HashMap<String, &mut Program> = ebpf
        .programs_mut()
        .map(|(n, p)| (n.to_owned(), p))
        .collect();
    let mut take = |name: &str| {
        programs
            .remove(name)
            .with_context(|| format!("the BPF object has no program {name}"))
    };
    let outcomes = take(OUTCOMES.0)?;
    let lineage = LINEAGE.map(|(name, tracepoint)| (name, take(name), tracepoint));
    let mut hooks = vec![];
    for hook in config.hook.order(&config.preemption) {
        hooks.push((hook, take(hook.program())?));
    }
    std::thread::scope(|scope| {
        let settling = scope.spawn(|| {
            if config.outcomes {
                attach_tracepoint(OUTCOMES.0, outcomes, OUTCOMES.1, &kernel.index)
            } else {
                Ok(())
            }
        });
        let rest = || {
            for (name, program, tracepoint) in lineage {
                attach_tracepoint(name, program?, tracepoint, &kernel.index)?;
            }
            attach_hook(hooks, kernel)
        };
        let hook = rest();
        settling
            .join()
            .map_err(|_| anyhow!("loading {} panicked", OUTCOMES.0))??;
        hook
    })
}

fn attach_tracepoint(name: &str, program: &mut Program, tracepoint: &str, btf: &Btf) -> Result<()> {
    let program: &mut BtfTracePoint = program.try_into()?;
    program
        .load(tracepoint, btf)
        .map_err(|e| refused(&format!("load program {name}"), &e))?;
    program
        .attach()
        .map_err(|e| refused(&format!("attach to tracepoint {tracepoint}"), &e))?;
    Ok(())
}

pub fn load_fentry(program: &mut FEntry, function: &str, btf: &Btf) -> Result<()> {
    program
        .load(function, btf)
        .map_err(|e| refused(&format!("load fentry of {function}"), &e))?;
    program
        .attach()
        .map_err(|e| refused(&format!("attach to {function}"), &e))?;
    Ok(())
}

pub fn load_kprobe(program: &mut KProbe, function: &str) -> Result<()> {
    program
        .load()
        .map_err(|e| refused(&format!("load kprobe of {function}"), &e))?;
    program
        .attach(function, 0)
        .map_err(|e| refused(&format!("attach a kprobe to {function}"), &e))?;
    Ok(())
}

/// Loads and attaches the first hook that works.
fn attach_hook(hooks: Vec<(Hook, &mut Program)>, kernel: &Kernel) -> Result<Hook> {
    let forced = hooks.len() == 1;
    let mut why = vec![];
    for (hook, program) in hooks {
        match try_hook(program, kernel) {
            Ok(()) => return Ok(hook),
            Err(e) if forced => return Err(e.context(format!("cannot use hook {hook}"))),
            Err(e) => why.push(format!("{hook}: {e:#}")),
        }
    }
    bail!(
        "no hook can see cap_capable here ({}): see kcap doctor",
        why.join("; ")
    )
}

fn try_hook(program: &mut Program, kernel: &Kernel) -> Result<()> {
    match program {
        Program::BtfTracePoint(p) => {
            if !kernel.tracepoint {
                bail!("this kernel has no tracepoint capability:cap_capable (6.14 on)");
            }
            p.load("cap_capable", &kernel.index)
                .map_err(|e| refused("load the program", &e))?;
            p.attach().map_err(|e| refused("attach the program", &e))?;
        }
        Program::FExit(p) => {
            if !kernel.signature {
                bail!("cap_capable has an unexpected signature in this kernel's BTF");
            }
            p.load("cap_capable", &kernel.index)
                .map_err(|e| refused("load the program", &e))?;
            p.attach().map_err(|e| refused("attach the program", &e))?;
        }
        Program::KProbe(p) => load_kprobe(p, "cap_capable")?,
        _ => bail!("unexpected program type"),
    }
    Ok(())
}

pub fn unload(program: &mut Program) -> Result<()> {
    match program {
        Program::BtfTracePoint(p) => p.unload()?,
        Program::FExit(p) => p.unload()?,
        Program::FEntry(p) => p.unload()?,
        Program::KProbe(p) => p.unload()?,
        _ => {}
    }
    Ok(())
}

/// One line for what the kernel refused, with the innermost cause and no verifier log.
pub fn refused(what: &str, e: &(dyn std::error::Error + 'static)) -> anyhow::Error {
    let mut innermost = e;
    let mut errno = None;
    loop {
        if let Some(io) = innermost.downcast_ref::<io::Error>() {
            errno = io.raw_os_error();
        }
        match innermost.source() {
            Some(next) => innermost = next,
            None => break,
        }
    }
    let cause = innermost.to_string().replace('\n', " ");
    let cause: String = cause.chars().take(300).collect();
    let remedy = match errno {
        Some(libc::EPERM | libc::EACCES) => {
            ": run kcap as root on the host, with CAP_BPF and CAP_PERFMON, and CAP_SYS_ADMIN for kprobes; see kcap doctor"
        }
        Some(libc::ENOSYS) => ": this kernel has no bpf(2): CONFIG_BPF_SYSCALL is needed",
        Some(libc::ENOMEM) => ": free memory, or trace with a smaller --ring-size",
        _ => "",
    };
    anyhow!("the kernel refused to {what}: {cause}{remedy}")
}
