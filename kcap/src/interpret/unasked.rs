//! Needs that the kernel decides without asking `cap_capable`: file capabilities at exec, sets
//! asked for above what is held, id maps, and what a seccomp profile opens by capability.

use std::collections::{BTreeMap, BTreeSet};

use kcap_common::abi::key::unasked::{
    AMBIENT, CAPSET, EXEC, IDMAP, PING, PORT, READS_OWN, SECCOMP,
};

use super::facts::Session;
use super::rules::{Rule, stated};
use super::syscall::{self, Sysno};
use crate::capture::{FileCaps, Tally, Unasked};
use crate::report::Cap;

const ENOSYS: u8 = 38;
/// `Tally::class` of a write to `uid_map`, the one map that SETFCAP is needed for.
const UID_MAP: u32 = 1;
/// Most notes about single programs.
const NOTES: usize = 10;

/// What one kind of such a decision says.
pub struct Need {
    /// The program that met it.
    pub program: u32,
    /// Any of these would do.
    pub any_of: BTreeSet<Cap>,
    /// The rule that says what it is to the build.
    pub rule: &'static Rule,
    /// The system call: ABI and number.
    pub call: Option<(u8, u16)>,
    /// How often.
    pub times: u64,
}

/// All such needs of a session, and notes on what cannot be told.
pub fn needs(session: &Session<'_>) -> (Vec<Need>, Vec<String>) {
    let mut needs = Vec::new();
    let mut notes = Notes::default();
    executed_files(session, &mut needs);

    let mut details: BTreeMap<u32, Vec<&Unasked>> = BTreeMap::new();
    for detail in &session.capture.unasked {
        details.entry(detail.tally).or_default().push(detail);
    }
    for (index, tally) in session.capture.tallies.iter().enumerate() {
        if tally.unasked == 0 || tally.count == 0 || !session.scope.inside(tally.program) {
            continue;
        }
        let details = u32::try_from(index).ok().and_then(|i| details.get(&i));
        let details = details.map_or(&[][..], Vec::as_slice);
        one_kind(session, tally, details, &mut needs, &mut notes);
    }
    (needs, notes.into_lines())
}

/// Executed files with capabilities: the exec succeeded because all of them were within the
/// bounding set, and nothing was asked.
fn executed_files(session: &Session<'_>, needs: &mut Vec<Need>) {
    for program in &session.capture.programs {
        let Some(exec) = &program.exec else { continue };
        let FileCaps::Has {
            permitted,
            effective,
            ..
        } = exec.file
        else {
            continue;
        };
        // A namespace that the build made has a full bounding set of its own. Where the exec
        // succeeded without one of them, the kernel ignored the file's capabilities (nosuid).
        let own_namespace = exec.ns_level > session.scope.base_level();
        let ignored = effective && permitted & !exec.caps.bounding != 0;
        if own_namespace || ignored || !session.scope.inside(program.id) {
            continue;
        }
        let rule = if effective {
            &stated::EXECUTED
        } else {
            &stated::RAISES_ITSELF
        };
        needs.extend(Cap::of_mask(permitted).map(|cap| Need {
            program: program.id,
            any_of: BTreeSet::from([cap]),
            rule,
            call: None,
            times: 1,
        }));
    }
}

fn one_kind(
    session: &Session<'_>,
    tally: &Tally,
    details: &[&Unasked],
    needs: &mut Vec<Need>,
    notes: &mut Notes,
) {
    let path = session.scope.path(tally.program);
    let mut need = |any_of: BTreeSet<Cap>, rule: &'static Rule| {
        let rule = if session.done_without(tally.program, &any_of) {
            &stated::DONE_WITHOUT
        } else {
            rule
        };
        needs.push(Need {
            program: tally.program,
            any_of,
            rule,
            call: tally.syscall.map(|number| (tally.abi, number)),
            times: tally.count,
        });
    };
    match tally.unasked {
        EXEC => {
            let lacking = details
                .iter()
                .fold(0, |all, detail| all | refused_exec(detail));
            if lacking == 0 {
                notes
                    .refused_execs
                    .extend(details.iter().map(|detail| detail.detail.clone()));
                notes.refused_execs_unknown |= details.is_empty();
            }
            for cap in Cap::of_mask(lacking) {
                need(BTreeSet::from([cap]), &stated::EXEC_REFUSED);
            }
        }
        CAPSET | AMBIENT => {
            let in_class = match tally.unasked {
                CAPSET => u64::from(tally.class),
                _ => u8::try_from(tally.class).map_or(0, |number| Cap(number).bit()),
            };
            // What the bounding set holds is lacking for another reason: granting it again would
            // change nothing.
            let lacking = if details.is_empty() {
                in_class & !session.scope.bounding().unwrap_or(0)
            } else {
                details.iter().fold(0, |all, detail| {
                    let lacking = if detail.lacking == 0 {
                        in_class
                    } else {
                        detail.lacking
                    };
                    all | (lacking & !detail.bounding)
                })
            };
            for cap in Cap::of_mask(lacking) {
                need(BTreeSet::from([cap]), &stated::SET_REFUSED);
            }
        }
        IDMAP => {
            // A namespace deeper than the first maps ids of one that the build made.
            let deeper = u32::from(tally.creds_level) > session.scope.base_level() + 1;
            if tally.class == UID_MAP
                && !deeper
                && details.iter().any(|detail| maps_root(&detail.detail))
            {
                need(BTreeSet::from([Cap::SETFCAP]), &stated::ROOT_MAPPED);
            }
        }
        SECCOMP => {
            let Some(call) = syscall::native(tally, &session.capture.host.arch) else {
                return;
            };
            let any_of = opened_by(call);
            if tally.result == ENOSYS && call == Sysno::clone3 {
                need(any_of, &stated::CLONE3_HIDDEN);
            } else if failed(session, tally.program) {
                need(any_of, &stated::SECCOMP_FATAL);
            } else {
                need(any_of, &stated::SECCOMP_SILENT);
            }
        }
        READS_OWN => {
            notes.readers.insert(path.to_owned());
        }
        // No need on this host: see `surroundings`.
        PORT | PING => {}
        _ => notes.unknown_kinds += 1,
    }
}

