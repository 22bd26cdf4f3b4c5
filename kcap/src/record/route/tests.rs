use kcap_common::abi::{Key, record};

use super::*;

fn enter(program: u32, session: u64) -> Raw {
    Raw::Enter(Enter {
        kind: kind::ENTER,
        program,
        tgid: program,
        how: how::CGROUP,
        session,
        time: 0,
        comm: [0; 16],
    })
}

fn fork(program: u32, parent: u32) -> Raw {
    Raw::Fork(record::Fork {
        kind: kind::FORK,
        program,
        parent,
        tgid: program,
        time: 0,
        flags: 0,
    })
}

fn tally(program: u32, count: u64) -> Raw {
    let key = Key {
        program,
        ..Key::default()
    };
    Raw::Tally(key, count)
}

fn routed(records: Vec<Raw>) -> Router {
    let mut router = Router::new(0, Sorting::default());
    for raw in records {
        router.take(raw, &mut |_| ());
    }
    router
}

fn checks(router: &mut Router, session: u64) -> Option<u64> {
    router
        .split_off(|id, _| id == session)
        .map(|s| s.assembler.checks())
}

#[test]
fn counts_go_where_their_lineage_is() {
    let mut router = routed(vec![
        enter(1, 100),
        enter(2, 200),
        fork(3, 1),
        fork(4, 2),
        fork(5, 3),
        tally(5, 7),
        tally(4, 11),
        tally(1, 1),
    ]);
    assert_eq!(checks(&mut router, 100), Some(8));
    assert_eq!(checks(&mut router, 200), Some(11));
    assert_eq!(checks(&mut router, 100), None, "it was taken out");
}

#[test]
fn what_nobody_announced_is_everybodys_loss() {
    let mut router = routed(vec![enter(1, 100), enter(2, 200), tally(9, 5)]);
    for session in [100, 200] {
        let share = router.split_off(|id, _| id == session).unwrap().assembler;
        let end = Finish::default();
        let capture = share.finish(&end, &Default::default(), &mut |_| HashMap::new());
        assert_eq!(capture.loss.checks, 5);
    }
}

#[test]
fn nothing_is_kept_of_a_session_that_is_forgotten() {
    let mut router = routed(vec![enter(1, 100), fork(2, 1), tally(2, 3)]);
    router.forget(100);
    for raw in [fork(3, 2), tally(3, 4), tally(2, 5), enter(4, 100)] {
        router.take(raw, &mut |_| ());
    }
    assert_eq!(checks(&mut router, 100), None);
    let mut told = 0;
    router.progress(&mut |_| told += 1);
    assert_eq!(told, 0);
    assert_eq!(router.strays, Strays::default(), "nor is it anybody's loss");
}

#[test]
fn a_container_is_the_commands_whose_client_has_its_arguments() {
    let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
    let mut router = routed(vec![enter(1, 1), enter(2, 20), enter(3, 30)]);
    for (session, command) in [(20, "/kaniko/executor -f a"), (30, "/kaniko/executor -f b")] {
        router.session(session).opened = Some(Opened {
            command: words(command),
            ..Opened::default()
        });
    }
    let started = |router: &Router, command: &str| -> Vec<u64> {
        let opened = router.opened(1, &words(command)).into_iter();
        opened
            .filter(|(.., started)| *started)
            .map(|(id, ..)| id)
            .collect()
    };
    assert_eq!(started(&router, "docker run image -f b"), [30]);
    assert_eq!(started(&router, "make"), [0; 0]);
    router
        .session(1)
        .clients
        .push(words("docker run image -f a"));
    assert_eq!(started(&router, "make"), [20]);
    // One that was started by a client whose command line says nothing of it.
    router.forget(20);
    assert_eq!(started(&router, "make"), [30]);
}

fn exec(program: u32, previous: u32, executor: bool) -> Raw {
    Raw::Exec(Box::new(Exec {
        kind: kind::EXEC,
        program,
        previous,
        // Of no process.
        tgid: u32::MAX - previous,
        time: 5,
        inode: 0,
        cgroup: 0,
        caps: [0; 5],
        dev: 0,
        euid: 0,
        user_ns: 0,
        mnt_ns: 0,
        ns_level: 0,
        flags: if executor { exec_flag::EXECUTOR } else { 0 },
        path: [0; record::PATH_LEN],
        interp: [0; 64],
    }))
}

fn exit(program: u32, tgid: u32) -> Raw {
    Raw::Exit(record::Exit {
        kind: kind::EXIT,
        program,
        tgid,
        status: 0,
        time: 9,
        parent: 0,
        ptgid: 0,
    })
}

