//! How a session came to be where an executor opened it, read from its process while it is there.

use std::{collections::BTreeMap, fs};

use kcap_common::abi::record::TREE;

use super::inside;
use crate::host::cgroup::Layout;

/// How a session came to be, where an executor opened it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Lines of `/proc/PID/cgroup` then: they name the container.
    pub cgroups: String,
    /// The command line of the executor.
    pub command: Vec<String>,
    /// The executor's process id.
    pub pid: u32,
    /// `CLOCK_MONOTONIC` nanoseconds then.
    pub time_ns: u64,
    /// Those of its variables that were asked for.
    pub variables: BTreeMap<String, String>,
    /// It ran before the trace began.
    pub late: bool,
}

impl Opened {
    /// Looks at a process that is about to run the executor, in this session. `variables`: names of those
    /// that are wanted; `layout`: where control groups are found by their ids.
    pub fn read(
        session: u64,
        pid: u32,
        time_ns: u64,
        variables: &[String],
        layout: Option<&Layout>,
    ) -> Self {
        // What is gone first comes first.
        let command = inside::command(pid);
        let variables = inside::variables(pid, variables);
        Self {
            cgroups: cgroups(session, pid, layout),
            command,
            variables,
            pid,
            time_ns,
            late: false,
        }
    }

    /// A container of this id is in the path of its cgroup.
    pub fn is_container(&self, id: &str) -> bool {
        !id.is_empty() && self.cgroups.contains(id)
    }
}

/// The control groups of a process, in the lines of `/proc/PID/cgroup`. The group of its session is
/// known by its id, which outlives the process by some milliseconds and waits for no lock: the
/// kernel writes that file under the one that it makes and removes groups with. Where that says of
/// no container, it is the file.
fn cgroups(session: u64, pid: u32, layout: Option<&Layout>) -> String {
    let layout = layout.filter(|_| session & TREE == 0);
    let own = layout.and_then(|layout| layout.line(session));
    if let Some(own) = own.as_ref().filter(|own| names_container(own)) {
        return own.clone();
    }
    let lines = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    match own {
        Some(own) if lines.is_empty() => own,
        _ => lines,
    }
}

/// Whether lines of control groups name a container: by an id of 64 hexadecimal digits.
fn names_container(lines: &str) -> bool {
    lines
        .split(|c: char| !c.is_ascii_hexdigit())
        .any(|part| part.len() == 64)
}
