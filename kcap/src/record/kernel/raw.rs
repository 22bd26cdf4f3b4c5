//! Ring buffer records: bytes to owned values.

use bytes::{Buf, Bytes};
use kcap_common::abi::{
    Key,
    record::{
        ARGUMENTS_LEN, Argv, ENVIRONMENT_LEN, Enter, Evidence, Exec, Executor, Exit, Fork,
        GROUPS_LEN, Phase, Tally, Unasked, kind,
    },
};

/// A record, as the kernel side wrote it.
#[derive(Debug)]
pub enum Raw {
    /// Counts handed over.
    Tally(Key, u64),
    /// A sample.
    Evidence(Box<Evidence>),
    /// A process was made.
    Fork(Fork),
    /// A process entered.
    Enter(Enter),
    /// A program was executed.
    Exec(Box<Exec>),
    /// Its arguments, and the length of the whole vector: cut where that is more.
    Argv {
        /// Generation.
        program: u32,
        /// Length of the whole vector.
        full: u32,
        /// NUL-separated.
        bytes: Bytes,
    },
    /// A process is about to run the executor.
    Executor(Starting),
    /// A process ended.
    Exit(Exit),
    /// A need that asks nothing.
    Unasked(Box<Unasked>),
    /// The executor wrote to its log.
    Phase(Box<Phase>),
}

/// An executor as it starts, as the kernel side saw it: nothing of ours can be too late for that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Starting {
    /// Process id.
    pub pid: u32,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub time_ns: u64,
    /// Names of its control group and of those above it, each with its NUL, the innermost first; none where
    /// they did not fit.
    pub groups: Bytes,
    /// NUL-separated arguments; none where they did not fit.
    pub arguments: Bytes,
    /// NUL-separated variables, where any are wanted: the first ones where not all fitted.
    pub environment: Bytes,
    /// Not all of them fitted.
    pub environment_cut: bool,
}

/// Reads one record; `None` where it is none that this kcap knows.
pub fn decode(item: &[u8]) -> Option<Raw> {
    let tag = item.get(..4)?.get_u32_ne();
    Some(match tag {
        kind::TALLY => {
            let t: Tally = read(item)?;
            Raw::Tally(t.key, t.count)
        }
        kind::EVIDENCE => Raw::Evidence(Box::new(read(item)?)),
        kind::FORK => Raw::Fork(read(item)?),
        kind::ENTER => Raw::Enter(read(item)?),
        kind::EXEC => Raw::Exec(Box::new(read(item)?)),
        kind::ARGV => {
            let head = size_of::<Argv>() - kcap_common::abi::record::ARGV_LEN;
            let mut b = Bytes::copy_from_slice(item);
            if b.len() < head {
                return None;
            }
            b.advance(4);
            let program = b.get_u32_ne();
            let len = b.get_u32_ne() as usize;
            let full = b.get_u32_ne();
            b.truncate(len.min(b.len()));
            Raw::Argv {
                program,
                full,
                bytes: b,
            }
        }
        kind::EXECUTOR => Raw::Executor(starting(item)?),
        kind::EXIT => Raw::Exit(read(item)?),
        kind::UNASKED => Raw::Unasked(Box::new(read(item)?)),
        kind::PHASE => Raw::Phase(Box::new(read(item)?)),
        _ => return None,
    })
}

fn starting(item: &[u8]) -> Option<Starting> {
    const HEAD: usize = size_of::<Executor>() - GROUPS_LEN - ARGUMENTS_LEN - ENVIRONMENT_LEN;
    if item.len() < size_of::<Executor>() {
        return None;
    }
    let (mut head, mut rest) = item.split_at(HEAD);
    head.advance(4);
    let pid = head.get_u32_ne();
    let time_ns = head.get_u64_ne();
    // Most of the record is unused, and was never written.
    let mut part = |of: usize| {
        let len = (head.get_u32_ne() as usize).min(of);
        let part = Bytes::copy_from_slice(&rest[..len]);
        rest.advance(of);
        part
    };
    let (groups, arguments) = (part(GROUPS_LEN), part(ARGUMENTS_LEN));
    let mut environment = part(ENVIRONMENT_LEN);
    let environment_cut = head.get_u32_ne() as usize > environment.len();
    if environment_cut {
        // The last one may be half of one.
        let whole = environment.iter().rposition(|&b| b == 0);
        environment.truncate(whole.map_or(0, |at| at + 1));
    }
    Some(Starting {
        pid,
        time_ns,
        groups,
        arguments,
        environment,
        environment_cut,
    })
}

