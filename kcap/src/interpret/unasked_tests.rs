use super::*;
use crate::capture::{Capture, Exec, Origin, Program, Sets};
use crate::report::Verdict::{self, Needed, Unneeded, Unsure};

const CHOWN: u64 = 1;
const NET_BIND: u64 = 1 << 10;
const NET_ADMIN: u64 = 1 << 12;

fn capture(tally: Tally, detail: Unasked) -> Capture {
    let caps = Sets {
        bounding: CHOWN | NET_BIND,
        ..Sets::default()
    };
    let program = Program {
        id: 1,
        origin: Origin::Exec,
        path: "/bin/tool".to_owned(),
        wait_status: Some(256),
        exec: Some(Exec {
            caps,
            file: FileCaps::None,
            ..Exec::default()
        }),
        ..Program::default()
    };
    let tally = Tally {
        program: 1,
        abi: 1,
        count: 2,
        ..tally
    };
    let mut capture = Capture {
        programs: vec![program],
        tallies: vec![tally],
        unasked: vec![detail],
        ..Capture::default()
    };
    capture.host.arch = "x86_64".to_owned();
    capture
}

fn found(capture: &Capture) -> Vec<(Verdict, Vec<Cap>)> {
    let (needs, _) = needs(&Session::of(capture));
    needs
        .into_iter()
        .map(|need| (need.rule.verdict, need.any_of.into_iter().collect()))
        .collect()
}

fn has(permitted: u64, effective: bool) -> FileCaps {
    FileCaps::Has {
        permitted,
        inheritable: 0,
        effective,
        rootid: None,
    }
}

#[test]
fn a_refused_exec_needs_what_the_file_has_and_the_bounding_set_lacks() {
    let exec = |file, lacking| {
        let tally = Tally {
            unasked: EXEC,
            syscall: Some(59),
            ..Tally::default()
        };
        let detail = Unasked {
            file,
            lacking,
            bounding: CHOWN,
            ..Unasked::default()
        };
        capture(tally, detail)
    };
    let both = exec(Some(has(CHOWN | NET_ADMIN, true)), 0);
    assert_eq!(found(&both), [(Needed, vec![Cap::NET_ADMIN])]);
    assert_eq!(
        found(&exec(None, NET_ADMIN)),
        [(Needed, vec![Cap::NET_ADMIN])]
    );
    assert_eq!(found(&exec(Some(FileCaps::None), 0)), []);
    let (_, notes) = needs(&Session::of(&exec(None, 0)));
    assert_eq!(notes.len(), 1, "told although no capability is known");
}

#[test]
fn an_executed_file_needs_its_permitted_set() {
    let run = |file, level| {
        let mut capture = capture(Tally::default(), Unasked::default());
        let exec = capture.programs[0].exec.as_mut().unwrap();
        exec.file = file;
        let mut child = capture.programs[0].clone();
        child.id = 2;
        child.exec.as_mut().unwrap().ns_level = level;
        capture.programs[0].exec.as_mut().unwrap().file = FileCaps::None;
        capture.programs.push(child);
        found(&capture)
    };
    assert_eq!(
        run(has(NET_BIND, true), 0),
        [(Needed, vec![Cap::NET_BIND_SERVICE])]
    );
    assert_eq!(
        run(has(NET_BIND, false), 0),
        [(Unsure, vec![Cap::NET_BIND_SERVICE])]
    );
    assert_eq!(
        run(has(NET_ADMIN, true), 0),
        [],
        "it ran all the same: ignored by the kernel"
    );
    assert_eq!(run(has(NET_BIND, true), 1), [], "a namespace of its own");
}

#[test]
fn sets_above_what_is_held() {
    let case = |kind, class, lacking, bounding| {
        let tally = Tally {
            unasked: kind,
            class,
            syscall: Some(126),
            ..Tally::default()
        };
        found(&capture(
            tally,
            Unasked {
                lacking,
                bounding,
                ..Unasked::default()
            },
        ))
    };
    let net_admin = [(Needed, vec![Cap::NET_ADMIN])];
    assert_eq!(case(CAPSET, 0, NET_ADMIN, CHOWN), net_admin);
    assert_eq!(case(CAPSET, NET_ADMIN as u32, 0, CHOWN), net_admin);
    assert_eq!(
        case(CAPSET, 0, NET_ADMIN, NET_ADMIN),
        [],
        "the container has it already"
    );
    assert_eq!(case(AMBIENT, 12, 0, CHOWN), net_admin);
    assert_eq!(case(AMBIENT, 4000, 0, CHOWN), []);
}

#[test]
fn maps_of_the_parents_root() {
    let case = |class, level, text: &str| {
        let tally = Tally {
            unasked: IDMAP,
            class,
            creds_level: level,
            ..Tally::default()
        };
        found(&capture(
            tally,
            Unasked {
                detail: text.to_owned(),
                ..Unasked::default()
            },
        ))
    };
    let setfcap = [(Needed, vec![Cap::SETFCAP])];
    assert_eq!(case(1, 1, "0 0 1"), setfcap);
    assert_eq!(case(1, 1, "0 1000 1\n1\t0 65536\n"), setfcap);
    assert_eq!(case(1, 1, "0 1000 1"), []);
    assert_eq!(case(1, 1, "0 0 0"), []);
    assert_eq!(case(1, 1, "nonsense 0 1 \u{1b}"), []);
    assert_eq!(case(2, 1, "0 0 1"), [], "gid_map");
    assert_eq!(
        case(1, 2, "0 0 1"),
        [],
        "below a namespace of the build's own"
    );
}

