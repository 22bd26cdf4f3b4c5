//! Which capabilities would have answered the same decision of the kernel.

use std::collections::BTreeSet;

use kcap_common::decide::argclass::OPAQUE;

use super::facts::Facts;
use super::syscall::Sysno;
use crate::report::Cap;

/// `AT_EMPTY_PATH` of `linkat`.
const AT_EMPTY_PATH: u32 = 0x1000;

/// DAC_READ_SEARCH alone is asked for here, not as part of a permission check.
pub fn reads_by_handle(f: &Facts<'_>) -> bool {
    match f.call {
        Some(Sysno::open_by_handle_at) => true,
        Some(Sysno::linkat) => f.class_has(AT_EMPTY_PATH | OPAQUE),
        Some(_) => false,
        // Another ABI may be one of these; no call is none.
        None => f.tally.syscall.is_some(),
    }
}

/// The capabilities any of which would do for these checks; always holds what was asked for.
///
/// `generic_permission` asks DAC_READ_SEARCH and then, if refused, DAC_OVERRIDE for a read or
/// search, and DAC_OVERRIDE alone for a write: so DAC_OVERRIDE was asked for a read exactly as
/// often as DAC_READ_SEARCH was refused. In the same way the kernel asks SYS_ADMIN where BPF,
/// PERFMON, CHECKPOINT_RESTORE or SYSLOG was refused.
pub fn any_of(f: &Facts<'_>) -> BTreeSet<Cap> {
    let s = &f.siblings;
    let alone = BTreeSet::from([f.cap]);
    match f.cap {
        Cap::DAC_READ_SEARCH => {
            let unanswered =
                !f.granted && s.asked(Cap::DAC_OVERRIDE) < s.refused(Cap::DAC_READ_SEARCH);
            if reads_by_handle(f) || unanswered {
                alone
            } else {
                BTreeSet::from([Cap::DAC_OVERRIDE, Cap::DAC_READ_SEARCH])
            }
        }
        Cap::DAC_OVERRIDE => {
            let reads = s.refused(Cap::DAC_READ_SEARCH);
            if reads == 0 || s.asked(Cap::DAC_OVERRIDE) > reads || reads_by_handle(f) {
                alone
            } else {
                BTreeSet::from([Cap::DAC_OVERRIDE, Cap::DAC_READ_SEARCH])
            }
        }
        Cap::BPF | Cap::PERFMON | Cap::CHECKPOINT_RESTORE => {
            BTreeSet::from([f.cap, Cap::SYS_ADMIN])
        }
        Cap::SYS_ADMIN => {
            let behind = [Cap::BPF, Cap::PERFMON, Cap::CHECKPOINT_RESTORE, Cap::SYSLOG];
            let mut refused = behind.iter().filter(|cap| s.refused(**cap) > 0);
            match (refused.next(), refused.next()) {
                (Some(cap), None) if s.asked(Cap::SYS_ADMIN) <= s.refused(*cap) => {
                    BTreeSet::from([*cap, Cap::SYS_ADMIN])
                }
                _ => alone,
            }
        }
        _ => alone,
    }
}