/// Shapes made of integers and arrays of them: any bytes are a value.
trait Plain: Copy {}
impl Plain for Tally {}
impl Plain for Evidence {}
impl Plain for Fork {}
impl Plain for Enter {}
impl Plain for Exec {}
impl Plain for Exit {}
impl Plain for Unasked {}
impl Plain for Phase {}

fn read<T: Plain>(item: &[u8]) -> Option<T> {
    if item.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: the slice is long enough, the read does not need alignment, and any bytes are a T.
    Some(unsafe { item.as_ptr().cast::<T>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_unknown_records_are_none() {
        assert!(decode(&[]).is_none());
        assert!(decode(&[1, 0]).is_none());
        assert!(decode(&kind::TALLY.to_ne_bytes()).is_none());
        assert!(decode(&[99, 0, 0, 0, 0, 0, 0, 0]).is_none());
        assert!(decode(&kind::ARGV.to_ne_bytes()).is_none());
        assert!(decode(&kind::EXECUTOR.to_ne_bytes()).is_none());
    }

    #[test]
    fn an_executor_is_what_its_lengths_say() {
        let record = |environment: &[u8], full: u32| {
            let mut b = vec![];
            b.extend([kind::EXECUTOR, 7].map(u32::to_ne_bytes).concat());
            b.extend(9u64.to_ne_bytes());
            let len = environment.len() as u32;
            // The second is longer than its array: whoever wrote that was none of ours.
            for word in [4, u32::MAX, len, full] {
                b.extend(word.to_ne_bytes());
            }
            b.resize(size_of::<Executor>(), b'x');
            let mut put = |at: usize, bytes: &[u8]| b[at..][..bytes.len()].copy_from_slice(bytes);
            put(32, b"a\0b\0rest");
            put(32 + GROUPS_LEN + ARGUMENTS_LEN, environment);
            match decode(&b) {
                Some(Raw::Executor(starting)) => starting,
                other => panic!("{other:?}"),
            }
        };
        let starting = record(b"V=1", 3);
        assert_eq!((starting.pid, starting.time_ns), (7, 9));
        assert_eq!(&starting.groups[..], b"a\0b\0");
        assert_eq!(starting.arguments.len(), ARGUMENTS_LEN);
        assert_eq!(&starting.environment[..], b"V=1");
        assert!(!starting.environment_cut);
        let starting = record(b"V=1\0W=", 100);
        assert_eq!(&starting.environment[..], b"V=1\0");
        assert!(starting.environment_cut);
        assert_eq!(record(b"V=", 100).environment.len(), 0);
    }

    #[test]
    fn a_tally_is_read_back() {
        let mut b = vec![];
        b.extend(kind::TALLY.to_ne_bytes());
        b.extend(0u32.to_ne_bytes());
        let key = Key {
            program: 7,
            cap: 3,
            class: 0o2755,
            ..Key::default()
        };
        for w in key.words() {
            b.extend(w.to_le_bytes());
        }
        b.extend(42u64.to_ne_bytes());
        assert!(matches!(decode(&b), Some(Raw::Tally(k, 42)) if k == key));
    }

    #[test]
    fn arguments_are_cut_to_what_is_there() {
        let mut b = vec![];
        b.extend(kind::ARGV.to_ne_bytes());
        b.extend(5u32.to_ne_bytes());
        b.extend(9999u32.to_ne_bytes());
        b.extend(20_000u32.to_ne_bytes());
        b.extend(b"ls\0-l\0");
        let Some(Raw::Argv {
            program: 5,
            full: 20_000,
            bytes,
        }) = decode(&b)
        else {
            panic!("not read");
        };
        assert_eq!(&bytes[..], b"ls\0-l\0");
    }
}
