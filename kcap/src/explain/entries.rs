//! What is known of each capability, whatever the build: one entry a number.

use crate::report::Cap;

/// Which user namespace the kernel asks for it, and so whether a container in a user namespace of
/// its own, as a pod with `hostUsers: false`, can have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// The one that the object (process, socket, file) belongs to.
    Own,
    /// The host's.
    Host,
    /// Either, by what is done.
    Mixed,
    /// The kernel turns the request away before it asks.
    TurnedAway,
}

impl Namespace {
    /// What it means for a pod with `hostUsers: false`.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Own => {
                "counts in a container's own user namespace, for the ids and objects that belong to it"
            }
            Self::Host => {
                "the kernel asks the host's user namespace for it: a container in a namespace of its own cannot have it, whatever is added"
            }
            Self::Mixed => {
                "some of what it allows is asked of the container's own user namespace, some of the host's, which such a container cannot have"
            }
            Self::TurnedAway => {
                "never asked in a user namespace of the container's own: the kernel turns audit messages from there away"
            }
        }
    }
}

/// An entry.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The capability.
    pub cap: Cap,
    /// What the kernel lets its holder do.
    pub allows: &'static str,
    /// Which user namespace is asked.
    pub namespace: Namespace,
    /// What is known to break without an error: the command exits 0, and something is not done.
    pub silent: Option<&'static str>,
}

/// The entry of a capability; `None` where a newer kernel added it.
pub fn entry(cap: Cap) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.cap == cap)
}

const fn entry_of(number: u8, namespace: Namespace, allows: &'static str) -> Entry {
    Entry {
        cap: Cap(number),
        allows,
        namespace,
        silent: None,
    }
}

const fn silent(
    number: u8,
    namespace: Namespace,
    allows: &'static str,
    what: &'static str,
) -> Entry {
    Entry {
        silent: Some(what),
        ..entry_of(number, namespace, allows)
    }
}

use Namespace::{Host, Mixed, Own, TurnedAway};

