//! How a session came to be where an executor opened it, read from its process while it is there.

use std::{collections::BTreeMap, fs};

use kcap_common::abi::record::TREE;

use super::{inside, kernel::Starting};
use crate::host::cgroup::Layout;

/// Hexadecimal digits of a container's id.
const ID: usize = 64;

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

impl Starting {
    /// Its command line, where that was told.
    pub fn command(&self) -> Option<Vec<String>> {
        (!self.arguments.is_empty()).then(|| inside::arguments(&self.arguments))
    }

    /// The path of its control group, where that was told.
    fn group(&self) -> Option<String> {
        let names = self.groups.strip_suffix(b"\0")?;
        let mut path = String::new();
        for name in names.rsplit(|&b| b == 0) {
            path.push('/');
            path.push_str(&String::from_utf8_lossy(name));
        }
        Some(path)
    }
}

impl Opened {
    /// Looks at a process that is about to run the executor, in this session. `told`: what the kernel side
    /// told of it; `variables`: names of those that are wanted; `layout`: where control groups are found
    /// by their ids.
    pub fn read(
        session: u64,
        pid: u32,
        time_ns: u64,
        told: Option<&Starting>,
        variables: &[String],
        layout: Option<&Layout>,
    ) -> Self {
        // What is gone first comes first.
        let command = told
            .and_then(Starting::command)
            .unwrap_or_else(|| inside::command(pid));
        let variables = read_variables(pid, told, variables);
        Self {
            cgroups: cgroups(session, pid, told, layout),
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

    /// What of its cgroup's path is its container's: up to the last name with an id, whatever groups the
    /// container has made for itself; all of it where none has one.
    pub fn container(&self) -> &str {
        let paths = self
            .cgroups
            .lines()
            .filter_map(|line| line.splitn(3, ':').nth(2));
        let within = |path: &'_ str| {
            let mut at = 0;
            let mut end = None;
            for part in path.split_inclusive('/') {
                at += part.len();
                if names_container(part) {
                    end = Some(at);
                }
            }
            end
        };
        for path in paths {
            if let Some(end) = within(path) {
                return path[..end].trim_end_matches('/');
            }
        }
        self.cgroups.trim_end()
    }
}

/// Those of a process's variables that are wanted. Of those that were told no more are looked for: a process may
/// lay memory over its environment that keeps whoever reads it waiting.
fn read_variables(
    pid: u32,
    told: Option<&Starting>,
    wanted: &[String],
) -> BTreeMap<String, String> {
    match told {
        Some(told) if !told.environment_cut || !told.environment.is_empty() => {
            inside::wanted_of(&told.environment, wanted)
        }
        _ => inside::variables(pid, wanted),
    }
}

/// The control groups of a process, in the lines of `/proc/PID/cgroup`. What the kernel side told comes
/// first; then the group of its session, by its id: that outlives the process by some milliseconds and
/// waits for no lock, while the kernel writes that file under the one that it makes and removes groups
/// with. Where these say of no container, it is the file.
fn cgroups(session: u64, pid: u32, told: Option<&Starting>, layout: Option<&Layout>) -> String {
    let own = layout.and_then(|layout| match told.and_then(Starting::group) {
        Some(path) => Some(layout.line_of(&path)),
        None if session & TREE == 0 => layout.line(session),
        None => None,
    });
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
        .any(|part| part.len() == ID)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::cgroup::Kind;

    #[test]
    fn what_was_told_outlives_the_process() {
        let layout = Layout {
            kind: Kind::V1,
            hierarchy: 7,
            controller: Some("pids"),
            mount: "/nonexistent".into(),
            own: "/nonexistent".into(),
        };
        let id = "0123456789abcdef".repeat(4);
        let told = Starting {
            pid: u32::MAX,
            time_ns: 8,
            groups: format!("{id}\0docker\0").into_bytes().into(),
            arguments: b"/kaniko/executor\0-f\0a b\0"[..].into(),
            environment: b"A=1\0CI_PROJECT_PATH=group/app\0"[..].into(),
            environment_cut: true,
        };
        let wanted = ["CI_PROJECT_PATH".to_owned()];
        let opened = Opened::read(5, u32::MAX, 9, Some(&told), &wanted, Some(&layout));
        assert_eq!(opened.cgroups, format!("7:pids:/docker/{id}\n"));
        assert_eq!(opened.command, ["/kaniko/executor", "-f", "a b"]);
        let variables = [("CI_PROJECT_PATH".to_owned(), "group/app".to_owned())];
        assert_eq!(opened.variables, variables.into());
        // Of what was too long to be told, nothing is left by now.
        let untold = Opened::read(
            5,
            u32::MAX,
            9,
            Some(&Starting::default()),
            &wanted,
            Some(&layout),
        );
        let nothing = Opened {
            pid: u32::MAX,
            time_ns: 9,
            ..Opened::default()
        };
        assert_eq!(untold, nothing);
    }

    #[test]
    fn a_containers_own_groups_are_its_own() {
        let id = "0123456789abcdef".repeat(4);
        let of = |cgroups: String| Opened {
            cgroups,
            ..Opened::default()
        };
        let container = format!("/kubepods.slice/cri-containerd-{id}.scope");
        for below in ["", "/", "/a", "/a/b"] {
            let line = format!("0::{container}{below}\n");
            assert_eq!(of(line.clone()).container(), container);
            // The same on a host that has several hierarchies.
            let lines = format!("9:cpu:/\n{}", line.replace("0::", "5:pids:"));
            assert_eq!(
                of(format!("{lines}4:freezer:{container}\n0::/\n")).container(),
                container
            );
        }
        let inner = format!("/docker/{id}/docker/{id}");
        assert_eq!(of(format!("0::{inner}/init\n")).container(), inner);
        assert_eq!(
            of("0::/user.slice/a\n".into()).container(),
            "0::/user.slice/a"
        );
        assert_eq!(of(String::new()).container(), "");
    }
}
