//! What was measured as `docs/kernels.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use kcap::report::Because;

use super::compare::{self, Difference, Held, Lacking, Needs};
use super::plan::{self, Given, Place, Run};
use super::reasons;
use super::row::{Row, Rows, Said};

/// What stands where nobody has looked yet.
pub const UNEXPLAINED: &str = "**not explained**";

/// The whole page.
pub fn page(rows: &Rows, needs: &Needs) -> String {
    let mut out = String::from(
        "# The same on other kernels, and with more or less allowed\n\n\
         Made by `cargo xtask kernels --write`; do not edit. What the reports say is in \
         `corpus/runs.jsonl`, a build a line.\n\n\
         Real Kaniko builds Dockerfiles of `corpus/`, each once in each way, traced: on this kernel with \
         more and with less than Docker's default set, and in virtual machines on others. What the report \
         of the build under Docker's default set requires (`docs/verdicts.md`) is what the others are \
         held against.\n",
    );
    kernels(&mut out, rows);
    everything(&mut out, rows);
    for run in plan::RUNS {
        match run.given {
            Given::Nothing => less(&mut out, rows, needs, run, "With nothing: `--cap-drop all`"),
            Given::Five => less(
                &mut out,
                rows,
                needs,
                run,
                "With five: CHOWN, SETUID, SETGID, FOWNER, DAC_OVERRIDE",
            ),
            Given::Default | Given::All => {}
        }
    }
    out
}

