//! From a capture to a report: which checks the build depended on, and which capabilities answer
//! them. Pure functions over owned data.

mod choose;
mod decisions;
pub mod dockerfile;
mod facts;
mod fate;
mod gains;
mod gather;
pub mod rules;
mod scope;
pub(crate) mod steps;
mod surroundings;
mod syscall;
mod unasked;

#[cfg(test)]
pub(crate) mod arbitrary;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::capture::{Capture, Frame};
use crate::report::{
    Basis, Because, Cap, Capability, Decision, Evidence, Executor, Host, Loss, Report, SCHEMA,
    Step, Subject, Tool, Verdict,
};
pub(crate) use choose::{power, smallest};
use facts::Session;
use gather::{Gathered, Key, Tallied};
#[cfg(feature = "trace")]
pub(crate) use syscall::native_name as syscall_name;

/// Most pieces of evidence a capability has; the rest is added up in one more.
const EVIDENCE: usize = 20;
/// Most arguments of the traced command, and most characters of each.
const COMMAND: (usize, usize) = (64, 1024);
/// Most characters of any other text that the traced build chose.
const TEXT: usize = 1024;

/// Interprets a capture.
pub fn interpret(capture: &Capture) -> Report {
    let session = Session::of(capture);
    let gathered = gather::gather(&session);
    let complete = capture.loss.is_none();
    let capabilities: Vec<Capability> = gathered
        .caps
        .iter()
        .map(|(cap, tallied)| capability(&session, &gathered, *cap, tallied, complete))
        .collect();
    let unsure = (capabilities.iter())
        .filter(|c| c.verdict == Verdict::Unsure && gathered.required.contains(&c.name))
        .map(|c| c.name)
        .collect();
    Report {
        schema: SCHEMA.to_owned(),
        tool: Tool {
            name: capture.tool.name.clone(),
            version: capture.tool.version.clone(),
        },
        host: host(capture),
        subject: subject(&session),
        complete,
        interrupted: capture.interrupted,
        loss: loss(capture),
        coverage: session.steps.coverage.clone(),
        basis: Basis::Observed,
        required: gathered.required.iter().copied().collect(),
        unsure,
        decisions: decisions(&gathered),
        checks: capabilities
            .iter()
            .fold(0, |sum: u64, c| sum.saturating_add(c.checks)),
        steps: steps(&session, &gathered),
        capabilities,
        trials: Vec::new(),
        privilege_gains: Some(gains::gains(&session)),
        proof: None,
        suppressed: surroundings::suppressed(&session),
        notes: notes(&session, gathered.notes),
    }
}

fn host(capture: &Capture) -> Host {
    let host = &capture.host;
    Host {
        kernel: host.kernel.clone(),
        arch: host.arch.clone(),
        hook: host.hook.clone(),
        cgroup: host.cgroup.clone(),
        blind: host.blind.clone(),
        preemption: host.preemption.clone(),
        lsm: host.lsm.clone(),
        seccomp: host.seccomp.clone(),
        sysctl: host
            .sysctl
            .iter()
            .map(|(k, v)| (k.clone(), facts::setting(v)))
            .collect(),
    }
}

fn subject(session: &Session<'_>) -> Subject {
    let subject = &session.capture.subject;
    let mut command: Vec<String> = subject
        .command
        .iter()
        .take(COMMAND.0)
        .map(|arg| bounded(arg, COMMAND.1))
        .collect();
    if subject.command.len() > COMMAND.0 {
        command.push("…".to_owned());
    }
    Subject {
        dockerfile: subject.dockerfile.clone(),
        dockerfile_sha256: subject.dockerfile_sha256.clone(),
        context: subject.context.clone(),
        executor: session.scope.executor.map(|p| Executor {
            path: bounded(&p.path, TEXT),
            given: subject
                .executor
                .as_deref()
                .map(|given| bounded(given, TEXT)),
        }),
        command,
        exit_status: subject.exit_status,
        started: subject.started.clone(),
        duration_ms: subject.duration_ms,
        capabilities: Cap::of_mask(session.scope.bounding().unwrap_or(0)).collect(),
        engine: subject
            .engine
            .as_deref()
            .map(|engine| bounded(engine, TEXT)),
        late: subject.late,
        out_of_memory: subject.out_of_memory,
        timed_out: subject.timed_out,
        last_step: session.steps.last,
        failed_step: match subject.exit_status {
            Some(0) => None,
            _ => session.steps.at,
        },
        log: match subject.exit_status {
            Some(0) => Vec::new(),
            _ => session.steps.tail.clone(),
        },
        identity: subject.identity.clone(),
    }
}

