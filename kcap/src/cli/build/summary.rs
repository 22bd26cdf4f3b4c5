//! How a build ended, in one line.

use crate::{
    combine::{Build, Status},
    render,
    report::{Because, Cap, Report},
};

/// The line.
pub fn line(build: &Build) -> String {
    let Some(report) = &build.report else {
        return String::new();
    };
    let took = render::duration(report.subject.duration_ms);
    let how = match (build.status, report.subject.exit_status) {
        (Status::Built, _) => format!("built in {took}"),
        (Status::Interrupted, _) => format!("interrupted after {took}"),
        _ if report.subject.out_of_memory => format!(
            "killed for want of memory after {took}: give it more, or run fewer builds at once"
        ),
        _ if report.subject.timed_out => format!("did not come to an end, killed after {took}"),
        (_, Some(status)) => {
            format!(
                "failed with exit code {status}{} after {took}",
                place(report)
            )
        }
        (_, None) => format!("failed after {took}, its end was not seen"),
    };
    let mut line = format!("{how}, {} checks; {}", report.checks, needs(report));
    let refused = refused(report);
    if build.status == Status::Failed && !refused.is_empty() {
        line += &format!("; refused: {}", render::names(&refused, " "));
    }
    if !report.complete {
        line += "; incomplete: something was lost";
    }
    line
}

/// Where it failed, if that is known.
fn place(report: &Report) -> String {
    let step = report.last_step();
    step.and_then(|step| step.line)
        .map_or_else(String::new, |line| format!(" at line {line}"))
}

fn needs(report: &Report) -> String {
    let all = report.required.iter();
    let sure: Vec<Cap> = all
        .filter(|cap| !report.unsure.contains(cap))
        .copied()
        .collect();
    match (&sure[..], &report.unsure[..]) {
        ([], []) => "nothing was seen to be needed".to_owned(),
        (sure, []) => format!("needs {}", render::names(sure, " ")),
        ([], unsure) => format!("needs {} (unsure)", render::names(unsure, " ")),
        (sure, unsure) => format!(
            "needs {} + {} (unsure)",
            render::names(sure, " "),
            render::names(unsure, " ")
        ),
    }
}

/// Capabilities for want of which something failed.
fn refused(report: &Report) -> Vec<Cap> {
    let refused = (report.capabilities.iter())
        .filter(|c| c.because == Because::Refused && report.required.contains(&c.name));
    refused.map(|c| c.name).collect()
}
