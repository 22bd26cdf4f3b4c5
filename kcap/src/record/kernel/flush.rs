//! Asks the kernel side to hand over what it has counted, while it goes on counting. See `flush` in
//! `kcap-ebpf`.

use std::{fs, io};

use anyhow::{Context as _, Result, bail};
use kcap_common::abi::{
    key::site,
    record::{FLUSHED, INLINED_BUCKETS},
};

use super::calibrate;

/// Most CPU numbers.
const CPUS: usize = 8192;

/// Has the programs hand over their tables on every CPU that is there, from a thread of its own;
/// `inlined` are the sites of checks that have a program of their own. Gives how often each CPU's
/// programs were asked: by `sethostname`, and by an inlined check.
///
/// # Errors
/// Where it cannot run on one of them.
pub fn hand_over(buckets: u32, inlined: &[u8]) -> Result<(u64, u64)> {
    let online = fs::read_to_string("/sys/devices/system/cpu/online")
        .context("cannot read which CPUs there are")?;
    let cpus = list(&online).context("cannot tell which CPUs there are")?;
    let inlined = inlined.to_owned();
    let visit = move || -> Result<(u64, u64)> {
        let mut asked = (0, 0);
        for cpu in cpus {
            run_on(cpu).with_context(|| format!("cannot run on CPU {cpu}"))?;
            for from in (0..buckets).step_by(FLUSHED as usize) {
                ask(from);
                asked.0 += 1;
            }
            for &site in &inlined {
                for _ in 0..INLINED_BUCKETS / FLUSHED {
                    check(site);
                    asked.1 += 1;
                }
            }
        }
        Ok(asked)
    };
    std::thread::Builder::new()
        .name("kcap-flush".into())
        .spawn(visit)
        .context("cannot start a thread")?
        .join()
        .unwrap_or_else(|_| bail!("the thread that asks for counts panicked"))
}

/// One request. The kernel refuses the length after it has asked for the capability.
fn ask(from: u32) {
    // SAFETY: with a negative length the kernel reads nothing from the address.
    unsafe { libc::syscall(libc::SYS_sethostname, from as usize, -1i32) };
}

/// Makes an inlined check, of this thread alone.
fn check(site: u8) {
    match site {
        site::CAPSET => _ = calibrate::capset(),
        site::PRCTL => _ = calibrate::securebits(),
        _ => calibrate::map_low(),
    }
}

/// Moves this thread.
fn run_on(cpu: usize) -> io::Result<()> {
    let mut set = [0u64; CPUS / 64];
    let Some(word) = set.get_mut(cpu / 64) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    *word |= 1 << (cpu % 64);
    // SAFETY: this thread; the set is live and of that size.
    match unsafe { libc::sched_setaffinity(0, size_of_val(&set), set.as_ptr().cast()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A list as the kernel writes it: `0-3,8`.
fn list(text: &str) -> Option<Vec<usize>> {
    let mut all = vec![];
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= CPUS {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::list;

    #[test]
    fn lists_of_cpus() {
        assert_eq!(list("0\n"), Some(vec![0]));
        assert_eq!(list("0-2,5,7-8\n"), Some(vec![0, 1, 2, 5, 7, 8]));
        assert_eq!(list(""), None);
        assert_eq!(list("0-99999999999"), None);
    }
}
