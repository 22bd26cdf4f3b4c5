//! One line of the executor's log to its level and message, whichever of Kaniko's formats it is in
//! (`--log-format color`, `text` or `json`, with and without `--log-timestamp`; logrus'
//! `TextFormatter` and `JSONFormatter`, chosen in Kaniko's `pkg/logging/logging.go`).

use std::borrow::Cow;

use crate::capture::LogLine;

/// What the recorder writes in place of a secret: it stands for any text.
const HIDDEN: &str = "***";
/// The shortest text that [`HIDDEN`] stands for.
const SHORTEST: usize = 3;

/// How grave a line is, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Where every phase is announced.
    Info,
    /// What went otherwise than asked.
    Warning,
    /// Anything else: errors, and what `-v debug` and `-v trace` add.
    Other,
}

impl Level {
    fn of(name: &str) -> Self {
        match name {
            "info" | "INFO" => Self::Info,
            "warning" | "WARN" => Self::Warning,
            _ => Self::Other,
        }
    }
}

/// A line without its format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its level.
    pub level: Level,
    /// Its text, without white space at its end; can hold line breaks.
    pub text: Cow<'a, str>,
    /// The text goes on beyond what was kept.
    pub cut: bool,
}

/// Reads a line; `None` where it is not one of the log, such as the error that Kaniko prints last.
pub fn parse(line: &LogLine) -> Option<Message<'_>> {
    let text = line.text.as_str();
    let (level, message) = color(text).or_else(|| json(text)).or_else(|| plain(text))?;
    let message = match message {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim_end()),
        Cow::Owned(text) => Cow::Owned(text.trim_end().to_owned()),
    };
    Some(Message {
        level,
        text: message,
        cut: line.cut,
    })
}

/// `ESC[36mINFO ESC[0m[0003] message`, the number of seconds or a time in the brackets.
fn color(text: &str) -> Option<(Level, Cow<'_, str>)> {
    let rest = text.strip_prefix("\u{1b}[")?;
    let (_, rest) = rest.split_once('m')?;
    let (level, rest) = rest.split_once("\u{1b}[0m[")?;
    let (_, message) = rest.split_once(']')?;
    let known = level.len() == 4 && level.bytes().all(|b| b.is_ascii_uppercase());
    known.then(|| (Level::of(level), Cow::Borrowed(message.trim_start())))
}

/// `{"level":"info","msg":"message","time":"…"}`, the end of which can have been cut off.
fn json(text: &str) -> Option<(Level, Cow<'_, str>)> {
    let rest = text.strip_prefix("{\"level\":\"")?;
    let (level, rest) = rest.split_once('"')?;
    let rest = rest.strip_prefix(",\"msg\":\"")?;
    Some((Level::of(level), unquoted(rest)))
}

/// `time="…" level=info msg="message"`, or `msg=message` where nothing in it needs quotes.
fn plain(text: &str) -> Option<(Level, Cow<'_, str>)> {
    let rest = text.strip_prefix("time=\"")?;
    let (_, rest) = rest.split_once("\" level=")?;
    let (level, rest) = rest.split_once(' ')?;
    let rest = rest.strip_prefix("msg=")?;
    let message = match rest.strip_prefix('"') {
        Some(quoted) => unquoted(quoted),
        None => Cow::Borrowed(rest.split(' ').next().unwrap_or(rest)),
    };
    Some((Level::of(level), message))
}

/// The text up to the closing quote, with its escapes resolved: those of JSON and of Go's `%q`.
fn unquoted(text: &str) -> Cow<'_, str> {
    let end = text.find(['"', '\\']).unwrap_or(text.len());
    if !text[end..].starts_with('\\') {
        return Cow::Borrowed(&text[..end]);
    }
    let mut out = text[..end].to_owned();
    let mut rest = text[end..].chars();
    while let Some(c) = rest.next() {
        match c {
            '"' => break,
            '\\' => match rest.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some('a') => out.push('\u{7}'),
                Some('b') => out.push('\u{8}'),
                Some('f') => out.push('\u{c}'),
                Some('v') => out.push('\u{b}'),
                Some(width @ ('x' | 'u' | 'U')) => {
                    let digits = match width {
                        'x' => 2,
                        'u' => 4,
                        _ => 8,
                    };
                    let number = rest.by_ref().take(digits).collect::<String>();
                    let code = u32::from_str_radix(&number, 16).ok();
                    out.push(code.and_then(char::from_u32).unwrap_or('\u{fffd}'));
                }
                Some(other) => out.push(other),
                // Cut within the escape.
                None => break,
            },
            other => out.push(other),
        }
    }
    Cow::Owned(out)
}

