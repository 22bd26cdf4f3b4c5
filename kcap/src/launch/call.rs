//! One call of another program, such as an engine's command-line client: bounded in time and output.

use std::{
    ffi::{OsStr, OsString},
    io::{self, Read, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    ptr, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};

/// Most bytes of output that are kept; the rest is read and dropped.
const OUTPUT: u64 = 4 << 20;
/// The same, where it lists much.
const LARGE: u64 = 64 << 20;
/// Most characters of an engine's message in an error.
const MESSAGE: usize = 400;
/// How long calls may take that ask or remove something.
pub(super) const SHORT: Duration = Duration::from_secs(30);
/// How long those may take that bring an image.
pub(super) const LONG: Duration = Duration::from_secs(15 * 60);

/// A call to make.
pub(super) struct Call<'a> {
    program: &'a str,
    arguments: Vec<OsString>,
    environment: Vec<(&'a str, &'a OsStr)>,
    patience: Duration,
    /// A signal from the terminal reaches it.
    interruptible: bool,
    /// Most bytes of output that are kept.
    kept: u64,
}

/// What came of a call that was carried out.
pub(super) struct Answer {
    /// It exited with 0.
    pub success: bool,
    /// Standard output.
    pub output: String,
    /// What it said was wrong, in one line.
    pub complaint: String,
}

/// Writes the standard input of a call.
pub(super) type Input<'a> = &'a mut (dyn FnMut(&mut dyn io::Write) -> Result<()> + Send);

impl<'a> Call<'a> {
    pub fn new<S: AsRef<OsStr>>(program: &'a str, arguments: impl IntoIterator<Item = S>) -> Self {
        Self {
            program,
            arguments: arguments
                .into_iter()
                .map(|argument| argument.as_ref().to_owned())
                .collect(),
            environment: Vec::new(),
            patience: SHORT,
            interruptible: false,
            kept: OUTPUT,
        }
    }

    /// What it says is long.
    pub fn verbose(mut self) -> Self {
        self.kept = LARGE;
        self
    }

    /// Brings an image: may take long, and Ctrl-C ends it.
    pub fn lengthy(mut self) -> Self {
        self.patience = LONG;
        self.interruptible()
    }

    /// Ctrl-C ends it, and so does the end of kcap: what it does is of no use then.
    pub fn interruptible(mut self) -> Self {
        self.interruptible = true;
        self
    }

    /// Variables of the client, beside kcap's own.
    pub fn inherit(mut self, environment: &[(&'a str, &'a OsStr)]) -> Self {
        self.environment.extend(environment);
        self
    }

    /// Carries it out without input.
    ///
    /// # Errors
    /// Where the program could not be run, or took too long.
    pub fn run(self) -> Result<Answer> {
        self.carry_out(None)
    }

    /// Carries it out with what is written to its standard input.
    ///
    /// # Errors
    /// As [`Call::run`], and what `input` says went wrong, unless the program ended before it.
    pub fn feed(self, input: Input<'_>) -> Result<Answer> {
        self.carry_out(Some(input))
    }

