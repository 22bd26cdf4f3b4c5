//! From a system call's return value to the outcome that a tally counts.

use crate::abi::key::outcome::{RESTARTED, UNKNOWN};

/// The largest errno that a return value can carry (`MAX_ERRNO` in `linux/err.h`).
const MAX_ERRNO: i64 = 4095;

/// 0 where `ret` is no error; else its errno, [`RESTARTED`] for the kernel's internal restart codes
/// (`ERESTARTSYS` 512 to `ERESTART_RESTARTBLOCK` 516), [`UNKNOWN`] for codes beyond a byte.
#[inline(always)]
pub const fn class(ret: i64) -> u8 {
    if ret >= 0 || ret < -MAX_ERRNO {
        return 0;
    }
    match -ret {
        e @ 1..=253 => e as u8,
        512..=516 => RESTARTED,
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_from_values() {
        assert_eq!(class(0), 0);
        assert_eq!(class(17), 0);
        // A mapping's address read as signed is below every errno.
        assert_eq!(class(-140_000_000_000), 0);
        assert_eq!(class(-1), 1);
        assert_eq!(class(-13), 13);
        assert_eq!(class(-512), RESTARTED);
        assert_eq!(class(-524), UNKNOWN);
    }
}
