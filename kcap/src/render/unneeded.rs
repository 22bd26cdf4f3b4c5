//! What was asked for without need, in a few words each.

use std::cmp::Reverse;

use crate::report::{Because, Capability, Evidence, Report};

/// Most words for one capability.
const PHRASES: usize = 2;

/// The capabilities with how often each was asked for, those of the same reasons together.
pub(super) fn text(report: &Report, capabilities: &[&Capability]) -> String {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for capability in capabilities {
        let mut why = phrases(capability);
        if !report.complete {
            why += ", as far as was seen";
        }
        let times = match capability.checks {
            0 => capability.unasked,
            checks => checks,
        };
        let name = format!("{} {times}", capability.name);
        match groups.iter_mut().find(|(known, _)| *known == why) {
            Some((_, names)) => names.push(name),
            None => groups.push((why, vec![name])),
        }
    }
    let group = |(why, names): &(String, Vec<String>)| format!("{} ({why})", names.join(", "));
    groups.iter().map(group).collect::<Vec<_>>().join(", ")
}

/// The reasons that most checks have.
pub(super) fn phrases(capability: &Capability) -> String {
    let mut counted: Vec<(&str, u64)> = Vec::new();
    for evidence in &capability.evidence {
        let Some(phrase) = phrase(evidence) else {
            continue;
        };
        let count = evidence.count.saturating_add(evidence.unasked);
        match counted.iter_mut().find(|(known, _)| *known == phrase) {
            Some((_, sum)) => *sum = sum.saturating_add(count),
            None => counted.push((phrase, count)),
        }
    }
    // Stable: what ties stays in the report's order.
    counted.sort_by_key(|(_, count)| Reverse(*count));
    let phrases: Vec<&str> = counted
        .iter()
        .take(PHRASES)
        .map(|(phrase, _)| *phrase)
        .collect();
    if phrases.is_empty() {
        "nothing depends on it".to_owned()
    } else {
        phrases.join(", ")
    }
}

fn phrase(evidence: &Evidence) -> Option<&'static str> {
    let phrase = match (evidence.rule.as_deref(), evidence.because?) {
        (Some("memory"), _) => "memory",
        (Some("chmod-without-setgid"), _) => "no setgid bit asked for",
        (Some("ids-unchanged" | "ids-held"), _) => "ids held already",
        (Some("capset-within"), _) => "within what is held",
        (Some("given-up"), _) => "given up by the program",
        (_, Because::NoEffect) => "changes nothing",
        (_, Because::OtherAnswer) => "another capability answered",
        (_, Because::Borrowed) => "another's credentials, as overlayfs'",
        (_, Because::OwnNamespace) => "in a user namespace of the build's own",
        (_, Because::ContainerStart) => "container start",
        (_, Because::Tolerated) => "refused, and done without",
        _ => return None,
    };
    Some(phrase)
}
