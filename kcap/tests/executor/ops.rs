//! The operations: each makes one capability check each time, in a system call of its own, whether
//! it is granted or refused.
//!
//! | name | capability | system call |
//! |---|---|---|
//! | `chown` | CHOWN | `fchown` |
//! | `setuid` | SETUID | `setuid`, to 0 |
//! | `setgid` | SETGID | `setgid`, to 0 |
//! | `setgroups` | SETGID | `setgroups` |
//! | `noatime` | FOWNER | `openat` with `O_NOATIME` |
//! | `fowner` | FOWNER | `fchmod` |
//! | `settime` | SYS_TIME | `settimeofday`, which changes nothing |
//! | `hang` | SETGID | `setgroups`; where it is refused, it waits for ever |
//!
//! These leave a file in the image (`image`), by as many checks as it takes: `own` and `must-own` another's
//! (CHOWN), of which the second fails the build where it is refused; `keep-setgid` one with a setgid bit
//! (CHOWN, FSETID); `file-caps` one with capabilities (SETFCAP); `noise` one whose content is another each
//! time, `chaos` one whose owner is. `luck:PERCENT` fails the build in so many of a hundred.
//!
//! Besides, `sleep:MS` waits, `memory:MIB` takes memory, `exit:STATUS` ends the process: no checks but
//! those for memory. `noatime` and `fowner` need a file that belongs to another: the executor makes
//! one before its first log line, and its children inherit it.

use std::{ffi::CStr, time::Duration};

use libc::{O_NOATIME, O_RDONLY, c_int};

use crate::{
    image,
    sys::{self, Errno, Res, must},
};

/// An operation, to be performed `count` times by each of `threads` threads.
#[derive(Clone, Debug)]
pub struct Op {
    what: What,
    count: u64,
    threads: u32,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Chown,
    Setuid,
    Setgid,
    Setgroups,
    Noatime,
    Fowner,
    Settime,
    Sleep,
    Memory,
    Exit,
    Own,
    MustOwn,
    KeepSetgid,
    FileCaps,
    Noise,
    Chaos,
    Luck,
    Hang,
}

const NAMES: [(&str, What); 18] = [
    ("chown", What::Chown),
    ("setuid", What::Setuid),
    ("setgid", What::Setgid),
    ("setgroups", What::Setgroups),
    ("noatime", What::Noatime),
    ("fowner", What::Fowner),
    ("settime", What::Settime),
    ("sleep", What::Sleep),
    ("memory", What::Memory),
    ("exit", What::Exit),
    ("own", What::Own),
    ("must-own", What::MustOwn),
    ("keep-setgid", What::KeepSetgid),
    ("file-caps", What::FileCaps),
    ("noise", What::Noise),
    ("chaos", What::Chaos),
    ("luck", What::Luck),
    ("hang", What::Hang),
];

/// A user that nobody here is.
const FOREIGN: i32 = 4242;
/// The file that belongs to that user, in the executor and its children.
const FOREIGN_FD: c_int = 100;
const FOREIGN_PATH: &CStr = c"/proc/self/fd/100";

/// Every word has to be an operation.
pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Res<Vec<Op>> {
    words
        .into_iter()
        .map(|word| one(word).ok_or(format!("{word}: no such operation")))
        .collect()
}

/// The operations among words.
pub fn among<'a>(words: impl IntoIterator<Item = &'a str>) -> Vec<Op> {
    words.into_iter().filter_map(one).collect()
}

fn one(word: &str) -> Option<Op> {
    let (name, count) = word.split_once(':')?;
    let (count, threads) = count.split_once('@').unwrap_or((count, "1"));
    let (_, what) = NAMES.into_iter().find(|(other, _)| *other == name)?;
    Some(Op {
        what,
        count: count.parse().ok()?,
        threads: threads.parse().ok()?,
    })
}

/// Makes the file of another's. One check, of CHOWN in `fchownat`; where that is refused, the file stays
/// one's own.
pub fn prepare() -> Res {
    let fd = must("memfd_create", sys::memfd())?;
    match sys::fchownat(fd, FOREIGN, -1) {
        Err(libc::EPERM) => {}
        done => must("fchownat", done).map(drop)?,
    }
    must("dup2", sys::inherit_as(fd, FOREIGN_FD)).map(drop)
}

/// Performs one after the other. A refusal is no error: its check was made.
pub fn perform(ops: &[Op]) -> Res {
    for op in ops {
        if op.threads == 1 {
            repeat(op)?;
            continue;
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..op.threads)
                .map(|_| scope.spawn(|| repeat(op)))
                .collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?)
        })?;
    }
    Ok(())
}

fn repeat(op: &Op) -> Res {
    let calls: fn(c_int) -> Result<i64, Errno> = match op.what {
        What::Sleep => {
            std::thread::sleep(Duration::from_millis(op.count));
            return Ok(());
        }
        What::Memory => {
            // One byte of each page, so that the kernel has to give all of them.
            let mut taken = vec![0u8; (op.count as usize) << 20];
            taken.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
            std::hint::black_box(&taken);
            return Ok(());
        }
        What::Own => return image::own(false),
        What::MustOwn => return image::own(true),
        What::KeepSetgid => return image::setgid(),
        What::FileCaps => return image::file_caps(),
        What::Noise => return image::noise(),
        What::Chaos => return image::chaos(),
        What::Luck => return image::luck(op.count),
        What::Hang => |_| match sys::setgroups_none() {
            Err(libc::EPERM) => loop {
                std::thread::sleep(Duration::from_secs(1));
            },
            other => other,
        },
        What::Exit => sys::exit_group(op.count as c_int),
        What::Chown => {
            let fd = must("memfd_create", sys::memfd())?;
            let done = times(op, fd, |fd| sys::fchown(fd, FOREIGN, -1));
            sys::close(fd);
            return done;
        }
        What::Setuid => |_| sys::setuid(0),
        What::Setgid => |_| sys::setgid(0),
        What::Setgroups => |_| sys::setgroups_none(),
        What::Noatime => |_| {
            let fd = sys::open(FOREIGN_PATH, O_RDONLY | O_NOATIME)?;
            sys::close(fd);
            Ok(0)
        },
        What::Fowner => |fd| sys::fchmod(fd, 0o644),
        What::Settime => |_| sys::settimeofday_nothing(),
    };
    times(op, FOREIGN_FD, calls)
}

fn times(op: &Op, fd: c_int, call: fn(c_int) -> Result<i64, Errno>) -> Res {
    for _ in 0..op.count {
        match call(fd) {
            Ok(_) | Err(libc::EPERM) => {}
            other => return must(&format!("{:?}", op.what), other).map(drop),
        }
    }
    Ok(())
}
