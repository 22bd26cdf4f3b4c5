//! What replays came to, for the screen: in a line, and for each capability what shows that it is
//! needed.

use std::io::{self, Write};

use super::{
    escape::{self, head, tail, width},
    table::{Paint, Screen, duration, names},
};
use crate::report::{Basis, Capability, Noise, ProofOutcome, Proven, Proving, Report};

/// Most columns of what shows that a capability is needed.
const WITNESS: usize = 300;
/// Most columns of a reason.
const REASON: usize = 400;
/// Most columns of a place.
const PLACE: usize = 60;

/// How far replays came.
pub(super) fn summary<W: Write>(screen: &mut Screen<'_, W>, report: &Report) -> io::Result<()> {
    let mut label = "PROOF";
    for (paint, text) in texts(report) {
        screen.section(paint, label, &text)?;
        label = "";
    }
    Ok(())
}

/// How far replays came, and what to know of it; empty where there were none. Safe to show.
pub(super) fn texts(report: &Report) -> Vec<(Paint, String)> {
    let Some(proof) = &report.proof else {
        return Vec::new();
    };
    let doubts = doubts(proof).into_iter();
    let doubts = doubts.map(|text| (Paint::Unsure, text));
    [outcome(report, proof)].into_iter().chain(doubts).collect()
}

/// The same in a sentence; safe to show.
pub(super) fn outcome(report: &Report, proof: &Proving) -> (Paint, String) {
    let kept = match proof.kept {
        0 => String::new(),
        n => format!(" and {n} kept from before"),
    };
    let builds = match proof.builds {
        1 => "1 build".to_owned(),
        n => format!("{n} builds"),
    };
    let took = duration((proof.seconds * 1000.0) as u64);
    let builds = format!("{builds} in {took}{kept}");
    let reason = head(proof.reason.as_deref().unwrap_or_default(), REASON);
    match proof.state {
        Proven::Proved if report.required.is_empty() => (
            Paint::Good,
            format!("{builds}: the same image with no capability at all"),
        ),
        Proven::Proved => (
            Paint::Good,
            format!("{builds}: the same image with these, and not without any one of them"),
        ),
        Proven::Sufficient => (
            Paint::Unsure,
            format!(
                "{builds}: the same image with these{}: {reason}",
                match names(&proof.untried, " ") {
                    none if none.is_empty() => none,
                    some => format!("; not tried without {some}"),
                }
            ),
        ),
        Proven::Unfinished | Proven::Failed | Proven::Unstable => {
            (Paint::Bad, format!("none, after {builds}: {reason}"))
        }
    }
}

/// What equal builds differ in, a line each; safe to show.
pub(super) fn doubts(proof: &Proving) -> Vec<String> {
    let mut doubts = Vec::new();
    if proof.flaky {
        let text = "equal builds came to different things: what fails by chance decides nothing";
        doubts.push(text.to_owned());
    }
    for (rule, what) in [
        ("unstable", "equal builds differ in the content of"),
        (
            "unstable-metadata",
            "equal builds differ in more than the content of",
        ),
        (
            "undecided",
            "it is not known whether equal builds agree on the content of",
        ),
    ] {
        let Some(Noise {
            places, examples, ..
        }) = proof.noise.iter().find(|noise| noise.rule == rule)
        else {
            continue;
        };
        let example = examples.first().map(|place| tail(place, PLACE));
        doubts.push(format!(
            "{what} {places} {} ({}{}), which decided nothing",
            if *places == 1 { "place" } else { "places" },
            example.unwrap_or_default(),
            if *places > 1 { ", …" } else { "" }
        ));
    }
    doubts
}

/// What becomes of the build without each, as replays showed.
pub(super) fn witnesses<W: Write>(
    screen: &mut Screen<'_, W>,
    required: &[&Capability],
) -> io::Result<()> {
    let mut label = "WITHOUT";
    for capability in required {
        let Some(proof) = &capability.proof else {
            continue;
        };
        if proof.outcome == ProofOutcome::Same {
            continue;
        }
        let text = format!("{}: {}", capability.name, head(&proof.detail, WITNESS));
        screen.section(Paint::Bold, label, &text)?;
        label = "";
    }
    Ok(())
}

/// How to know for sure.
pub(super) fn next(report: &Report) -> Option<String> {
    let dockerfile = report.subject.dockerfile.as_deref()?;
    let built = report.subject.exit_status == Some(0) && !report.interrupted;
    if report.basis == Basis::Proved || report.proof.is_some() || !built {
        return None;
    }
    let sure = report.required.len() - report.unsure.len().min(report.required.len());
    // To be pasted: whole, and one word.
    let named = match shlex::try_quote(dockerfile) {
        Ok(quoted) if quoted == escape::shown(&quoted) && width(&quoted) <= PLACE => quoted,
        _ => "DOCKERFILE".into(),
    };
    Some(format!("kcap prove -f {named}   about {} builds", sure + 4))
}
