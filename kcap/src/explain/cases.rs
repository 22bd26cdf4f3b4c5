//! Builds in the public record that failed for want of a capability: what others met where a report
//! shows the same.

use schemars::JsonSchema;
use serde::Serialize;

use super::seen::Seen;
use crate::report::Cap;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Case {
    /// Where it is recorded: project and issue.
    pub source: &'static str,
    /// What it says.
    pub what: &'static str,
}

struct Row {
    caps: &'static [Cap],
    applies: fn(&Seen<'_>) -> bool,
    case: Case,
}

/// Those that a piece of evidence is an instance of.
pub fn of<'a>(cap: Cap, seen: &'a Seen<'_>) -> impl Iterator<Item = Case> + 'a {
    ROWS.iter()
        .filter(move |row| row.caps.contains(&cap) && (row.applies)(seen))
        .map(|row| row.case)
}

const KANIKO: fn(&Seen<'_>) -> bool = |s| s.report.subject.executor.is_some();

static ROWS: &[Row] = &[
    Row {
        caps: &[Cap::CHOWN],
        applies: |s| s.executor_in(&["unpack"]),
        case: Case {
            source: "GoogleContainerTools/kaniko #1200",
            what: "without CHOWN unpacking ends with `chown /etc/gshadow: operation not permitted`",
        },
    },
    Row {
        caps: &[Cap::DAC_OVERRIDE],
        applies: |s| s.executor_in(&["stage-end"]),
        case: Case {
            source: "GoogleContainerTools/kaniko #1171",
            what: "without DAC_OVERRIDE saving files between stages ends with `mkdir /kaniko/0/go: permission denied`",
        },
    },
    Row {
        caps: &[Cap::FOWNER],
        applies: |s| s.executor_in(&["unpack"]),
        case: Case {
            source: "GoogleContainerTools/kaniko #1171",
            what: "without FOWNER unpacking ends with `chmod /var/cache/apt/archives/partial: operation not permitted`",
        },
    },
    Row {
        caps: &[Cap::SETFCAP],
        applies: |s| s.executor_in(&["unpack", "copy", "add"]) || s.in_run(),
        case: Case {
            source: "GoogleContainerTools/kaniko #738, #2201",
            what: "file capabilities of a package or a base layer cannot be written without SETFCAP",
        },
    },
    Row {
        caps: &[Cap::SETFCAP],
        applies: |s| s.in_run() || s.executor_in(&["snapshot"]),
        case: Case {
            source: "GoogleContainerTools/kaniko #1851",
            what: "files that setcap gave capabilities, through a snapshot",
        },
    },
    Row {
        caps: &[Cap::SETFCAP],
        applies: |s| s.in_run(),
        case: Case {
            source: "shipwright-io/build #415",
            what: "SETFCAP was added to its Kaniko strategy for a package manager's update",
        },
    },
    Row {
        caps: &[Cap::CHOWN, Cap::DAC_OVERRIDE, Cap::FOWNER],
        applies: KANIKO,
        case: Case {
            source: "shipwright-io/build #93",
            what: "CHOWN, DAC_OVERRIDE and FOWNER were the first that its Kaniko strategy added",
        },
    },
    Row {
        caps: &[Cap::SETUID, Cap::SETGID],
        applies: |s| s.executor_in(&["run"]),
        case: Case {
            source: "shipwright-io/build #118",
            what: "SETUID and SETGID were added for `USER user:group` before a RUN",
        },
    },
    Row {
        caps: &[Cap::KILL],
        applies: |s| s.executor_in(&["run"]),
        case: Case {
            source: "shipwright-io/build #654",
            what: "KILL was added for a daemon that a RUN left running as another user",
        },
    },
    Row {
        caps: &[
            Cap::CHOWN,
            Cap::DAC_OVERRIDE,
            Cap::FOWNER,
            Cap::SETGID,
            Cap::SETUID,
        ],
        applies: KANIKO,
        case: Case {
            source: "GoogleContainerTools/kaniko #778",
            what: "which smallest set builds most Dockerfiles, asked since 2019; this is one of the five usually named",
        },
    },
];
