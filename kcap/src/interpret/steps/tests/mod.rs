//! Logs of real builds by Kaniko 1.28.3, and logs made up to confuse.

mod made;
mod real;

use std::fmt::Write;

use crate::capture::{Capture, Exec, LogLine, Origin, Program, Tally};
use crate::interpret::interpret;
use crate::report::{By, Report, Sharp, State};

/// The executor's first generation.
pub const ROOT: u32 = 2;

/// A capture of one executor with this log, one write a line. After `Running: ` a program runs, as
/// one does for a RUN. Each generation makes one check; the RUN's program makes 100.
pub fn capture(dockerfile: &str, log: &[String]) -> Capture {
    let exec = || {
        Some(Exec {
            mnt_ns: 7,
            user_ns: 1,
            ..Exec::default()
        })
    };
    let mut capture = Capture {
        programs: vec![
            Program {
                id: 1,
                origin: Origin::Enter,
                path: "/usr/bin/runc".to_owned(),
                ..Program::default()
            },
            Program {
                id: ROOT,
                origin: Origin::Exec,
                parent: Some(1),
                path: "/kaniko/executor".to_owned(),
                executor: true,
                exec: exec(),
                ..Program::default()
            },
        ],
        ..Capture::default()
    };
    capture.subject.dockerfile_text = Some(dockerfile.to_owned());
    capture.subject.exit_status = Some(0);
    let mut at = ROOT;
    for (text, time) in log.iter().zip(1..) {
        let mut program = |origin, parent, path: &str| {
            let id = capture.programs.len() as u32 + 1;
            capture.programs.push(Program {
                id,
                origin,
                parent: Some(parent),
                start_ns: time,
                path: path.to_owned(),
                executor: path == "/kaniko/executor",
                exec: if origin == Origin::Exec { exec() } else { None },
                ..Program::default()
            });
            id
        };
        at = program(Origin::Phase, at, "/kaniko/executor");
        capture.log.push(LogLine {
            time_ns: time,
            program: at,
            text: text.clone(),
            cut: false,
        });
        if text.contains("Running: [") {
            let child = program(Origin::Fork, at, "/kaniko/executor");
            let shell = program(Origin::Exec, child, "/bin/sh");
            program(Origin::Fork, shell, "/bin/sh");
        }
    }
    let tally = |program: &Program| Tally {
        program: program.id,
        cap: Some(0),
        count: match program.path.as_str() {
            "/bin/sh" => 100,
            _ => 1,
        },
        ..Tally::default()
    };
    capture.tallies = capture.programs.iter().map(tally).collect();
    capture
}

/// The writes of a log that was kept as text: one goes on until the next begins.
pub fn writes(log: &str) -> Vec<String> {
    let mut writes: Vec<String> = Vec::new();
    for line in log.lines() {
        let starts = ["\u{1b}[", "time=\"", "{\"level\"", "error building image"];
        match writes.last_mut() {
            Some(last) if !starts.iter().any(|start| line.starts_with(start)) => {
                last.push('\n');
                last.push_str(line);
            }
            _ => writes.push(line.to_owned()),
        }
    }
    writes
}

/// Lines of the log in colour.
pub fn info(lines: &[&str]) -> Vec<String> {
    lines
        .iter()
        .map(|line| format!("\u{1b}[36mINFO\u{1b}[0m[0003] {line:<44} "))
        .collect()
}

/// One line a step: line, kind, state, how and how sharply it is known, checks, text.
pub fn shown(report: &Report) -> String {
    let mut shown = String::new();
    for step in &report.steps {
        let line = step.line.map_or_else(String::new, |line| line.to_string());
        let stage = step
            .stage
            .map_or_else(String::new, |stage| stage.to_string());
        writeln!(
            shown,
            "{stage:>1} {line:>2} {:<10} {:<9} {:<7} {:<5} {:>3} {}{}",
            step.kind,
            step.state.to_string(),
            step.by.to_string(),
            step.sharp.to_string(),
            step.checks,
            step.text,
            step.holds
                .as_deref()
                .map_or_else(String::new, |holds| format!(" ({holds})"))
        )
        .unwrap();
    }
    shown
}

/// The report on a build with this log.
pub fn report(dockerfile: &str, log: &[String]) -> Report {
    interpret(&capture(dockerfile, log))
}
