//! What a matrix says beyond its cells: which line of which Dockerfile forces a capability, what a
//! few Dockerfiles less would save, how often several runs needed it, and profiles.

use std::io::{self, Write};

use super::escape::{head, tail, width};
use super::table::{COLUMNS, Paint, Screen, names};
use crate::combine::{Forced, Matrix, Saving};
use crate::report::{Cap, Verdict};

/// Columns of a capability, and of the count.
const CAP: usize = 21;
const COUNT: usize = 14;
/// Most Dockerfiles named for a capability or a saving.
const NAMED: usize = 3;
/// Most savings, and most Dockerfiles that one may be without: more is no few.
const SAVINGS: usize = 4;
const FEW: usize = 5;
/// Most notes on runs that differ.
pub(super) const DIFFER: usize = 5;
/// Most lines named of a Dockerfile.
const LINES: usize = 2;

pub fn write<W: Write>(screen: &mut Screen<'_, W>, matrix: &Matrix) -> io::Result<()> {
    forced(screen, matrix)?;
    for saving in savings(matrix) {
        screen.section(Paint::Good, "GAIN", &saving)?;
    }
    for note in differing(matrix).iter().take(DIFFER) {
        screen.section(Paint::Unsure, "RUNS", note)?;
    }
    profiles(screen, matrix)
}

/// A line for each capability of the union.
fn forced<W: Write>(screen: &mut Screen<'_, W>, matrix: &Matrix) -> io::Result<()> {
    let all = matrix.builds.iter().filter(|b| !b.runs.is_empty()).count();
    if matrix.union.required.is_empty() || all < 2 {
        return Ok(());
    }
    writeln!(screen.to)?;
    let header = format!("{:<CAP$}{:<COUNT$}{}", "CAP", "FORCED BY", "WHERE");
    writeln!(screen.to, "{}", screen.paint(Paint::Bold, &header))?;
    for cap in &matrix.union.required {
        let by = matrix.forced(*cap);
        let sure = by.iter().any(|forced| forced.verdict == Verdict::Needed);
        let name = format!("{cap}{}", if sure { "" } else { " ?" });
        let count = format!("{} of {all}", by.len());
        let left = COLUMNS - CAP - COUNT;
        writeln!(
            screen.to,
            "{name:<CAP$}{count:<COUNT$}{}",
            places(&by, left)
        )?;
    }
    writeln!(screen.to)
}

/// `a/Dockerfile:3, b/Dockerfile:7 and 4 more`, as many as fit.
fn places(by: &[Forced<'_>], most: usize) -> String {
    let mut text = String::new();
    for (at, forced) in by.iter().take(NAMED).enumerate() {
        let lines: Vec<String> = (forced.lines.iter().take(LINES))
            .map(u32::to_string)
            .collect();
        let more = if forced.lines.len() > LINES { "+" } else { "" };
        let lines = match &lines[..] {
            [] => String::new(),
            lines => format!(":{}{more}", lines.join(",")),
        };
        let rest = match by.len() - at - 1 {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let start = if at == 0 { "" } else { ", " };
        let taken = width(&text) + start.len() + lines.len() + rest.len();
        let name = &forced.build.dockerfile;
        // The first is named whatever its length, further ones where they fit.
        let room = most.saturating_sub(taken);
        if at > 0 && width(&tail(name, COLUMNS)) > room {
            return text + &format!(" and {} more", by.len() - at);
        }
        text += &format!("{start}{}{lines}", tail(name, room.max(8)));
    }
    match by.len().saturating_sub(NAMED) {
        0 => text,
        n => text + &format!(" and {n} more"),
    }
}

pub(super) fn savings(matrix: &Matrix) -> Vec<String> {
    let few = |saving: &&Saving| saving.dockerfiles.len() <= FEW;
    (matrix.savings.iter().filter(few).take(SAVINGS))
        .map(|saving| {
            let named: Vec<String> = (saving.dockerfiles.iter().take(NAMED))
                .map(|name| tail(name, COLUMNS / 2))
                .collect();
            let mut without = named.join(", ");
            if saving.dockerfiles.len() > NAMED {
                without += &format!(" and {} more", saving.dockerfiles.len() - NAMED);
            }
            format!("without {without}: no {}", names(&saving.drops, " "))
        })
        .collect()
}

/// Dockerfiles whose runs differ in what they needed.
pub(super) fn differing(matrix: &Matrix) -> Vec<String> {
    let mut notes = Vec::new();
    for build in &matrix.builds {
        let differ = build.seen.iter().filter(|seen| seen.runs < seen.of);
        let each: Vec<String> = differ
            .map(|seen| {
                format!(
                    "{} in {} of {} runs, last on {}",
                    seen.name,
                    seen.runs,
                    seen.of,
                    head(&seen.last, 10)
                )
            })
            .collect();
        if !each.is_empty() {
            let name = tail(&build.dockerfile, COLUMNS / 2);
            notes.push(format!("{name}: {}", each.join("; ")));
        }
    }
    notes
}

fn profiles<W: Write>(screen: &mut Screen<'_, W>, matrix: &Matrix) -> io::Result<()> {
    if matrix.profiles.is_empty() {
        return Ok(());
    }
    writeln!(screen.to)?;
    let header = format!("{:<9}{:<13}SET", "PROFILE", "DOCKERFILES");
    writeln!(screen.to, "{}", screen.paint(Paint::Bold, &header))?;
    for (at, profile) in matrix.profiles.iter().enumerate() {
        let set = match &profile.required[..] {
            [] => "nothing".to_owned(),
            caps => named_set(caps),
        };
        let lines = super::table::wrap(&set, COLUMNS - 22);
        for (i, line) in lines.iter().enumerate() {
            match i {
                0 => {
                    let count = profile.dockerfiles.len();
                    writeln!(screen.to, "{:<9}{count:<13}{line}", at + 1)?;
                }
                _ => writeln!(screen.to, "{:22}{line}", "")?,
            }
        }
    }
    writeln!(screen.to)
}

fn named_set(caps: &[Cap]) -> String {
    names(caps, " ")
}
