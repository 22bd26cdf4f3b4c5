//! Exact counts on this kernel: every operation of the known-truth workload is traced by the real
//! `kcap`, and the capture held against what the workload says must have happened. Needs root and
//! BPF; runs the same inside the virtual machines of `cargo xtask test`.
//!
//! `KCAP_TEST_BIN` and `KCAP_WORKLOAD` name the two programs where they are not beside this
//! one.

#[path = "support/programs.rs"]
mod programs;
#[path = "support/truth.rs"]
mod truth;

use std::{
    collections::{HashMap, HashSet},
    env,
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Mutex,
};

use kcap::capture::{self, Capture, Program};
use tempfile::TempDir;

/// One trace at a time: exactness is about what other load does, and that is made on purpose.
static ONE: Mutex<()> = Mutex::new(());

fn workload() -> PathBuf {
    programs::example("KCAP_WORKLOAD", "workload")
}

/// A finished trace.
struct Traced {
    output: Output,
    capture: Capture,
    report: kcap::report::Report,
}

impl Traced {
    fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }
}

/// Runs `kcap run OPTIONS -- PROGRAM ARGS`.
fn trace(options: &[&str], program: &Path, args: &[&str]) -> Traced {
    let dir = TempDir::new().expect("a temporary folder");
    let (capture, report) = (dir.path().join("capture"), dir.path().join("report"));
    let output = Command::new(programs::kcap())
        .args(["run", "--quiet", "--capture"])
        .arg(&capture)
        .arg("--report")
        .arg(&report)
        .args(options)
        .arg("--")
        .arg(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("kcap runs");
    let failed = || {
        format!(
            "kcap run {options:?} -- {} {args:?}: {}\n{}{}",
            program.display(),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    };
    let read = File::open(&capture)
        .map_err(|e| e.to_string())
        .and_then(|f| capture::read(std::io::BufReader::new(f)).map_err(|e| e.to_string()));
    let capture = read.unwrap_or_else(|e| panic!("{e}: {}", failed()));
    let text = std::fs::read(&report).unwrap_or_else(|e| panic!("{e}: {}", failed()));
    let report = kcap::report::from_json(&text).unwrap_or_else(|e| panic!("{e}: {}", failed()));
    Traced {
        output,
        capture,
        report,
    }
}

/// Traces one operation and gives every difference from the truth.
fn differences(options: &[&str], operation: &[&str]) -> Vec<String> {
    let traced = trace(options, &workload(), operation);
    let mut differences = against_truth(&traced.stdout(), &traced.capture);
    if !matches!(traced.output.status.code(), Some(0 | 3)) {
        differences.push(format!("the workload failed: {:?}", traced.output));
    }
    differences.extend(damage(&traced));
    differences
        .into_iter()
        .map(|d| format!("{operation:?} {options:?}: {d}"))
        .collect()
}

/// What is wrong with a trace as such.
fn damage(traced: &Traced) -> Vec<String> {
    let mut damage = vec![];
    if !traced.capture.loss.is_none() && traced.capture.loss.unproven.is_none() {
        damage.push(format!("something was lost: {:?}", traced.capture.loss));
    }
    let report = &traced.report;
    let sums: u64 = report.capabilities.iter().map(|c| c.checks).sum();
    if report.checks != sums {
        damage.push(format!(
            "the report's sums do not hold: {} {sums}",
            report.checks
        ));
    }
    damage
}

fn against_truth(expected: &str, capture: &Capture) -> Vec<String> {
    match truth::skipped(expected) {
        Some(why) => {
            println!("SKIP: {why}");
            vec![]
        }
        None => truth::compare(expected, capture),
    }
}

/// Traces operations one after the other in one session, and holds what each of their process trees
/// did against what it says: loading takes longer than all of them do, in virtual machines above all.
fn all_differences(options: &[&str], operations: &[Vec<String>]) -> Vec<String> {
    let dir = TempDir::new().expect("a temporary folder");
    let script: String = operations
        .iter()
        .enumerate()
        .map(|(i, operation)| format!("\"$0\" {} >\"$1/{i}\"\n", operation.join(" ")))
        .chain(["true\n".to_owned()])
        .collect();
    let program = workload();
    let path = |p: &Path| p.to_str().expect("a path in UTF-8").to_owned();
    let (program, out) = (path(&program), path(dir.path()));
    let args = ["-c", &script, &program, &out];
    let traced = trace(options, Path::new("/bin/sh"), &args);
    let mut differences = damage(&traced);
    let errors = String::from_utf8_lossy(&traced.output.stderr);
    let trees = trees(&traced.capture, &program);
    if trees.len() != operations.len() {
        differences.push(format!(
            "{} of {} operations were seen to start: {errors}",
            trees.len(),
            operations.len()
        ));
        return differences;
    }
    for (i, (operation, tree)) in operations.iter().zip(&trees).enumerate() {
        let expected = std::fs::read_to_string(dir.path().join(i.to_string())).unwrap_or_default();
        let mut part = traced.capture.clone();
        part.tallies.retain(|t| tree.contains(&t.program));
        let wrong = against_truth(&expected, &part);
        differences.extend(wrong.into_iter().map(|d| format!("{operation:?}: {d}")));
    }
    if !differences.is_empty() {
        differences.push(format!("standard error: {errors}"));
    }
    differences
}

/// The programs of each child of the traced shell that executed `program`, in order of their start.
fn trees(capture: &Capture, program: &str) -> Vec<HashSet<u32>> {
    let by_id: HashMap<u32, &Program> = capture.programs.iter().map(|p| (p.id, p)).collect();
    let shell = capture
        .programs
        .iter()
        .filter(|p| p.exec.is_some())
        .min_by_key(|p| p.start_ns)
        .expect("the shell was executed");
    // The child of the shell that a program descends from.
    let child = |of: &Program| {
        let mut id = of.id;
        loop {
            let parent = by_id.get(&id)?.parent?;
            if parent == shell.id {
                return Some(id);
            }
            id = parent;
        }
    };
    let mut children: Vec<&Program> = capture
        .programs
        .iter()
        .filter(|p| {
            p.path == program && p.exec.is_some() && p.parent.is_some() && child(p) == p.parent
        })
        .collect();
    children.sort_by_key(|p| p.start_ns);
    children
        .iter()
        .map(|top| {
            capture
                .programs
                .iter()
                .filter(|p| child(p) == top.parent)
                .map(|p| p.id)
                .collect()
        })
        .collect()
}

/// Hooks to test: what auto chooses, or what `KCAP_TEST_HOOK` names.
fn hook() -> Vec<String> {
    match env::var("KCAP_TEST_HOOK") {
        Ok(hook) => vec!["--hook".into(), hook],
        Err(_) => vec![],
    }
}

/// Names of the operations, and whether each can be refused.
fn operations() -> Vec<(String, bool)> {
    let list = Command::new(workload())
        .arg("list")
        .output()
        .expect("the workload runs");
    assert!(list.status.success(), "{list:?}");
    let list = String::from_utf8(list.stdout).expect("names are text");
    let operations: Vec<_> = list
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_owned(), words.next().is_some()))
        })
        .collect();
    assert!(
        operations.len() > 40,
        "the workload lists its operations: {list}"
    );
    operations
}

