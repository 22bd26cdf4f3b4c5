//! What the container gets: `--cap-drop` and `--cap-add`, as docker applies them.

use std::{fs, str::FromStr};

use anyhow::{Result, bail};

use crate::report::{Cap, UnknownCap};

/// A value of `--cap-drop` or `--cap-add`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// Every capability of the kernel.
    All,
    /// One.
    One(Cap),
}

impl FromStr for Named {
    type Err = UnknownCap;

    fn from_str(text: &str) -> Result<Self, UnknownCap> {
        if text.eq_ignore_ascii_case("all") || text.eq_ignore_ascii_case("cap_all") {
            return Ok(Self::All);
        }
        text.parse().map(Self::One)
    }
}

/// The container's set as a mask: with `ALL` added, everything but what is dropped by name; with
/// `ALL` dropped, what is added; else Docker's default without what is dropped, with what is added.
///
/// # Errors
/// Where one is added that the running kernel does not have.
pub fn mask(drop: &[Named], add: &[Named]) -> Result<u64> {
    let last = fs::read_to_string("/proc/sys/kernel/cap_last_cap");
    // Every kernel since 5.9 has at least these.
    let last = last.ok().and_then(|text| text.trim().parse().ok());
    mask_of(drop, add, last.unwrap_or(Cap::CHECKPOINT_RESTORE.0))
}

fn mask_of(drop: &[Named], add: &[Named], last: u8) -> Result<u64> {
    let bits = |named: &[Named]| {
        let each = named.iter().map(|named| match named {
            Named::One(cap) => cap.bit(),
            Named::All => 0,
        });
        each.fold(0, |all, bit| all | bit)
    };
    let every = u64::MAX >> (63 - last.min(63));
    let (dropped, added) = (bits(drop), bits(add));
    if let Some(cap) = Cap::of_mask(added & !every).next() {
        bail!("--cap-add {cap}: this kernel has no such capability; leave it out");
    }
    Ok(if add.contains(&Named::All) {
        every & !dropped
    } else if drop.contains(&Named::All) {
        added
    } else {
        Cap::DOCKER_DEFAULT & !dropped | added
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(drop: &[&str], add: &[&str]) -> Result<Vec<Cap>> {
        let named = |names: &[&str]| names.iter().map(|n| n.parse().unwrap()).collect::<Vec<_>>();
        mask_of(&named(drop), &named(add), 40).map(|mask| Cap::of_mask(mask).collect())
    }

    #[test]
    fn as_docker_applies_them() {
        let default: Vec<Cap> = Cap::of_mask(Cap::DOCKER_DEFAULT).collect();
        assert_eq!(default.len(), 14);
        assert_eq!(mask(&[], &[]).unwrap(), default);
        assert_eq!(mask(&["all"], &[]).unwrap(), []);
        assert_eq!(
            mask(&["ALL"], &["chown", "CAP_SETUID", "chown"]).unwrap(),
            [Cap::CHOWN, Cap::SETUID]
        );
        let every: Vec<Cap> = Cap::known().collect();
        assert_eq!(mask(&[], &["ALL"]).unwrap(), every);
        assert_eq!(mask(&["all"], &["all"]).unwrap(), every);
        assert_eq!(
            mask(&["SYS_ADMIN"], &["all", "SYS_ADMIN"]).unwrap().len(),
            40
        );
        assert_eq!(mask(&["CHOWN"], &[]).unwrap(), default[1..]);
        assert!(mask(&["CHOWN"], &["CHOWN"]).unwrap().contains(&Cap::CHOWN));
        assert!(
            mask(&[], &["SYS_PTRACE"])
                .unwrap()
                .contains(&Cap::SYS_PTRACE)
        );
    }

    #[test]
    fn what_does_not_exist_is_an_error() {
        assert!("CHOWNS".parse::<Named>().is_err());
        assert!("".parse::<Named>().is_err());
        let error = mask(&[], &["41"]).unwrap_err().to_string();
        assert!(error.starts_with("--cap-add 41: "), "{error}");
        assert_eq!(mask(&["41"], &["all"]).unwrap().len(), 41);
    }
}