fn loss(capture: &Capture) -> Loss {
    let loss = &capture.loss;
    Loss {
        checks: loss.checks,
        evidence: loss.evidence,
        execs: loss.execs,
        skipped: loss
            .skipped
            .values()
            .fold(0, |sum, n| sum.saturating_add(*n)),
        outcomes: loss.outcomes,
        file_caps: loss.file_caps,
        unasked: loss.unasked,
        unproven: loss.unproven.clone(),
    }
}

fn decisions(gathered: &Gathered<'_>) -> Vec<Decision> {
    let decision = |(any_of, depends): (&BTreeSet<Cap>, &gather::Depends)| Decision {
        any_of: any_of.iter().copied().collect(),
        chosen: depends.chosen,
        steps: depends.steps.iter().copied().collect(),
        verdict: depends.verdict,
    };
    gathered.depends.iter().map(decision).collect()
}

/// The steps with what was counted in them.
fn steps(session: &Session<'_>, gathered: &Gathered<'_>) -> Vec<Step> {
    let mut steps = session.steps.list.clone();
    for tallied in gathered.caps.values() {
        for counted in tallied.steps.values() {
            if let Some(step) = steps.get_mut(counted.step as usize) {
                step.checks = step.checks.saturating_add(counted.checks);
            }
        }
    }
    let mut required: BTreeMap<u32, BTreeSet<Cap>> = BTreeMap::new();
    for depends in gathered.depends.values() {
        for step in &depends.steps {
            required.entry(*step).or_default().insert(depends.chosen);
        }
    }
    for (index, caps) in required {
        if let Some(step) = steps.get_mut(index as usize) {
            step.required = caps.into_iter().collect();
        }
    }
    steps
}

fn notes(session: &Session<'_>, mut notes: Vec<String>) -> Vec<String> {
    let capture = session.capture;
    notes.extend(session.steps.notes.iter().cloned());
    notes.extend(surroundings::notes(session));
    if !session.outcomes_seen {
        notes.push("how system calls ended was not recorded: what decides is not seen".to_owned());
    }
    if capture.interrupted {
        notes.push("the trace ended before the build did: what came later was not seen".to_owned());
    }
    if capture.subject.late {
        notes.push(
            "the trace began when the build was running: what came before was not seen".to_owned(),
        );
    }
    if capture.subject.out_of_memory {
        notes.push("the container was killed for want of memory".to_owned());
    }
    if capture.subject.timed_out {
        notes.push("the container was killed, since it took longer than it may".to_owned());
    }
    if session.scope.root.is_none() {
        notes
            .push("no execution was seen: the set that the build ran with is not known".to_owned());
    }
    notes.iter().map(|note| bounded(note, TEXT)).collect()
}

/// The verdict on a capability: what the decisions that it was chosen for make it.
fn capability(
    session: &Session<'_>,
    gathered: &Gathered<'_>,
    cap: Cap,
    tallied: &Tallied<'_>,
    complete: bool,
) -> Capability {
    let chosen: Vec<_> = gathered
        .depends
        .iter()
        .filter(|(_, d)| d.chosen == cap)
        .collect();
    let decided = chosen.iter().max_by_key(|(_, depends)| depends.verdict);
    let verdict = decided.map_or(Verdict::Unneeded, |(_, depends)| depends.verdict);
    // Capabilities that would do for all of them.
    let mut alternatives: BTreeSet<Cap> = chosen
        .first()
        .map(|(any_of, _)| (*any_of).clone())
        .unwrap_or_default();
    for (any_of, _) in &chosen {
        alternatives.retain(|other| any_of.contains(other));
    }
    alternatives.remove(&cap);

    let mut evidence: Vec<Evidence> = tallied
        .evidence
        .iter()
        .map(|(key, count)| {
            let (verdict, because, reason) = answer(gathered, cap, key);
            Evidence {
                count: count.checks,
                unasked: count.unasked,
                granted: key.granted,
                verdict: Some(verdict),
                because: Some(because),
                syscall: gather::call_name(key.call, &session.capture.host.arch),
                outcome: key.outcome.name(),
                program: bounded(key.program, TEXT),
                path: of_kernel(count.path).iter().map(frame).collect(),
                step: Some(key.step),
                reason,
                rule: Some(key.rule.to_owned()),
                other: false,
            }
        })
        .collect();
    // Stable: what ties stays in the order of the keys.
    evidence.sort_by(|a, b| {
        let weight = |e: &Evidence| (e.verdict, e.count.saturating_add(e.unasked));
        weight(b).cmp(&weight(a))
    });
    let (because, reason) = match (evidence.first(), decided) {
        (Some(first), _) if first.verdict == Some(verdict) => (
            first.because.unwrap_or(Because::Unseen),
            first.reason.clone(),
        ),
        (_, Some((any_of, depends))) => {
            let others: Vec<String> = any_of
                .iter()
                .filter(|c| **c != cap)
                .map(Cap::to_string)
                .collect();
            (
                depends.because,
                format!("answers what {} was asked for", others.join(" or ")),
            )
        }
        _ => (Because::Unseen, "nothing was seen of it".to_owned()),
    };
    let reason = match verdict {
        Verdict::Unneeded if !complete => format!("as far as was seen: {reason}"),
        _ => reason,
    };
    fold_rest(&mut evidence);
    Capability {
        name: cap,
        number: cap.0,
        verdict,
        because,
        reason,
        alternatives: alternatives.into_iter().collect(),
        checks: tallied.granted.saturating_add(tallied.denied),
        granted: tallied.granted,
        denied: tallied.denied,
        unasked: tallied.unasked,
        steps: tallied
            .steps
            .values()
            .filter(|step| step.checks > 0)
            .copied()
            .collect(),
        evidence,
        settle: (verdict == Verdict::Unsure).then(|| settle(session, cap, &chosen)),
        proof: None,
    }
}

