//! What one replay came to: its trace and its image against those of the builds with the starting set.
//! Pure.

use serde::{Deserialize, Serialize};

use super::planner::{Outcome, Set};
use crate::{
    compare::{Difference, Judged, Noise, What, sort_out},
    render::escape,
    report::{Because, Cap, Evidence, Report, State, Step, Verdict},
};

/// Most lines of a failed build's log, and most differences, that are shown of a replay.
pub const SHOWN: usize = 5;
/// Most columns of an instruction.
const INSTRUCTION: usize = 60;

/// One replay, as it is kept: enough to judge it again.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Replay {
    /// What it was built with.
    pub set: Vec<Cap>,
    /// What it was for, as reports have it.
    pub purpose: String,
    /// Wall time.
    pub seconds: f64,
    /// What its trace says; `None` where it could not be carried out.
    pub report: Option<Report>,
    /// The image that it gave.
    pub image: Option<Given>,
    /// Why it tells nothing.
    pub void: Option<String>,
    /// It was not traced, and a trace of the same build, made elsewhere, says that these are needed, which
    /// it did not have.
    #[serde(skip)]
    pub supposed: Vec<Cap>,
    /// It was kept from an earlier proof.
    #[serde(skip)]
    pub kept: bool,
}

/// What is kept of an image.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Given {
    /// Digest of its configuration.
    pub id: String,
    /// What differs from the first image of a build with the starting set; nothing for that one.
    pub differences: Vec<Difference>,
}

impl Given {
    /// Its differences, by what they count for.
    pub fn judged(&self, noise: &Noise) -> Judged {
        sort_out(self.differences.clone(), noise)
    }

    /// Those that make it another image, as far as is known.
    pub fn decisive(&self, noise: &Noise) -> Vec<Difference> {
        let judged = self.judged(noise);
        let mut all = judged.decisive;
        all.extend(judged.undecided);
        all.sort();
        all
    }
}

/// What a difference in the content of files alone says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing yet: another build with the starting set is to come.
    Waits,
    /// Nothing: there is but one build with the starting set, and no time for another.
    Unknown,
    /// That the image is another.
    Decides,
}

/// What it came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Came {
    /// It gave the image that is expected.
    Same,
    /// It gave an image, with these differences.
    Changed(Vec<Difference>),
    /// It gave an image whose content differs from all that is known, and no more than that: it takes
    /// another build with the starting set to know whether it is stable.
    Undecided,
    /// It failed.
    Failed,
    /// It did not come to an end.
    Endless,
    /// It tells nothing.
    Void,
}

impl Replay {
    /// The set as a mask.
    pub fn mask(&self) -> Set {
        self.set.iter().fold(0, |all, cap| all | cap.bit())
    }

    /// What it came to, where equal builds differ in `noise`.
    pub fn came(&self, noise: &Noise, content: Content) -> Came {
        let Some(report) = &self.report else {
            return Came::Void;
        };
        if report.subject.timed_out {
            return Came::Endless;
        }
        // Neither says anything about capabilities.
        if self.void.is_some() || report.interrupted || report.subject.out_of_memory {
            return Came::Void;
        }
        let Some(image) = self.image.as_ref() else {
            return Came::Failed;
        };
        let decisive = image.decisive(noise);
        let is_content = decisive.iter().all(Difference::is_content);
        match content {
            _ if decisive.is_empty() => Came::Same,
            Content::Waits if is_content => Came::Undecided,
            Content::Unknown if is_content => Came::Same,
            _ => Came::Changed(decisive),
        }
    }

    /// The same for the planner; `None` where it is not decided.
    pub fn outcome(&self, came: &Came) -> Option<Outcome> {
        Some(match came {
            Came::Same => Outcome::Same,
            Came::Undecided => return None,
            Came::Endless => Outcome::Endless,
            Came::Void => Outcome::Void,
            Came::Failed | Came::Changed(_) => Outcome::Differs {
                refused: self.explained(came),
            },
        })
    }

    /// Capabilities whose refusal is seen to have made the difference.
    fn explained(&self, came: &Came) -> Set {
        let missing = self.report.iter().flat_map(|report| &report.capabilities);
        let missing = missing
            .map(|c| c.name)
            .filter(|cap| self.mask() & cap.bit() == 0);
        missing
            .filter(|cap| self.refusal(*cap, came).is_some())
            .chain(
                self.supposed
                    .iter()
                    .copied()
                    .filter(|cap| self.fits(*cap, came)),
            )
            .fold(0, |all, cap| all | cap.bit())
    }

