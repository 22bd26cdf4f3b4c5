//! What in a build asks for a capability, and what would avoid it: a table of situations. The first
//! row that applies to a piece of evidence is its cause.

use super::seen::Seen;
use crate::report::Cap;

/// A situation.
pub struct Advice {
    /// Capabilities that it is about; empty for all.
    pub caps: &'static [Cap],
    /// Whether it is this one.
    pub applies: fn(&Seen<'_>) -> bool,
    /// What asks, in a few words after the instruction's text; `{user}` is the line of USER. `None`
    /// where the text says it already.
    pub cause: Option<&'static str>,
    /// What to do, in one line; `{lines}` is `line 5` or `lines 5, 7`. `None` where nothing short
    /// would help.
    pub short: Option<&'static str>,
    /// What to do, with what to mind.
    pub long: &'static str,
}

/// The row for a piece of evidence.
pub fn find(cap: Cap, seen: &Seen<'_>) -> Option<&'static Advice> {
    ADVICE
        .iter()
        .find(|row| (row.caps.is_empty() || row.caps.contains(&cap)) && (row.applies)(seen))
}

/// Instructions whose files the executor writes itself.
const FILES: &[&str] = &["copy", "add", "workdir", "volume"];
/// Programs that change to another user and then execute a command.
const SWITCH: &[&str] = &[
    "su", "sudo", "runuser", "setpriv", "gosu", "su-exec", "chroot",
];
/// Programs that keep users and groups.
const USERS: &[&str] = &[
    "adduser", "addgroup", "useradd", "usermod", "userdel", "groupadd", "groupmod", "groupdel",
    "gpasswd", "chage", "chfn", "chsh", "passwd", "chpasswd",
];
/// Advice on more than one capability, said once.
const NO_CHOWN: &str = "no --chown in {lines}, if root may own the files (--chmod opens them)";
const OWNERSHIP: &[Cap] = &[Cap::CHOWN, Cap::DAC_OVERRIDE, Cap::FOWNER];
const READING: &[Cap] = &[Cap::DAC_OVERRIDE, Cap::DAC_READ_SEARCH];
const IDS: &[Cap] = &[Cap::SETUID, Cap::SETGID];

static ADVICE: &[Advice] = &[
    Advice {
        caps: &[],
        applies: |s| s.executed_file(),
        cause: Some("runs a file with it"),
        short: Some("do not run a file with capabilities of its own in {lines}"),
        long: "{lines}: the file executed has capabilities of its own, and the kernel refuses to execute it where the container may not hold them. Run it in the container that the image is for, not in the build, or build with a copy without them (cp drops them).",
    },
    Advice {
        caps: IDS,
        applies: |s| s.executor_in(&["run"]) && s.user_line().is_some(),
        cause: Some("after USER, line {user}"),
        short: Some("run {lines} before USER, if root may run it"),
        long: "{lines}: Kaniko changes to the user of USER before it executes a RUN. Move the RUN before USER, if root may run it; USER then only says who runs the image.",
    },
    Advice {
        caps: IDS,
        applies: |s| s.executor_in(&["run"]),
        cause: Some("base image's USER"),
        short: Some("USER root before {lines}, if root may run it"),
        long: "{lines}: the base image sets a user, and Kaniko changes to it before it executes a RUN. Put USER root before the RUN, if root may run it, and the base image's user after.",
    },
    Advice {
        caps: IDS,
        applies: |s| s.in_run() && s.by_apt(),
        cause: Some("apt as _apt"),
        short: Some("apt-get -o APT::Sandbox::User=root in {lines}"),
        long: "{lines}: apt downloads as its user _apt. With -o APT::Sandbox::User=root, or that setting in /etc/apt/apt.conf.d, it does so as root and changes no ids.",
    },
    Advice {
        caps: IDS,
        applies: |s| s.in_run() && s.program_in(SWITCH),
        cause: None,
        short: Some("{lines} without a change of user, if root may run it"),
        long: "{lines}: the command changes to another user. Leave the change out, if root may run it in the build, or do that work when the image is run.",
    },
    Advice {
        caps: &[Cap::CHOWN],
        applies: |s| s.executor_in(&["copy", "add"]) && s.text_has("--chown"),
        cause: None,
        short: Some(NO_CHOWN),
        long: "{lines}: COPY --chown and ADD --chown need CHOWN for every owner but root. Leave the files to root and open them by --chmod, if the program only reads them; or make what it writes to in a base image built elsewhere.",
    },
    Advice {
        caps: &[Cap::DAC_OVERRIDE, Cap::FOWNER],
        applies: |s| s.executor_in(&["copy", "add", "snapshot"]) && s.text_has("--chown"),
        cause: None,
        short: Some(NO_CHOWN),
        long: "{lines}: what --chown gives away is then changed, compared and read by root, who needs FOWNER for its times and modes and DAC_OVERRIDE where its owner alone may read it. Without --chown neither is asked for.",
    },
    Advice {
        caps: &[Cap::CHOWN],
        applies: |s| s.executor_in(FILES),
        cause: None,
        short: None,
        long: "{lines}: the files have an owner who is not root (of an archive, an earlier stage, or the user that holds there). Let root own them where they come from.",
    },
    Advice {
        caps: OWNERSHIP,
        applies: |s| s.executor_in(&["unpack"]),
        cause: Some("others' files"),
        short: None,
        long: "{lines}: the base image has files of owners or groups other than root (/etc/shadow and /etc/gshadow of the group shadow, apt's folders of _apt). No instruction avoids that; a base image whose files are all root's does, as busybox or a distroless one is.",
    },
    Advice {
        caps: &[Cap::FOWNER],
        applies: |s| s.executor_in(&["snapshot"]) && s.call_in(&["openat", "open"]),
        cause: Some("others' files"),
        short: None,
        long: "{lines}: Kaniko's snapshot opens every changed file with O_NOATIME, which needs FOWNER where the file is not root's. What leaves files of others (chown, --chown, a program run as another user) brings it; with root's files only it goes.",
    },
    Advice {
        caps: OWNERSHIP,
        applies: |s| s.executor_in(FILES),
        cause: None,
        short: None,
        long: "{lines}: what is copied, or the folder it is copied to, belongs to another than root. Without --chown, and into folders of root, nothing is asked.",
    },
    Advice {
        caps: READING,
        applies: |s| s.executor_in(&["snapshot", "stage-end"]),
        cause: Some("others' files"),
        short: None,
        long: "{lines}: Kaniko reads every changed file, and root without DAC_OVERRIDE cannot read a private file or folder of another owner. Open it to others, or let root own it.",
    },
    Advice {
        caps: OWNERSHIP,
        applies: |s| s.executor_in(&["stage-end"]),
        cause: Some("others' files"),
        short: None,
        long: "Files for later stages are copied with their owners and modes, as COPY does: let root own what COPY --from takes.",
    },
    Advice {
        caps: &[Cap::AUDIT_WRITE],
        applies: |s| s.in_run() && (s.program_in(USERS) || s.program_in(SWITCH)),
        cause: Some("audit record"),
        short: None,
        long: "{lines}: shadow's tools and PAM send an audit record and do not depend on the answer: no build of kcap's corpus fails or changes without it. Leave it out and build once; or write /etc/passwd and /etc/group yourself.",
    },
    Advice {
        caps: &[Cap::CHOWN],
        applies: |s| s.in_run() && s.program_in(&["tar", "bsdtar"]),
        cause: Some("tar keeps owners"),
        short: Some("tar --no-same-owner in {lines}, if root may own the files"),
        long: "{lines}: tar as root gives files the owners in the archive. --no-same-owner leaves them to root.",
    },
    Advice {
        caps: OWNERSHIP,
        applies: |s| s.in_run() && s.program_in(USERS),
        cause: None,
        short: None,
        long: "{lines}: adding users writes /etc/shadow (of the group shadow) and gives home folders away. A base image that has the user already, or lines written into /etc/passwd and /etc/group with numeric ids in USER, avoid it.",
    },
    Advice {
        caps: OWNERSHIP,
        applies: |s| s.in_run() && s.by_apt(),
        cause: Some("apt-get"),
        short: None,
        long: "{lines}: apt gives its download folders to _apt and works in them as root, and packages have files of other owners. Installing in a base image that is built elsewhere avoids it.",
    },
    Advice {
        caps: OWNERSHIP,
        applies: |s| s.in_run() && s.text_has("chown"),
        cause: None,
        short: None,
        long: "{lines}: chown in a RUN. Leave the files to root with a mode that lets the program read them, or give them away in a base image that is built elsewhere. Work on them before the chown rather than after.",
    },
    Advice {
        caps: OWNERSHIP,
        applies: |s| s.in_run(),
        cause: None,
        short: None,
        long: "{lines}: root works on files of other owners. Do the work as their owner, or before they are given away.",
    },
    Advice {
        caps: &[Cap::FSETID],
        applies: |s| s.executor_in(&["unpack"]),
        cause: Some("setgid files"),
        short: None,
        long: "{lines}: the base image has files with the setgid bit and a group that root is not in. A base image without them avoids it.",
    },
    Advice {
        caps: &[Cap::FSETID],
        applies: |_| true,
        cause: Some("setgid bit"),
        short: None,
        long: "{lines}: a setgid (or, when written to, setuid) bit on a file of a group that root is not in. Leave the bit out, or use a group of root's; set it last, after the file is written and given away.",
    },
    Advice {
        caps: &[Cap::KILL],
        applies: |s| s.executor_in(&["run"]),
        cause: Some("leaves a process"),
        short: Some("leave no process of another user running after {lines}"),
        long: "{lines}: after a RUN, Kaniko kills what the RUN left running (kill of its process group). Where that is a daemon of another user, it needs KILL: let the RUN stop the daemon itself, or not start it (policy-rc.d with exit 101 keeps packages from starting theirs).",
    },
    Advice {
        caps: &[Cap::KILL],
        applies: |s| s.in_run(),
        cause: Some("signals a process"),
        short: None,
        long: "{lines}: a program signals a process of another user. apt stops its helpers of _apt so, which mostly end by themselves; -o APT::Sandbox::User=root leaves no other user's process.",
    },
    Advice {
        caps: &[Cap::NET_BIND_SERVICE],
        applies: |_| true,
        cause: Some("low port"),
        short: Some("a port from 1024 in {lines}, or sysctl net.ipv4.ip_unprivileged_port_start=0"),
        long: "{lines}: a port below 1024 is bound. Use one from 1024, or set net.ipv4.ip_unprivileged_port_start=0 for the container, as Docker does by itself and a pod may (it is one of Kubernetes' safe sysctls).",
    },
    Advice {
        caps: &[Cap::NET_RAW],
        applies: |_| true,
        cause: Some("raw socket"),
        short: Some("no ping in {lines}, or sysctl net.ipv4.ping_group_range"),
        long: "{lines}: a raw or packet socket. For ping a wide net.ipv4.ping_group_range is enough, which a pod may set (it is one of Kubernetes' safe sysctls); testing the network over TCP needs nothing.",
    },
    Advice {
        caps: &[Cap::SETFCAP],
        applies: |s| s.executor_in(&["unpack", "copy", "add", "stage-end", "snapshot"]),
        cause: Some("file capabilities"),
        short: None,
        long: "{lines}: the image, archive or stage has files with capabilities (security.capability). Without them there (setcap -r), or with a base image that has none, it goes; the programs then need the capability from the container they run in.",
    },
    Advice {
        caps: &[Cap::SETFCAP],
        applies: |_| true,
        cause: Some("setcap"),
        short: Some("no setcap in {lines}: give the capability where the image is run"),
        long: "{lines}: setcap, often in a package's script. Give the capability to the container that runs the image instead; for a low port, net.ipv4.ip_unprivileged_port_start does. Or install the package in a base image that is built elsewhere: copying its files asks for SETFCAP too, as long as they have capabilities.",
    },
    Advice {
        caps: &[Cap::MKNOD],
        applies: |_| true,
        cause: Some("device node"),
        short: Some("no device nodes in {lines}: the runtime provides /dev"),
        long: "{lines}: a device node is made. An image rarely needs one: the runtime provides /dev of its own.",
    },
    Advice {
        caps: &[Cap::SYS_CHROOT],
        applies: |_| true,
        cause: Some("chroot"),
        short: Some("no chroot in {lines}: a stage of its own, and COPY --from"),
        long: "{lines}: chroot. A stage FROM that root, whose files COPY --from takes, does the same without it.",
    },
    Advice {
        caps: &[Cap::SETPCAP],
        applies: |_| true,
        cause: Some("drops capabilities"),
        short: None,
        long: "{lines}: the bounding set, securebits or the inheritable set are changed (capsh --drop, setpriv --bounding-set). In a build that has few capabilities anyway this can be left out.",
    },
    Advice {
        caps: &[Cap::SYS_ADMIN],
        applies: |s| s.call_in(&["mount", "umount2", "unshare", "clone", "clone3", "setns"]),
        cause: Some("mounts, namespaces"),
        short: Some("no mounts or namespaces in {lines}"),
        long: "{lines}: mounts or namespaces. RUN --mount and stages with COPY --from replace most of it; SYS_ADMIN is close to root on the host, and no Pod Security level but privileged lets a pod add it.",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_whole_and_only_known_places_are_filled() {
        for row in ADVICE {
            assert!(row.long.ends_with('.'), "{}", row.long);
            let texts = [Some(row.long), row.short, row.cause];
            for text in texts.into_iter().flatten() {
                let rest = text.replace("{lines}", "").replace("{user}", "");
                assert!(!rest.contains(['{', '}']) && rest.is_ascii(), "{text}");
            }
            // The screen has one line of 72 columns for it, and another where it must.
            assert!(row.short.is_none_or(|short| short.len() <= 90));
            assert!(row.cause.is_none_or(|cause| cause.len() <= 24));
        }
    }
}
