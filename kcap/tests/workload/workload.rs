//! A workload of known truth: performs one privileged operation a known number of times, in many
//! lives, and prints exactly which capability checks the kernel must have made for it. A tracer's
//! counts are held against that; the truth itself is read from the kernel's source, and held
//! against the kernel's own tracepoint.
//!
//! ```text
//! workload OPERATION [--refused] [--count N | --seconds S] [--threads T] [--processes P]
//!          [--exec] [--pin] [--dir DIR]
//! workload list
//! ```
//!
//! Every one of P processes has T threads that each perform the operation N times: N·T·P in all.
//! With `--exec` each time is in a child of its own that executes this program and ends at once.
//! With `--refused` the operation's capabilities are given up first. With `--seconds` the threads
//! go on for so long, and the true number is counted. `--pin` gives each worker a CPU of its own,
//! in turn. It has to be started as root with all capabilities, and works in an initramfs where
//! only /proc is mounted.
//!
//! The form of what it prints is told in `truth`. It exits with 0 where every operation ended as
//! it had to (or cannot be done here at all, which a `skip` line says), with 1 where one did not,
//! with 2 where it was called wrongly.

mod ops;
mod run;
#[allow(
    dead_code,
    reason = "shared with the executor of the tests, which uses the rest"
)]
mod sys;
mod truth;

use std::process::ExitCode;

use run::Plan;
use sys::Res;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["list"] => {
            for op in ops::all() {
                println!(
                    "{}{}",
                    op.name,
                    if op.caps.is_empty() {
                        ""
                    } else {
                        " [--refused]"
                    }
                );
            }
            Ok(())
        }
        ["--inner", what] => ops::inner(what),
        words => match parse(words) {
            Ok(plan) => run::run(&plan),
            Err(error) => {
                eprintln!("workload: {error}; see `workload list` and the head of workload.rs");
                return ExitCode::from(2);
            }
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("workload: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(words: &[&str]) -> Res<Plan> {
    let mut words = words.iter().copied();
    let name = words.next().ok_or("no operation named")?;
    let op = ops::all()
        .find(|op| op.name == name)
        .ok_or(format!("{name}: no such operation"))?;
    let mut plan = Plan {
        op,
        refused: false,
        count: 1,
        seconds: None,
        threads: 1,
        processes: 1,
        exec: false,
        pin: false,
        dir: None,
        only: None,
    };
    while let Some(word) = words.next() {
        let mut number = || -> Res<u64> {
            let value = words.next().ok_or(format!("{word}: a number is missing"))?;
            value.parse().map_err(|e| format!("{word} {value}: {e}"))
        };
        match word {
            "--refused" => plan.refused = true,
            "--count" => plan.count = number()?,
            "--seconds" => plan.seconds = Some(number()?),
            "--threads" => plan.threads = number()?.clamp(1, 1024) as usize,
            "--processes" => plan.processes = number()?.clamp(1, 1024) as usize,
            "--exec" => plan.exec = true,
            "--pin" => plan.pin = true,
            "--only" => plan.only = Some(number()? as usize),
            "--dir" => plan.dir = Some(words.next().ok_or("--dir: a folder is missing")?.into()),
            _ => return Err(format!("{word}: no such option")),
        }
    }
    if plan.refused && op.caps.is_empty() {
        return Err(format!("{name} cannot be refused"));
    }
    if op.alone && plan.threads > 1 {
        return Err(format!("{name} needs a process with one thread"));
    }
    Ok(plan)
}
