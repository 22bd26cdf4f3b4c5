//! What the executor's log says for people: the message of a line, and the instruction that it
//! announces. For showing progress only; what a report rests on is read elsewhere.

use crate::interpret::dockerfile::Dockerfile;

/// The message of a log line, without colours, level and time, in whichever of Kaniko's formats.
pub fn message(line: &str) -> String {
    let line = without_ansi(line);
    let line = line.trim();
    for start in ["\"msg\":\"", "msg=\""] {
        if line.contains("level")
            && let Some((_, text)) = line.split_once(start)
        {
            return quoted(text);
        }
    }
    // `INFO[0003] message`
    if let Some((level, rest)) = line.split_once('[')
        && level.len() == 4
        && level.bytes().all(|b| b.is_ascii_uppercase())
        && let Some((_, text)) = rest.split_once("] ")
    {
        return text.trim_start().to_owned();
    }
    line.to_owned()
}

/// The text before the closing quote.
fn quoted(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => match chars.next() {
                Some('n' | 't' | 'r') => out.push(' '),
                Some(c) => out.push(c),
                None => break,
            },
            c => out.push(c),
        }
    }
    out
}

/// The text without escape sequences for terminals.
pub fn without_ansi(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '\u{1b}' {
            out.push(c);
        } else if rest.next_if_eq(&'[').is_some() {
            // Parameters and intermediates, then one final byte.
            while let Some(c) = rest.next_if(|c| matches!(c, ' '..='~')) {
                if matches!(c, '@'..='~') {
                    break;
                }
            }
        }
    }
    out
}

/// The instructions of a Dockerfile, as a log announces them one after the other.
pub struct Instructions {
    texts: Vec<String>,
    /// Position of the one announced last.
    last: Option<usize>,
}

impl Instructions {
    /// Those of a Dockerfile.
    pub fn of(dockerfile: &Dockerfile) -> Self {
        let texts = dockerfile.instructions().map(|i| words(&i.text));
        Self {
            texts: texts.collect(),
            last: None,
        }
    }

    /// The instruction that a message announces, with its position among all: the next of that text
    /// after the one before, for stages can have the same.
    pub fn announced(&mut self, message: &str) -> Option<String> {
        // Cheap for the many messages that are none.
        if !message.starts_with(|c: char| c.is_ascii_alphabetic()) || self.texts.is_empty() {
            return None;
        }
        let message = words(message);
        let from = self.last.map_or(0, |last| last + 1);
        let count = self.texts.len();
        let found = (from..from + count)
            .map(|at| at % count)
            .find(|at| self.texts[*at] == message)?;
        self.last = Some(found);
        Some(format!("[{}/{count}] {message}", found + 1))
    }
}

/// The text with one blank between words: a log pads lines.
fn words(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interpret::dockerfile;

    #[test]
    fn messages_of_all_formats() {
        for (line, expected) in [
            (
                "\u{1b}[36mINFO\u{1b}[0m[0003] RUN echo \"x\"   ",
                "RUN echo \"x\"",
            ),
            ("INFO[0003] RUN x [y] z", "RUN x [y] z"),
            ("WARN[2026-01-01T00:00:00Z] careful", "careful"),
            (
                "time=\"2026-01-01T00:00:00Z\" level=info msg=\"RUN echo \\\"x\\\"\"",
                "RUN echo \"x\"",
            ),
            (
                "{\"level\":\"info\",\"msg\":\"RUN a\\\\b\",\"time\":\"2026\"}",
                "RUN a\\b",
            ),
            ("error building image: x", "error building image: x"),
            ("[1]", "[1]"),
            ("", ""),
            ("\u{1b}", ""),
            ("\u{1b}[", ""),
            ("level msg=\"x\\", "x"),
        ] {
            assert_eq!(message(line), expected, "{line:?}");
        }
    }

    #[test]
    fn instructions_are_found_in_their_order() {
        let text = b"FROM a AS b\nRUN x  \\\n  y\nFROM b\nCOPY --from=b /a /b\nRUN x y\n";
        let mut all = Instructions::of(&dockerfile::parse(text).unwrap());
        assert_eq!(all.announced("Unpacking rootfs"), None);
        assert_eq!(all.announced("RUN x y").unwrap(), "[2/5] RUN x y");
        assert_eq!(all.announced("RUN x  y").unwrap(), "[5/5] RUN x y");
        assert_eq!(all.announced("RUN x y").unwrap(), "[2/5] RUN x y");
        assert_eq!(all.announced("RUN x"), None);
    }
}
