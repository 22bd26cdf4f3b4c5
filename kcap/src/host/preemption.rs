//! How preemptible the running kernel is. A trampoline program can be skipped on a kernel that
//! preempts inside the kernel, so this decides which hooks are exact.

use std::fmt;
use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use flate2::read::GzDecoder;

use super::detached::Detached;

/// Preemption mode of a kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Preemptible anywhere.
    Full,
    /// Preemptible anywhere, but ordinary tasks only at a tick.
    Lazy,
    /// At its own preemption points only.
    Voluntary,
    /// Only where it sleeps or returns to user space.
    None,
    /// Could not be found out.
    #[default]
    Unknown,
}

impl Mode {
    /// The word in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Lazy => "lazy",
            Self::Voluntary => "voluntary",
            Self::None => "none",
            Self::Unknown => "unknown",
        }
    }

    /// Whether a task can be switched out inside the kernel: yes where unknown.
    pub const fn preempts_kernel(self) -> bool {
        matches!(self, Self::Full | Self::Lazy | Self::Unknown)
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Full, Self::Lazy, Self::Voluntary, Self::None]
            .into_iter()
            .find(|mode| mode.as_str() == word)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A preemption mode, and what told it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preemption {
    /// The mode.
    pub mode: Mode,
    /// Where it was read, for people; empty where unknown.
    pub source: &'static str,
}

/// What a kernel tells of its preemption without debugfs.
#[derive(Clone, Copy, Debug, Default)]
struct Hints<'a> {
    /// `uname -v`.
    version: &'a str,
    /// `/proc/cmdline`.
    command_line: &'a str,
    /// The kernel's log, as far as it can be read.
    log: &'a str,
    /// The kernel's configuration.
    config: &'a str,
}

impl Preemption {
    /// Finds it out: from debugfs, mounted or not; else from what the kernel was built and booted
    /// with.
    pub fn detect(release: &str, version: &str) -> Self {
        let debugfs = fs::read_to_string("/sys/kernel/debug/sched/preempt").or_else(|_| {
            Detached::open(c"debugfs").and_then(|debugfs| debugfs.read(c"sched/preempt"))
        });
        if let Some(mode) = debugfs.ok().and_then(|text| selected(&text)) {
            return Self {
                mode,
                source: "debugfs",
            };
        }
        Self::infer(Hints {
            version,
            command_line: &fs::read_to_string("/proc/cmdline").unwrap_or_default(),
            log: &kernel_log(),
            config: &config(release),
        })
    }

    /// Without debugfs: the most telling source first.
    fn infer(hints: Hints<'_>) -> Self {
        let built = |option: &str| {
            hints
                .config
                .lines()
                .any(|l| l.strip_suffix("=y") == Some(option))
        };
        let configured = || {
            [
                ("CONFIG_PREEMPT_RT", Mode::Full),
                ("CONFIG_PREEMPT_LAZY", Mode::Lazy),
                ("CONFIG_PREEMPT", Mode::Full),
                ("CONFIG_PREEMPT_VOLUNTARY", Mode::Voluntary),
                ("CONFIG_PREEMPT_NONE", Mode::None),
            ]
            .into_iter()
            .find(|(option, _)| built(option))
            .map(|(_, mode)| Self {
                mode,
                source: "kernel configuration",
            })
        };
        let flags: Vec<&str> = hints.version.split_ascii_whitespace().collect();
        if flags.contains(&"PREEMPT_RT") {
            return Self {
                mode: Mode::Full,
                source: "uname",
            };
        }
        if flags.contains(&"PREEMPT_DYNAMIC") {
            let booted = hints
                .command_line
                .split_ascii_whitespace()
                .filter_map(|word| Mode::from_word(word.strip_prefix("preempt=")?))
                .next_back()
                .map(|mode| Self {
                    mode,
                    source: "kernel command line",
                });
            let logged = hints
                .log
                .lines()
                .filter_map(|line| Mode::from_word(line.split_once("Dynamic Preempt: ")?.1.trim()))
                .next_back()
                .map(|mode| Self {
                    mode,
                    source: "kernel log",
                });
            return booted.or(logged).or_else(configured).unwrap_or_default();
        }
        // Since 6.13 a kernel built lazy calls itself PREEMPT, too.
        let named = if flags.contains(&"PREEMPT") {
            Self {
                mode: Mode::Full,
                source: "uname",
            }
        } else if flags.is_empty() {
            Self::default()
        } else {
            Self {
                mode: Mode::Voluntary,
                source: "uname, which does not tell it from none",
            }
        };
        configured().unwrap_or(named)
    }
}