/// What a refused exec lacked; 0 where that is not known.
fn refused_exec(detail: &Unasked) -> u64 {
    match detail.file {
        Some(FileCaps::Has {
            permitted,
            effective: true,
            ..
        }) => permitted & !detail.bounding,
        Some(FileCaps::Has { .. } | FileCaps::None) => 0,
        Some(FileCaps::Unread) | None => detail.lacking,
    }
}

/// A line of an id map begins at id 0 of the parent namespace.
fn maps_root(text: &str) -> bool {
    text.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().map(str::parse::<u64>);
        matches!(
            (fields.next(), fields.next(), fields.next()),
            (Some(Ok(_)), Some(Ok(0)), Some(Ok(1..)))
        )
    })
}

/// The program ended by itself and not with success.
fn failed(session: &Session<'_>, program: u32) -> bool {
    session
        .scope
        .wait_status(program)
        .is_some_and(|status| status != 0)
}

/// The capabilities by which Docker's, Podman's and containerd's seccomp profiles open a call.
fn opened_by(call: Sysno) -> BTreeSet<Cap> {
    let caps: &[Cap] = match call {
        Sysno::chroot => &[Cap::SYS_CHROOT],
        Sysno::mbind
        | Sysno::set_mempolicy
        | Sysno::get_mempolicy
        | Sysno::move_pages
        | Sysno::migrate_pages => &[Cap::SYS_NICE],
        Sysno::ptrace | Sysno::process_vm_readv | Sysno::process_vm_writev | Sysno::kcmp => {
            &[Cap::SYS_PTRACE]
        }
        Sysno::bpf => &[Cap::BPF, Cap::SYS_ADMIN],
        Sysno::perf_event_open => &[Cap::PERFMON, Cap::SYS_ADMIN],
        Sysno::syslog => &[Cap::SYSLOG, Cap::SYS_ADMIN],
        Sysno::open_by_handle_at => &[Cap::DAC_READ_SEARCH],
        Sysno::reboot | Sysno::kexec_load | Sysno::kexec_file_load => &[Cap::SYS_BOOT],
        Sysno::init_module | Sysno::finit_module | Sysno::delete_module => &[Cap::SYS_MODULE],
        Sysno::acct => &[Cap::SYS_PACCT],
        Sysno::iopl | Sysno::ioperm => &[Cap::SYS_RAWIO],
        Sysno::settimeofday | Sysno::clock_settime | Sysno::adjtimex | Sysno::clock_adjtime => {
            &[Cap::SYS_TIME]
        }
        Sysno::vhangup => &[Cap::SYS_TTY_CONFIG],
        _ => &[Cap::SYS_ADMIN],
    };
    caps.iter().copied().collect()
}

#[derive(Default)]
struct Notes {
    readers: BTreeSet<String>,
    refused_execs: BTreeSet<String>,
    refused_execs_unknown: bool,
    unknown_kinds: u64,
}

impl Notes {
    fn into_lines(self) -> Vec<String> {
        let list = |paths: &BTreeSet<String>| {
            let mut shown: Vec<&str> = paths.iter().map(String::as_str).take(NOTES).collect();
            if paths.len() > NOTES {
                shown.push("…");
            }
            shown.join(", ")
        };
        let mut lines = Vec::new();
        if !self.readers.is_empty() {
            lines.push(format!(
                "programs that read their own capabilities and may act on them: {}",
                list(&self.readers)
            ));
        }
        if !self.refused_execs.is_empty() {
            lines.push(format!(
                "exec refused with EPERM, and not known to be for want of a capability: {}",
                list(&self.refused_execs)
            ));
        }
        if self.refused_execs_unknown {
            lines.push("an exec was refused with EPERM, and its file is not known".to_owned());
        }
        if self.unknown_kinds > 0 {
            lines.push(format!(
                "{} kinds of decisions without a check are of a newer kcap's capture and left out",
                self.unknown_kinds
            ));
        }
        lines
    }
}

#[cfg(test)]
#[path = "unasked_tests.rs"]
mod tests;
