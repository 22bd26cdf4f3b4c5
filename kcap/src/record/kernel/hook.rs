//! The hooks that can see `cap_capable`, best first. Exactness decides their order; what each is
//! blind to is reported.

use std::{fmt, str::FromStr};

/// A way to see every call of `cap_capable`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// The tracepoint `capability:cap_capable` (6.14 on).
    TpBtf,
    /// A trampoline at the function's exit: skips where the kernel is fully preemptible.
    Fexit,
    /// A kprobe at the function's entry, the result computed.
    Kprobe,
}

impl Hook {
    /// Best first.
    pub const ALL: [Self; 3] = [Self::TpBtf, Self::Fexit, Self::Kprobe];

    /// Its name in options and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TpBtf => "tp_btf",
            Self::Fexit => "fexit",
            Self::Kprobe => "kprobe",
        }
    }

    /// The BPF program that serves it.
    pub(super) const fn program(self) -> &'static str {
        match self {
            Self::TpBtf => "kcap_tp",
            Self::Fexit => "kcap_fexit",
            Self::Kprobe => "kcap_kprobe",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The best that loads and is exact here.
    #[default]
    Auto,
    /// This one or none.
    Forced(Hook),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        if s == "auto" {
            return Ok(Self::Auto);
        }
        Hook::ALL
            .into_iter()
            .find(|h| h.name() == s)
            .map(Self::Forced)
            .ok_or_else(|| format!("{s:?} is no hook: use auto, tp_btf, fexit or kprobe"))
    }
}

impl Choice {
    /// Which hooks to try, in order. A trampoline is passed over where the kernel is, or may be,
    /// fully preemptible: it would be skipped there.
    pub fn order(self, preemption: &str) -> Vec<Hook> {
        match self {
            Self::Forced(hook) => vec![hook],
            Self::Auto if matches!(preemption, "voluntary" | "none") => Hook::ALL.to_vec(),
            Self::Auto => vec![Hook::TpBtf, Hook::Kprobe, Hook::Fexit],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for hook in Hook::ALL {
            assert_eq!(hook.name().parse(), Ok(Choice::Forced(hook)));
        }
        assert_eq!("auto".parse(), Ok(Choice::Auto));
        assert!("kretprobe".parse::<Choice>().is_err());
    }

    #[test]
    fn no_trampoline_where_it_may_be_skipped() {
        for mode in ["full", "lazy", "unknown"] {
            assert_eq!(Choice::Auto.order(mode)[1], Hook::Kprobe, "{mode}");
        }
        assert_eq!(Choice::Auto.order("voluntary")[1], Hook::Fexit);
        assert_eq!(Choice::Forced(Hook::Fexit).order("full"), [Hook::Fexit]);
    }
}