#[test]
fn a_second_executor_in_a_container_is_a_session_of_its_own() {
    let mut router = Router::new(
        0,
        Sorting {
            split: true,
            ..Sorting::default()
        },
    );
    let mut opened = vec![];
    // A job's shell runs one executor, which runs another, and then a third.
    for raw in [
        enter(1, 100),
        fork(2, 1),
        exec(3, 2, true),
        fork(4, 3),
        exec(5, 4, true),
        tally(5, 2),
        fork(6, 1),
        tally(6, 7),
        exec(7, 6, true),
        fork(8, 7),
        tally(7, 11),
        tally(8, 13),
        tally(1, 17),
    ] {
        router.take(raw, &mut |seen| {
            if let Seen::Opened(id, _) = seen {
                opened.push(id);
            }
        });
    }
    let own = TREE | 7;
    assert_eq!(opened, [own], "the first was told by the kernel side");
    assert_eq!(checks(&mut router, 100), Some(2 + 7 + 17));
    let share = router.split_off(|id, _| id == own).unwrap().assembler;
    let capture = share.finish(&Finish::default(), &Default::default(), &mut |_| {
        HashMap::new()
    });
    assert_eq!(capture.tallies.iter().map(|t| t.count).sum::<u64>(), 24);
    assert_eq!((capture.loss.checks, capture.loss.execs), (0, 0));
}

#[test]
fn a_session_is_idle_with_its_last_process_and_leaves_nothing_behind() {
    let mut router = routed(vec![enter(1, 100), fork(2, 1)]);
    let mut idle = 0;
    for raw in [exit(1, 1), exit(1, 1), exit(2, 2)] {
        router.take(raw, &mut |seen| {
            idle += i32::from(matches!(seen, Seen::Idle(100, _)))
        });
    }
    assert_eq!(idle, 1);
    assert!(!router.is_idle(), "it was not taken yet");
    assert_eq!(checks(&mut router, 100), Some(0));
    // Its processes may have said something at their very end: not before the next time.
    router.take(tally(2, 3), &mut |_| ());
    assert_eq!(router.strays, Strays::default());
    for _ in 0..2 {
        router.sweep();
    }
    assert!(router.gone.is_empty() && router.of_program.is_empty() && router.is_idle());
}

#[test]
fn what_was_lost_before_a_session_is_not_its_loss() {
    let mut router = routed(vec![enter(1, 100), tally(9, 5), enter(2, 200), tally(9, 3)]);
    for (session, lost) in [(100, 8), (200, 3)] {
        let share = router.split_off(|id, _| id == session).unwrap().assembler;
        let end = Finish::default();
        let capture = share.finish(&end, &Default::default(), &mut |_| HashMap::new());
        assert_eq!(capture.loss.checks, lost);
    }
}

#[test]
fn an_executor_that_is_over_is_known_by_what_the_kernel_side_told() {
    let starting = |pid, arguments: &'static [u8]| {
        Raw::Executor(Starting {
            pid,
            arguments: arguments.into(),
            ..Starting::default()
        })
    };
    let mut told = vec![];
    let mut router = Router::new(0, Sorting::default());
    let mut first = Enter {
        how: how::OPENED,
        ..match enter(1, 100) {
            Raw::Enter(e) => e,
            _ => unreachable!("it is one"),
        }
    };
    // Of no process.
    first.tgid = u32::MAX - 1;
    for raw in [
        starting(u32::MAX - 1, b"/kaniko/executor\0-f\0one\0"),
        starting(u32::MAX - 7, b"/kaniko/executor\0-f\0other\0"),
        Raw::Enter(first),
        exec(2, 1, true),
    ] {
        router.take(raw, &mut |seen| told.push(seen));
    }
    let [Seen::Opened(100, opened), ..] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(opened.command, ["/kaniko/executor", "-f", "one"]);
    assert_eq!(router.starting.len(), 1, "the other one has not run yet");
}

#[test]
fn what_was_told_of_another_process_is_not_taken_for_this_ones() {
    let arguments = &b"/kaniko/executor\0-f\0another\0"[..];
    let starting = |time_ns| {
        Raw::Executor(Starting {
            pid: u32::MAX - 1,
            time_ns,
            arguments: arguments.into(),
            ..Starting::default()
        })
    };
    let command = |router: &mut Router, time| {
        let mut told = vec![];
        let enter = Enter {
            kind: kind::ENTER,
            program: 1,
            // Of no process.
            tgid: u32::MAX - 1,
            how: how::OPENED,
            session: time,
            time,
            comm: [0; 16],
        };
        router.take(Raw::Enter(enter), &mut |seen| told.push(seen));
        match told.remove(0) {
            Seen::Opened(_, opened) => opened.command,
            other => panic!("{other:?}"),
        }
    };
    let mut router = Router::new(0, Sorting::default());
    router.take(starting(5), &mut |_| ());
    assert_eq!(command(&mut router, 6).len(), 3);
    assert_eq!(command(&mut router, 5 + SOON), [""; 0]);
    // The next one that starts has it forgotten.
    router.take(
        Raw::Executor(Starting {
            pid: 7,
            time_ns: 5 + SOON,
            ..Starting::default()
        }),
        &mut |_| (),
    );
    assert_eq!(router.starting.keys().collect::<Vec<_>>(), [&7]);
}
