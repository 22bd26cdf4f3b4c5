//! What is known of builds that are not traced: by their end, and by a trace of the same build, made
//! elsewhere.

use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use super::planner::Set;
use crate::{
    capture::{self, Capture},
    interpret::{interpret, steps::line::without_ansi},
    launch::kubernetes::End,
    report::{Cap, Executor, Report},
};

/// What is known of what its builds ask for.
#[derive(Default)]
pub(super) enum Trace {
    /// All that they do: they are traced.
    #[default]
    Each,
    /// What a trace of the same build said, made elsewhere; nothing where there is none.
    Elsewhere(Option<Box<Report>>),
}

impl Trace {
    /// There is none.
    pub(super) fn is_none(&self) -> bool {
        matches!(self, Self::Elsewhere(None))
    }

    /// What it says of a build whose own report is this one.
    pub(super) fn of(&self, own: Report) -> Report {
        match self {
            Self::Elsewhere(Some(elsewhere)) => Report {
                // What was built is this build's, whatever was traced.
                subject: own.subject,
                interrupted: own.interrupted,
                ..(**elsewhere).clone()
            },
            Self::Each | Self::Elsewhere(None) => own,
        }
    }

    /// What a trace of another build says that it needs, and a build with this set does not have.
    pub(super) fn supposed(&self, set: Set) -> Vec<Cap> {
        match self {
            Self::Elsewhere(Some(report)) => {
                let missing = |cap: &&Cap| set & cap.bit() == 0;
                report.required.iter().filter(missing).copied().collect()
            }
            Self::Each | Self::Elsewhere(None) => vec![],
        }
    }
}

/// The report of a build of which nothing but its end is known; `image` is the executor's.
pub(super) fn report(
    (path, text): &(PathBuf, Vec<u8>),
    context: &str,
    image: &str,
    set: Set,
    end: &End,
) -> Report {
    // Where the pod has its own, its bytes are not known.
    let text = Some(text).filter(|text| !text.is_empty());
    let sha256 = |text: &Vec<u8>| {
        Sha256::digest(text)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect()
    };
    let capture = Capture {
        subject: capture::Subject {
            dockerfile: Some(path.display().to_string()),
            dockerfile_text: text.map(|text| String::from_utf8_lossy(text).into_owned()),
            dockerfile_sha256: text.map(sha256),
            context: Some(context.to_owned()),
            exit_status: Some(end.exit_status),
            started: end.started.clone(),
            duration_ms: (end.seconds * 1000.0) as u64,
            engine: Some("kubernetes".into()),
            out_of_memory: end.out_of_memory,
            timed_out: end.timed_out,
            ..capture::Subject::default()
        },
        loss: capture::Loss {
            unproven: Some("nothing was traced: what is said comes of replays alone".into()),
            ..capture::Loss::default()
        },
        ..Capture::default()
    };
    let mut report = interpret(&capture);
    report.subject.executor = Some(Executor {
        path: String::new(),
        given: Some(image.to_owned()),
    });
    report.subject.capabilities = Cap::of_mask(set).collect();
    // Nothing could be seen.
    report.notes.clear();
    report.subject.log = end.log.iter().map(|line| without_ansi(line)).collect();
    report
}

/// Says in a report whose set replays have shown to be enough that nothing else is known of it.
pub(super) fn by_replays_alone(report: &mut Report) {
    // What was not seen cannot be missing from what replays have shown.
    report.complete = true;
    report.loss.unproven = None;
    let note = "nothing was traced: the set is known by replays alone, and what asks for it is not";
    report.notes.insert(0, note.into());
}
