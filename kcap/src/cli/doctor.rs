//! `kcap doctor`: what this host can trace, and what to do where it cannot.
//!
//! What is found ([`Found`]) is kept apart from what it means ([`diagnose`]), which is a plain
//! function.

mod diagnose;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

use super::report::Color;
use super::written;
use crate::host::cgroup::{Cgroup, Layout};
use crate::host::facts::Facts;
use crate::render::{Paint, Style, escape};

pub use diagnose::diagnose;

/// Version of the JSON form.
pub const SCHEMA: &str = "kcap.doctor/v1";

/// Hooks that see capability checks, best first: one of them is enough.
pub const CHECK_HOOKS: [&str; 3] = ["tp_btf", "fexit", "kprobe"];

const BTF: &str = "/sys/kernel/btf/vmlinux";
/// Columns of the state, with the blank behind it.
const STATE: usize = 9;
/// Longest name that others are aligned with.
const NAME: usize = 24;
const WIDTH: usize = 80;

/// Options of `kcap doctor`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  kcap doctor
  sudo kcap doctor --format json | jq .possible

It tries each hook as the user who asks: as root, or with CAP_BPF and CAP_PERFMON, and CAP_SYS_ADMIN for kprobes.

Exit code: 0 this host can be traced, 1 something that tracing needs is missing, 2 bad usage.")]
pub struct Args {
    /// What to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
    /// When to use colours
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub color: Color,
}

/// Forms of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// A program that was really loaded, or refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookProbe {
    /// One of [`CHECK_HOOKS`], or a hook that every trace needs.
    pub name: String,
    /// Why it was refused, in one line.
    pub result: Result<(), String>,
}

/// How well something works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should.
    Ok,
    /// Tracing is possible, but something is lost.
    Degraded,
    /// Without it there is no tracing.
    Missing,
}

/// One line of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How well it works.
    pub state: State,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// The whole answer, as in JSON.
#[derive(Serialize)]
struct Answer<'a> {
    schema: &'static str,
    tool: Tool,
    possible: bool,
    kernel: &'a str,
    arch: &'a str,
    preemption: &'static str,
    cgroup: &'static str,
    lsm: &'a [String],
    lockdown: Option<&'a str>,
    seccomp: &'static str,
    sysctl: &'a BTreeMap<String, String>,
    engines: BTreeMap<&'static str, String>,
    checks: &'a [Check],
}

#[derive(Serialize)]
struct Tool {
    name: &'static str,
    version: &'static str,
}

/// What was found on the host.
#[derive(Debug)]
pub struct Found {
    /// The host.
    pub facts: Facts,
    /// Whether the kernel's BTF can be read.
    pub btf: Result<(), String>,
    /// The layout of control groups, and whether one could be made.
    pub cgroup: Result<(Layout, Result<(), String>), String>,
    /// Programs tried.
    pub hooks: Vec<HookProbe>,
}

impl Found {
    /// Looks at the host. Makes a control group, and removes it.
    pub fn look(hooks: Vec<HookProbe>) -> Self {
        let group = |layout: &Layout| {
            Cgroup::create(layout)
                .and_then(|group| group.remove(Duration::from_secs(1)))
                .map_err(|e| one_line(&e))
        };
        Self {
            facts: Facts::read(),
            btf: readable(Path::new(BTF)).map_err(|e| e.to_string()),
            cgroup: Layout::detect()
                .map_err(|e| one_line(&e))
                .map(|layout| (layout.clone(), group(&layout))),
            hooks,
        }
    }
}

/// Looks, and says what was found. The result is the exit code: 0 where tracing is possible, else
/// 1.
///
/// # Errors
/// Where the answer cannot be written.
pub fn run(args: &Args, probes: Vec<HookProbe>, out: &mut impl Write) -> Result<u8> {
    let found = Found::look(probes);
    let checks = diagnose(&found);
    let possible = checks.iter().all(|c| c.state != State::Missing);
    let result = match args.format {
        Format::Table => table(&checks, possible, args.color.style(), out),
        Format::Json => json(&found, &checks, possible, out),
    };
    written(result.and_then(|()| out.flush()), "to standard output")?;
    Ok(u8::from(!possible))
}

fn json(found: &Found, checks: &[Check], possible: bool, out: &mut impl Write) -> io::Result<()> {
    let facts = &found.facts;
    let engine = |(name, path): &(&'static str, PathBuf)| (*name, path.display().to_string());
    let answer = Answer {
        schema: SCHEMA,
        tool: Tool {
            name: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
        },
        possible,
        kernel: &facts.kernel,
        arch: &facts.arch,
        preemption: facts.preemption.mode.as_str(),
        cgroup: found
            .cgroup
            .as_ref()
            .map_or("none", |(layout, _)| layout.kind.as_str()),
        lsm: facts.lsm.as_deref().unwrap_or_default(),
        lockdown: facts.lockdown.as_deref(),
        seccomp: facts.seccomp,
        sysctl: &facts.sysctl,
        engines: facts.engines.iter().map(engine).collect(),
        checks,
    };
    serde_json::to_writer_pretty(&mut *out, &answer)?;
    writeln!(out)
}

fn table(checks: &[Check], possible: bool, style: Style, out: &mut impl Write) -> io::Result<()> {
    let longest = checks
        .iter()
        .map(|c| c.name.chars().count())
        .max()
        .unwrap_or_default();
    let name = longest.min(NAME);
    let indent = STATE + name + 1;
    for check in checks {
        let (paint, state) = match check.state {
            State::Ok => (Paint::Good, "ok"),
            State::Degraded => (Paint::Unsure, "degraded"),
            State::Missing => (Paint::Bad, "MISSING"),
        };
        let state = style.paint(paint, &format!("{state:<STATE$}"));
        write!(out, "{state}{:<name$} ", printable(&check.name))?;
        wrapped(&printable(&check.detail), indent, out)?;
        if let Some(remedy) = &check.remedy {
            write!(out, "{:indent$}", "")?;
            wrapped(&format!("do: {}", printable(remedy)), indent, out)?;
        }
    }
    let missing = checks.iter().filter(|c| c.state == State::Missing).count();
    match possible {
        true => writeln!(out, "\nkcap can trace on this host"),
        false => writeln!(
            out,
            "\nkcap cannot trace on this host: {missing} missing, see above"
        ),
    }
}

/// Writes text from column `indent` on, broken at blanks.
fn wrapped(text: &str, indent: usize, out: &mut impl Write) -> io::Result<()> {
    let mut column = indent;
    for (n, word) in text.split(' ').enumerate() {
        let width = word.chars().count();
        if n > 0 && column + 1 + width > WIDTH {
            write!(out, "\n{:indent$}", "")?;
            column = indent;
        } else if n > 0 {
            write!(out, " ")?;
            column += 1;
        }
        write!(out, "{word}")?;
        column += width;
    }
    writeln!(out)
}

/// Without characters that a terminal would act on.
fn printable(text: &str) -> String {
    escape::shown(text)
}

fn readable(path: &Path) -> io::Result<()> {
    fs::File::open(path).map(drop)
}

fn one_line(e: &anyhow::Error) -> String {
    format!("{e:#}").replace('\n', " ")
}

#[cfg(test)]
mod tests;
