//! One piece of evidence with what surrounds it in the report: what tables of advice ask about.

use std::cmp::Reverse;

use crate::report::{Capability, Evidence, Report, Step};

/// Evidence and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The report.
    pub report: &'a Report,
    /// The evidence.
    pub evidence: &'a Evidence,
    /// Its step.
    pub step: Option<&'a Step>,
}

impl<'a> Seen<'a> {
    /// All evidence of a capability, without the rest entry, in the report's order.
    pub fn all(report: &'a Report, capability: &'a Capability) -> impl Iterator<Item = Self> {
        (capability.evidence.iter())
            .filter(|evidence| !evidence.other)
            .map(move |evidence| Self {
                report,
                evidence,
                step: evidence
                    .step
                    .and_then(|index| report.steps.get(index as usize)),
            })
    }

    /// The part of it that the capability's verdict rests on.
    pub fn decisive(report: &'a Report, capability: &'a Capability) -> impl Iterator<Item = Self> {
        Self::all(report, capability)
            .filter(|seen| seen.evidence.verdict == Some(capability.verdict))
    }

    /// The executor's own doing, also that of its children before they execute a RUN's program.
    pub fn by_executor(&self) -> bool {
        let executor = self.report.subject.executor.as_ref();
        executor.is_some_and(|executor| executor.path == self.evidence.program)
    }

    /// Kind of the step; empty where it is not known.
    pub fn kind(&self) -> &'a str {
        self.step.map_or("", |step| step.kind.as_str())
    }

    /// A RUN's program does it.
    pub fn in_run(&self) -> bool {
        self.kind() == "run" && !self.by_executor()
    }

    /// The executor does it, in a step of one of these kinds.
    pub fn executor_in(&self, kinds: &[&str]) -> bool {
        self.by_executor() && kinds.contains(&self.kind())
    }

    /// Line of the Dockerfile.
    pub fn line(&self) -> Option<u32> {
        self.step.and_then(|step| step.line)
    }

    /// The system call is one of these.
    pub fn call_in(&self, calls: &[&str]) -> bool {
        let call = self.evidence.syscall.as_deref();
        call.is_some_and(|call| calls.contains(&call))
    }

    /// The last part of the program's path.
    pub fn program(&self) -> &'a str {
        let path = self.evidence.program.as_str();
        path.rsplit('/').next().unwrap_or(path)
    }

    /// The program has one of these names.
    pub fn program_in(&self, names: &[&str]) -> bool {
        names.contains(&self.program())
    }

    /// apt or one of its methods, which it runs as the user `_apt`.
    pub fn by_apt(&self) -> bool {
        self.program_in(&["apt", "apt-get"]) || self.evidence.program.contains("/apt/methods/")
    }

    /// The instruction's text holds this.
    pub fn text_has(&self, what: &str) -> bool {
        self.step.is_some_and(|step| step.text.contains(what))
    }

    /// Line of the USER that holds for this step, where the Dockerfile's stage has one.
    pub fn user_line(&self) -> Option<u32> {
        let step = self.step?;
        let users = self.report.steps.iter().filter(|other| {
            other.kind == "user" && other.stage == step.stage && other.line < step.line
        });
        users.filter_map(|user| user.line).max()
    }

    /// A file with capabilities of its own was executed, and nothing was asked.
    pub fn executed_file(&self) -> bool {
        self.evidence.unasked > 0 && self.evidence.syscall.is_none()
    }

    /// The sampled call path asked the host's user namespace by name (`capable()`), not that of
    /// the object.
    pub fn asked_host(&self) -> bool {
        self.evidence
            .path
            .iter()
            .any(|symbol| symbol.split('.').next() == Some("capable"))
    }

    /// How much it says to a reader: first what has a line, then what happened oftenest.
    pub fn weight(&self) -> (bool, u64, Reverse<u32>) {
        let evidence = self.evidence;
        (
            self.line().is_some(),
            evidence.count.saturating_add(evidence.unasked),
            Reverse(evidence.step.unwrap_or(u32::MAX)),
        )
    }
}