impl Message<'_> {
    /// The message may be `expected`: it is, as far as it was kept and not hidden.
    pub fn is(&self, expected: &str) -> bool {
        let logged = self.text.as_ref();
        let expected = expected.trim_end();
        if !logged.contains(HIDDEN) {
            return if self.cut {
                // The end can be a part of an escape that was resolved to nothing.
                !logged.is_empty() && expected.starts_with(logged.trim_end_matches('\u{fffd}'))
            } else {
                logged == expected
            };
        }
        let mut pieces = logged.split(HIDDEN);
        let first = pieces.next().unwrap_or_default();
        let Some(mut rest) = expected.strip_prefix(first) else {
            return false;
        };
        let mut pieces = pieces.peekable();
        while let Some(piece) = pieces.next() {
            let Some(after) = skip(rest, SHORTEST) else {
                return false;
            };
            let last = pieces.peek().is_none();
            let found = if last && !self.cut {
                after.ends_with(piece).then_some(after.len() - piece.len())
            } else {
                after.find(piece)
            };
            match found {
                Some(at) => rest = &after[at + piece.len()..],
                None => return false,
            }
        }
        true
    }

    /// What follows `start`, where the message begins with it.
    pub fn after(&self, start: &str) -> Option<&str> {
        let text = self.text.as_ref();
        text.strip_prefix(start).or_else(|| {
            let hidden = text.contains(HIDDEN);
            hidden.then(|| after_hidden(text, start)).flatten()
        })
    }
}

/// [`Message::after`] for a text in which something is hidden.
fn after_hidden<'t>(text: &'t str, start: &str) -> Option<&'t str> {
    let common = text
        .bytes()
        .zip(start.bytes())
        .take_while(|(a, b)| a == b)
        .count();
    if common == start.len() {
        return text.get(common..);
    }
    // The first place where they differ must be hidden; it stands for one of the texts that follow.
    let text = text.get(common..)?.strip_prefix(HIDDEN)?;
    let start = start.get(common..)?;
    (SHORTEST..start.len())
        .filter_map(|length| start.get(length..))
        .find_map(|rest| after_hidden(text, rest))
}

fn skip(text: &str, least: usize) -> Option<&str> {
    let mut at = least;
    while at < text.len() && !text.is_char_boundary(at) {
        at += 1;
    }
    text.get(at..)
}

/// The text with one blank wherever it has white space or control characters: a log pads lines.
pub fn collapsed(text: &str) -> Cow<'_, str> {
    let blank = |c: char| c.is_whitespace() || c.is_control();
    let plain = |text: &str| {
        let mut before = true;
        text.chars().all(|c| {
            let now = blank(c);
            let fine = !now || (c == ' ' && !before);
            before = now;
            fine
        }) && !text.ends_with(' ')
    };
    if plain(text) {
        return Cow::Borrowed(text);
    }
    let words: Vec<&str> = text.split(blank).filter(|word| !word.is_empty()).collect();
    Cow::Owned(words.join(" "))
}