    fn carry_out(self, input: Option<Input<'_>>) -> Result<Answer> {
        let mut command = Command::new(self.program);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().copied())
            .stdin(if input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if !self.interruptible {
            command.process_group(0);
        }
        let (interruptible, parent) = (self.interruptible, std::process::id());
        // SAFETY: between fork and exec only functions that are async-signal-safe; a set of signals
        // is plain data.
        unsafe {
            command.pre_exec(move || {
                if interruptible {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
                    if libc::getppid() as u32 != parent {
                        return Err(io::Error::from_raw_os_error(libc::ESRCH));
                    }
                }
                // kcap blocks the signals that it waits for; the client must not begin that way.
                let mut none: libc::sigset_t = std::mem::zeroed();
                libc::sigemptyset(&raw mut none);
                match libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) {
                    0 => Ok(()),
                    error => Err(io::Error::from_raw_os_error(error)),
                }
            });
        }
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(e) => return Err(e).with_context(|| format!("cannot run {}", self.program)),
        };
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        thread::scope(|scope| {
            let output = scope.spawn(|| drain(stdout, self.kept));
            let complaint = scope.spawn(|| drain(stderr, OUTPUT));
            let fed = scope.spawn(|| match (stdin, input) {
                (Some(mut stdin), Some(input)) => {
                    input(&mut stdin).and_then(|()| Ok(stdin.flush()?))
                }
                _ => Ok(()),
            });
            let status = self.wait(&mut child);
            let output = output.join().unwrap_or_default();
            let complaint = complaint.join().unwrap_or_default();
            let fed = fed
                .join()
                .unwrap_or_else(|_| Err(anyhow!("its input could not be written")));
            let status = status?;
            // A program that ends before it has read all has said why.
            if status.success() {
                fed?;
            }
            let complaint = condense(&complaint).unwrap_or_else(|| format!("{status}"));
            Ok(Answer {
                success: status.success(),
                output,
                complaint,
            })
        })
    }

    /// Waits for the program, and kills it where it takes too long.
    fn wait(&self, child: &mut Child) -> Result<std::process::ExitStatus> {
        let deadline = Instant::now() + self.patience;
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(status) = child.try_wait().context("cannot wait for it")? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                // Where it is gone by now there is nothing to kill.
                if !self.interruptible {
                    // What it started, as what logs in to a cluster, is of its process group.
                    // SAFETY: an integer; the child is not waited for yet, so that its id is no other's.
                    unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
                }
                let _ = child.kill();
                let _ = child.wait();
                bail!(
                    "`{} {}` did not end within {} s",
                    self.program,
                    self.arguments
                        .first()
                        .map(|word| word.display().to_string())
                        .unwrap_or_default(),
                    self.patience.as_secs()
                );
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }
}

/// Reads to the end, and keeps the beginning.
fn drain(pipe: Option<impl Read>, most: u64) -> String {
    let Some(mut pipe) = pipe else {
        return String::new();
    };
    let mut kept = Vec::new();
    // What could not be read is as if it had not been written.
    let _ = pipe.by_ref().take(most).read_to_end(&mut kept);
    let _ = io::copy(&mut pipe, &mut io::sink());
    String::from_utf8_lossy(&kept).into_owned()
}

/// What an engine complained about, in one line: without how it calls itself, hints at its help, and
/// characters that a terminal would act on.
pub(super) fn condense(text: &str) -> Option<String> {
    let line = |wanted: &dyn Fn(&str) -> bool| text.lines().map(str::trim).rfind(|l| wanted(l));
    let reason = line(&|l| l.starts_with("Error") || l.contains("rror response from daemon"))
        .or_else(|| line(&|l| l.starts_with("invalid") || l.starts_with("unknown")))
        .or_else(|| {
            line(&|l| {
                !l.is_empty()
                    && !l.starts_with("See '")
                    && !l.starts_with("Run '")
                    && !l.starts_with("Usage:")
            })
        })?;
    let logged = logged(reason);
    let mut reason = logged.as_deref().unwrap_or(reason);
    for prefix in [
        "docker: ",
        "Error response from daemon: ",
        "Error: ",
        "ERROR: ",
    ] {
        reason = reason.strip_prefix(prefix).unwrap_or(reason);
    }
    Some(bounded(&without_secrets(reason.trim_end_matches(':'))))
}

/// The message of a line as programs in Go log them: `time="…" level=fatal msg="…"`.
fn logged(line: &str) -> Option<String> {
    let (_, message) = line.strip_prefix("time=")?.split_once(" msg=")?;
    // Written as Go quotes, which is JSON but for characters that are rare.
    let mut values = serde_json::Deserializer::from_str(message).into_iter::<String>();
    values.next()?.ok()
}

/// The text with addresses that have neither users nor queries: both can be credentials, as those of
/// downloads that a registry leads to.
fn without_secrets(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        let end = after.find(|c: char| c.is_whitespace() || "\"'`<>".contains(c));
        let (address, behind) = after.split_at(end.unwrap_or(after.len()));
        let path = address.find(['/', '?']).unwrap_or(address.len());
        let user = address[..path].rfind('@').map(|at| at + 1);
        let (address, query) = match address.split_once('?') {
            Some((address, _)) => (address, "?***"),
            None => (address, ""),
        };
        out += before;
        out += if user.is_some() { "***@" } else { "" };
        out += &address[user.unwrap_or(0)..];
        out += query;
        rest = behind;
    }
    out + rest
}