fn kernels(out: &mut String, rows: &Rows) {
    out.push_str(
        "\n## Kernels and hooks\n\n\
         kcap chooses the hook by what the kernel has, and by whether it can be preempted within it. \
         *Nothing lost*: the report is complete, and says so.\n\n\
         | run | kernel | hook | preemption | builds | the same `required` | and the same `unsure` | nothing lost |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    let runs: Vec<Run> = (plan::RUNS.into_iter())
        .filter(|run| run.given == Given::Default)
        .collect();
    let held: Vec<(Run, Held)> = (runs.into_iter())
        .map(|run| (run, compare::against_base(rows, run.name)))
        .filter(|(_, held)| held.builds > 0)
        .collect();
    for (run, held) in &held {
        for (kernel, hook, preemption) in &held.hosts {
            let _ = writeln!(
                out,
                "| {} | {} | {hook} | {preemption} | {} | {} | {} | {} |",
                run.name,
                series(kernel),
                held.builds,
                held.same,
                held.same_unsure,
                held.complete
            );
        }
    }
    let guests: Vec<Run> = (held.iter())
        .map(|(run, _)| *run)
        .filter(|run| run.place != Place::Here)
        .collect();
    let differences: Vec<&Difference> = (held.iter()).flat_map(|(_, h)| &h.differences).collect();
    out.push_str("\n### Differences\n\n");
    differing(out, &differences);
    let runs: Vec<&str> = guests.iter().map(|run| run.name).collect();
    unsure_only(out, rows, &runs);
    out.push_str("\n### Incomplete reports\n\n");
    incomplete(out, rows, &guests);
    out.push_str("\n### By Dockerfile\n\n| Dockerfile | required (*unsure*) |");
    for run in &guests {
        let _ = write!(out, " {run} |");
    }
    let _ = writeln!(out, "\n|---|---|{}", "---|".repeat(guests.len()));
    let base = compare::of(rows, plan::BASE.name);
    let others: Vec<_> = (guests.iter())
        .map(|run| compare::of(rows, run.name))
        .collect();
    for (name, row) in base {
        if others.iter().all(|other| !other.contains_key(name)) {
            continue;
        }
        let _ = write!(out, "| `{name}` | {} |", required(row));
        for other in &others {
            let cell = match other.get(name) {
                None => "·".to_owned(),
                Some(other) if other.required == row.required && other.unsure == row.unsure => {
                    "same".to_owned()
                }
                Some(other) => required(other),
            };
            let _ = write!(out, " {cell} |");
        }
        out.push('\n');
    }
}

fn everything(out: &mut String, rows: &Rows) {
    let Some(run) = plan::RUNS.iter().find(|run| run.given == Given::All) else {
        return;
    };
    let held = compare::against_base(rows, run.name);
    let other: BTreeSet<&str> = held.differences.iter().map(|d| d.name.as_str()).collect();
    let _ = write!(
        out,
        "\n## With all capabilities\n\n\
         {} Dockerfiles; of {} the report requires the same as under Docker's default set, of {} also with \
         the same part of it unsure. The others ({}) do more when they are allowed more:\n\n",
        held.builds,
        held.same,
        held.same_unsure,
        other.len()
    );
    differing(out, &held.differences.iter().collect::<Vec<_>>());
    unsure_only(out, rows, &[run.name]);
}

/// Dockerfiles of which the same is required, and another part of it is unsure.
fn unsure_only(out: &mut String, rows: &Rows, runs: &[&str]) {
    let base = compare::of(rows, plan::BASE.name);
    let mut alike: BTreeMap<(&str, &str, &str), Vec<&str>> = BTreeMap::new();
    for run in runs {
        for (name, row) in compare::of(rows, run) {
            let Some(base) = base.get(name).filter(|base| base.required == row.required) else {
                continue;
            };
            for cap in &row.required {
                let why = reasons::of(run, name, cap).unwrap_or(UNEXPLAINED);
                if base.unsure.contains(cap) != row.unsure.contains(cap) {
                    alike.entry((name, cap, why)).or_default().push(run);
                }
            }
        }
    }
    if alike.is_empty() {
        return;
    }
    out.push_str("\nRequired in both, and unsure in one of them only:\n\n");
    for ((name, cap, why), runs) in alike {
        let _ = writeln!(out, "- `{name}`, {cap} ({}): {why}", runs.join(", "));
    }
}

fn less(out: &mut String, rows: &Rows, needs: &Needs, run: Run, title: &str) {
    let lacking = compare::lacking(rows, run.name, needs);
    let named = lacking.stopped.iter().filter(|end| !end.named.is_empty());
    let _ = write!(
        out,
        "\n## {title}\n\n\
         {} Dockerfiles that build under Docker's default set. {} builds were stopped: of {} the report \
         names, in the step in which the build failed, what stopped it: a capability that replays know as \
         a need, as `needed` because `refused` (or `unasked`, where the kernel asks nothing), with program \
         and system call.\n\n",
        lacking.builds,
        lacking.stopped.len(),
        named.count()
    );
    stopped(out, &lacking);
    through(out, &lacking, needs, run);
}

fn stopped(out: &mut String, lacking: &Lacking<'_>) {
    let mut alike: BTreeMap<(String, String, String), Vec<String>> = BTreeMap::new();
    let mut unnamed = Vec::new();
    for end in &lacking.stopped {
        let ended = end.row.ended.as_deref().unwrap_or("not known");
        if end.named.is_empty() {
            unnamed.push(format!("- `{}` ({ended})\n", end.row.name));
        }
        let (line, kind) = ended.split_once(", ").unwrap_or(("", ended));
        for named in &end.named {
            let call = named.syscall.as_deref().unwrap_or("exec");
            let error = named.outcome.as_deref().unwrap_or("no check");
            let because = match named.because {
                Because::Unasked => "unasked, ",
                _ => "",
            };
            let how = format!("`{}`: {call} ({because}{error})", cell(&named.program));
            alike
                .entry((kind.to_owned(), named.capability.clone(), how))
                .or_default()
                .push(format!("`{}` ({line})", end.row.name));
        }
    }
    if !alike.is_empty() {
        out.push_str("| stopped in | for want of | program: system call | Dockerfiles |\n|---|---|---|---|\n");
    }
    for ((kind, cap, how), files) in alike {
        let _ = writeln!(out, "| {kind} | {cap} | {how} | {} |", files.join(", "));
    }
    if !unnamed.is_empty() {
        out.push_str("\nStopped, and not named:\n\n");
        out.extend(unnamed);
    }
}

fn through(out: &mut String, lacking: &Lacking<'_>, needs: &Needs, run: Run) {
    let with_needs: Vec<_> = (lacking.through.iter())
        .filter(|(row, _)| {
            needs
                .get(&row.name)
                .is_some_and(|needs| needs.iter().any(|any_of| !given(run, any_of)))
        })
        .collect();
    let _ = write!(
        out,
        "\n{} builds went through. {} of them need something that they were not given, by replays, and their \
         image is another one; their reports require:\n\n",
        lacking.through.len(),
        with_needs.len()
    );
    if with_needs.is_empty() {
        return;
    }
    out.push_str("| Dockerfile | required (*unsure*) | refused, and went on | needed, and not required |\n|---|---|---|---|\n");
    for (row, missing) in with_needs {
        let refused: BTreeSet<String> = (row.said.iter())
            .filter(|(name, said)| row.required.contains(name) && matters(said))
            .map(|(name, said)| format!("{name}: {}", rules(said)))
            .collect();
        let missing: Vec<String> = (missing.iter())
            .map(|cap| {
                format!(
                    "{cap}: {}",
                    reasons::of(run.name, &row.name, cap).unwrap_or(UNEXPLAINED)
                )
            })
            .collect();
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} |",
            row.name,
            required(row),
            refused.into_iter().collect::<Vec<_>>().join("; "),
            missing.join("; ")
        );
    }
}

