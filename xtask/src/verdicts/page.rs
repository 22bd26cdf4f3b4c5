//! What was measured as `docs/verdicts.md`.

use std::collections::BTreeMap;
use std::fmt::Write;

use kcap::interpret::rules;
use kcap::report::Verdict;

use super::measure::{Measured, Member, Replays, Split, Sum};

/// Dockerfiles whose names begin so were written without a rule in mind.
const HELD_OUT: &str = "x-";
/// What is to be reached: recall, the part of `needed` that is, and the part of members in doubt.
const GOALS: [f64; 3] = [1.0, 0.95, 0.2];

/// The whole page.
pub fn page(measured: &[Measured]) -> String {
    let all: Vec<&Measured> = measured.iter().collect();
    let (held_out, ours): (Vec<&Measured>, Vec<&Measured>) =
        (measured.iter()).partition(|one| one.name.starts_with(HELD_OUT));
    let mut out = String::from(
        "# How right the verdicts are\n\n\
         Made by `cargo xtask verdicts --write`; do not edit.\n\n\
         Each Dockerfile of `corpus/` was built once by real Kaniko under Docker's default \
         capabilities, and traced (`capture.kcap`). What kcap says of that one run is held against \
         replays that leave out one capability at a time and compare the images (`truth.json`, made \
         by `cargo xtask truth`, which knows nothing of kcap). A *member* is a capability in the \
         `required` of one Dockerfile.\n",
    );
    let sum = Sum::of(&all);
    goals(&mut out, sum);
    numbers(
        &mut out,
        &[
            ("all", sum),
            ("those that rules were written with", Sum::of(&ours)),
            ("`x-…`, as ordinary projects write them", Sum::of(&held_out)),
        ],
    );
    matrix(&mut out, sum);
    listed(&mut out, measured);
    by_rule(&mut out, measured);
    out
}

fn percent(part: f64) -> String {
    // Rounded down: 99.96 % is not 100 %.
    format!("{:.1} %", (part * 1000.0).floor() / 10.0)
}

fn goals(out: &mut String, sum: Sum) {
    let rows = [
        (
            "needs that are required (recall)",
            sum.recall(),
            "=",
            GOALS[0],
        ),
        (
            "of the members called `needed`, those that are",
            sum.sure.precision(),
            "≥",
            GOALS[1],
        ),
        ("members that are `unsure`", sum.doubt(), "≤", GOALS[2]),
    ];
    out.push_str("\n## Goals\n\n| | measured | goal | |\n|---|---|---|---|\n");
    for (what, is, sign, goal) in rows {
        let met = if sign == "≤" {
            is <= goal
        } else {
            is >= goal
        };
        let _ = writeln!(
            out,
            "| {what} | {} | {sign} {} | {} |",
            percent(is),
            percent(goal),
            if met { "met" } else { "**missed**" }
        );
    }
}

fn numbers(out: &mut String, rows: &[(&str, Sum)]) {
    out.push_str(
        "\nBeside it, what counting every granted check as a need says of the same runs.\n\n\
         | Dockerfiles | | needs | recall | `needed` that are | `unsure` | granted: recall | granted: that are |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for (what, sum) in rows {
        let found = sum.needs - sum.never_granted.min(sum.needs);
        let _ = writeln!(
            out,
            "| {what} | {} | {} | {} | {} of {} ({}) | {} of {} ({}) | {} | {} of {} ({}) |",
            sum.files,
            sum.needs,
            percent(sum.recall()),
            sum.sure.needed,
            sum.sure.needed + sum.sure.unneeded,
            percent(sum.sure.precision()),
            sum.unsure.total(),
            sum.sure.total() + sum.unsure.total(),
            percent(sum.doubt()),
            percent(super::measure::ratio(found, sum.needs)),
            sum.granted.needed,
            sum.granted.needed + sum.granted.unneeded,
            percent(sum.granted.precision()),
        );
    }
}

fn matrix(out: &mut String, sum: Sum) {
    out.push_str(
        "\n## What is said, and what replays say\n\n\
         | | needed | not needed | not tried |\n|---|---|---|---|\n",
    );
    let unheard = sum.missed - sum.left_out.needed.min(sum.missed);
    let rows = [
        ("`needed`", sum.sure),
        ("`unsure`", sum.unsure),
        ("`unneeded`, though asked for", sum.left_out),
        (
            "never asked for",
            Split {
                needed: unheard,
                ..Split::default()
            },
        ),
        ("a check was granted", sum.granted),
    ];
    for (what, split) in rows {
        let rest = |n: usize| {
            if what.starts_with("never") {
                "·".to_owned()
            } else {
                n.to_string()
            }
        };
        let _ = writeln!(
            out,
            "| {what} | {} | {} | {} |",
            split.needed,
            rest(split.unneeded),
            rest(split.unjudged)
        );
    }
    out.push_str(
        "\n*Not tried*: the build is one that fails under Docker's default set, and the capability is \
         not in that set.\n",
    );
}

