//! Capabilities by name, and sets of them.

use std::{fmt, fs};

use anyhow::{Context, Result};

/// All names, without `CAP_`, by number.
pub const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A set of capabilities, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Set(pub u64);

impl Set {
    /// What Docker gives a container by default: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL,
    /// SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP.
    pub const DOCKER_DEFAULT: Self = Self(0xa804_25fb);

    /// What this process may give to a program: its bounding set.
    ///
    /// # Errors
    /// Where `/proc` does not say.
    pub fn bounding() -> Result<Self> {
        let status = fs::read_to_string("/proc/self/status").context("cannot read /proc")?;
        let set = (status.lines())
            .find_map(|line| line.strip_prefix("CapBnd:"))
            .and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
        Ok(Self(set.context("/proc/self/status has no CapBnd")?))
    }

    /// The numbers in it, ascending.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..ALL.len()).filter(move |&number| self.has(number))
    }

    /// The names in it, by number.
    pub fn names(self) -> Vec<&'static str> {
        self.iter().map(|number| ALL[number]).collect()
    }

    /// Whether it has a capability.
    pub fn has(self, number: usize) -> bool {
        self.0 >> number & 1 == 1
    }

    /// The set with one more.
    #[must_use]
    pub fn with(self, number: usize) -> Self {
        Self(self.0 | 1 << number)
    }

    /// The set with one less.
    #[must_use]
    pub fn without(self, number: usize) -> Self {
        Self(self.0 & !(1 << number))
    }
}

impl FromIterator<usize> for Set {
    fn from_iter<I: IntoIterator<Item = usize>>(numbers: I) -> Self {
        numbers.into_iter().fold(Self::default(), Self::with)
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("nothing"),
            _ => f.write_str(&self.names().join(" ")),
        }
    }
}

/// The number of a name, with `CAP_` or without, in upper or lower case.
pub fn number(name: &str) -> Option<usize> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    ALL.iter().position(|known| *known == bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_gives_fourteen() {
        let names = "CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE \
                     NET_RAW SYS_CHROOT MKNOD AUDIT_WRITE SETFCAP";
        assert_eq!(Set::DOCKER_DEFAULT.to_string(), names);
        assert_eq!(names.split(' ').count(), 14);
    }

    #[test]
    fn names_are_taken_in_any_form() {
        assert_eq!(number("cap_chown"), Some(0));
        assert_eq!(number("CHECKPOINT_RESTORE"), Some(40));
        assert_eq!(number("CHOW"), None);
    }
}
