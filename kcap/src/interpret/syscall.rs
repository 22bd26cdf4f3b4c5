//! System calls and errors by name. Rules name x86_64 calls of the native ABI only: the argument
//! class is laid out by their numbers (`kcap_common::decide::argclass`).

use kcap_common::abi::key::abi;
pub use syscalls::x86_64::Sysno;

use crate::capture::Tally;

/// Bit of x32 system call numbers, cut to the width of the key.
const X32_BIT: u16 = 0x4000;

/// The native call that a tally was made in, where there is one and the host is an x86_64.
pub fn native(tally: &Tally, arch: &str) -> Option<Sysno> {
    if tally.abi == abi::NATIVE && arch == "x86_64" {
        Sysno::new(usize::from(tally.syscall?))
    } else {
        None
    }
}

/// The name of a native call.
#[cfg(feature = "trace")]
pub fn native_name(number: u16) -> Option<String> {
    Sysno::new(usize::from(number)).map(|call| call.name().to_owned())
}

/// The call's name, of whatever ABI; `syscall N` where it has none here.
pub fn name(abi: u8, number: u16, arch: &str) -> String {
    use kcap_common::abi::key::abi::{COMPAT, NATIVE, X32};
    let name = match abi {
        NATIVE if arch == "x86_64" => Sysno::new(usize::from(number)).map(|call| call.name()),
        X32 => Sysno::new(usize::from(number & !X32_BIT)).map(|call| call.name()),
        COMPAT => syscalls::x86::Sysno::new(usize::from(number)).map(|call| call.name()),
        _ => None,
    };
    match (name, abi) {
        (Some(name), COMPAT) => format!("{name} (32-bit)"),
        (Some(name), _) => name.to_owned(),
        (None, _) => format!("syscall {number}"),
    }
}

/// How a system call ended, as far as it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// There was none: a page fault, an io_uring worker, a kernel thread.
    NoCall,
    /// It succeeded.
    Success,
    /// It failed with this errno.
    Failed(u8),
    /// A signal had the kernel restart it: the check is made again.
    Restarted,
    /// Not seen; never to be read as success.
    Unknown,
}

impl Outcome {
    /// Of a key of `Tally::failed`.
    pub fn of(code: u8) -> Self {
        use kcap_common::abi::key::outcome::{RESTARTED, UNKNOWN};
        match code {
            0 => Self::Success,
            UNKNOWN => Self::Unknown,
            RESTARTED => Self::Restarted,
            errno => Self::Failed(errno),
        }
    }

    /// As a report gives it.
    pub fn name(self) -> Option<String> {
        match self {
            Self::NoCall => None,
            Self::Success => Some("ok".to_owned()),
            Self::Failed(errno) => Some(
                syscalls::Errno::new(i32::from(errno))
                    .name()
                    .map_or_else(|| format!("errno {errno}"), str::to_owned),
            ),
            Self::Restarted => Some("restarted".to_owned()),
            Self::Unknown => Some("unknown".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_abi() {
        assert_eq!(name(abi::NATIVE, 90, "x86_64"), "chmod");
        assert_eq!(name(abi::NATIVE, 452, "x86_64"), "fchmodat2");
        assert_eq!(name(abi::COMPAT, 15, "x86_64"), "chmod (32-bit)");
        assert_eq!(name(abi::X32, 0x4000 | 90, "x86_64"), "chmod");
        assert_eq!(name(abi::NATIVE, 60000, "x86_64"), "syscall 60000");
        assert_eq!(name(abi::NATIVE, 90, "riscv64"), "syscall 90");
    }

    #[test]
    fn outcomes_by_code() {
        assert_eq!(Outcome::of(13).name().as_deref(), Some("EACCES"));
        assert_eq!(Outcome::of(254), Outcome::Unknown);
        assert_eq!(Outcome::of(255), Outcome::Restarted);
        assert_eq!(Outcome::of(253).name().as_deref(), Some("errno 253"));
    }
}