/// The message, bounded, without control characters.
pub(super) fn bounded(message: &str) -> String {
    let mut short: String = message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MESSAGE)
        .collect();
    if short.len() < message.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_become_one_line() {
        for (text, line) in [
            (
                "Unable to find image 'x' locally\ndocker: Error response from daemon: Get \"https://r\": no such host\n\nRun 'docker run --help' for more information\n",
                "Get \"https://r\": no such host",
            ),
            (
                "invalid argument \"x\" for \"-m, --memory\" flag: invalid size: 'x'\n\nUsage:  docker create [OPTIONS] IMAGE\n\nRun 'docker create --help' for more information\n",
                "invalid argument \"x\" for \"-m, --memory\" flag: invalid size: 'x'",
            ),
            (
                "time=\"x\" level=warning msg=\"y\"\nError: \"CAP_FOO\": unknown capability\n",
                "\"CAP_FOO\": unknown capability",
            ),
            (
                "unknown flag: --bogus\nSee 'docker create --help'.\n",
                "unknown flag: --bogus",
            ),
            (
                "time=\"x\" level=warning msg=\"y\"\ntime=\"x\" level=fatal msg=\"Error: a \\\"b\\\": Get \\\"https://me:pw@r/v2/?sig=1\\\": EOF\"\n",
                "a \"b\": Get \"https://***@r/v2/?***\": EOF",
            ),
            ("something \u{1b}[31m else\n\n", "something  [31m else"),
        ] {
            assert_eq!(condense(text).as_deref(), Some(line));
        }
        assert_eq!(condense(" \n\n"), None);
        let long = condense(&"x".repeat(10_000)).unwrap();
        assert_eq!(long.chars().count(), MESSAGE + 1);
    }

    #[test]
    fn output_is_bounded_and_input_fed() {
        let answer = Call::new("head", ["-c", "5000000", "/dev/zero"])
            .run()
            .unwrap();
        assert!(answer.success);
        assert_eq!(answer.output.len() as u64, OUTPUT);
        let mut input = |to: &mut dyn io::Write| Ok(to.write_all(b"a\0b")?);
        assert_eq!(
            Call::new("cat", ["-"]).feed(&mut input).unwrap().output,
            "a\0b"
        );
    }

    #[test]
    fn a_program_that_reads_no_input_speaks_for_itself() {
        let mut input = |to: &mut dyn io::Write| Ok(to.write_all(&vec![0; 1 << 20])?);
        let answer = Call::new("sh", ["-c", "echo Error: full >&2; exit 3"])
            .feed(&mut input)
            .unwrap();
        assert!(!answer.success);
        assert_eq!(answer.complaint, "full");
    }

    #[test]
    fn what_takes_too_long_is_killed() {
        let mut call = Call::new("sleep", ["60"]);
        call.patience = Duration::from_millis(50);
        let error = call.run().err().expect("it cannot have ended").to_string();
        assert!(error.contains("`sleep 60` did not end within"), "{error}");
    }

    #[test]
    fn signals_are_not_blocked_in_a_call() {
        // SAFETY: plain data, and this thread's own mask, which is restored below.
        let before = unsafe {
            let (mut wanted, mut before) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigemptyset(&raw mut wanted);
            libc::sigaddset(&raw mut wanted, libc::SIGINT);
            assert_eq!(
                libc::pthread_sigmask(libc::SIG_BLOCK, &raw const wanted, &raw mut before),
                0
            );
            before
        };
        let answer = Call::new("grep", ["SigBlk", "/proc/self/status"])
            .run()
            .unwrap();
        // SAFETY: restores what was read above.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
        }
        assert_eq!(answer.output.trim(), "SigBlk:\t0000000000000000");
    }
}
