//! The process that is measured: asks one capability check after the other and says what one took.

use std::io;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::stats::Spread;

/// Calls timed together.
const BATCH: u32 = 10_000;
/// Batches timed, the first quartile of which counts: what disturbs them only ever adds.
const BATCHES: u32 = 20;
/// Batches before those, for caches and clocks to settle.
const WARM_UP: u32 = 2;

/// Checks that one run of [`run`] asks.
pub const CHECKS: u64 = BATCH as u64 * (BATCHES + WARM_UP) as u64;
/// The capability that they ask for: SYS_TIME.
pub const CAPABILITY: u32 = 25;

/// Prints the nanoseconds that one call of `settimeofday(NULL, NULL)` takes on `cpu`: exactly one
/// granted check of SYS_TIME, and no effect.
///
/// # Errors
/// Where the check is refused, or the CPU cannot be had.
pub fn run(cpu: usize) -> Result<()> {
    pin(cpu).with_context(|| format!("cannot run on CPU {cpu}"))?;
    prefer_strictly();
    let mut times = vec![];
    for batch in 0..WARM_UP + BATCHES {
        let start = Instant::now();
        for _ in 0..BATCH {
            check()?;
        }
        if batch >= WARM_UP {
            times.push(start.elapsed().as_nanos() as f64 / f64::from(BATCH));
        }
    }
    match Spread::of(times) {
        Some(Spread { low, .. }) => println!("{low}"),
        None => bail!("nothing was measured"),
    }
    Ok(())
}

fn check() -> io::Result<()> {
    // SAFETY: both pointers may be null: nothing is set. Not by libc's wrapper, which looks at them.
    let r = unsafe { libc::syscall(libc::SYS_settimeofday, 0, 0) };
    if r != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: an all-zero set is the empty set; CPU_SET ignores numbers beyond it.
    let r = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set)
    };
    if r != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Goes before other work on a machine that is shared, and so does what is started from here.
/// Without the right to, the figures spread more, and are no less true.
pub fn prefer() {
    // SAFETY: integers only.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
}

/// As a real-time process, before all others even.
fn prefer_strictly() {
    let first = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameters outlive the call.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const first) } != 0 {
        prefer();
    }
}
