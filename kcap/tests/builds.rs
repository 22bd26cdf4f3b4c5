//! `kcap build` from end to end, by each engine, with an executor of known truth (`tests/executor`):
//! what the reports say is held against what the Dockerfiles say, and nothing may be left behind.
//!
//! Needs root, BPF, and for each engine its programs; says what it could not test. The executor has
//! to be linked statically, since its image holds nothing else: `cargo xtask test --only engines`
//! builds it so, and names it in `KCAP_EXECUTOR`.

#[path = "builds/attribution.rs"]
mod attribution;
#[path = "support/counts.rs"]
mod counts;
#[path = "builds/engine.rs"]
mod engine;
#[path = "builds/errors.rs"]
mod errors;
#[path = "builds/failures.rs"]
mod failures;
#[path = "builds/interrupts.rs"]
mod interrupts;
#[path = "builds/left.rs"]
mod left;
#[path = "support/programs.rs"]
mod programs;
#[path = "builds/proofs.rs"]
mod proofs;

use std::{
    fs::File,
    io::{self, BufReader, Write as _},
    path::Path,
    sync::Mutex,
};

use engine::{Engine, Kind};
use kcap::{
    capture::{self, Capture},
    report::{self, Report},
};

/// One test at a time: what is left behind is looked for on the whole machine.
static ONE: Mutex<()> = Mutex::new(());

/// Runs a test with an engine, where there is one, and sees that nothing is left behind.
fn with(kind: Kind, test: fn(&mut Engine)) {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    match Engine::start(kind) {
        Ok(mut engine) => test(&mut engine),
        Err(why) => skip(&format!("builds by {}: {why}", kind.name())),
    }
}

/// Says, past the capturing of test output, what a test cannot do here.
fn skip(what: &str) {
    let _ = writeln!(io::stdout(), "SKIP: {what}");
}

fn report(path: &Path) -> Report {
    let text = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    report::from_json(&text).expect("the report is one")
}

fn capture(path: &Path) -> Capture {
    let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    capture::read(BufReader::new(file)).expect("the capture is one")
}

/// Each test by each engine.
macro_rules! by_each_engine {
    ($($module:ident::$test:ident),* $(,)?) => {
        by_each_engine!(@ docker, Docker, $($module::$test),*);
        by_each_engine!(@ podman, Podman, $($module::$test),*);
        by_each_engine!(@ oci, Oci, $($module::$test),*);
    };
    (@ $name:ident, $kind:ident, $($module:ident::$test:ident),*) => {
        mod $name {
            $(#[test]
            fn $test() {
                super::with(super::Kind::$kind, super::$module::$test);
            })*
        }
    };
}

by_each_engine! {
    attribution::every_check_is_in_its_step,
    attribution::an_executor_without_a_log_has_nothing_invented,
    attribution::side_by_side_is_as_one_by_one,
    attribution::secrets_are_in_no_file,
    failures::a_failing_build_has_its_report_and_others_go_on,
    failures::a_container_that_runs_out_of_memory_is_said_to,
    interrupts::a_signal_at_any_moment_leaves_nothing_behind,
    interrupts::what_was_seen_until_a_signal_is_written,
    errors::what_is_missing_is_named,
    proofs::a_proved_set_is_enough_and_none_of_it_can_be_left_out,
    proofs::an_interrupted_proof_goes_on,
}

by_each_engine! {
    @ oci_only, Oci,
    proofs::what_differs_at_random_is_no_requirement,
    proofs::what_fails_at_random_is_no_requirement,
    proofs::a_budget_stops_with_what_is_known,
    proofs::a_build_that_waits_for_ever_is_ended,
    proofs::several_are_proved_side_by_side
}