#[test]
fn calls_closed_by_seccomp() {
    let case = |call: Sysno, errno, status| {
        let syscall = Some(call.id() as u16);
        let tally = Tally {
            unasked: SECCOMP,
            syscall,
            result: errno,
            ..Tally::default()
        };
        let mut capture = capture(tally, Unasked::default());
        capture.programs[0].wait_status = status;
        found(&capture)
    };
    assert_eq!(
        case(Sysno::chroot, 1, Some(256)),
        [(Needed, vec![Cap::SYS_CHROOT])]
    );
    assert_eq!(
        case(Sysno::chroot, 1, Some(0)),
        [(Unsure, vec![Cap::SYS_CHROOT])]
    );
    assert_eq!(
        case(Sysno::mount, 1, None),
        [(Unsure, vec![Cap::SYS_ADMIN])]
    );
    assert_eq!(
        case(Sysno::bpf, 1, Some(9)),
        [(Needed, vec![Cap::SYS_ADMIN, Cap::BPF])]
    );
    assert_eq!(
        case(Sysno::clone3, ENOSYS, Some(256)),
        [(Unneeded, vec![Cap::SYS_ADMIN])]
    );
}

#[test]
fn readers_of_their_own_sets_are_told() {
    let tally = Tally {
        unasked: READS_OWN,
        ..Tally::default()
    };
    let capture = capture(tally, Unasked::default());
    let (needs, notes) = needs(&Session::of(&capture));
    assert!(needs.is_empty());
    assert!(notes[0].contains("/bin/tool"), "{notes:?}");
}

/// One kind of decision without a check, in a build that ended with this status.
fn ended(status: i32, tally: Tally, detail: Unasked) -> Capture {
    let mut capture = capture(tally, detail);
    capture.subject.exit_status = Some(status);
    capture
}

fn kind(unasked: u8, call: Sysno, class: u32) -> Tally {
    Tally {
        unasked,
        class,
        syscall: Some(call.id() as u16),
        result: 1,
        ..Tally::default()
    }
}

fn ran(file: FileCaps) -> Capture {
    let mut capture = capture(Tally::default(), Unasked::default());
    capture.programs[0].exec.as_mut().unwrap().file = file;
    capture
}

#[test]
fn every_stated_rule_decides_its_case_and_leaves_the_other() {
    let refused = |status| {
        let detail = Unasked {
            file: Some(has(NET_ADMIN, true)),
            bounding: CHOWN,
            ..Unasked::default()
        };
        ended(status, kind(EXEC, Sysno::execve, 0), detail)
    };
    let set = |bounding| {
        let detail = Unasked {
            lacking: NET_ADMIN,
            bounding,
            ..Unasked::default()
        };
        ended(1, kind(CAPSET, Sysno::capset, 0), detail)
    };
    let map = |text: &str| {
        let detail = Unasked {
            detail: text.to_owned(),
            ..Unasked::default()
        };
        let mut tally = kind(IDMAP, Sysno::write, UID_MAP);
        tally.creds_level = 1;
        ended(0, tally, detail)
    };
    let closed = |call, errno, build, program| {
        let mut tally = kind(SECCOMP, call, 0);
        tally.result = errno;
        let mut capture = ended(build, tally, Unasked::default());
        capture.programs[0].wait_status = Some(program);
        capture
    };
    let cases = [
        (
            "executed-file",
            ran(has(NET_BIND, true)),
            ran(has(NET_BIND, false)),
        ),
        (
            "executed-file-permitted",
            ran(has(NET_BIND, false)),
            ran(has(NET_BIND, true)),
        ),
        ("refused-exec", refused(1), refused(0)),
        ("refused-set", set(CHOWN), set(NET_ADMIN)),
        ("root-mapped", map("0 0 1"), map("0 1000 1")),
        (
            "clone3-hidden",
            closed(Sysno::clone3, ENOSYS, 1, 256),
            closed(Sysno::unshare, 1, 1, 256),
        ),
        ("done-without-unasked", refused(0), refused(1)),
        (
            "seccomp-fatal",
            closed(Sysno::mount, 1, 1, 256),
            closed(Sysno::mount, 1, 1, 0),
        ),
        (
            "seccomp-passed",
            closed(Sysno::mount, 1, 1, 0),
            closed(Sysno::mount, 1, 0, 0),
        ),
    ];
    let decided = |capture: &Capture| {
        let (needs, _) = needs(&Session::of(capture));
        needs.iter().map(|need| need.rule.name).collect::<Vec<_>>()
    };
    for (rule, decides, leaves) in &cases {
        assert_eq!(decided(decides), [*rule]);
        assert!(!decided(leaves).contains(rule), "{rule}");
    }
    assert!(
        cases
            .iter()
            .map(|case| case.0)
            .eq(stated::RULES.iter().map(|rule| rule.name))
    );
}