fn listed(out: &mut String, measured: &[Measured]) {
    let members = |wanted: &dyn Fn(&Member) -> bool| {
        let mut rows = Vec::new();
        for one in measured {
            let picked = one.members.iter().filter(|member| wanted(member));
            rows.extend(picked.map(|member| (one.name.as_str(), member)));
        }
        rows
    };
    out.push_str("\n## Left out although needed\n\n");
    let missed: Vec<String> = (measured.iter())
        .flat_map(|one| {
            one.missed
                .iter()
                .map(|what| format!("- `{}`: {what}\n", one.name))
        })
        .collect();
    out.push_str(if missed.is_empty() { "None.\n" } else { "" });
    out.extend(missed);

    out.push_str("\n## Called needed, and not\n\n");
    let wrong = members(&|m| m.verdict == Verdict::Needed && m.replays == Replays::Unneeded);
    table(out, &wrong);
    let untried = members(&|m| m.verdict == Verdict::Needed && m.replays == Replays::Unjudged);
    if !untried.is_empty() {
        out.push_str("\nNot tried by a replay:\n\n");
        table(out, &untried);
    }
    out.push_str(
        "\n## Unsure\n\nWhat settles each is a build of the same Dockerfile without that capability, \
         with the images compared: the report says so (`settle`), `kcap prove` makes it, and \
         `truth.json` has its result.\n\n",
    );
    let mut unsure = members(&|m| m.verdict == Verdict::Unsure);
    unsure.sort_by_key(|(_, m)| (m.name.clone(), m.because.clone()));
    table(out, &unsure);
}

fn table(out: &mut String, rows: &[(&str, &Member)]) {
    if rows.is_empty() {
        out.push_str("None.\n");
        return;
    }
    // One row for Dockerfiles of which the same is said.
    let mut alike: BTreeMap<(&str, &str, String, &str), [Vec<String>; 2]> = BTreeMap::new();
    for (file, member) in rows {
        let rules: Vec<String> = member
            .rules
            .iter()
            .map(|rule| format!("`{rule}`"))
            .collect();
        let key = (
            member.name.as_str(),
            member.because.as_str(),
            rules.join(" "),
            member.reason.as_str(),
        );
        let needed = usize::from(member.replays == Replays::Needed);
        alike.entry(key).or_default()[needed].push(format!("`{file}` ({})", member.at));
    }
    out.push_str("| capability | because | rule | reason | not needed by | needed by |\n|---|---|---|---|---|---|\n");
    for ((name, because, rules, reason), [not, needed]) in alike {
        let _ = writeln!(
            out,
            "| {name} | {because} | {rules} | {} | {} | {} |",
            cell(reason),
            cell(&not.join(", ")),
            cell(&needed.join(", "))
        );
    }
}

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn by_rule(out: &mut String, measured: &[Measured]) {
    out.push_str(
        "\n## Rules\n\n\
         In the order in which they are tried; the first that applies decides. *Right* and *wrong* count \
         the members that a rule had a part in, by what replays say: for `unsure`, how many were needed \
         and how many not; for `unneeded`, capabilities that were left out.\n\n\
         | rule | says | right | wrong |\n|---|---|---|---|\n",
    );
    let split = |rule: &rules::Rule| {
        let members = measured.iter().flat_map(|one| &one.members);
        Split::of(members, |m| {
            m.verdict == rule.verdict && m.rules.contains(rule.name)
        })
    };
    for rule in rules::all() {
        let split = split(rule);
        let (right, wrong) = match rule.verdict {
            Verdict::Needed => (split.needed.to_string(), split.unneeded.to_string()),
            Verdict::Unneeded => (split.unneeded.to_string(), split.needed.to_string()),
            Verdict::Unsure if split.needed + split.unneeded == 0 => {
                ("0".to_owned(), String::new())
            }
            Verdict::Unsure => (
                format!("{} needed, {} not", split.needed, split.unneeded),
                String::new(),
            ),
        };
        let _ = writeln!(
            out,
            "| `{}` | {} | {right} | {wrong} |",
            rule.name,
            says(rule)
        );
    }
    for rule in rules::all() {
        let _ = write!(
            out,
            "\n### `{}`: {}\n\n{}.\n\n- relies on: {}\n- decides: {}\n- leaves: {}\n- can be wrong: {}\n",
            rule.name,
            says(rule),
            rule.reason,
            rule.relies,
            rule.decides,
            rule.leaves,
            rule.wrong
        );
        if !rule.functions.is_empty() {
            let functions: Vec<String> = rule.functions.iter().map(|f| format!("`{f}`")).collect();
            let _ = writeln!(
                out,
                "- becomes `outside` where a sampled call path passes none of: {}",
                functions.join(", ")
            );
        }
    }
}

fn says(rule: &rules::Rule) -> String {
    let word = |value: serde_json::Result<serde_json::Value>| match value {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    };
    format!(
        "{} ({})",
        word(serde_json::to_value(rule.verdict)),
        word(serde_json::to_value(rule.because))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_and_every_section_is_on_the_page() {
        let text = page(&[]);
        for rule in rules::all() {
            assert!(
                text.contains(&format!("### `{}`", rule.name)),
                "{}",
                rule.name
            );
        }
        for section in [
            "Goals",
            "Left out although needed",
            "Called needed, and not",
            "Unsure",
        ] {
            assert!(text.contains(&format!("\n## {section}\n")), "{section}");
        }
    }

    #[test]
    fn nearly_all_is_not_all() {
        assert_eq!(percent(0.9999), "99.9 %");
        assert_eq!(percent(1.0), "100.0 %");
        assert_eq!(cell("a || b"), "a \\|\\| b");
    }
}
