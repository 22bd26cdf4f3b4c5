//! For each rule of the table a case that it decides, and a like one that it leaves.

use std::collections::BTreeSet;

use super::*;
use crate::capture::{Capture, FileCaps, LogLine, Origin};

/// The granted case of a program that a shell, run by an executor, started and did not wait for
/// (or did, where `waited`): executor 2, shell 4, program 6.
fn started(cap: Cap, call: Sysno, class: u32, waited: bool) -> Case {
    granted(cap, call, class).around(|c| {
        let exec = c.programs[0].exec.clone();
        let program = |id, origin, parent| Program {
            id,
            origin,
            parent: Some(parent),
            exec: (origin == Origin::Exec).then(|| exec.clone()).flatten(),
            ..Program::default()
        };
        c.programs[0].origin = Origin::Enter;
        c.programs[0].exec = None;
        c.programs.extend([
            Program {
                executor: true,
                path: "/kaniko/executor".to_owned(),
                ..program(2, Origin::Exec, 1)
            },
            program(3, Origin::Fork, 2),
            Program {
                reaper: Some(2),
                wait_status: Some(0),
                ..program(4, Origin::Exec, 3)
            },
            program(5, Origin::Fork, 4),
            Program {
                reaper: Some(if waited { 4 } else { 2 }),
                wait_status: Some(9),
                ..program(6, Origin::Exec, 5)
            },
        ]);
        c.tallies[0].program = 6;
    })
}

/// The executor's next log line: its generation 7, or the one after the last.
fn announce(capture: &mut Capture, text: &str) {
    let last = capture.programs.last().map_or(0, |program| program.id);
    capture.programs.push(Program {
        id: last + 1,
        origin: Origin::Phase,
        parent: Some(if last == 6 { 2 } else { last }),
        executor: true,
        path: "/kaniko/executor".to_owned(),
        ..Program::default()
    });
    capture.log.push(LogLine {
        program: last + 1,
        text: format!("time=\"t\" level=info msg={text:?}"),
        ..LogLine::default()
    });
}

/// The executor's own, at what its last log line says.
fn by_executor(cap: Cap, call: Sysno, class: u32, line: &str) -> Case {
    started(cap, call, class, false).around(|c| {
        let text = "FROM base\nRUN x\nCOPY --chmod=2755 a /b\n";
        c.subject.dockerfile_text = Some(text.to_owned());
        let lines = ["Building stage 'base' [idx: '0', base-idx: '-1']", line];
        for text in lines {
            announce(c, text);
        }
        // What the last line is about is the shell's work.
        c.programs[2].parent = Some(8);
        c.tallies[0].program = 8;
    })
}

fn by(case: Case, program: &str) -> Case {
    case.around(|c| c.programs[0].path = program.to_owned())
}

fn overcommit(case: Case, mode: &str) -> Case {
    case.around(|c| {
        let sysctl = &mut c.host.sysctl;
        sysctl.insert("vm.overcommit_memory".to_owned(), mode.to_owned());
    })
}

fn holding(case: Case, bounding: u64) -> Case {
    case.around(|c| c.programs[0].exec.as_mut().unwrap().caps.bounding = bounding)
}

fn status(case: Case, status: i32) -> Case {
    case.around(|c| c.subject.exit_status = Some(status))
}

fn with_other(case: Case, cap: Cap, result: u8) -> Case {
    case.around(|c| {
        let other = Tally {
            cap: Some(cap.0),
            result,
            ..c.tallies[0].clone()
        };
        c.tallies.push(other);
    })
}