/// The replay that settles an unsure capability: one without all that answers its decisions, or, where
/// the build held none of these, one with it.
fn settle(
    session: &Session<'_>,
    cap: Cap,
    chosen: &[(&BTreeSet<Cap>, &gather::Depends)],
) -> String {
    let held = session.scope.bounding();
    let answers: BTreeSet<Cap> = (chosen.iter())
        .flat_map(|(any_of, _)| any_of.iter().copied())
        .filter(|answer| held.is_none_or(|held| held & answer.bit() != 0))
        .collect();
    let how = if answers.is_empty() {
        format!("with {cap}")
    } else {
        let names: Vec<String> = answers.iter().map(Cap::to_string).collect();
        format!("without {}", names.join(" and "))
    };
    match session.capture.subject.exit_status {
        Some(0) => format!("build again {how} and compare the images"),
        // There is no image to compare with yet.
        _ => format!("once the build succeeds, build again {how} and compare the images"),
    }
}

/// What a piece of evidence is to the build once the set is chosen: where another capability was
/// chosen for its decision, that one is the need.
fn answer(gathered: &Gathered<'_>, cap: Cap, key: &Key<'_>) -> (Verdict, Because, String) {
    match gathered.depends.get(&key.any_of) {
        Some(depends) if depends.chosen != cap => (
            Verdict::Unneeded,
            Because::OtherAnswer,
            format!("{} answers the same decision", depends.chosen),
        ),
        _ => (key.verdict, key.because, key.reason.to_owned()),
    }
}

/// Keeps the first [`EVIDENCE`] pieces, and adds up the rest in one.
fn fold_rest(evidence: &mut Vec<Evidence>) {
    if evidence.len() <= EVIDENCE {
        return;
    }
    let rest = evidence.split_off(EVIDENCE);
    evidence.push(Evidence {
        count: rest.iter().fold(0, |sum, e| sum.saturating_add(e.count)),
        unasked: rest.iter().fold(0, |sum, e| sum.saturating_add(e.unasked)),
        granted: None,
        verdict: None,
        because: None,
        syscall: None,
        outcome: None,
        program: "other".to_owned(),
        path: Vec::new(),
        step: None,
        reason: format!("{} more kinds of checks", rest.len()),
        rule: None,
        other: true,
    });
}

/// The call path without the frames of the tracing itself, which come first.
fn of_kernel(path: &[Frame]) -> &[Frame] {
    let traces = |frame: &Frame| {
        (frame.symbol.as_deref()).is_some_and(|symbol| symbol.contains("bpf_trace_run"))
    };
    let first = path.iter().rposition(traces).map_or(0, |at| at + 1);
    &path[first..]
}

fn frame(frame: &Frame) -> String {
    match &frame.symbol {
        Some(symbol) => bounded(symbol, 128),
        None => format!("{:#x}", frame.address),
    }
}

/// At most `most` characters; a longer text is cut and marked.
fn bounded(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}
