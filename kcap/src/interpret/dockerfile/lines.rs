//! From bytes to instructions in one line each: line ends, comments, directives, continued lines.

use super::{
    Directive, MOST_BYTES, ParseError,
    words::{self, shown},
};

/// Longest line in bytes, without its end: BuildKit's scanner takes no longer one.
const LONGEST: usize = (64 << 10) - 1;

/// An instruction's lines, joined.
pub struct Joined {
    /// In one line.
    pub text: Vec<u8>,
    /// Its first line, from 1.
    pub line: u32,
    /// Its last line before heredocs, from 1.
    pub end: u32,
    /// Where each of its lines starts.
    segments: Vec<Segment>,
}

/// A line's part in a joined one.
struct Segment {
    /// Where it starts in the joined line.
    at: usize,
    /// From 1.
    line: u32,
    /// In characters, from 1.
    column: u32,
}

impl Joined {
    /// An error at an offset into the joined line.
    pub fn error(&self, at: usize, message: impl Into<String>) -> ParseError {
        let at = at.min(self.text.len());
        let upto = self.segments.partition_point(|s| s.at <= at);
        let (start, line, column) = match upto.checked_sub(1).map(|i| &self.segments[i]) {
            Some(s) => (s.at, s.line, s.column),
            None => (0, self.line, 1),
        };
        ParseError {
            line,
            column: column.saturating_add(words::characters(&self.text[start..at])),
            message: message.into(),
        }
    }
}

/// The lines of a file that are not yet read.
pub struct Lines<'a> {
    rest: &'a [u8],
    /// Lines read.
    number: u32,
    /// The escape character.
    pub escape: u8,
    /// Directives read.
    pub directives: Vec<Directive>,
    /// No more directives: something else was seen.
    plain: bool,
}

impl<'a> Lines<'a> {
    /// All lines of a file.
    pub fn of(text: &'a [u8]) -> Result<Self, ParseError> {
        let lines = Self {
            rest: text,
            number: 0,
            escape: b'\\',
            directives: Vec::new(),
            plain: false,
        };
        if text.len() > MOST_BYTES {
            return Err(lines.error(format!(
                "the file has {} bytes, more than {MOST_BYTES}: is it a Dockerfile?",
                text.len()
            )));
        }
        Ok(lines)
    }

    /// An error at the line read last.
    pub fn error(&self, message: impl Into<String>) -> ParseError {
        ParseError {
            line: self.number.max(1),
            column: 1,
            message: message.into(),
        }
    }

    /// Lines read so far.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The next line as it is, with its end.
    pub fn raw(&mut self) -> Result<Option<&'a [u8]>, ParseError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let end = self.rest.iter().position(|&b| b == b'\n');
        let (line, rest) = self.rest.split_at(end.map_or(self.rest.len(), |i| i + 1));
        self.rest = rest;
        self.number += 1;
        if end.unwrap_or(line.len()) > LONGEST {
            return Err(self.error(format!(
                "the line has more than {LONGEST} bytes, which BuildKit and Kaniko refuse: split it"
            )));
        }
        Ok(Some(if self.number == 1 {
            line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line)
        } else {
            line
        }))
    }

    /// The next instruction; heredocs that it announces are still to be read.
    pub fn joined(&mut self) -> Result<Option<Joined>, ParseError> {
        while let Some(raw) = self.raw()? {
            let whole = trim_end_of_line(raw);
            let line = words::trim_start(whole);
            self.directive(line)?;
            if is_comment(line) {
                continue;
            }
            let (part, mut continued) = self.part(line);
            if part.is_empty() && !continued {
                continue;
            }
            let indent = words::characters(&whole[..whole.len() - line.len()]);
            let mut joined = Joined {
                text: part.to_vec(),
                line: self.number,
                end: self.number,
                segments: vec![Segment {
                    at: 0,
                    line: self.number,
                    column: indent + 1,
                }],
            };
            while continued {
                let Some(raw) = self.raw()? else { break };
                let line = trim_end_of_line(raw);
                // Comments and empty lines do not end it.
                if is_comment(line) || words::trim_start(line).is_empty() {
                    continue;
                }
                let part;
                (part, continued) = self.part(line);
                if !part.is_empty() {
                    joined.segments.push(Segment {
                        at: joined.text.len(),
                        line: self.number,
                        column: 1,
                    });
                    joined.text.extend_from_slice(part);
                }
            }
            joined.end = self.number;
            return Ok(Some(joined));
        }
        Ok(None)
    }

    /// The line without its continuation mark, and whether it had one: an escape character, then
    /// blanks only, and no escape character before it.
    fn part<'l>(&self, line: &'l [u8]) -> (&'l [u8], bool) {
        let trimmed = match line.iter().rposition(|b| !matches!(b, b' ' | b'\t')) {
            Some(last) => &line[..=last],
            None => &[],
        };
        match trimmed.split_last() {
            Some((&last, before)) if last == self.escape && before.last() != Some(&self.escape) => {
                (before, true)
            }
            _ => (line, false),
        }
    }

    /// Takes a directive from a line without blanks before it. They stand before all else.
    fn directive(&mut self, line: &[u8]) -> Result<(), ParseError> {
        if self.plain {
            return Ok(());
        }
        let Some((name, value)) = directive(line) else {
            self.plain = true;
            return Ok(());
        };
        if self.directives.iter().any(|d| d.name == name) {
            return Err(self.error(format!("a second directive {name}: remove one")));
        }
        if name == "escape" {
            self.escape = match value {
                b"\\" => b'\\',
                b"`" => b'`',
                _ => {
                    return Err(self.error(format!(
                        "escape character {} is neither \\ nor `: use one of them",
                        shown(value)
                    )));
                }
            };
        }
        self.directives.push(Directive {
            name: name.to_owned(),
            value: words::text(value),
            line: self.number,
        });
        Ok(())
    }
}

/// Name and value of a directive.
fn directive(line: &[u8]) -> Option<(&'static str, &[u8])> {
    fn blank(b: &u8) -> bool {
        matches!(b, b'\t' | b'\n' | b'\x0c' | b'\r' | b' ')
    }
    let line = words::trim_start(line.strip_prefix(b"#")?);
    let equals = line.iter().position(|&b| b == b'=')?;
    let (name, value) = (&line[..equals], &line[equals + 1..]);
    let end = name.iter().rposition(|b| !blank(b))? + 1;
    let name = ["syntax", "escape", "check"]
        .into_iter()
        .find(|known| name[..end].eq_ignore_ascii_case(known.as_bytes()))?;
    let Some(start) = value.iter().position(|b| !blank(b)) else {
        // Blanks only: the last of them is the value.
        return Some((name, &value[value.len().checked_sub(1)?..]));
    };
    let end = value.iter().rposition(|b| !blank(b))?;
    Some((name, &value[start..=end]))
}

/// Whether its first character that is no blank is `#`.
fn is_comment(line: &[u8]) -> bool {
    words::trim_start(line).first() == Some(&b'#')
}

/// The line without the characters that end it.
pub fn trim_end_of_line(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|b| !matches!(b, b'\r' | b'\n'));
    &line[..end.map_or(0, |last| last + 1)]
}
