//! What is said as it happens: a line of JSON each, on standard output and to whoever else listens.
//! `kcap.event/v1`: fields may be added, none is renamed.

use schemars::JsonSchema;
use serde::Serialize;

use super::refusals::Refusal;
use crate::report::{Cap, Identity, Loss};

/// The schema that this version writes.
pub const SCHEMA: &str = "kcap.event/v1";

/// One line.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Line {
    /// Name and major version of this format: `kcap.event/v1`.
    pub schema: &'static str,
    /// When, RFC 3339, UTC.
    pub time: String,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum What {
    /// Builds are seen from now on.
    Watching {
        /// Paths that make a program an executor.
        matches: Vec<String>,
        /// Where reports go.
        out: Option<String>,
        /// The hook that sees checks.
        pid: u32,
    },
    /// A build began.
    Opened {
        /// Number of the session, in this kcap.
        session: String,
        /// Whose it is.
        identity: Identity,
        /// It ran before kcap did.
        late: bool,
    },
    /// A build has just been denied what engines grant by default and its container does not hold. What
    /// that comes to is told when it is over, as `refused`.
    Denied {
        /// Number of the session.
        session: String,
        /// Whose it is, as far as that is known by now.
        identity: Identity,
        /// The capability.
        capability: Cap,
        /// Name of the task that asked.
        program: String,
        /// The system call.
        syscall: Option<String>,
        /// What the executor logged last.
        line: String,
    },
    /// A build is over, and its report is written.
    Report {
        /// Number of the session.
        session: String,
        /// Name of the report at the destination; null where there is none.
        name: Option<String>,
        /// Whose it is.
        identity: Identity,
        /// The Dockerfile's path as the executor was told.
        dockerfile: Option<String>,
        /// How it ended; null where that was not seen.
        exit_status: Option<i32>,
        /// Nothing was lost.
        complete: bool,
        /// What was lost.
        loss: Loss,
        /// What it needs.
        required: Vec<Cap>,
        /// The part of it that one run cannot settle.
        unsure: Vec<Cap>,
        /// Checks seen.
        checks: u64,
        /// It ran before kcap did.
        late: bool,
        /// kcap was ended before it.
        interrupted: bool,
        /// It took more memory than a session may: what was beyond is lost.
        over_bounds: bool,
    },
    /// A build asked for what its container does not hold.
    Refused {
        /// Number of the session.
        session: String,
        /// Whose it is.
        identity: Identity,
        /// The Dockerfile's path as the executor was told.
        dockerfile: Option<String>,
        /// What was refused, and where.
        #[serde(flatten)]
        refusal: Refusal,
    },
    /// A build is not traced.
    LeftOut {
        /// Its container.
        identity: Identity,
        /// Why.
        why: String,
    },
    /// A report could not be kept.
    Lost {
        /// Number of the session.
        session: String,
        /// Its name.
        name: String,
        /// Why.
        why: String,
    },
    /// kcap ends.
    Stopped {
        /// Reports written.
        reports: u64,
        /// Reports lost.
        lost: u64,
    },
}

impl Line {
    /// As it is written, with the end of the line.
    pub fn to_json(&self) -> String {
        // Nothing in it can fail.
        let mut text = serde_json::to_string(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// The JSON Schema of a line, with one trailing newline.
pub fn schema() -> String {
    let mut schema = schemars::schema_for!(Line);
    schema.insert("$id".to_owned(), SCHEMA.into());
    format!("{:#}\n", schema.to_value())
}