    /// Whether what came of it is what comes of missing this capability, which a trace made elsewhere says
    /// is needed.
    fn fits(&self, cap: Cap, came: &Came) -> bool {
        match came {
            Came::Failed => {
                let log = self.report.iter().flat_map(|report| &report.subject.log);
                let mut lines = log.map(|line| line.to_ascii_lowercase());
                // EPERM and EACCES, as programs say them.
                lines.any(|line| {
                    line.contains("operation not permitted") || line.contains("permission denied")
                })
            }
            Came::Changed(differences) => (differences.iter())
                .any(|difference| !difference.is_content() && shows(cap, difference)),
            _ => false,
        }
    }

    /// What shows that the difference is this capability's doing.
    pub fn refusal(&self, cap: Cap, came: &Came) -> Option<&Evidence> {
        let report = self.report.as_ref()?;
        let capability = report.capabilities.iter().find(|c| c.name == cap)?;
        let weighty = |e: &&Evidence| match came {
            // Where it failed, and so that the operation failed.
            Came::Failed => {
                e.verdict == Some(Verdict::Needed)
                    && matches!(e.because, Some(Because::Refused | Because::Unasked))
                    && e.granted != Some(true)
                    && self.is_where_it_failed(e)
            }
            // What went without it, and with just what comes of that.
            Came::Changed(differences) => {
                (e.granted == Some(false) || e.unasked > 0)
                    && matches!(e.verdict, Some(Verdict::Needed | Verdict::Unsure))
                    && differences
                        .iter()
                        // Other content can have come by chance, from a network for one.
                        .any(|difference| !difference.is_content() && shows(cap, difference))
            }
            _ => false,
        };
        capability.evidence.iter().find(weighty)
    }

    /// The step that was worked on last; where the executor failed between two, what came last at all.
    fn is_where_it_failed(&self, evidence: &Evidence) -> bool {
        let Some(report) = &self.report else {
            return false;
        };
        let Some(step) = evidence.step else {
            return false;
        };
        let at = |index: u32| report.steps.iter().find(|s| s.index == index);
        let ran = at(step).is_some_and(|s| s.state == State::Ran && s.kind != "container-start");
        match report.subject.failed_step.or(report.subject.last_step) {
            Some(last) => step >= last && ran,
            None => ran,
        }
    }

    /// What the build went without, and gave the same image: refusals of these capabilities that a
    /// program met, in words.
    pub fn shrugged_off(&self, cap: Cap) -> Vec<String> {
        let Some(report) = &self.report else {
            return vec![];
        };
        let all = report.capabilities.iter().filter(|c| c.name == cap);
        let met = all.flat_map(|c| &c.evidence).filter(|e| {
            e.granted == Some(false)
                && !matches!(
                    e.because,
                    Some(
                        Because::NoEffect
                            | Because::OtherAnswer
                            | Because::Borrowed
                            | Because::OwnNamespace
                            | Because::ContainerStart
                    ) | None
                )
        });
        let mut lines: Vec<String> = met
            .map(|e| format!("{} {}x", refused(report, e), e.count))
            .collect();
        lines.dedup();
        if lines.len() > SHOWN {
            let more = lines.len() - SHOWN;
            lines.truncate(SHOWN);
            lines.push(format!("and {more} more"));
        }
        lines
    }

