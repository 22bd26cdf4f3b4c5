//! What the kernel must have been asked, as the workload knows it, and its form on stdout.
//!
//! One JSON object a line:
//!
//! * `{"expect": {..}, "count": N, "why": ".."}`: exactly N checks match every field given.
//! * `{"claim": {..}}`: there are no checks that match these fields but those expected.
//! * `{"skip": ".."}`: this kernel or file system cannot do the operation; nothing was done.
//!
//! Fields: `cap` (null for a need that asks nothing), `syscall` (null outside of any), `abi`,
//! `result` (0 granted, 1 refused), `class`, `outcome` (0 or the system call's errno; 255 for one
//! that was interrupted), `creds`, `unasked`, `program` (the last part of the path that was
//! executed) and `blind`: where the capture's `host.blind` names this word, the line does not count.
//! Numbers are those of `kcap_common::abi::key`. An absent field matches everything.

use std::fmt::Write as _;

/// Checks that an operation makes.
#[derive(Clone, Debug)]
pub struct Expect {
    cap: Option<u8>,
    syscall: Option<u16>,
    abi: u8,
    result: u8,
    class: Option<u32>,
    outcome: Option<u8>,
    creds: Option<u8>,
    unasked: u8,
    program: Option<&'static str>,
    blind: Option<&'static str>,
    narrow: bool,
    times: u64,
    why: &'static str,
}

/// One granted check of `cap` in the native system call `syscall`, which succeeds.
pub fn check(cap: u8, syscall: i64, why: &'static str) -> Expect {
    Expect {
        cap: Some(cap),
        syscall: Some(syscall as u16),
        abi: 1,
        result: 0,
        class: None,
        outcome: Some(0),
        creds: None,
        unasked: 0,
        program: None,
        blind: None,
        narrow: false,
        times: 1,
        why,
    }
}

/// One need of kind `unasked` (see `kcap_common::abi::key::unasked`) in `syscall`, which ends with
/// `errno`.
pub fn need(unasked: u8, syscall: i64, errno: i32, why: &'static str) -> Expect {
    Expect {
        cap: None,
        result: errno as u8,
        outcome: None,
        unasked,
        ..check(0, syscall, why)
    }
}

impl Expect {
    /// The check is refused, and the system call ends with `errno`; 0 where it succeeds all the same.
    pub fn refused(self, errno: i32) -> Self {
        Self { result: 1, ..self }.ends(errno)
    }

    /// The system call ends with `errno`, or with 255 where a signal interrupts it.
    pub fn ends(self, errno: i32) -> Self {
        Self {
            outcome: Some(errno as u8),
            ..self
        }
    }

    /// Granted, or refused with this errno.
    pub fn either(self, refused: bool, errno: i32) -> Self {
        if refused { self.refused(errno) } else { self }
    }

    /// The argument class.
    pub fn class(self, class: u32) -> Self {
        Self {
            class: Some(class),
            ..self
        }
    }

    /// How many of them an operation makes.
    pub fn times(self, times: u64) -> Self {
        Self { times, ..self }
    }

    /// Made by a program of this name.
    pub fn by(self, program: &'static str) -> Self {
        Self {
            program: Some(program),
            ..self
        }
    }

    /// Made with credentials of this kind (see `kcap_common::abi::key::creds`).
    pub fn creds(self, creds: u8) -> Self {
        Self {
            creds: Some(creds),
            ..self
        }
    }

    /// The 32-bit system call of the same number.
    pub fn compat(self) -> Self {
        Self { abi: 2, ..self }
    }

    /// Made outside of any system call.
    pub fn in_page_fault(self) -> Self {
        Self {
            syscall: None,
            abi: 0,
            outcome: None,
            ..self
        }
    }

    /// Seen only where the capture is not blind for this.
    pub fn unless_blind(self, blind: &'static str) -> Self {
        Self {
            blind: Some(blind),
            ..self
        }
    }

    /// Nothing is claimed of checks with another result or class: starting the program makes such.
    pub fn narrow(self) -> Self {
        Self {
            narrow: true,
            ..self
        }
    }

    fn claim(&self) -> String {
        let mut text = String::from("{\"claim\":{");
        self.place(&mut text);
        if self.narrow {
            let _ = write!(text, ",\"result\":{}", self.result);
            number(&mut text, "class", self.class);
        }
        word(&mut text, "blind", self.blind);
        text.push_str("}}");
        text
    }

    fn line(&self, operations: u64) -> String {
        let mut text = String::from("{\"expect\":{");
        self.place(&mut text);
        let _ = write!(text, ",\"result\":{}", self.result);
        number(&mut text, "class", self.class);
        number(&mut text, "outcome", self.outcome);
        number(&mut text, "creds", self.creds);
        word(&mut text, "program", self.program);
        word(&mut text, "blind", self.blind);
        let _ = write!(
            text,
            "}},\"count\":{},\"why\":{:?}}}",
            self.times * operations,
            self.why
        );
        text
    }

    fn place(&self, text: &mut String) {
        let null = |value: Option<u64>| value.map_or("null".to_owned(), |n| n.to_string());
        let _ = write!(
            text,
            "\"cap\":{},\"syscall\":{},\"abi\":{},\"unasked\":{}",
            null(self.cap.map(u64::from)),
            null(self.syscall.map(u64::from)),
            self.abi,
            self.unasked
        );
    }
}

fn number<T: Into<u64>>(text: &mut String, name: &str, value: Option<T>) {
    if let Some(value) = value {
        let _ = write!(text, ",\"{name}\":{}", value.into());
    }
}

fn word(text: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        let _ = write!(text, ",\"{name}\":{value:?}");
    }
}

/// The lines for an operation that was performed `operations` times.
pub fn lines(expects: &[Expect], operations: u64) -> String {
    let mut claims: Vec<String> = expects.iter().map(Expect::claim).collect();
    claims.sort_unstable();
    claims.dedup();
    let expects = expects.iter().map(|expect| expect.line(operations));
    claims
        .into_iter()
        .chain(expects)
        .fold(String::new(), |mut text, line| {
            text.push_str(&line);
            text.push('\n');
            text
        })
}
