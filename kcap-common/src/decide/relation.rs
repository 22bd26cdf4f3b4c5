//! How the credentials and namespaces of a check relate, and what `cap_capable` answers.

use crate::abi::key::creds;

/// Whose credentials a check asked, by identity of the three pointers.
#[inline(always)]
pub const fn whose(asked: u64, subjective: u64, objective: u64) -> u8 {
    if asked == subjective {
        if subjective == objective {
            creds::OWN
        } else {
            creds::OVERRIDDEN
        }
    } else if asked == objective {
        creds::REAL
    } else {
        creds::FOREIGN
    }
}

/// What one step of `cap_capable`'s walk up the user namespaces says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The walk ends here with this errno, 0 for granted.
    Answer(u8),
    /// Go on with the parent namespace.
    Up,
}

/// One namespace on the walk, as `cap_capable` looks at it.
#[derive(Clone, Copy, Debug)]
pub struct At {
    /// The namespace looked at is the credentials' own.
    pub is_creds: bool,
    /// Its depth.
    pub level: u32,
    /// Its parent is the credentials' namespace.
    pub parent_is_creds: bool,
    /// Its owner's kuid.
    pub owner: u32,
}

/// The walk of `cap_capable` (security/commoncap.c, 3.8 to 6.19): a pure function of immutable
/// data, so that a hook at entry can compute the result.
#[inline(always)]
pub const fn step(at: At, raised: bool, creds_level: u32, euid: u32) -> Step {
    if at.is_creds {
        return Step::Answer(if raised { 0 } else { 1 });
    }
    if at.level <= creds_level {
        return Step::Answer(1);
    }
    if at.parent_is_creds && at.owner == euid {
        return Step::Answer(0);
    }
    Step::Up
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_credentials() {
        assert_eq!(whose(1, 1, 1), creds::OWN);
        assert_eq!(whose(1, 1, 2), creds::OVERRIDDEN);
        assert_eq!(whose(2, 1, 2), creds::REAL);
        assert_eq!(whose(3, 1, 2), creds::FOREIGN);
    }

    #[test]
    fn the_walk_answers_as_the_kernel_does() {
        let at = At {
            is_creds: true,
            level: 0,
            parent_is_creds: false,
            owner: 0,
        };
        assert_eq!(step(at, true, 0, 1000), Step::Answer(0));
        assert_eq!(step(at, false, 0, 0), Step::Answer(1));
        // The initial namespace asked with a child's credentials.
        let above = At {
            is_creds: false,
            ..at
        };
        assert_eq!(step(above, true, 1, 0), Step::Answer(1));
        // A child namespace made by this user.
        let child = At {
            is_creds: false,
            level: 1,
            parent_is_creds: true,
            owner: 1000,
        };
        assert_eq!(step(child, false, 0, 1000), Step::Answer(0));
        assert_eq!(step(child, true, 0, 0), Step::Up);
    }
}
