//! The capture: a session as recorded, before interpretation. It holds enough to redo every later
//! stage without the kernel, in a versioned format of its own (`kcap.capture/v1`), never a dump of
//! the structs shared with the kernel.

mod format;

pub use format::{ReadError, SCHEMA, read, write};

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A whole capture, owned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capture {
    /// What made it.
    pub tool: Tool,
    /// Where it was made.
    pub host: Host,
    /// What was traced.
    pub subject: Subject,
    /// How kernel times relate to the wall clock.
    pub clock: Clock,
    /// Every program generation, ascending by `id`.
    pub programs: Vec<Program>,
    /// Every tally, ascending by key.
    pub tallies: Vec<Tally>,
    /// Samples that explain tallies, by time.
    pub evidence: Vec<Evidence>,
    /// Needs that the kernel decided without asking, by time.
    pub unasked: Vec<Unasked>,
    /// What the executor itself wrote to its standard output and error, by time.
    pub log: Vec<LogLine>,
    /// What was lost, and where.
    pub loss: Loss,
    /// The trace was ended by a signal to kcap, before the build ended by itself.
    pub interrupted: bool,
}

/// The tool that made a capture.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tool {
    /// `kcap`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `kcap_common::abi::ABI_VERSION` of the BPF object.
    pub abi: u32,
    /// SHA-256 of the BPF object, hex.
    pub object: String,
}

/// The traced host, as far as it bears on what is asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Host {
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub arch: String,
    /// `tp_btf`, `fexit` or `kprobe`.
    pub hook: String,
    /// `v1`, `v2` or `hybrid`.
    pub cgroup: String,
    /// What this hook on this kernel cannot see: `options`, `cap_vm_enough_memory`, `outcome`.
    pub blind: Vec<String>,
    /// What it can see that captures of older versions lack: `suppressed`, low ports and ping sockets
    /// that the host's settings allow without a check.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sees: Vec<String>,
    /// `full`, `lazy`, `voluntary`, `none` or `unknown`.
    pub preemption: String,
    /// Active security modules, in order.
    pub lsm: Vec<String>,
    /// Seccomp mode that the first traced program ran under: `none`, `strict`, `filter`, `unknown`.
    pub seccomp: String,
    /// Settings that change what is asked: name to value, read at start.
    pub sysctl: BTreeMap<String, String>,
    /// Inode number of the initial user namespace, 0 where unknown.
    pub user_ns: u64,
}

/// What was traced.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Subject {
    /// The command as given, lossily decoded.
    pub command: Vec<String>,
    /// Path of the Dockerfile as given, if known.
    pub dockerfile: Option<String>,
    /// The Dockerfile's bytes, lossily decoded.
    pub dockerfile_text: Option<String>,
    /// SHA-256 of the Dockerfile's bytes, hex.
    pub dockerfile_sha256: Option<String>,
    /// The build context as given, if known.
    pub context: Option<String>,
    /// Exit status of the traced command as a shell gives it (128 + n for signal n); `None` where
    /// it was not seen to end.
    pub exit_status: Option<i32>,
    /// Start, RFC 3339, UTC.
    pub started: String,
    /// Wall time in milliseconds.
    pub duration_ms: u64,
    /// The engine that ran the container, with its runtime where that was chosen: `docker`,
    /// `podman`, `oci/runc`; `None` where kcap did not start one.
    pub engine: Option<String>,
    /// The executor as given to the engine: an image's name, or a path.
    pub executor: Option<String>,
    /// The trace began when the build was already running.
    pub late: bool,
    /// The container was killed for want of memory.
    pub out_of_memory: bool,
    /// kcap killed it, since it took longer than it may.
    #[serde(default)]
    pub timed_out: bool,
    /// Whose build it is; only where others started it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
}

/// Whose build it is, as far as its host can tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Identity {
    /// What runs the container: `docker`, `podman`, `containerd`, `cri-o`; absent where that cannot be
    /// told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// The container's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its image, as it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// UID of the pod that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// The pod's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The pod's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// What is built: a repository's path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The commit that is built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The pipeline, or the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// The job, or the task, in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// Labels and annotations of the container and its pod that were asked for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Which of these come from the build's own environment: it can say there what it likes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub claimed: Vec<String>,
}

