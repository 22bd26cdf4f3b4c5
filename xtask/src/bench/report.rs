//! The figures as text.

use std::fmt::Write as _;

use super::bpf::Program;
use super::limits::limit;
use super::setups::Setup;
use super::stats::Spread;

/// Everything that one run found.
pub struct Figures {
    /// Where it was measured.
    pub host: String,
    /// Nanoseconds by setup, one value a round, in the order of `setups`.
    pub rounds: Vec<Vec<f64>>,
    /// What was measured.
    pub setups: Vec<Setup>,
    /// Milliseconds to load and attach, one value a load.
    pub loads: Vec<f64>,
    /// Most memory of the loader in MB, one value a load.
    pub memory: Vec<f64>,
    /// kcap's programs.
    pub programs: Vec<Program>,
}

/// At most so many times the cost of something else.
struct Goal {
    of: Setup,
    to: Setup,
    at_most: f64,
}

const GOALS: [Goal; 5] = [
    Goal {
        of: Setup::Kcap { outcomes: false },
        to: Setup::Bpftrace,
        at_most: 0.45,
    },
    Goal {
        of: Setup::Kcap { outcomes: true },
        to: Setup::Bpftrace,
        at_most: 0.7,
    },
    Goal {
        of: Setup::Kcap { outcomes: true },
        to: Setup::BpftraceOutcome,
        at_most: 0.3,
    },
    Goal {
        of: Setup::KcapElsewhere { outcomes: false },
        to: Setup::Empty,
        at_most: 1.6,
    },
    Goal {
        of: Setup::KcapElsewhere { outcomes: true },
        to: Setup::TwoEmpty,
        at_most: 1.2,
    },
];

/// Milliseconds that loading may take.
const LOAD_MS: f64 = 60.0;
/// MB that the loader may hold.
const MEMORY_MB: f64 = 40.0;

impl Figures {
    /// What a setup adds to the call, round by round.
    fn added(&self, setup: Setup) -> Option<Vec<f64>> {
        let column = |setup| self.setups.iter().position(|&s| s == setup);
        let (bare, this) = (column(Setup::Nothing)?, column(setup)?);
        Some(self.rounds.iter().map(|r| r[this] - r[bare]).collect())
    }

    /// How many times what another adds a setup adds. Both were measured moments apart.
    fn ratio(&self, of: Setup, to: Setup) -> Option<Spread> {
        let (of, to) = (self.added(of)?, self.added(to)?);
        Spread::of(of.iter().zip(&to).map(|(of, to)| of / to))
    }

    /// The whole as Markdown.
    pub fn markdown(&self) -> String {
        let mut out = String::from(
            "# What a capability check costs\n\n\
             Made by `cargo xtask bench --write`; do not edit.\n\n",
        );
        // Writing to a string cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "{}\n", self.host)?;
        if !self.rounds.is_empty() {
            self.checks(out)?;
            self.goals(out)?;
        }
        self.loading(out)?;
        self.counts(out)
    }

