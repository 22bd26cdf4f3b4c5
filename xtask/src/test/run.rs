//! Running the commands of a tier, and counting the tests that they report.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::sh;

/// What became of a tier.
#[derive(Debug, Default)]
pub struct Tier {
    /// Tests that passed. A command that is no test runner counts as one test.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
    /// Tests that their runner left out.
    ignored: u64,
    /// Parts that could not run here, and why.
    pub not_run: Vec<String>,
    /// What tests that ran said they could not do here, and what may be absent.
    pub skips: Vec<String>,
    /// What failed, where no test names it.
    pub failures: Vec<String>,
    /// How long the tier took.
    pub took: Duration,
}

impl Tier {
    /// Runs a tier and takes its time. An error is a failure of the tier.
    pub fn measure(run: impl FnOnce(&mut Self) -> Result<()>) -> Self {
        let mut tier = Self::default();
        let start = Instant::now();
        if let Err(why) = run(&mut tier) {
            tier.fail(format!("{why:#}"));
        }
        tier.took = start.elapsed();
        tier
    }

    /// Whether anything of the tier could not run.
    pub fn is_partial(&self) -> bool {
        !self.not_run.is_empty()
    }

    /// Tests left out, parts of tests that said so, and parts of the tier that could not run.
    pub fn skipped(&self) -> u64 {
        self.ignored + (self.not_run.len() + self.skips.len()) as u64
    }

    /// Says that a part cannot run.
    pub fn skip(&mut self, why: impl Into<String>) {
        let why = why.into();
        println!("SKIP: {why}");
        self.not_run.push(why);
    }

    /// Says that a part cannot run which may be missing anywhere.
    pub fn absent(&mut self, why: impl Into<String>) {
        let why = why.into();
        println!("SKIP: {why}");
        self.skips.push(why);
    }

    /// Says that a part failed.
    pub fn fail(&mut self, why: impl Into<String>) {
        let why = why.into();
        println!("FAILED: {why}");
        self.failed += 1;
        self.failures.push(why);
    }

    /// Says that a check that is no test runner passed.
    pub fn pass(&mut self) {
        self.passed += 1;
    }

    /// Runs a command that counts as one test.
    pub fn check(&mut self, command: &mut Command) {
        match sh::run(command) {
            Ok(()) => self.pass(),
            Err(why) => self.fail(format!("{why:#}")),
        }
    }

    /// Runs test programs and counts what they report.
    ///
    /// # Errors
    /// Where the command does not start.
    pub fn tests(&mut self, command: &mut Command) -> Result<()> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run `{}`", sh::shown(command)))?;
        let mut counter = Counter::default();
        if let Some(output) = child.stdout.take() {
            for line in BufReader::new(output).split(b'\n') {
                let line = line.context("cannot read a test's output")?;
                counter.line(&String::from_utf8_lossy(&line));
            }
        }
        let status = child.wait().context("cannot wait for a test")?;
        self.settle(&counter, status.success(), &sh::shown(command));
        Ok(())
    }

    /// Adds what a test program reported, and a failure where its status tells of one that no
    /// test reported, or where it reported nothing at all.
    pub fn settle(&mut self, counter: &Counter, success: bool, what: &str) {
        self.passed += counter.passed;
        self.failed += counter.failed;
        self.ignored += counter.ignored;
        for name in &counter.failures {
            self.failures.push(format!("{name} ({what})"));
        }
        if !success && counter.failed == 0 {
            self.fail(format!("`{what}` failed"));
        } else if !counter.any {
            self.fail(format!("`{what}` reported no tests"));
        }
        // A test that finds at run time that it cannot run says so in this form.
        self.skips
            .extend(counter.skips.iter().map(|why| format!("{why} ({what})")));
    }
}

/// Reads the output of Rust's test programs, and passes it on.
#[derive(Debug, Default)]
pub struct Counter {
    passed: u64,
    failed: u64,
    ignored: u64,
    failures: Vec<String>,
    /// Names in the list that is being read, if `in_list`.
    listed: Vec<String>,
    in_list: bool,
    skips: Vec<String>,
    any: bool,
}

impl Counter {
    /// Takes one line without its end.
    pub fn line(&mut self, line: &str) {
        println!("{line}");
        self.read(line);
    }

    fn read(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.any = true;
            let number = |what: &str| -> u64 {
                result
                    .split([';', '.'])
                    .filter_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok())
                    .next()
                    .unwrap_or(0)
            };
            self.passed += number("passed");
            self.failed += number("failed");
            self.ignored += number("ignored");
            self.failures.append(&mut self.listed);
            self.in_list = false;
        } else if line == "failures:" {
            // It comes twice, first with what the tests wrote, then with their names alone.
            self.listed.clear();
            self.in_list = true;
        } else if let (true, Some(name)) = (self.in_list, line.strip_prefix("    ")) {
            self.listed.push(name.to_owned());
        }
        // Without capture the line of a test's name may stand before it.
        if let Some((_, why)) = line.split_once("SKIP: ") {
            self.skips.push(why.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(lines: &[&str]) -> Counter {
        let mut counter = Counter::default();
        lines.iter().for_each(|line| counter.read(line));
        counter
    }

    #[test]
    fn results_add_up() {
        let counter = counted(&[
            "running 3 tests",
            "test a::b ... ok",
            "test a::c ... FAILED",
            "failures:",
            "---- a::c stdout ----",
            "    written by the test",
            "failures:",
            "    a::c",
            "",
            "test result: FAILED. 12 passed; 1 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.00s",
        ]);
        assert_eq!(
            (counter.passed, counter.failed, counter.ignored),
            (17, 1, 3)
        );
        assert_eq!(counter.failures, ["a::c"]);
    }

    #[test]
    fn skips_are_seen_behind_a_name() {
        let counter = counted(&["test a ... SKIP: no such hook", "SKIP: no network"]);
        assert_eq!(counter.skips, ["no such hook", "no network"]);
    }

    #[test]
    fn a_run_without_results_fails() {
        let mut tier = Tier::default();
        tier.settle(&counted(&["nothing"]), true, "x");
        assert_eq!(tier.failed, 1);
        let mut tier = Tier::default();
        let good = "test result: ok. 1 passed; 0 failed; 0 ignored;";
        tier.settle(&counted(&[good]), false, "x");
        assert_eq!((tier.passed, tier.failed), (1, 1));
    }
}
