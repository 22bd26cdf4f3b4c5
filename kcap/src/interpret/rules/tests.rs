//! For each rule a case for and a case against (`cases`), and what else the table must hold to.

#[path = "cases.rs"]
mod cases;

use kcap_common::abi::key::{creds, flag, site};
use kcap_common::decide::argclass::{OPAQUE, capset_bits, id, port, xattr};

use super::asks::*;
use super::*;
use crate::capture::{Capture, Evidence, Exec, Frame, Program, Tally};
use crate::interpret::facts::{Session, parts};
use crate::interpret::syscall::Sysno;
use crate::report::Because::*;
use crate::report::Cap;
use crate::report::Verdict::*;

/// One tally, and everything around it that a rule may look at.
struct Case {
    capture: Capture,
}

/// The granted check of `cap` in a call that succeeded.
fn granted(cap: Cap, call: Sysno, class: u32) -> Case {
    let exec = Exec {
        user_ns: 1,
        mnt_ns: 1,
        ..Exec::default()
    };
    let mut capture = Capture {
        programs: vec![Program {
            id: 1,
            origin: crate::capture::Origin::Exec,
            exec: Some(exec),
            ..Program::default()
        }],
        tallies: vec![Tally {
            program: 1,
            cap: Some(cap.0),
            syscall: Some(call.id() as u16),
            abi: 1,
            class,
            count: 4,
            ..Tally::default()
        }],
        ..Capture::default()
    };
    capture.host.arch = "x86_64".to_owned();
    capture
        .host
        .sysctl
        .insert("vm.overcommit_memory".to_owned(), "1".to_owned());
    Case { capture }
}

fn refused(cap: Cap, call: Sysno, class: u32) -> Case {
    granted(cap, call, class).with(|t| t.result = 1)
}

impl Case {
    fn with(mut self, change: impl FnOnce(&mut Tally)) -> Self {
        change(&mut self.capture.tallies[0]);
        self
    }

    fn ended(self, errno: u8) -> Self {
        self.with(|t| t.failed = [(errno, t.count)].into())
    }

    fn around(mut self, change: impl FnOnce(&mut Capture)) -> Self {
        change(&mut self.capture);
        self
    }

    fn sampled(self, symbols: &[&str]) -> Self {
        self.around(|capture| {
            capture.evidence.push(Evidence {
                path: symbols
                    .iter()
                    .map(|s| Frame {
                        symbol: Some((*s).to_owned()),
                        ..Frame::default()
                    })
                    .collect(),
                ..Evidence::default()
            });
        })
    }

    fn rule(&self) -> &'static str {
        let session = Session::of(&self.capture);
        let tally = &self.capture.tallies[0];
        let parts = parts(tally, session.outcomes_seen);
        assert_eq!(parts.len(), 1);
        decide(&session.facts(0, tally, Cap(tally.cap.unwrap()), parts[0])).name
    }
}

#[test]
fn what_the_container_holds_is_not_refused_for_lack_of_it() {
    let case = || refused(Cap::DAC_OVERRIDE, Sysno::openat, 0).ended(EACCES);
    let holding =
        |set: u64| case().around(|c| c.programs[0].exec.as_mut().unwrap().caps.bounding = set);
    assert_eq!(holding(1 << 1).rule(), "given-up");
    assert_eq!(holding(1 << 2).rule(), "refused");
}

#[test]
fn a_build_that_succeeds_without_what_no_engine_grants_needs_it_not() {
    let case = |cap, status| {
        refused(cap, Sysno::setsockopt, 0)
            .ended(EPERM)
            .around(|c| c.subject.exit_status = Some(status))
            .rule()
    };
    assert_eq!(case(Cap::NET_ADMIN, 0), "done-without");
    assert_eq!(case(Cap::NET_ADMIN, 1), "refused");
    // Docker would grant this one: the image meant is the one built with it.
    assert_eq!(case(Cap::CHOWN, 0), "refused");
}