/// Rule, what it decides, what it leaves.
#[rustfmt::skip]
fn cases() -> Vec<(&'static str, Case, Case)> {
    const SENT: u32 = 9 << signal::SHIFT;
    const UNPACK: &str = "Unpacking rootfs as cmd RUN x requires it.";
    const COPY: &str = "COPY --chmod=2755 a /b";
    const KILLS: u32 = signal::GROUP | SENT;
    let mount = || granted(Cap::SYS_ADMIN, Sysno::mount, 0);
    let outside = || started(Cap::SYS_ADMIN, Sysno::mount, 0, true);
    let own = |level| mount().with(|t| (t.target_level, t.creds_level) = (level, level));
    let read = || refused(Cap::DAC_READ_SEARCH, Sysno::openat, 0).ended(EACCES);
    let lent = |call, creds| {
        granted(Cap::SYS_ADMIN, call, 0).with(|t| (t.creds, t.flags) = (creds, flag::CREDS_DIFFER))
    };
    let mmap = || granted(Cap::SYS_ADMIN, Sysno::mmap, 0);
    let chmod = |mode| granted(Cap::FSETID, Sysno::fchmodat, mode);
    let setuid = |class| granted(Cap::SETUID, Sysno::setuid, class | id::USER);
    let chown = || granted(Cap::CHOWN, Sysno::fchownat, 0);
    let kill = |class| granted(Cap::KILL, Sysno::kill, class);
    let kill_left = || {
        by_executor(Cap::KILL, Sysno::kill, KILLS, "RUN x").with(|t| t.count = 1)
    };
    // The RUN's program is refused; then a COPY fails, or the RUN does.
    let goes_on = |on| {
        let case = by_executor(Cap::SYS_ADMIN, Sysno::mount, 0, "RUN x").ended(EPERM);
        case.with(|t| (t.result, t.program) = (1, 6)).around(|c| {
            if on {
                announce(c, COPY);
            }
        })
    };
    let trusted = |call| refused(Cap::SYS_ADMIN, call, xattr::TRUSTED);
    let other_user = |bounding| holding(read(), bounding).around(|c| {
        let user = Program {
            id: 2,
            origin: Origin::Exec,
            parent: Some(1),
            exec: c.programs[0].exec.clone().map(|exec| Exec {
                euid: 1000,
                file: FileCaps::None,
                ..exec
            }),
            ..Program::default()
        };
        c.programs.push(user);
        c.tallies[0].program = 2;
    });
    vec![
        ("outside-container", outside().with(|t| t.program = 1), outside()),
        ("own-namespace", own(1), own(0)),
        ("borrowed", lent(Sysno::openat, creds::OVERRIDDEN), lent(Sysno::access, creds::OVERRIDDEN)),
        ("memory-strict", overcommit(mmap(), "2"), overcommit(mmap(), "0")),
        ("memory", mmap(), mount()),
        ("other-answer", with_other(read(), Cap::DAC_OVERRIDE, 0), with_other(read(), Cap::DAC_OVERRIDE, 1)),
        ("given-up", holding(with_other(read(), Cap::DAC_OVERRIDE, 1), Cap::DAC_OVERRIDE.bit()), holding(with_other(read(), Cap::DAC_OVERRIDE, 1), 0)),
        ("given-up", other_user(0), other_user(0).around(|c| c.programs[1].exec.as_mut().unwrap().euid = 0)),
        ("done-without", status(trusted(Sysno::mount).ended(EPERM), 0), status(trusted(Sysno::mount).ended(EPERM), 1)),
        ("done-without", status(trusted(Sysno::mount).ended(EPERM), 0), status(refused(Cap::CHOWN, Sysno::chown, 0).ended(EPERM), 0)),
        ("done-without", status(goes_on(true), 1), status(goes_on(false), 1)),
        ("opaque", mount().with(|t| t.class = OPAQUE), mount()),
        ("chmod-without-setgid", chmod(0o4640), chmod(0o2755)),
        ("capset-within", granted(Cap::SETPCAP, Sysno::capset, 0), granted(Cap::SETPCAP, Sysno::capset, capset_bits::INHERITABLE)),
        ("ids-unchanged", setuid(id::SAME | id::HELD), setuid(id::HELD)),
        ("ids-held", granted(Cap::SETUID, Sysno::setresuid, id::HELD), setuid(id::HELD)),
        ("ids-mapped", setuid(id::MAPPED), setuid(0)),
        ("buffer-size", granted(Cap::NET_ADMIN, Sysno::setsockopt, 0x21_0001), granted(Cap::NET_ADMIN, Sysno::setsockopt, 0x24_0001)),
        ("audit-message", granted(Cap::AUDIT_WRITE, Sysno::sendto, 0), granted(Cap::NET_ADMIN, Sysno::sendto, 0)),
        ("netlink-message", granted(Cap::NET_ADMIN, Sysno::sendto, 0), granted(Cap::NET_ADMIN, Sysno::ioctl, 0)),
        ("access-asked", granted(Cap::DAC_OVERRIDE, Sysno::faccessat2, 0), granted(Cap::DAC_OVERRIDE, Sysno::openat, 0)),
        ("signal-asked", kill(signal::ASK), kill(SENT)),
        ("executor-kill",
            kill_left(),
            kill_left().around(|c| {
                // A second process of the RUN's, which needed no check.
                let mut other: Vec<Program> = c.programs[4..6].to_vec();
                (other[0].id, other[1].id, other[1].parent) = (15, 16, Some(15));
                c.programs.extend(other);
            })),
        ("signal-group", kill(KILLS), kill(SENT)),
        ("shrugged-off", by(kill(SENT), "/usr/bin/apt-get"), by(kill(SENT), "/usr/bin/other")),
        ("shrugged-off", by(chown(), "/usr/bin/apt"), chown()),
        ("signal-granted", kill(SENT), refused(Cap::KILL, Sysno::kill, SENT).ended(EPERM)),
        ("unpack-setgid", by_executor(Cap::FSETID, Sysno::fchmodat, 0o2755, UNPACK), by_executor(Cap::FSETID, Sysno::fchmodat, 0o2755, COPY)),
        ("chown-setgid", granted(Cap::FSETID, Sysno::chown, 0), chmod(0o2755)),
        ("filter-hardening", granted(Cap::BPF, Sysno::seccomp, 1), granted(Cap::BPF, Sysno::bpf, 5)),
        ("trusted-read", trusted(Sysno::getxattr).ended(ENODATA), trusted(Sysno::setxattr).ended(EPERM)),
        ("trusted-list", granted(Cap::SYS_ADMIN, Sysno::listxattr, 0), granted(Cap::SYS_ADMIN, Sysno::getxattr, xattr::TRUSTED)),
        ("user-namespace-made", granted(Cap::SYS_ADMIN, Sysno::unshare, NEW_USER | 2), granted(Cap::SYS_ADMIN, Sysno::unshare, 2)),
        ("no-call", chown().with(|t| t.syscall = None), chown()),
        ("outcome-unknown", chown().ended(254), chown()),
        ("refused-silently", refused(Cap::FSETID, Sysno::chmod, 0o2755), refused(Cap::CHOWN, Sysno::chown, 0).ended(EPERM)),
        ("refused-unwaited",
            started(Cap::CHOWN, Sysno::chown, 0, false).with(|t| t.result = 1).ended(EPERM),
            started(Cap::CHOWN, Sysno::chown, 0, true).with(|t| t.result = 1).ended(EPERM)),
        ("refused", refused(Cap::CHOWN, Sysno::chown, 0).ended(EPERM), refused(Cap::CHOWN, Sysno::chown, 0).ended(ENOSPC)),
        ("refused-other-error", refused(Cap::CHOWN, Sysno::chown, 0).ended(ENOSPC), refused(Cap::SYS_RESOURCE, Sysno::write, 0).ended(ENOSPC)),
        ("granted-yet-failed", mount().ended(22), mount()),
        ("executor", by_executor(Cap::CHOWN, Sysno::fchownat, 0, UNPACK), chown()),
        ("executor", by_executor(Cap::FOWNER, Sysno::openat, 0, COPY), by_executor(Cap::DAC_OVERRIDE, Sysno::openat, 0, COPY)),
        ("nobody-waited", started(Cap::SETUID, Sysno::setuid, 0, false), started(Cap::SETUID, Sysno::setuid, 0, true)),
        ("used", chown(), chown().ended(EPERM)),
        ("used", by_executor(Cap::FSETID, Sysno::fchmodat, 0o2755, COPY), by_executor(Cap::FSETID, Sysno::fchmodat, 0o755, COPY)),
    ]
}

#[test]
fn every_rule_decides_its_case_and_leaves_the_other() {
    let mut covered = BTreeSet::new();
    for (at, (rule, decides, leaves)) in cases().into_iter().enumerate() {
        assert_eq!(decides.rule(), rule, "case {at}");
        assert_ne!(leaves.rule(), rule, "case {at}");
        covered.insert(rule);
    }
    let rules: BTreeSet<_> = RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(covered, rules);
}

#[test]
fn what_nobody_saw_the_end_of_is_not_called_unwaited() {
    let unseen = started(Cap::SETUID, Sysno::setuid, 0, false).around(|c: &mut Capture| {
        c.programs[5].reaper = None;
    });
    assert_eq!(unseen.rule(), "used");
}