    fn checks(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "## Added to one granted check\n\n\
             The check is the one of SYS_TIME in `settimeofday(NULL, NULL)`, called in a loop on one \
             CPU. {} rounds;\nin each, everything is attached, measured and detached in turn. What is \
             added is the call's time less\nthe same round's time with nothing attached; ratios are \
             taken within a round. Median (quartiles).\n\n\
             | attached | ns | × empty | × bpftrace count() |\n|---|---|---|---|",
            self.rounds.len()
        )?;
        for (column, &setup) in self.setups.iter().enumerate() {
            let name = setup.name();
            if setup == Setup::Nothing {
                let whole = self.rounds.iter().map(|round| round[column]);
                let whole = Spread::of(whole).map_or_else(String::new, |s| s.show(0));
                writeln!(out, "| {name} | {whole} | | |")?;
                continue;
            }
            let added = self.added(setup).and_then(Spread::of);
            let shown = |s: Option<Spread>, n| s.map_or_else(String::new, |s| s.show(n));
            writeln!(
                out,
                "| {name} | {} | {} | {} |",
                shown(added, 0),
                shown(self.ratio(setup, Setup::Empty), 2),
                shown(self.ratio(setup, Setup::Bpftrace), 2)
            )?;
        }
        for setup in &self.setups {
            if let Some(script) = setup.script() {
                let words: Vec<_> = script.split_whitespace().collect();
                writeln!(out, "\n{}: `{}`", setup.name(), words.join(" "))?;
            }
        }
        writeln!(out)
    }

    fn goals(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "## Goals\n\n| added by | to that of | goal | measured | |\n|---|---|---|---|---|"
        )?;
        for Goal { of, to, at_most } in GOALS {
            let (of_name, to_name) = (of.name(), to.name());
            let Some(ratio) = self.ratio(of, to) else {
                writeln!(
                    out,
                    "| {of_name} | {to_name} | ≤ {at_most} | | not measured |"
                )?;
                continue;
            };
            writeln!(
                out,
                "| {of_name} | {to_name} | ≤ {at_most} | {} | {} |",
                ratio.show(2),
                met(ratio.mid <= at_most)
            )?;
        }
        writeln!(out)
    }

    fn loading(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "## Loading\n\n{} runs of `kcap run -- true`.\n\n\
             | | goal | measured | |\n|---|---|---|---|",
            self.loads.len()
        )?;
        for (what, goal, unit, values) in [
            ("load to attached", LOAD_MS, "ms", &self.loads),
            ("peak memory", MEMORY_MB, "MB", &self.memory),
        ] {
            if let Some(spread) = Spread::of(values.iter().copied()) {
                writeln!(
                    out,
                    "| {what} | ≤ {goal} {unit} | {} {unit} | {} |",
                    spread.show(1),
                    met(spread.mid <= goal)
                )?;
            }
        }
        writeln!(out)
    }

    fn counts(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "## Instructions\n\n\
             Walked by the verifier, which `cargo xtask bench --gate` holds against a limit, and in the \
             program.\n\n\
             | program | verified | limit | in the program |\n|---|---|---|---|"
        )?;
        for program in &self.programs {
            let limit = limit(&program.name).map_or_else(|| "none".into(), |n| n.to_string());
            writeln!(
                out,
                "| `{}` | {} | {limit} | {} |",
                program.name, program.verified, program.translated
            )?;
        }
        Ok(())
    }
}

const fn met(yes: bool) -> &'static str {
    if yes { "met" } else { "missed" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        Figures {
            host: "a host".into(),
            setups: vec![
                Setup::Nothing,
                Setup::Empty,
                Setup::Bpftrace,
                Setup::Kcap { outcomes: false },
            ],
            // The machine is twice as slow in the last round; ratios do not see it.
            rounds: vec![
                vec![300.0, 350.0, 500.0, 380.0],
                vec![310.0, 360.0, 510.0, 390.0],
                vec![600.0, 700.0, 1000.0, 760.0],
            ],
            loads: vec![50.0, 70.0, 61.0],
            memory: vec![10.0; 3],
            programs: vec![],
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let ratio = figures().ratio(Setup::Kcap { outcomes: false }, Setup::Bpftrace);
        let ratio = ratio.unwrap();
        assert_eq!((ratio.low, ratio.mid, ratio.high), (0.4, 0.4, 0.4));
    }

    #[test]
    fn goals_are_judged_and_what_was_not_measured_is_said() {
        let text = figures().markdown();
        assert!(text.contains(
            "| kcap, no outcomes | bpftrace count() | ≤ 0.45 | 0.40 (0.40–0.40) | met |"
        ));
        assert!(text.contains("| kcap | bpftrace count() | ≤ 0.7 | | not measured |"));
        assert!(text.contains("| load to attached | ≤ 60 ms | 61.0 (55.5–65.5) ms | missed |"));
    }
}
