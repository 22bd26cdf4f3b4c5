use super::*;
use crate::{
    capture::Capture,
    record::{kernel::Finish, mask::Mask},
};

fn none(_: &Executed<'_>) -> FileCaps {
    FileCaps::None
}

fn key(program: u32, cap: u8) -> Key {
    Key {
        program,
        cap,
        syscall: 90,
        abi: 1,
        ..Key::default()
    }
}

fn finish(a: Assembler, end: Finish) -> Capture {
    {
        let mut a = a;
        for &(key, n) in &end.tallies {
            a.take(Raw::Tally(key, n), &mut none);
        }
        a.finish(&end, &Mask::default(), &mut |_| HashMap::new())
    }
}

fn fork(program: u32, parent: u32) -> Raw {
    Raw::Fork(record::Fork {
        kind: 3,
        program,
        parent,
        tgid: program,
        time: 0,
        flags: 0,
    })
}

fn exec(program: u32, previous: u32, path: &str) -> Raw {
    let mut e = record::Exec {
        kind: 4,
        program,
        previous,
        tgid: previous,
        time: 10,
        inode: 1,
        cgroup: 1,
        caps: [0; 5],
        dev: 0x0080_0001,
        euid: 0,
        user_ns: 1,
        mnt_ns: 1,
        ns_level: 0,
        flags: 0,
        path: [0; record::PATH_LEN],
        interp: [0; 64],
    };
    e.path[..path.len()].copy_from_slice(path.as_bytes());
    Raw::Exec(Box::new(e))
}

#[test]
fn parts_of_a_count_add_up() {
    let mut a = Assembler::new(0);
    a.take(Raw::Tally(key(1, 3), 5), &mut none);
    a.take(Raw::Tally(key(1, 3), 2), &mut none);
    let failed = Key {
        outcome: 1,
        ..key(1, 3)
    };
    a.take(Raw::Tally(failed, 4), &mut none);
    let end = Finish {
        tallies: vec![(key(1, 3), 1), (failed, 1)],
        ..Finish::default()
    };
    let c = finish(a, end);
    assert_eq!(c.tallies.len(), 1);
    assert_eq!(c.tallies[0].count, 8);
    assert_eq!(c.tallies[0].failed, BTreeMap::from([(1, 5)]));
    assert_eq!(
        c.loss.execs, 1,
        "a tally whose program never came is a loss"
    );
}

#[test]
fn the_order_of_records_does_not_matter() {
    let records = || {
        [
            exec(3, 2, "/bin/a"),
            fork(2, 1),
            fork(4, 3),
            exec(1, 9, "/bin/sh"),
        ]
    };
    let mut forward = Assembler::new(0);
    records()
        .into_iter()
        .for_each(|r| forward.take(r, &mut none));
    let mut backward = Assembler::new(0);
    records()
        .into_iter()
        .rev()
        .for_each(|r| backward.take(r, &mut none));
    let (f, b) = (
        finish(forward, Finish::default()),
        finish(backward, Finish::default()),
    );
    assert_eq!(f.programs, b.programs);
    let by = |id| f.programs.iter().find(|p| p.id == id).unwrap();
    assert_eq!(by(2).path, "/bin/sh", "a child is its parent's program");
    assert_eq!(by(4).path, "/bin/a");
    assert_eq!(by(3).exec.as_ref().unwrap().dev, "8:1");
}

#[test]
fn parents_in_a_circle_end() {
    let mut a = Assembler::new(0);
    a.take(fork(1, 2), &mut none);
    a.take(fork(2, 1), &mut none);
    assert_eq!(finish(a, Finish::default()).programs.len(), 2);
}

#[test]
fn the_first_end_is_kept() {
    let exit = |status, time| {
        Raw::Exit(record::Exit {
            kind: 5,
            program: 1,
            tgid: 7,
            status,
            time,
            parent: 0,
            ptgid: 1,
        })
    };
    let mut a = Assembler::new(5);
    a.take(exit(256, 10), &mut none);
    a.take(exit(9, 20), &mut none);
    let c = finish(a, Finish::default());
    assert_eq!(
        (c.programs[0].wait_status, c.programs[0].end_ns),
        (Some(256), Some(5))
    );
}

#[test]
fn an_unread_file_is_a_loss() {
    let mut a = Assembler::new(0);
    a.take(exec(3, 0, "/bin/a"), &mut |_| FileCaps::Unread);
    assert_eq!(finish(a, Finish::default()).loss.file_caps, 1);
}

#[test]
fn what_there_is_no_room_for_is_counted_as_lost() {
    let mut a = Assembler::bounded(0, Room::of(cost::TALLY));
    for (program, cap) in [(1, 0), (1, 0), (1, 1)] {
        a.take(Raw::Tally(key(program, cap), 5), &mut none);
    }
    assert!(a.is_full());
    let capture = finish(a, Finish::default());
    assert_eq!(capture.tallies.iter().map(|t| t.count).sum::<u64>(), 10);
    assert_eq!(capture.loss.checks, 5);

    let mut a = Assembler::bounded(0, Room::of(cost::PROGRAM));
    a.take(exec(1, 0, "/bin/a"), &mut none);
    assert!(!a.is_full());
    a.take(fork(2, 1), &mut none);
    assert!(a.is_full());
    let capture = finish(a, Finish::default());
    assert_eq!((capture.programs.len(), capture.loss.execs), (1, 1));
}
