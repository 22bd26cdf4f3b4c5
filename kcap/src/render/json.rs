//! A report or matrix as JSON: sorted, two spaces, one trailing newline.

use std::io::{self, BufWriter, Write};

use serde::Serialize;

use super::escape;

/// The JSON text. Characters that a terminal may act on occur in strings only, and are written as
/// `\u` escapes: the value stays the same.
#[cfg(test)]
pub fn text(value: &impl Serialize) -> io::Result<String> {
    let mut bytes = Vec::new();
    write(value, &mut bytes)?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

/// Writes the same text piece by piece: a matrix of thousands of builds is large.
pub fn write(value: &impl Serialize, to: &mut dyn Write) -> io::Result<()> {
    let mut to = BufWriter::new(to);
    serde_json::to_writer_pretty(Escaped(&mut to), value)?;
    to.write_all(b"\n")?;
    to.flush()
}

/// Passes JSON on with unsafe characters escaped.
struct Escaped<W>(W);

impl<W: Write> Write for Escaped<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The serializer hands over whole strings, or parts cut at ASCII.
        let text = std::str::from_utf8(bytes).map_err(io::Error::other)?;
        let is_plain = |b: &u8| matches!(b, b' '..=b'~' | b'\n');
        if bytes.iter().all(is_plain) {
            self.0.write_all(bytes)?;
            return Ok(bytes.len());
        }
        for c in text.chars() {
            if c != '\n' && escape::is_unsafe(c) {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(self.0, "\\u{unit:04x}")?;
                }
            } else {
                self.0.write_all(c.encode_utf8(&mut [0; 4]).as_bytes())?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
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
