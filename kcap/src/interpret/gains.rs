//! Programs that were given more by their file than the one that executed them had: by its
//! set-user-ID bit or its capabilities. `no_new_privs`, which a pod gets with
//! `allowPrivilegeEscalation: false`, keeps exactly that from them.

use std::collections::BTreeSet;

use super::facts::Session;
use super::{TEXT, bounded};
use crate::capture::{Exec, FileCaps};
use crate::report::{Gain, GainBy};

/// Most programs told apart.
const MOST: usize = 64;

/// Which programs gained, each in each step once.
///
/// A set-group-ID bit is not seen, as group ids are not recorded; nor is a program of another user
/// with the set-user-ID bit that root executes, which looks like a change of user before an exec.
pub fn gains(session: &Session<'_>) -> Vec<Gain> {
    let mut gains = BTreeSet::new();
    for program in &session.capture.programs {
        let Some(exec) = &program.exec else { continue };
        // In a namespace that the build made, its own rules hold.
        if !session.scope.inside(program.id) || exec.ns_level > session.scope.base_level() {
            continue;
        }
        let before = program.parent.and_then(|id| session.scope.executed(id));
        if let Some(by) = gained(before, exec) {
            gains.insert(Gain {
                step: session.step(program.id),
                program: bounded(session.scope.path(program.id), TEXT),
                by,
            });
        }
    }
    gains.into_iter().take(MOST).collect()
}

fn gained(before: Option<&Exec>, exec: &Exec) -> Option<GainBy> {
    // Root gets all of its bounding set from any file.
    if exec.euid != 0
        && let FileCaps::Has { permitted, .. } = exec.file
        && permitted & exec.caps.permitted != 0
    {
        return Some(GainBy::FileCapabilities);
    }
    // A user that is not root becomes another one in no other way that is common: the switch of
    // USER starts at root.
    let before = before.filter(|before| before.user_ns == exec.user_ns)?;
    (before.euid != 0 && before.euid != exec.euid).then_some(GainBy::SetUserId)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec(euid: u32, file: FileCaps) -> Exec {
        let mut exec = Exec {
            euid,
            file,
            ..Exec::default()
        };
        exec.caps.permitted = if euid == 0 { 0xff } else { 1 << 10 };
        exec
    }

    #[test]
    fn what_a_file_gives_is_told_from_a_change_of_user() {
        let file = || FileCaps::Has {
            permitted: 1 << 10,
            inheritable: 0,
            effective: true,
            rootid: None,
        };
        let (root, user) = (exec(0, FileCaps::None), exec(1000, FileCaps::None));
        assert_eq!(gained(Some(&root), &user), None);
        assert_eq!(gained(Some(&user), &user), None);
        assert_eq!(gained(None, &user), None);
        assert_eq!(gained(Some(&user), &root), Some(GainBy::SetUserId));
        assert_eq!(
            gained(Some(&user), &exec(1000, file())),
            Some(GainBy::FileCapabilities)
        );
        assert_eq!(gained(Some(&root), &exec(0, file())), None);
        // The bounding set kept it from the program: nothing was gained.
        let mut held_back = exec(1000, file());
        held_back.caps.permitted = 0;
        assert_eq!(gained(Some(&user), &held_back), None);
    }
}
