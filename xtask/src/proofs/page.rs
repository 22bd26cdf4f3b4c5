//! docs/proofs.md: pure, over rows.

use std::fmt::Write as _;

use super::Row;

/// The page.
pub fn page(rows: &[Row]) -> String {
    let mut text = String::from(
        "# What `kcap prove` makes of the corpus\n\n\
         Made by `cargo xtask proofs --write`; do not edit.\n\n\
         Each Dockerfile of `corpus/` that builds was proved by `kcap prove` with real Kaniko, from Docker's \
         default capabilities, one build after the other, without anything kept. Each set is held against \
         the truth that other replays found, compared by a program of their own (`cargo xtask truth`); where \
         it is another minimal set, that program's judge built with it and without each of its members.\n\n\
         ## Goals\n\n| | measured | goal | |\n|---|---|---|---|\n",
    );
    let total = rows.len();
    let right = rows.iter().filter(|row| row.wrong.is_empty()).count();
    goal(
        &mut text,
        "sets that are enough and 1-minimal, by independent builds",
        &part(right, total),
        "all",
        right == total,
    );
    let (mut members, mut known) = (0, 0);
    for row in rows {
        members += row.members.len();
        let is_right = |name: &&String| row.after_one.contains(name) == row.proved.contains(name);
        known += row.members.iter().filter(is_right).count();
    }
    goal(
        &mut text,
        "members (unsure included) that are right after the one replay with what the trace is sure of",
        &part(known, members),
        "≥ 95 %",
        known * 100 >= members * 95,
    );
    let verdicts_right = |row: &&Row| row.sure_does && row.after_one.len() == row.proved.len();
    let of: Vec<&Row> = rows.iter().filter(verdicts_right).collect();
    let few = of
        .iter()
        .filter(|row| row.builds as usize <= row.members.len() + 4);
    let few = few.count();
    goal(
        &mut text,
        "builds ≤ members + 4, where the verdicts were right",
        &part(few, of.len()),
        "all",
        few == of.len(),
    );
    let half = rows
        .iter()
        .filter(|row| row.seconds <= row.sweep / 2.0)
        .count();
    goal(
        &mut text,
        "wall time ≤ half of a sweep of 16 builds",
        &part(half, total),
        "all",
        half == total,
    );
    let (seconds, sweep) = rows
        .iter()
        .fold((0.0, 0.0), |(a, b), row| (a + row.seconds, b + row.sweep));
    let builds: u32 = rows.iter().map(|row| row.builds).sum();
    let _ = writeln!(
        text,
        "\nAll in all {builds} builds in {:.0} s, {:.2} of what sweeps of 16 would take. A sweep is reckoned \
         as 16 times the mean of the builds with the starting set, each with what a build of the proof costs \
         beside itself (container, image read and compared).\n",
        seconds,
        if sweep > 0.0 { seconds / sweep } else { 0.0 }
    );
    text += "## Each\n\n\
             *Wrong after one*: members that the one replay had the wrong way.\n\n\
             | Dockerfile | proved | members of one run | wrong after one | builds | seconds | of a sweep |\n\
             |---|---|---|---|---|---|---|\n";
    for row in rows {
        let is_wrong = |name: &&String| row.after_one.contains(name) != row.proved.contains(name);
        let wrong: Vec<&str> = row
            .members
            .iter()
            .filter(is_wrong)
            .map(String::as_str)
            .collect();
        let _ = writeln!(
            text,
            "| `{}` | {}{} | {} | {} | {} | {:.1} | {:.2} |",
            row.name,
            if row.proved.is_empty() {
                "nothing".into()
            } else {
                row.proved.join(" ")
            },
            if row.another {
                " (another minimal set than the truth's)"
            } else {
                ""
            },
            row.members.len(),
            wrong.join(" "),
            row.builds,
            row.seconds,
            row.seconds / row.sweep
        );
    }
    let wrong: Vec<&Row> = rows.iter().filter(|row| !row.wrong.is_empty()).collect();
    text += "\n## Wrong\n\n";
    if wrong.is_empty() {
        text += "None.\n";
    }
    for row in wrong {
        let _ = writeln!(text, "- `{}`: {}", row.name, row.wrong.join("; "));
    }
    text
}

fn goal(text: &mut String, what: &str, measured: &str, goal: &str, met: bool) {
    let met = if met { "met" } else { "**not met**" };
    let _ = writeln!(text, "| {what} | {measured} | {goal} | {met} |");
}

fn part(of: usize, all: usize) -> String {
    if all == 0 {
        return "none".into();
    }
    format!("{of} of {all} ({:.1} %)", of as f64 * 100.0 / all as f64)
}