/// Clock anchors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Clock {
    /// `CLOCK_MONOTONIC` nanoseconds from which slices count, and the time base of all `*_ns`.
    pub base_ns: u64,
    /// `CLOCK_REALTIME` nanoseconds since the epoch at `base_ns`.
    pub base_wall_ns: u64,
    /// A slice is 2^`slice_shift` nanoseconds.
    pub slice_shift: u32,
}

/// One program generation: a process from its birth or `execve` to its next `execve` or end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Program {
    /// Unique in the capture.
    pub id: u32,
    /// How it came to be.
    pub origin: Origin,
    /// The generation that forked it, or that it replaced by `execve`; `None` where it came from
    /// outside the scope.
    pub parent: Option<u32>,
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Start, nanoseconds after the clock base.
    pub start_ns: u64,
    /// End, where it was seen.
    pub end_ns: Option<u64>,
    /// Wait status where the process ended in this generation (`WIFEXITED` etc. apply).
    pub wait_status: Option<u32>,
    /// Generation of the process's parent when it ended.
    pub reaper: Option<u32>,
    /// Path as the caller named it; inherited by forked children; empty where never seen.
    pub path: String,
    /// `path` was cut.
    pub path_cut: bool,
    /// Interpreter, where it differs from `path` (scripts).
    pub interpreter: Option<String>,
    /// Task name, where known.
    pub comm: String,
    /// The path matched one of the executor's.
    pub executor: bool,
    /// What `execve` said of it; `None` for a forked child that executed nothing.
    pub exec: Option<Exec>,
    /// Arguments, only where asked for.
    pub argv: Option<Argv>,
}

/// How a generation came to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Moved or made into the traced cgroup from outside.
    #[default]
    Enter,
    /// A new process made by one in scope.
    Fork,
    /// `execve` in the same process.
    Exec,
    /// The executor wrote a line to its log, and goes on in the same process and program: what it
    /// did before the line and after it are told apart by this.
    Phase,
    /// Named by a tally, but its own record was lost.
    Lost,
}

/// What is known of an execution.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Exec {
    /// Effective uid in the initial user namespace.
    pub euid: u32,
    /// Sets after the call, as masks.
    pub caps: Sets,
    /// Inode number of its user namespace.
    pub user_ns: u64,
    /// Depth of its user namespace, 0 for the initial one.
    pub ns_level: u32,
    /// Inode number of its mount namespace.
    pub mnt_ns: u64,
    /// Cgroup id.
    pub cgroup: u64,
    /// Device of the binary, as `major:minor`.
    pub dev: String,
    /// Inode of the binary.
    pub inode: u64,
    /// It runs under a seccomp filter.
    pub seccomp: bool,
    /// `security.capability` of the file.
    pub file: FileCaps,
}

/// The five capability sets, as masks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sets {
    /// Inheritable.
    pub inheritable: u64,
    /// Permitted.
    pub permitted: u64,
    /// Effective.
    pub effective: u64,
    /// Bounding.
    pub bounding: u64,
    /// Ambient.
    pub ambient: u64,
}

/// `security.capability` of an executed file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum FileCaps {
    /// The file was gone before it could be read: a loss.
    #[default]
    Unread,
    /// It has none.
    None,
    /// It has these.
    Has {
        /// Permitted set, as a mask.
        permitted: u64,
        /// Inheritable set, as a mask.
        inheritable: u64,
        /// Raised into the effective set at exec.
        effective: bool,
        /// Root id of a version 3 attribute.
        rootid: Option<u32>,
    },
}

/// Recorded arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Argv {
    /// Lossily decoded, masked.
    pub args: Vec<String>,
    /// The vector was longer than what is kept.
    pub cut: bool,
}

