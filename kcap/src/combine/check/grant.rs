//! Lists of capabilities to add and to drop, and what containers get by them.

use std::str::FromStr;

use crate::report::{Cap, UnknownCap};

/// What is added and dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Everything, whatever the lists say.
    pub privileged: bool,
    /// Added, and whether all.
    pub add: List,
    /// Dropped, and whether all.
    pub drop: List,
}

/// Some capabilities, or all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// `ALL` is in it.
    pub all: bool,
    /// The others, as a mask.
    pub named: u64,
}

impl List {
    /// Takes a name in: `ALL`, or a capability in any form.
    pub fn take(&mut self, name: &str) -> Result<(), UnknownCap> {
        if name.eq_ignore_ascii_case("all") || name.eq_ignore_ascii_case("cap_all") {
            self.all = true;
        } else {
            self.named |= Cap::from_str(name)?.bit();
        }
        Ok(())
    }

    /// The capabilities.
    pub fn mask(self) -> u64 {
        if self.all { every() } else { self.named }
    }
}

/// All capabilities that have a name.
pub fn every() -> u64 {
    Cap::known().fold(0, |all, cap| all | cap.bit())
}

impl Grant {
    /// As docker and podman apply it to their default set: `ALL` added leaves out only what is
    /// dropped by name, `ALL` dropped leaves what is added, and what is added by name stays.
    pub fn docker(&self, default: u64) -> u64 {
        if self.privileged {
            every()
        } else if self.add.all {
            every() & !self.drop.named
        } else if self.drop.all {
            self.add.named
        } else {
            default & !self.drop.named | self.add.named
        }
    }

    /// As container runtimes apply a pod's lists to their default set: `ALL` first, then what is
    /// added by name, then what is dropped by name.
    pub fn kubernetes(&self, default: u64) -> u64 {
        if self.privileged {
            return every();
        }
        let start = match (self.add.all, self.drop.all) {
            (_, true) => 0,
            (true, false) => every(),
            (false, false) => default,
        };
        (start | self.add.named) & !self.drop.named
    }
}