/// Operations that say something about their process as a whole: one thread each.
const ONE_THREAD: [&str; 9] = [
    "brk",
    "stack",
    "fork",
    "thread-exec",
    "file-caps",
    "leader-first",
    "killed-inside",
    "restarted",
    "exec-above",
];

fn all(variants: &dyn Fn(&str, bool) -> Vec<Vec<String>>) {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let hook = hook();
    let hook: Vec<&str> = hook.iter().map(String::as_str).collect();
    let operations: Vec<Vec<String>> = operations()
        .iter()
        .flat_map(|(name, refusable)| variants(name, *refusable))
        .collect();
    let wrong = all_differences(&hook, &operations);
    assert!(
        wrong.is_empty(),
        "{} differences:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn every_operation_is_counted_exactly_from_several_threads() {
    all(&|name, _| {
        let threads = if ONE_THREAD.contains(&name) { 1 } else { 3 };
        vec![words(&format!(
            "{name} --count 25 --threads {threads} --processes 2"
        ))]
    });
}

#[test]
fn every_refusal_is_counted_exactly() {
    all(&|name, refusable| {
        let threads = if ONE_THREAD.contains(&name) { 1 } else { 2 };
        if refusable {
            vec![words(&format!(
                "{name} --refused --count 25 --threads {threads}"
            ))]
        } else {
            vec![]
        }
    });
}

#[test]
fn short_lived_children_that_exec_are_counted_exactly() {
    all(&|name, _| vec![words(&format!("{name} --count 2 --processes 6 --exec"))]);
}

#[test]
fn two_cpus_hammering_lose_nothing() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let seconds = env::var("KCAP_TEST_SECONDS").unwrap_or_else(|_| "10".into());
    let wrong = differences(
        &[],
        &["clock", "--seconds", &seconds, "--threads", "2", "--pin"],
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_forced_hook_is_exact_or_says_what_it_missed() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    for (hook, program) in [("fexit", "kcap_fexit"), ("kprobe", "kcap_kprobe")] {
        let able = Command::new(programs::kcap())
            .args(["run", "--quiet", "--hook", hook, "--"])
            .arg(workload())
            .arg("list")
            .output()
            .expect("kcap runs");
        if able.status.code() == Some(125) {
            println!("SKIP: this kernel has no {hook}");
            continue;
        }
        // More processes than CPUs, so that they preempt each other where that can be.
        let args = ["clock", "--count", "40000", "--processes", "8"];
        let traced = trace(&["--hook", hook], &workload(), &args);
        let seen: u64 = traced
            .capture
            .tallies
            .iter()
            .filter(|t| t.cap == Some(25) && t.unasked == 0)
            .map(|t| t.count)
            .sum();
        let loss = &traced.capture.loss;
        let skipped = loss.skipped.get(program).copied().unwrap_or(0);
        println!(
            "{hook}: {seen} seen, {skipped} skipped, {:?}",
            loss.unproven
        );
        assert!(seen <= 320_000, "{hook}: {seen} seen of 320000");
        if loss.unproven.is_none() {
            // Skips are counted for the whole host.
            assert!(seen + skipped >= 320_000, "{hook}: {seen} + {skipped}");
            assert!(skipped > 0 || seen == 320_000, "{hook}: {seen}");
        }
        if traced.report.complete {
            assert_eq!(seen, 320_000, "{hook}: complete, and wrong");
        }
    }
}

#[test]
fn the_recomputed_result_is_the_kernels() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let hook = trace(&[], &workload(), &["list"]).capture.host.hook;
    if hook == "kprobe" {
        println!("SKIP: this hook computes every result, and has none to compare with");
        return;
    }
    for operation in ["chown", "open-read", "unshare", "idmap", "access"] {
        let traced = trace(&["--verify"], &workload(), &[operation, "--count", "5"]);
        let error = String::from_utf8_lossy(&traced.output.stderr);
        assert!(!error.contains("recomputed"), "{operation}: {error}");
    }
}