#[test]
fn names_are_unique_and_every_check_has_a_rule() {
    let mut names: Vec<_> = all().map(|rule| rule.name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    // Mechanisms go with their verdict, and nothing is left unsaid.
    for rule in all() {
        let expected = match rule.because {
            Used | Refused | Unasked => Needed,
            NobodyWaited | OutOfBand | ShruggedOff | Silent | Unseen => Unsure,
            NoEffect | OtherAnswer | Borrowed | OwnNamespace | ContainerStart | Tolerated => {
                Unneeded
            }
        };
        assert_eq!(rule.verdict, expected, "{}", rule.name);
        assert!(rule.reason.len() < 90, "{}", rule.name);
        for text in [
            rule.reason,
            rule.relies,
            rule.decides,
            rule.leaves,
            rule.wrong,
        ] {
            assert!(!text.is_empty() && !text.contains('\n'), "{}", rule.name);
        }
    }
}

#[test]
fn granted_or_refused_and_what_became_of_it() {
    let chown = || granted(Cap::CHOWN, Sysno::fchownat, 0);
    assert_eq!(chown().rule(), "used");
    assert_eq!(chown().ended(EPERM).rule(), "granted-yet-failed");
    assert_eq!(chown().ended(254).rule(), "outcome-unknown");
    assert_eq!(chown().ended(255).rule(), "outcome-unknown");
    let blind = chown().around(|c| c.host.blind.push("outcome".to_owned()));
    assert_eq!(blind.rule(), "outcome-unknown", "unseen is never success");
    let refused = || refused(Cap::CHOWN, Sysno::fchownat, 0);
    assert_eq!(refused().rule(), "refused-silently");
    assert_eq!(refused().ended(EPERM).rule(), "refused");
    assert_eq!(refused().ended(ENOENT).rule(), "refused-other-error");
    assert_eq!(refused().ended(254).rule(), "outcome-unknown");
    assert_eq!(chown().with(|t| t.syscall = None).rule(), "no-call");
    assert_eq!(chown().with(|t| t.class = OPAQUE).rule(), "opaque");
}

#[test]
fn errors_by_which_the_kernel_says_no() {
    let case = |cap, call, errno| refused(cap, call, 0).ended(errno).rule();
    assert_eq!(case(Cap::SYS_RESOURCE, Sysno::fork, EAGAIN), "refused");
    assert_eq!(case(Cap::IPC_LOCK, Sysno::mlock, ENOMEM), "refused");
    assert_eq!(case(Cap::SYS_RESOURCE, Sysno::write, ENOSPC), "refused");
    assert_eq!(
        case(Cap::CHOWN, Sysno::chown, ENOSPC),
        "refused-other-error"
    );
}

#[test]
fn memory() {
    for call in [
        Sysno::mmap,
        Sysno::brk,
        Sysno::execve,
        Sysno::clone,
        Sysno::clone3,
    ] {
        assert_eq!(granted(Cap::SYS_ADMIN, call, 0).rule(), "memory");
        assert_eq!(refused(Cap::SYS_ADMIN, call, 0).rule(), "memory");
    }
    let fault = granted(Cap::SYS_ADMIN, Sysno::mmap, 0).with(|t| t.syscall = None);
    assert_eq!(fault.rule(), "memory");
    let memory = || granted(Cap::SYS_ADMIN, Sysno::mmap, 0);
    for strict in ["2", "", "x"] {
        let case = memory().around(|c| {
            c.host
                .sysctl
                .insert("vm.overcommit_memory".to_owned(), strict.to_owned());
        });
        assert_eq!(case.rule(), "memory-strict");
    }
    assert_eq!(
        granted(Cap::SYS_ADMIN, Sysno::clone, 2).rule(),
        "used",
        "CLONE_NEWNS"
    );
    assert_eq!(
        granted(Cap::SYS_ADMIN, Sysno::clone3, OPAQUE).rule(),
        "opaque"
    );
    assert_eq!(granted(Cap::SYS_ADMIN, Sysno::mount, 0).rule(), "used");
    assert_eq!(
        granted(Cap::SYS_RAWIO, Sysno::mmap, 0).rule(),
        "used",
        "mmap_min_addr"
    );
    assert_eq!(
        memory().with(|t| t.abi = 2).rule(),
        "used",
        "another call in another ABI"
    );
}

#[test]
fn a_sample_from_elsewhere_withdraws_a_rule() {
    let memory = || granted(Cap::SYS_ADMIN, Sysno::mmap, 0);
    assert_eq!(
        memory()
            .sampled(&["cap_capable", "cap_vm_enough_memory.isra.0"])
            .rule(),
        "memory"
    );
    assert_eq!(
        memory().sampled(&["cap_capable", "vfio_mmap"]).rule(),
        "outside"
    );
    let mixed = memory()
        .sampled(&["cap_vm_enough_memory"])
        .sampled(&["vfio_mmap"]);
    assert_eq!(mixed.rule(), "outside");
    assert_eq!(
        memory().sampled(&[]).rule(),
        "memory",
        "a path without symbols says nothing"
    );
    // Accounted at its caller, whose frame is not in the path.
    let inlined = granted(Cap::SETPCAP, Sysno::capset, 0).sampled(&["__x64_sys_capset"]);
    assert_eq!(inlined.rule(), "outside");
    assert_eq!(
        inlined.with(|t| t.site = site::CAPSET).rule(),
        "capset-within"
    );
}

#[test]
fn setgid_bits() {
    for call in [
        Sysno::chmod,
        Sysno::fchmod,
        Sysno::fchmodat,
        Sysno::fchmodat2,
    ] {
        assert_eq!(
            granted(Cap::FSETID, call, 0o600).rule(),
            "chmod-without-setgid"
        );
        assert_eq!(
            refused(Cap::FSETID, call, 0o4755).rule(),
            "chmod-without-setgid"
        );
        assert_eq!(granted(Cap::FSETID, call, 0o2755).rule(), "used");
        assert_eq!(
            refused(Cap::FSETID, call, 0o2755).rule(),
            "refused-silently"
        );
    }
    assert_eq!(granted(Cap::FOWNER, Sysno::chmod, 0o600).rule(), "used");
    assert_eq!(granted(Cap::FSETID, Sysno::write, 0).rule(), "used");
    assert_eq!(granted(Cap::FSETID, Sysno::chown, 0).rule(), "chown-setgid");
}

#[test]
fn sets_asked_for() {
    assert_eq!(
        granted(Cap::SETPCAP, Sysno::capset, 0).rule(),
        "capset-within"
    );
    let above = granted(Cap::SETPCAP, Sysno::capset, capset_bits::INHERITABLE);
    assert_eq!(above.rule(), "used");
    assert_eq!(
        granted(Cap::SETPCAP, Sysno::prctl, 24).rule(),
        "used",
        "PR_CAPBSET_DROP"
    );
}

#[test]
fn ids_asked_for() {
    let case = |cap, call, class| granted(cap, call, class | id::USER).rule();
    assert_eq!(
        case(Cap::SETUID, Sysno::setuid, id::SAME | id::HELD),
        "ids-unchanged"
    );
    assert_eq!(
        case(Cap::SETUID, Sysno::setuid, id::HELD),
        "used",
        "sets the saved id too"
    );
    assert_eq!(case(Cap::SETGID, Sysno::setgid, id::HELD), "used");
    assert_eq!(case(Cap::SETUID, Sysno::setresuid, id::HELD), "ids-held");
    assert_eq!(case(Cap::SETUID, Sysno::setresuid, 0), "used");
    assert_eq!(
        case(Cap::SETUID, Sysno::setreuid, id::HELD),
        "used",
        "asks only where it decides"
    );
    assert_eq!(case(Cap::SETUID, Sysno::setuid, id::MAPPED), "ids-mapped");
    assert_eq!(case(Cap::SETGID, Sysno::setgroups, 0), "used");
    assert_eq!(case(Cap::CHOWN, Sysno::chown, id::SAME | id::HELD), "used");
}

#[test]
fn signals() {
    let sent = 15 << signal::SHIFT;
    let case = |class| granted(Cap::KILL, Sysno::kill, class);
    assert_eq!(case(signal::ONE | sent).rule(), "signal-granted");
    assert_eq!(case(signal::ONE | signal::ASK).rule(), "signal-asked");
    for target in [signal::OWN_GROUP, signal::GROUP, signal::ALL] {
        assert_eq!(case(target | sent).rule(), "signal-group");
    }
    assert_eq!(
        refused(Cap::KILL, Sysno::kill, signal::GROUP | sent).rule(),
        "signal-group"
    );
    assert_eq!(
        refused(Cap::KILL, Sysno::kill, sent).ended(EPERM).rule(),
        "refused"
    );
}

#[test]
fn messages() {
    assert_eq!(
        granted(Cap::AUDIT_WRITE, Sysno::sendto, 0).rule(),
        "audit-message"
    );
    assert_eq!(
        refused(Cap::AUDIT_WRITE, Sysno::sendmsg, 0).rule(),
        "audit-message"
    );
    assert_eq!(
        granted(Cap::NET_ADMIN, Sysno::sendmsg, 0).rule(),
        "netlink-message"
    );
    assert_eq!(granted(Cap::NET_ADMIN, Sysno::ioctl, 0).rule(), "used");
}

#[test]
fn ports_and_devices_decide() {
    let low = 2 | (port::LOW << 8);
    assert_eq!(
        granted(Cap::NET_BIND_SERVICE, Sysno::bind, low).rule(),
        "used"
    );
    assert_eq!(granted(Cap::MKNOD, Sysno::mknodat, 0o20_644).rule(), "used");
    assert_eq!(
        refused(Cap::SETFCAP, Sysno::setxattr, 1)
            .ended(EPERM)
            .rule(),
        "refused"
    );
}

#[test]
fn whose_credentials() {
    let case = |creds, flags, call| {
        granted(Cap::SYS_ADMIN, call, 0)
            .with(|t| (t.creds, t.flags) = (creds, flags))
            .rule()
    };
    let differ = flag::CREDS_DIFFER;
    assert_eq!(case(creds::OVERRIDDEN, differ, Sysno::openat), "borrowed");
    assert_eq!(case(creds::FOREIGN, differ, Sysno::write), "borrowed");
    assert_eq!(
        case(creds::FOREIGN, 0, Sysno::write),
        "used",
        "one's own opened file"
    );
    assert_eq!(case(creds::OVERRIDDEN, 0, Sysno::openat), "used");
    assert_eq!(case(creds::REAL, 0, Sysno::ptrace), "used");
    for call in [Sysno::access, Sysno::faccessat, Sysno::faccessat2] {
        assert_eq!(
            case(creds::OVERRIDDEN, differ, call),
            "access-asked",
            "the caller's own"
        );
    }
    // A 32-bit call may be access.
    let compat = granted(Cap::SYS_ADMIN, Sysno::openat, 0)
        .with(|t| (t.creds, t.flags, t.abi) = (creds::OVERRIDDEN, differ, 2));
    assert_eq!(compat.rule(), "used");
}

#[test]
fn namespaces_of_ones_own() {
    let case = |target, of, flags| {
        granted(Cap::SYS_ADMIN, Sysno::mount, 0)
            .with(|t| (t.target_level, t.creds_level, t.flags) = (target, of, flags))
    };
    assert_eq!(case(1, 1, flag::TARGET_IS_CREDS).rule(), "own-namespace");
    assert_eq!(case(1, 0, flag::BY_OWNER).rule(), "own-namespace");
    assert_eq!(
        case(1, 0, 0).rule(),
        "used",
        "with what is held outside of it"
    );
    // The container itself runs in a user namespace.
    let rootless = case(1, 1, flag::TARGET_IS_CREDS)
        .around(|c| c.programs[0].exec.as_mut().unwrap().ns_level = 1);
    assert_eq!(rootless.rule(), "used");
    let made = granted(Cap::SYS_ADMIN, Sysno::clone, NEW_USER | 2);
    assert_eq!(made.rule(), "user-namespace-made");
}

#[test]
fn other_answers() {
    let answered = |by: Cap, result: u8, count: u64| {
        refused(Cap::DAC_READ_SEARCH, Sysno::openat, 0).around(|c| {
            let other = Tally {
                cap: Some(by.0),
                result,
                count,
                ..c.tallies[0].clone()
            };
            c.tallies.push(other);
        })
    };
    assert_eq!(answered(Cap::DAC_OVERRIDE, 0, 4).rule(), "other-answer");
    assert_eq!(
        answered(Cap::DAC_OVERRIDE, 0, 3).rule(),
        "refused-silently",
        "one went unanswered"
    );
    assert_eq!(answered(Cap::DAC_OVERRIDE, 1, 4).rule(), "refused-silently");
    assert_eq!(answered(Cap::CHOWN, 0, 4).rule(), "refused-silently");
    // A time slice may end between the two.
    let sliced = answered(Cap::DAC_OVERRIDE, 0, 4).around(|c| c.tallies[1].slice = 9);
    assert_eq!(sliced.rule(), "other-answer");
    // The outcome of one of them may have been missed.
    let missed =
        answered(Cap::DAC_OVERRIDE, 0, 4).around(|c| c.tallies[1].failed = [(254, 1)].into());
    assert_eq!(missed.rule(), "other-answer");
    // In another call, or asked of another program, it is another decision.
    let elsewhere = answered(Cap::DAC_OVERRIDE, 0, 4).around(|c| c.tallies[1].class = 1);
    assert_eq!(elsewhere.rule(), "refused-silently");
    let other = answered(Cap::DAC_OVERRIDE, 0, 4).around(|c| c.tallies[1].program = 9);
    assert_eq!(other.rule(), "refused-silently");
}

#[test]
fn trusted_attributes_and_filters() {
    let hidden = refused(Cap::SYS_ADMIN, Sysno::lgetxattr, xattr::TRUSTED).ended(ENODATA);
    assert_eq!(hidden.rule(), "trusted-read");
    let write = refused(Cap::SYS_ADMIN, Sysno::setxattr, xattr::TRUSTED).ended(EPERM);
    assert_eq!(write.rule(), "refused");
    assert_eq!(
        granted(Cap::SYS_ADMIN, Sysno::listxattr, 0).rule(),
        "trusted-list"
    );
    assert_eq!(
        granted(Cap::BPF, Sysno::seccomp, 1).rule(),
        "filter-hardening"
    );
    assert_eq!(
        granted(Cap::SYS_ADMIN, Sysno::prctl, PR_SET_SECCOMP).rule(),
        "filter-hardening"
    );
    assert_eq!(granted(Cap::BPF, Sysno::bpf, 5).rule(), "used");
}

#[test]
fn outside_the_container() {
    let runtime = granted(Cap::SYS_ADMIN, Sysno::mount, 0).around(|c| {
        let executor = Exec {
            user_ns: 1,
            mnt_ns: 2,
            ..Exec::default()
        };
        c.programs.push(Program {
            id: 2,
            executor: true,
            exec: Some(executor),
            origin: crate::capture::Origin::Exec,
            parent: Some(1),
            ..Program::default()
        });
        c.programs[0].origin = crate::capture::Origin::Enter;
    });
    assert_eq!(runtime.rule(), "outside-container");
    assert_eq!(runtime.with(|t| t.program = 2).rule(), "used");
}
