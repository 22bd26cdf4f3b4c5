//! What is built: on which kernels, and with which capabilities.

use std::{fmt, fs};

use crate::corpus::Subject;
use crate::lab::capabilities::Set;
use crate::vm::Preempt;

/// A guest: a series of kernels and a preemption mode, which decides the hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guest {
    /// The series, see [`crate::setup::kernel`].
    pub series: &'static str,
    /// The preemption mode.
    pub preempt: Preempt,
}

/// Where a build runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On this machine's kernel.
    Here,
    /// In a virtual machine.
    Guest(Guest),
}

/// What a build may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// Docker's default set, with what the Dockerfile's `build.toml` adds.
    Default,
    /// Every capability that this host gives anyone: its own root may be without some.
    All,
    /// None.
    Nothing,
    /// CHOWN, SETUID, SETGID, FOWNER and DAC_OVERRIDE.
    Five,
}

/// One way to build a Dockerfile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its name: in the data, in the page and on the command line.
    pub name: &'static str,
    /// Where.
    pub place: Place,
    /// With what.
    pub given: Given,
}

const fn here(name: &'static str, given: Given) -> Run {
    Run {
        name,
        place: Place::Here,
        given,
    }
}

const fn guest(name: &'static str, series: &'static str, preempt: Preempt) -> Run {
    Run {
        name,
        place: Place::Guest(Guest { series, preempt }),
        given: Given::Default,
    }
}

/// Docker's default set, on the kernel that the corpus' captures were made on.
pub const BASE: Run = here("default", Given::Default);
/// Every way. The first is not built: it is what the corpus has as captures.
pub const RUNS: [Run; 8] = [
    BASE,
    here("all", Given::All),
    here("none", Given::Nothing),
    here("five", Given::Five),
    guest("6.1-voluntary", "6.1", Preempt::Voluntary),
    guest("6.1-full", "6.1", Preempt::Full),
    guest("6.12-voluntary", "6.12", Preempt::Voluntary),
    guest("6.12-full", "6.12", Preempt::Full),
];

/// Of the Dockerfiles on the Debian base, which are slow, those that are built in guests too: a base
/// with foreign owners and setgid files; file capabilities, one of which is refused; ping; packages
/// that add users and setgid folders; audit records.
const DEBIAN: [&str; 6] = [
    "debian-unpack",
    "setcap-execute",
    "ping-as-user",
    "apt-setgid-spool",
    "useradd",
    "sockets",
];

/// Whether a Dockerfile is built in guests, where everything is some ten times slower.
pub fn is_for_guests(subject: &Subject) -> bool {
    let debian = fs::read_to_string(subject.folder.join("Dockerfile"))
        .is_ok_and(|text| text.contains("debian"));
    !debian || DEBIAN.contains(&subject.name.as_str())
}

impl Given {
    /// The set, where `start` is the Dockerfile's default one and the host has `held`.
    pub fn set(self, start: Set, held: Set) -> Set {
        // CHOWN, DAC_OVERRIDE, FOWNER, SETGID, SETUID.
        const FIVE: Set = Set(1 | 1 << 1 | 1 << 3 | 1 << 6 | 1 << 7);
        match self {
            Self::Default => start,
            Self::All => held,
            Self::Nothing => Set::default(),
            Self::Five => FIVE,
        }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The run of that name.
pub fn run(name: &str) -> Option<Run> {
    RUNS.into_iter().find(|run| run.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_five_are_the_articles() {
        let names = Given::Five.set(Set::DOCKER_DEFAULT, Set(!0)).to_string();
        assert_eq!(names, "CHOWN DAC_OVERRIDE FOWNER SETGID SETUID");
    }
}