/// By number.
static ENTRIES: [Entry; 41] = [
    silent(
        0,
        Own,
        "Gives any file to any owner and any group.",
        "A script that goes on after chown's error leaves the files to root, and exits 0.",
    ),
    silent(
        1,
        Own,
        "Reads, writes and executes files, and searches and changes folders, whatever their mode says.",
        "useradd -m leaves out the skeleton files, and exits 0.",
    ),
    entry_of(
        2,
        Mixed,
        "Reads any file and searches any folder, whatever their mode says; also opens files by handle (open_by_handle_at), past the container's root.",
    ),
    silent(
        3,
        Own,
        "Does to any file what else only its owner may: chmod, times and ACLs, O_NOATIME, deleting in sticky folders.",
        "apt warns that it cannot set the mode of a download of its _apt user, and goes on.",
    ),
    silent(
        4,
        Mixed,
        "Keeps setuid and setgid bits where the kernel would clear them: setgid on chmod of a file whose group one is not in, both when a file is written.",
        "chmod 2755 on a file of such a group loses the setgid bit, and exits 0.",
    ),
    silent(
        5,
        Own,
        "Sends signals to processes of other users.",
        "A signal to a group of processes succeeds where any of them was reached: the others run on.",
    ),
    silent(
        6,
        Own,
        "Takes any group id, and any list of groups.",
        "A command in the background that cannot take its group fails unseen.",
    ),
    silent(
        7,
        Own,
        "Takes any user id.",
        "A command in the background that cannot take its user fails unseen.",
    ),
    entry_of(
        8,
        Own,
        "Drops capabilities from the bounding set, lets the inheritable set grow past the permitted one, and changes securebits.",
    ),
    entry_of(
        9,
        Host,
        "Sets and clears the immutable and append-only attributes of files (chattr +i, +a).",
    ),
    entry_of(
        10,
        Own,
        "Binds ports below net.ipv4.ip_unprivileged_port_start, which is 1024 unless it was set.",
    ),
    entry_of(
        11,
        Own,
        "Listens to netlink messages of all network namespaces; little else asks for it.",
    ),
    entry_of(
        12,
        Own,
        "Configures interfaces, addresses, routes and packet filters, and sets some socket options.",
    ),
    silent(
        13,
        Own,
        "Opens raw and packet sockets.",
        "A program that tries another way instead gives another result, and exits 0.",
    ),
    entry_of(
        14,
        Host,
        "Locks memory past RLIMIT_MEMLOCK (mlock, huge pages).",
    ),
    entry_of(
        15,
        Own,
        "Uses System V IPC objects and message queues, whatever their mode says.",
    ),
    entry_of(16, Host, "Loads and removes kernel modules."),
    entry_of(
        17,
        Host,
        "Reads and writes I/O ports and raw memory, and sends raw commands to devices.",
    ),
    entry_of(
        18,
        Own,
        "Calls chroot; with SYS_ADMIN, enters another mount namespace.",
    ),
    entry_of(
        19,
        Own,
        "Traces any process, and reads and writes its memory.",
    ),
    entry_of(20, Host, "Switches process accounting on and off."),
    silent(
        21,
        Mixed,
        "Mounts file systems, makes namespaces, reads and writes trusted attributes, and much else: close to root on the host.",
        "Attributes named trusted.* are hidden, as if the file had none: a copy lacks them.",
    ),
    entry_of(22, Mixed, "Reboots, and loads another kernel (kexec)."),
    entry_of(
        23,
        Mixed,
        "Raises priorities, and sets real-time scheduling, affinity and memory policy of any process.",
    ),
    entry_of(
        24,
        Mixed,
        "Raises hard resource limits, and passes disk quotas and reserved blocks.",
    ),
    entry_of(25, Host, "Sets the clock."),
    entry_of(26, Host, "Configures and hangs up terminals."),
    entry_of(
        27,
        Host,
        "Makes device nodes. FIFOs, sockets and overlay whiteouts need it not.",
    ),
    entry_of(28, Host, "Takes leases on files of other owners."),
    silent(
        29,
        TurnedAway,
        "Writes records to the kernel's audit log.",
        "shadow's tools (useradd, groupadd) and PAM go on without their audit record.",
    ),
    entry_of(30, TurnedAway, "Configures the kernel's audit log."),
    silent(
        31,
        Own,
        "Gives files capabilities (the attribute security.capability), and maps the parent's root into a new user namespace.",
        "A package's script whose setcap fails may make the program setuid root instead, and exit 0: iputils-ping does.",
    ),
    entry_of(
        32,
        Host,
        "Passes the access rules of the Smack security module.",
    ),
    entry_of(
        33,
        Host,
        "Configures security modules, and sets their labels.",
    ),
    entry_of(
        34,
        Host,
        "Reads and clears the kernel's log, and sees kernel addresses.",
    ),
    entry_of(35, Host, "Sets timers that wake the machine up."),
    entry_of(36, Host, "Keeps the machine from suspending."),
    entry_of(37, Host, "Reads the kernel's audit log."),
    entry_of(
        38,
        Host,
        "Observes performance: perf events, and BPF programs that trace.",
    ),
    entry_of(39, Host, "Loads BPF programs and makes BPF maps."),
    entry_of(
        40,
        Own,
        "Checkpoints and restores processes: chooses their pids, and reads what they have mapped.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_with_a_name_has_its_entry() {
        assert!(Cap::known().eq(ENTRIES.iter().map(|entry| entry.cap)));
        for entry in &ENTRIES {
            let cap = entry.cap;
            for text in [Some(entry.allows), entry.silent].into_iter().flatten() {
                assert!(text.ends_with('.') && text.is_ascii(), "{cap}: {text}");
            }
        }
        assert!(entry(Cap(41)).is_none() && entry(Cap(63)).is_none());
    }
}
