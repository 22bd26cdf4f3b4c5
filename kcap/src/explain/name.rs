//! A capability's name as a person types it.

use std::fmt;

use crate::report::{Cap, UnknownCap};

/// Names less alike than this are no suggestion.
const ALIKE: f64 = 0.7;
/// Starts of names shorter than this are no suggestion.
const SHORTEST: usize = 3;

/// A text that names no capability, and the name that is nearest to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownName {
    unknown: UnknownCap,
    nearest: Option<Cap>,
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.unknown.fmt(f)?;
        match self.nearest {
            Some(nearest) => write!(f, " (did you mean {nearest}?)"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for UnknownName {}

/// Reads a name in any form, or a number.
///
/// # Errors
/// Where it is neither; the error names the capability nearest to it.
pub fn named(text: &str) -> Result<Cap, UnknownName> {
    let text = text.trim();
    text.parse().map_err(|unknown| UnknownName {
        unknown,
        nearest: nearest(text),
    })
}

fn nearest(text: &str) -> Option<Cap> {
    // No longer than any name is: the rest would not make it more alike.
    let upper: String = text
        .chars()
        .take(32)
        .collect::<String>()
        .to_ascii_uppercase();
    let text = upper.strip_prefix("CAP_").unwrap_or(&upper);
    // The start of one name only is that one.
    let starts = |cap: &Cap| {
        let name = cap.name().unwrap_or_default();
        text.len() >= SHORTEST && name.starts_with(text)
    };
    let mut started = Cap::known().filter(starts);
    if let (Some(only), None) = (started.next(), started.next()) {
        return Some(only);
    }
    let likeness = |cap: &Cap| strsim::jaro_winkler(text, cap.name().unwrap_or_default());
    Cap::known()
        .map(|cap| (likeness(&cap), cap))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)))
        .map(|(_, cap)| cap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_form_is_read_and_a_slip_gets_a_suggestion() {
        for form in ["CHOWN", "cap_chown", " Chown ", "0"] {
            assert_eq!(named(form), Ok(Cap::CHOWN), "{form}");
        }
        assert_eq!(named("45"), Ok(Cap(45)));
        for (slip, meant) in [
            ("CHWON", "CHOWN"),
            ("dac_overide", "DAC_OVERRIDE"),
            ("CAP_NET_BIND", "NET_BIND_SERVICE"),
            ("sysadmin", "SYS_ADMIN"),
        ] {
            let error = named(slip).unwrap_err().to_string();
            assert!(
                error.ends_with(&format!("(did you mean {meant}?)")),
                "{error}"
            );
            assert!(!error.contains('\n'));
        }
        let error = named("\u{1b}[2J").unwrap_err().to_string();
        assert!(
            !error.contains("mean") && !error.contains('\u{1b}'),
            "{error}"
        );
        assert!(named(&"x".repeat(1 << 20)).unwrap_err().to_string().len() < 200);
    }
}