/// The text without escape sequences for terminals.
pub fn without_ansi(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '\u{1b}' {
            out.push(c);
        } else if rest.peek() == Some(&'[') {
            rest.next();
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(text: &str) -> LogLine {
        LogLine {
            text: text.to_owned(),
            ..LogLine::default()
        }
    }

    fn text_of(text: &str) -> Option<(Level, String)> {
        let line = line(text);
        parse(&line).map(|m| (m.level, m.text.into_owned()))
    }

    #[test]
    fn every_format_gives_the_same() {
        let expected = Some((Level::Info, "RUN echo \"a\" > /b".to_owned()));
        for text in [
            "\u{1b}[36mINFO\u{1b}[0m[0000] RUN echo \"a\" > /b                       ",
            "\u{1b}[36mINFO\u{1b}[0m[2026-11-25T03:17:53Z] RUN echo \"a\" > /b ",
            r#"time="2026-11-25T03:17:51Z" level=info msg="RUN echo \"a\" > /b""#,
            r#"{"level":"info","msg":"RUN echo \"a\" \u003e /b","time":"2026-11-25T03:17:52Z"}"#,
        ] {
            assert_eq!(text_of(text), expected, "{text}");
        }
        assert_eq!(
            text_of(r#"time="2026-11-25T03:17:51Z" level=warning msg=word"#),
            Some((Level::Warning, "word".to_owned()))
        );
        assert_eq!(
            text_of(r#"time="t" level=info msg="a\nb\\\x1bc\u00e9""#),
            Some((Level::Info, "a\nb\\\u{1b}c\u{e9}".to_owned()))
        );
        for other in [
            "error building image: x",
            "",
            "INFO[0001] RUN x",
            "{\"a\":1}",
        ] {
            assert_eq!(text_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_cut_or_masked_line_is_still_known() {
        let message = |text: &str, cut| Message {
            level: Level::Info,
            text: Cow::Owned(text.to_owned()),
            cut,
        };
        assert!(message("RUN a", false).is("RUN a "));
        assert!(!message("RUN a", false).is("RUN ab"));
        assert!(message("RUN a", true).is("RUN ab"));
        assert!(!message("RUN b", true).is("RUN ab"));
        assert!(message("RUN curl -H ***", false).is("RUN curl -H secret"));
        assert!(message("RUN *** b *** c", false).is("RUN curl b more c"));
        assert!(!message("RUN *** b *** c", false).is("RUN curl b more d"));
        assert!(
            !message("RUN ***", false).is("RUN ab"),
            "too short to be hidden"
        );
        assert!(message("RUN *** b", true).is("RUN curl b more d"));
        let hidden = message("Taking *** of *** system...", false);
        assert_eq!(
            hidden.after("Taking snapshot of full file s"),
            Some("ystem...")
        );
        assert_eq!(hidden.after("Taking snapshot of full filex"), None);
        assert_eq!(message("***", false).after("Taking snapshot"), None);
        assert_eq!(message("Cmd: x", false).after("Cmd: "), Some("x"));
        assert_eq!(message("Taking *** of", false).after("Saving"), None);
    }

    #[test]
    fn blanks_are_one() {
        for (text, expected) in [
            ("RUN a b", "RUN a b"),
            (" a\t\tb\n", "a b"),
            ("a  b", "a b"),
            ("", ""),
        ] {
            assert_eq!(collapsed(text), expected);
        }
    }

    #[test]
    fn escapes_for_terminals_are_taken_out() {
        assert_eq!(
            without_ansi("\u{1b}[36mINFO\u{1b}[0m[0] x\u{1b}"),
            "INFO[0] x"
        );
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in any::<String>(), expected in any::<String>(), cut: bool) {
            let mut line = line(&text);
            line.cut = cut;
            for start in ["", "{\"level\":\"info\",\"msg\":\"", "time=\"\" level=info msg=\"",
                "\u{1b}[36mINFO\u{1b}[0m[0] "] {
                line.text = format!("{start}{text}");
                if let Some(message) = parse(&line) {
                    message.is(&expected);
                    message.after(&expected);
                }
            }
            let stripped = without_ansi(&text);
            prop_assert!(!stripped.contains(char::from(0x1b)));
        }

        #[test]
        fn hiding_keeps_the_line_known(
            parts in proptest::collection::vec("[a-c ]{0,5}", 1..5),
            secret in "[a-c]{3,6}",
        ) {
            let expected = format!("RUN {}!", parts.join(&secret));
            let logged = expected.replace(&secret, HIDDEN);
            let line = line(&format!("time=\"\" level=info msg=\"{logged}\""));
            let message = parse(&line).unwrap();
            prop_assert!(message.is(&expected), "{logged} {expected}");
        }
    }
}