/// Whether the run had one of these.
fn given(run: Run, any_of: &[String]) -> bool {
    use crate::lab::capabilities::{self, Set};
    let set = run.given.set(Set::DOCKER_DEFAULT, Set::DOCKER_DEFAULT);
    (any_of.iter()).any(|name| capabilities::number(name).is_some_and(|number| set.has(number)))
}

fn matters(said: &Said) -> bool {
    !matches!(said.because, Because::Used)
}

fn differing(out: &mut String, differences: &[&Difference]) {
    if differences.is_empty() {
        out.push_str("None.\n");
        return;
    }
    out.push_str("| run | Dockerfile | | under the default set, here | in this run | why |\n|---|---|---|---|---|---|\n");
    for d in differences {
        let sign = if d.more { "+" } else { "−" };
        let say = |said: &Option<Said>| match said {
            Some(said) => format!(
                "{} ({}): {}",
                word(said.verdict),
                word(said.because),
                rules(said)
            ),
            None => "not asked for".to_owned(),
        };
        let why = reasons::of(&d.run, &d.name, &d.capability);
        let _ = writeln!(
            out,
            "| {} | `{}` | {sign}{} | {} | {} | {} |",
            d.run,
            d.name,
            d.capability,
            say(&d.base),
            say(&d.here),
            why.unwrap_or(if d.unsure() {
                "unsure, not silence"
            } else {
                UNEXPLAINED
            })
        );
    }
}

fn incomplete(out: &mut String, rows: &Rows, guests: &[Run]) {
    let mut why: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for run in guests {
        for (name, row) in compare::of(rows, run.name) {
            if let Some(lost) = &row.lost {
                why.entry((run.name, lost))
                    .or_default()
                    .push(format!("`{name}`"));
            }
        }
    }
    if why.is_empty() {
        out.push_str("None.\n");
    }
    for ((run, lost), names) in why {
        // Where it is said of all, the names say nothing.
        let all = compare::of(rows, run).len() == names.len();
        let names = if all {
            "every build".to_owned()
        } else {
            names.join(", ")
        };
        let _ = writeln!(out, "- {run}: {names}: {lost}");
    }
}

/// What a report requires, with the part that is unsure in italics.
fn required(row: &Row) -> String {
    let names: Vec<String> = (row.required.iter())
        .map(|cap| {
            if row.unsure.contains(cap) {
                format!("*{cap}*")
            } else {
                cap.clone()
            }
        })
        .collect();
    if names.is_empty() {
        "nothing".to_owned()
    } else {
        names.join(" ")
    }
}

fn rules(said: &Said) -> String {
    said.rules.iter().cloned().collect::<Vec<_>>().join(", ")
}

/// A kernel's version without what a distribution adds.
fn series(kernel: &str) -> &str {
    let end = kernel.find(|c: char| !c.is_ascii_digit() && c != '.');
    &kernel[..end.unwrap_or(kernel.len())]
}

fn word(value: impl std::fmt::Display) -> String {
    value.to_string()
}

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
        .replace('`', "'")
        .replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::compare::tests::{row, rows, stopped};

    #[test]
    fn a_page_counts_and_marks_what_nobody_explained() {
        let mut guest = row("6.1-full", "a", 0, &["CHOWN", "KILL"]);
        (guest.kernel, guest.hook) = ("6.1.0-56-cloud".to_owned(), "kprobe".to_owned());
        guest.complete = false;
        guest.lost = Some("1 of file_caps".to_owned());
        let mut none = row("none", "a", 1, &["CHOWN"]);
        none.stopped = vec![stopped("CHOWN")];
        let rows = rows(vec![
            row("default", "a", 0, &["CHOWN"]),
            row("default", "b", 0, &["CHOWN"]),
            guest,
            none,
            row("none", "b", 0, &[]),
        ]);
        let needs = ["a", "b"].map(|name| (name.to_owned(), vec![vec!["CHOWN".to_owned()]]));
        let page = page(&rows, &Needs::from(needs));
        for line in [
            "| 6.1-full | 6.1.0 | kprobe | full | 1 | 0 | 0 | 0 |",
            "| `a` | CHOWN | CHOWN KILL |",
            "- 6.1-full: every build: 1 of file_caps",
            "| RUN | CHOWN | `/bin/chown`: fchownat (EPERM) | `a` (line 2) |",
            "| `b` | nothing |  | CHOWN: **not explained** |",
        ] {
            assert!(page.contains(line), "{line}\n{page}");
        }
        let difference = page.lines().find(|line| line.contains("+KILL")).unwrap();
        assert!(
            difference.ends_with("| **not explained** |"),
            "{difference}"
        );
    }
}
