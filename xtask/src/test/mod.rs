//! `cargo xtask test`: all tiers of tests that this machine can run, and what it could not run.
//!
//! A tier that cannot run says why and is no failure, unless `--require` names it.

mod run;
mod tiers;

use anyhow::Result;
use clap::ValueEnum;

use crate::sh::Exit;
use run::Tier;

/// What `cargo xtask test` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these tiers
    #[arg(long, value_name = "TIER", value_enum, value_delimiter = ',')]
    only: Vec<Kind>,
    /// Fail where one of these tiers could not run, or not all of it
    #[arg(long, value_name = "TIER", value_enum, value_delimiter = ',')]
    require: Vec<Kind>,
}

/// The tiers, in the order they run: quick ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Formatting and clippy's lints
    Lint,
    /// What needs no privileges: unit, property and golden tests
    Pure,
    /// What nobody meant to write: a fuzzer a kind of input, each for some seconds
    Fuzz,
    /// The HTML page in a real browser
    Pages,
    /// The committed BPF object is what its sources give
    Bpf,
    /// Exact counts on the running kernel
    Root,
    /// The same on older kernels, in virtual machines
    Vm,
    /// Real builds by real engines
    Engines,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Lint => "lint",
            Self::Pure => "pure",
            Self::Fuzz => "fuzz",
            Self::Pages => "pages",
            Self::Bpf => "bpf",
            Self::Root => "root",
            Self::Vm => "vm",
            Self::Engines => "engines",
        }
    }
}

/// Runs the tiers and prints a summary, the last line of which counts all tests.
///
/// # Errors
/// [`Exit`] 1 where a test failed, or a required tier could not run.
pub fn run(args: &Args) -> Result<()> {
    let mut tiers = Vec::new();
    for &kind in Kind::value_variants() {
        if !args.only.is_empty() && !args.only.contains(&kind) {
            continue;
        }
        println!("\n=== {}", kind.name());
        tiers.push((kind, Tier::measure(|tier| tiers::run(kind, tier))));
    }
    let lacking: Vec<&str> = args
        .require
        .iter()
        .filter(|kind| {
            let ran = tiers.iter().find(|(other, _)| other == *kind);
            ran.is_none_or(|(_, tier)| tier.is_partial())
        })
        .map(|kind| kind.name())
        .collect();
    summarise(&tiers);
    if !lacking.is_empty() {
        println!("required, but did not run in full: {}", lacking.join(", "));
    }
    let sum = |count: fn(&Tier) -> u64| tiers.iter().map(|(_, tier)| count(tier)).sum::<u64>();
    let failed = sum(|tier| tier.failed) + lacking.len() as u64;
    let (passed, skipped) = (sum(|tier| tier.passed), sum(Tier::skipped));
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed > 0 {
        return Err(Exit(1).into());
    }
    Ok(())
}

fn summarise(tiers: &[(Kind, Tier)]) {
    println!("\ntier     passed  failed  skipped  seconds");
    for (kind, tier) in tiers {
        println!(
            "{:<8} {:>6}  {:>6}  {:>7}  {:>7.0}",
            kind.name(),
            tier.passed,
            tier.failed,
            tier.skipped(),
            tier.took.as_secs_f64()
        );
    }
    for (kind, tier) in tiers {
        for why in &tier.not_run {
            println!("NOT RUN  {}: {why}", kind.name());
        }
        for why in &tier.skips {
            println!("SKIPPED  {}: {why}", kind.name());
        }
        for why in &tier.failures {
            println!("FAILED   {}: {why}", kind.name());
        }
    }
}
