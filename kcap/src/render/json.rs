//! A report or matrix as JSON: sorted, two spaces, one trailing newline.

use std::fmt::Write;
use std::io;

use serde::Serialize;

use super::escape;

/// The JSON text. Characters that a terminal may act on occur in strings only, and are written as
/// `\u` escapes: the value stays the same.
pub fn text(value: &impl Serialize) -> io::Result<String> {
    let plain = serde_json::to_string_pretty(value)?;
    let mut text = String::with_capacity(plain.len() + 1);
    for c in plain.chars() {
        if c != '\n' && escape::is_unsafe(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(text, "\\u{unit:04x}").map_err(io::Error::other)?;
            }
        } else {
            text.push(c);
        }
    }
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Capture;
    use crate::interpret::interpret;
    use crate::report;

    #[test]
    fn unsafe_characters_are_escaped_and_survive() {
        let mut report = interpret(&Capture::default());
        let command = "a\u{1b}\u{7f}\u{202e}\u{e0001}\"\\\nb\u{9b}".to_owned();
        report.subject.command = vec![command];
        let text = text(&report).unwrap();
        assert!(!text.chars().any(|c| c != '\n' && escape::is_unsafe(c)));
        assert!(text.ends_with("}\n") && !text.ends_with("\n\n"));
        assert_eq!(report::from_json(text.as_bytes()).unwrap(), report);
    }
}