/// The mode in parentheses, as in `none voluntary (full)`.
fn selected(text: &str) -> Option<Mode> {
    text.split_ascii_whitespace()
        .find_map(|word| Mode::from_word(word.strip_prefix('(')?.strip_suffix(')')?))
}

/// The kernel's log buffer without waiting for more; empty where it may not be read.
fn kernel_log() -> String {
    let mut log = String::new();
    let Ok(mut kmsg) = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/kmsg")
    else {
        return log;
    };
    // One read gives one record, of at most this size; the end is EAGAIN.
    let mut record = [0; 8192];
    loop {
        match kmsg.read(&mut record) {
            Ok(0) => return log,
            Ok(n) => {
                let text = String::from_utf8_lossy(&record[..n]);
                if text.contains("Dynamic Preempt: ") {
                    log.push_str(&text);
                    log.push('\n');
                }
            }
            // Records were overwritten while we read: go on with the oldest that is left.
            Err(e) if e.raw_os_error() == Some(libc::EPIPE) => {}
            Err(_) => return log,
        }
    }
}

/// The kernel's configuration; empty where it is not shown.
fn config(release: &str) -> String {
    /// Configurations have some 300 kB.
    const LIMIT: u64 = 8 << 20;
    let mut text = String::new();
    if let Ok(file) = fs::File::open("/proc/config.gz")
        && GzDecoder::new(file)
            .take(LIMIT)
            .read_to_string(&mut text)
            .is_ok()
    {
        return text;
    }
    text.clear();
    if let Ok(file) = fs::File::open(format!("/boot/config-{release}"))
        && file.take(LIMIT).read_to_string(&mut text).is_ok()
    {
        return text;
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debugfs_marks_the_mode() {
        assert_eq!(selected("none voluntary (full) lazy \n"), Some(Mode::Full));
        assert_eq!(selected("(none) voluntary full\n"), Some(Mode::None));
        assert_eq!(selected("full (lazy)\n"), Some(Mode::Lazy));
        for text in ["", "()", "none voluntary full", "(other)"] {
            assert_eq!(selected(text), None, "{text}");
        }
    }

    fn mode(hints: Hints<'_>) -> Mode {
        Preemption::infer(hints).mode
    }

    #[test]
    fn a_dynamic_kernel_is_what_it_was_booted_as() {
        let dynamic = Hints {
            version: "#1 SMP PREEMPT_DYNAMIC Debian 6.12",
            command_line: "quiet preempt=full",
            log: "6,1,1,-;Dynamic Preempt: none\n",
            config: "CONFIG_PREEMPT_VOLUNTARY=y\nCONFIG_PREEMPT_DYNAMIC=y\n",
        };
        assert_eq!(mode(dynamic), Mode::Full);
        let twice = Hints {
            command_line: "preempt=full preempt=none",
            ..dynamic
        };
        assert_eq!(
            mode(twice),
            Mode::None,
            "the last one counts, as for the kernel"
        );
        assert_eq!(
            mode(Hints {
                command_line: "",
                ..dynamic
            }),
            Mode::None
        );
        assert_eq!(
            mode(Hints {
                command_line: "preempt=odd",
                ..dynamic
            }),
            Mode::None
        );
        assert_eq!(
            mode(Hints {
                command_line: "",
                log: "",
                ..dynamic
            }),
            Mode::Voluntary
        );
        let silent = Hints {
            version: dynamic.version,
            ..Default::default()
        };
        assert_eq!(Preemption::infer(silent), Preemption::default());
    }

    #[test]
    fn a_fixed_kernel_is_what_it_was_built_as() {
        let version = |version| Hints {
            version,
            ..Default::default()
        };
        assert_eq!(mode(version("#1 SMP PREEMPT_RT Debian")), Mode::Full);
        assert_eq!(mode(version("#1 SMP PREEMPT Debian")), Mode::Full);
        assert_eq!(mode(version("#1 SMP Debian")), Mode::Voluntary);
        assert_eq!(mode(version("")), Mode::Unknown);
        let lazy = Hints {
            config: "CONFIG_PREEMPT_LAZY=y\n",
            ..version("#1 SMP PREEMPT")
        };
        assert_eq!(mode(lazy), Mode::Lazy);
        let none = Hints {
            config: "# CONFIG_PREEMPT is not set\nCONFIG_PREEMPT_NONE=y\n",
            command_line: "preempt=full",
            ..version("#1 SMP")
        };
        assert_eq!(
            mode(none),
            Mode::None,
            "the option means nothing to a fixed kernel"
        );
    }

    #[test]
    fn unknown_counts_as_preemptible() {
        assert!(Mode::Unknown.preempts_kernel() && Mode::Lazy.preempts_kernel());
        assert!(!Mode::Voluntary.preempts_kernel() && !Mode::None.preempts_kernel());
    }
}