#[test]
fn a_full_ring_buffer_is_counted_and_said() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    // The command stops kcap, so that nobody empties the ring buffer; with four entries in the
    // table, keys push each other out, and there is no room for them.
    let stop = "kill -STOP $PPID; \"$0\" nested --count 300 --processes 60; kill -CONT $PPID";
    let program = workload();
    let args = ["-c", stop, program.to_str().expect("a path in UTF-8")];
    let shell = Path::new("/bin/sh");
    let traced = trace(&["--ring-size", "4096", "--table-size", "2"], shell, &args);
    let loss = &traced.capture.loss;
    assert!(loss.checks > 0, "no check was lost: {loss:?}");
    assert!(loss.execs > 0, "no program was lost: {loss:?}");
    assert!(!traced.report.complete);
    assert_eq!(traced.output.status.code(), Some(3));
    // What is counted and what is lost is what happened: 60 processes of 300 operations.
    let whole = trace(&[], shell, &args);
    assert!(whole.capture.loss.is_none() || whole.capture.loss.unproven.is_some());
    let total = |c: &Capture| -> u64 {
        c.tallies
            .iter()
            .filter(|t| t.unasked == 0)
            .map(|t| t.count)
            .sum()
    };
    let (seen, lost, truth) = (total(&traced.capture), loss.checks, total(&whole.capture));
    assert!(truth > 60 * 300, "{truth}");
    // Memory checks of shells and loaders vary by a few.
    assert!(
        (seen + lost).abs_diff(truth) < 60 * 4,
        "{seen} seen + {lost} lost is not {truth}"
    );
}

#[test]
fn full_outcome_slots_make_outcomes_unknown_and_lose_no_check() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let traced = trace(
        &["--slots", "1"],
        &workload(),
        &[
            "clock",
            "--count",
            "100000",
            "--threads",
            "2",
            "--processes",
            "2",
            "--refused",
        ],
    );
    let clock: Vec<_> = traced
        .capture
        .tallies
        .iter()
        .filter(|t| t.cap == Some(25) && t.result == 1)
        .collect();
    let count: u64 = clock.iter().map(|t| t.count).sum();
    assert_eq!(
        count, 400_000,
        "checks are exact whatever becomes of outcomes"
    );
    let failed: u64 = clock.iter().filter_map(|t| t.failed.get(&1)).sum();
    let unknown: u64 = clock.iter().filter_map(|t| t.failed.get(&254)).sum();
    assert_eq!(
        failed + unknown,
        count,
        "none of these calls succeeded: {clock:?}"
    );
}

#[test]
fn a_command_that_does_nothing_is_complete() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let traced = trace(&[], &workload(), &["list"]);
    assert!(traced.capture.loss.is_none() || traced.capture.loss.unproven.is_some());
    assert!(traced.capture.tallies.iter().all(|t| t.count > 0));
    let executed: Vec<_> = traced
        .capture
        .programs
        .iter()
        .filter(|p| p.exec.is_some())
        .collect();
    assert_eq!(executed.len(), 1, "{executed:?}");
    assert_eq!(executed[0].wait_status, Some(0));
    assert!(executed[0].end_ns.is_some());
}