/// A tally: how often checks of the same key happened, and how their system calls ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// The program generation that asked.
    pub program: u32,
    /// Time slice, 0 where the program is not cut by time; slice n spans
    /// `[(n-1) << slice_shift, n << slice_shift)` nanoseconds after the clock base.
    pub slice: u32,
    /// Capability number; `None` for needs that ask nothing.
    pub cap: Option<u8>,
    /// 0 granted, else the positive errno of the check.
    pub result: u8,
    /// System call number, `None` outside any.
    pub syscall: Option<u16>,
    /// `kcap_common::abi::key::abi`.
    pub abi: u8,
    /// Argument class, see `kcap_common::decide::argclass`.
    pub class: u32,
    /// `kcap_common::abi::key::flag` bits.
    pub flags: u8,
    /// `kcap_common::abi::key::creds`.
    pub creds: u8,
    /// Depth of the target user namespace.
    pub target_level: u8,
    /// Depth of the credentials' user namespace.
    pub creds_level: u8,
    /// `kcap_common::abi::key::site`.
    pub site: u8,
    /// `kcap_common::abi::key::unasked`, 0 for a check.
    pub unasked: u8,
    /// How often.
    pub count: u64,
    /// Of these, how many ended in which errno, or in `kcap_common::abi::key::outcome`. The rest
    /// succeeded, where outcomes were recorded (`Host::blind` says where not) and there was a
    /// system call.
    pub failed: BTreeMap<u8, u64>,
}

/// A sample of a tally.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    /// Index into `Capture::tallies`.
    pub tally: u32,
    /// Nanoseconds after the clock base.
    pub time_ns: u64,
    /// Thread id.
    pub tid: u32,
    /// Task name.
    pub comm: String,
    /// Raw arguments of the system call.
    pub args: [u64; 6],
    /// Inode number of the target user namespace.
    pub target_ns: u64,
    /// Call path, innermost first.
    pub path: Vec<Frame>,
}

/// One frame of a call path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Frame {
    /// Return address.
    pub address: u64,
    /// Function, where the kernel's symbols could be read.
    pub symbol: Option<String>,
    /// Offset into it.
    pub offset: u64,
}

/// A need that the kernel decided without asking; its count is the tally's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unasked {
    /// Index into `Capture::tallies`.
    pub tally: u32,
    /// Nanoseconds after the clock base.
    pub time_ns: u64,
    /// Process id.
    pub pid: u32,
    /// Raw arguments.
    pub args: [u64; 6],
    /// What lacked, as a mask: known for capset and ambient, and for exec where the file's
    /// capabilities could be read.
    pub lacking: u64,
    /// The bounding set then.
    pub bounding: u64,
    /// Path executed, or text written to the map; escaped only on output.
    pub detail: String,
    /// For a refused exec: `security.capability` of the file.
    pub file: Option<FileCaps>,
}

/// A line that the executor wrote to its standard output or error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogLine {
    /// When the write had been done, nanoseconds after the clock base.
    pub time_ns: u64,
    /// The generation that starts with it, of origin [`Origin::Phase`]. All that the executor does
    /// after this line and before its next is counted under it.
    pub program: u32,
    /// The line without its end, lossily decoded, values of build arguments and secrets masked.
    pub text: String,
    /// The line was longer than what is kept.
    pub cut: bool,
}

/// What was lost. All zero means: nothing was missed, as far as the kernel can tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Loss {
    /// Checks that were seen and could not be kept.
    pub checks: u64,
    /// Outcomes that could not be kept. Which is not known, so where this is not 0 no check of the
    /// capture is known to have succeeded.
    pub outcomes: u64,
    /// Samples dropped.
    pub evidence: u64,
    /// Fork, exec and exit records dropped, and processes that could not be followed.
    pub execs: u64,
    /// Programs that the kernel did not run, by program name.
    pub skipped: BTreeMap<String, u64>,
    /// Executed files whose capabilities could not be read in time.
    pub file_caps: u64,
    /// Needs decided without a check that could not be kept.
    pub unasked: u64,
    /// Why completeness cannot be proven although nothing is counted as lost.
    pub unproven: Option<String>,
}

impl Loss {
    /// Programs that the kernel did not run, in all.
    pub fn skipped_total(&self) -> u64 {
        self.skipped.values().sum()
    }

    /// Nothing was lost, and the kernel can tell.
    pub fn is_none(&self) -> bool {
        self.checks == 0
            && self.outcomes == 0
            && self.evidence == 0
            && self.execs == 0
            && self.skipped_total() == 0
            && self.file_caps == 0
            && self.unasked == 0
            && self.unproven.is_none()
    }
}