    /// What came of it, in words: a line, and the step that it is about.
    pub fn detail(&self, cap: Option<Cap>, came: &Came) -> (String, Option<u32>) {
        let refusal = cap.and_then(|cap| self.refusal(cap, came));
        let report = self.report.as_ref();
        let because = match (report, refusal) {
            (Some(report), Some(e)) => format!("; {}", refused(report, e)),
            _ => String::new(),
        };
        let last = report.and_then(failed_step);
        let refused_in = refusal.and_then(|e| e.step);
        match came {
            Came::Same => ("same image".into(), None),
            Came::Undecided => ("the same but for content".into(), None),
            Came::Void => (
                self.void
                    .clone()
                    .unwrap_or_else(|| "could not be carried out".into()),
                None,
            ),
            Came::Endless => {
                let place = last
                    .and_then(|s| s.line)
                    .map(|line| format!(" in line {line}"));
                let text = format!(
                    "did not come to an end{} within {:.0} s",
                    place.unwrap_or_default(),
                    self.seconds
                );
                (text, last.map(|s| s.index))
            }
            Came::Failed => {
                let place = match last {
                    Some(step) => match step.line {
                        Some(line) => format!("line {line} fails: "),
                        None => format!("{} fails: ", step.kind),
                    },
                    None => "it fails: ".into(),
                };
                let step = refused_in.or(last.map(|s| s.index));
                (format!("{place}{}{because}", self.complaint()), step)
            }
            Came::Changed(differences) => {
                let first = differences
                    .iter()
                    .find(|d| cap.is_some_and(|cap| shows(cap, d)));
                let first = first.or(differences.first());
                let more = match differences.len().saturating_sub(1) {
                    0 => String::new(),
                    1 => " and 1 difference more".into(),
                    n => format!(" and {n} differences more"),
                };
                let first = first.map(ToString::to_string).unwrap_or_default();
                (format!("{first}{more}{because}"), refused_in)
            }
        }
    }

    /// Why a build failed, by its last lines: those of the program that failed, rather than what the
    /// executor makes of it; where it said nothing, what was to be run.
    fn complaint(&self) -> String {
        let report = self.report.as_ref();
        let log = report.iter().flat_map(|r| r.subject.log.iter());
        let lines: Vec<&str> = log
            .map(|line| line.trim())
            .filter(|l| !l.is_empty())
            .collect();
        let is_log = |line: &str| {
            ["INFO[", "WARN[", "DEBU[", "time=", "{\""]
                .iter()
                .any(|start| line.starts_with(start))
        };
        let Some((own, before)) = lines.split_last() else {
            return "it said nothing".into();
        };
        let Some(at) = own.find("exit status") else {
            return own
                .strip_prefix("error building image: ")
                .unwrap_or(own)
                .to_owned();
        };
        match before.last().filter(|line| !is_log(line)) {
            Some(program) => (*program).to_owned(),
            None => {
                let text = report.and_then(failed_step).map(|step| step.text.as_str());
                let text = text.unwrap_or("a program");
                format!("{}: {}", escape::head(text, INSTRUCTION), &own[at..])
            }
        }
    }
}

/// Where the executor was when it failed, as far as that is known.
fn failed_step(report: &Report) -> Option<&Step> {
    let index = report.subject.failed_step;
    let at = report.steps.iter().find(|step| Some(step.index) == index);
    at.or_else(|| report.last_step())
}

/// A refusal in words: who asked for what, and where.
fn refused(report: &Report, evidence: &Evidence) -> String {
    let step = evidence
        .step
        .and_then(|i| report.steps.iter().find(|s| s.index == i));
    let place = match step {
        Some(step) => match step.line {
            Some(line) => format!(" in line {line}"),
            None => format!(" ({})", step.kind),
        },
        None => String::new(),
    };
    let call = evidence.syscall.as_deref().unwrap_or("a check");
    let program = evidence
        .program
        .rsplit('/')
        .next()
        .unwrap_or(&evidence.program);
    format!("{call} of {program}{place} refused")
}

/// Whether a difference is what comes of building without a capability.
fn shows(cap: Cap, difference: &Difference) -> bool {
    match cap {
        // A bit that was not kept.
        Cap::FSETID => matches!(difference.what, What::Mode { .. }),
        Cap::CHOWN => matches!(difference.what, What::Owner { .. }),
        Cap::SETFCAP => matches!(difference.what, What::Xattr { .. }),
        Cap::MKNOD => matches!(difference.what, What::Missing { .. } | What::Type { .. }),
        Cap::SETUID | Cap::SETGID => matches!(
            difference.what,
            What::Owner { .. } | What::Missing { .. } | What::Content { .. } | What::Added { .. }
        ),
        Cap::FOWNER => matches!(
            difference.what,
            What::Mode { .. }
                | What::Missing { .. }
                | What::Added { .. }
                | What::Xattr { .. }
                | What::Content { .. }
        ),
        Cap::DAC_OVERRIDE | Cap::DAC_READ_SEARCH => matches!(
            difference.what,
            What::Missing { .. }
                | What::Added { .. }
                | What::Content { .. }
                | What::Mode { .. }
                | What::Owner { .. }
        ),
        // Anything can come of a program that took another way: one build does not show that it is
        // this capability's doing.
        _ => false,
    }
}
