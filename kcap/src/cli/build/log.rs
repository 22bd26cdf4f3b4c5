//! What the executor's log says for people: the message of a line, and the instruction that it
//! announces. For showing progress only; what a report rests on is read elsewhere.

use crate::{
    capture::LogLine,
    interpret::{dockerfile::Dockerfile, steps::line},
};

/// The message of a log line, or the line where it is in none of the log's formats.
pub fn message(line: &str) -> String {
    let line = LogLine {
        text: line.to_owned(),
        ..LogLine::default()
    };
    match line::parse(&line) {
        Some(message) => message.text.into_owned(),
        None => line::without_ansi(line.text.trim()),
    }
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
    fn lines_of_the_log_and_others() {
        let line = "\u{1b}[36mINFO\u{1b}[0m[0003] RUN echo \"x\"   ";
        assert_eq!(message(line), "RUN echo \"x\"");
        let error = "\u{1b}[1merror\u{1b}[0m building image: x\n";
        assert_eq!(message(error), "error building image: x");
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
