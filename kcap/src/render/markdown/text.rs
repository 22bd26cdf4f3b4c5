//! Untrusted text in Markdown. What is not plainly words becomes code, in which no parser looks for
//! links, mentions, emphasis or elements, and no forge for issues, commits or emoji.

use crate::render::escape::{head, tail};

/// What may stand before a word, and after it, outside code.
const BEFORE: [char; 3] = ['(', '"', '\''];
// Not `!`: before a bracket it makes an image, and some parsers look no further than that.
const AFTER: [char; 9] = [')', '"', '\'', ',', ';', ':', '.', '…', '?'];
/// Hexadecimal digits from which on forges take a word for a commit.
const COMMIT: usize = 7;

/// As code, in at most `most` columns; of what is longer the start. On one line, never empty.
pub fn code(text: &str, most: usize) -> String {
    span(&head(text, most))
}

/// As code, in at most `most` columns; of what is longer the end. For paths.
pub fn code_tail(text: &str, most: usize) -> String {
    span(&tail(text, most))
}

/// A code span of text that is safe to show.
fn span(text: &str) -> String {
    if text.is_empty() {
        return "—".to_owned();
    }
    // It ends at the next run of as many backticks as it began with: one of a length that is not in it.
    let runs: Vec<usize> = (text.split(|c| c != '`'))
        .map(str::len)
        .filter(|run| *run > 0)
        .collect();
    let ticks = "`".repeat((1..).find(|n| !runs.contains(n)).unwrap_or(1));
    let edge = |c: Option<char>| matches!(c, Some('`' | ' '));
    // One space goes from both ends, unless there is nothing else.
    let blank = text.chars().all(|c| c == ' ');
    let pad = if !blank && (edge(text.chars().next()) || edge(text.chars().next_back())) {
        " "
    } else {
        ""
    };
    format!("{ticks}{pad}{text}{pad}{ticks}")
}

/// A sentence: its words as they are where they can mean nothing else, all others as code. In at most
/// `most` columns without the marks, on one line.
pub fn prose(text: &str, most: usize) -> String {
    let shown = head(text, most);
    let mut out = String::new();
    // Words of code that follow each other are one span.
    let mut held = String::new();
    for word in shown.split(' ').filter(|word| !word.is_empty()) {
        let rest = word.trim_start_matches(BEFORE);
        let (before, _) = word.split_at(word.len() - rest.len());
        let core = rest.trim_end_matches(AFTER);
        let (_, after) = rest.split_at(core.len());
        let first = out.is_empty() && held.is_empty();
        let mark = matches!(word, "+" | "…" | "—" | "–");
        if is_plain(core) && !(first && starts_list(core, after)) || mark && !first {
            close(&mut out, &mut held);
            push(&mut out, word);
            continue;
        }
        // What is punctuation alone, as `...` or `"`.
        let (before, core, after) = if core.is_empty() {
            ("", word, "")
        } else {
            (before, core, after)
        };
        if !before.is_empty() {
            close(&mut out, &mut held);
            push(&mut out, before);
            // The span follows without a space.
            held.push('\u{0}');
        } else if !held.is_empty() {
            held.push(' ');
        }
        held.push_str(core);
        if !after.is_empty() {
            close(&mut out, &mut held);
            out.push_str(after);
        }
    }
    close(&mut out, &mut held);
    if out.is_empty() {
        "—".to_owned()
    } else {
        out
    }
}

fn push(out: &mut String, word: &str) {
    if !out.is_empty() {
        out.push(' ');
    }
    out.push_str(word);
}

/// Ends the span that is held, if any. Shown text has no NUL: it stands for no space before.
fn close(out: &mut String, held: &mut String) {
    let text = std::mem::take(held);
    match text.strip_prefix('\u{0}') {
        Some(text) => out.push_str(&span(text)),
        None if text.is_empty() => {}
        None => push(out, &span(&text)),
    }
}

/// A word that neither Markdown nor a forge takes for anything else.
fn is_plain(word: &str) -> bool {
    let chars: Vec<char> = word.chars().collect();
    let alphanumeric = |c: Option<&char>| c.is_some_and(|c| c.is_alphanumeric());
    if !alphanumeric(chars.first()) || !alphanumeric(chars.last()) {
        return false;
    }
    let inside = chars.windows(3).all(|around| match around {
        [a, c, b] => match c {
            '-' | '\'' | '’' => a.is_alphanumeric() && b.is_alphanumeric(),
            '_' => a.is_ascii_alphanumeric() && b.is_ascii_alphanumeric(),
            '.' => a.is_ascii_digit() && b.is_ascii_digit(),
            c => c.is_alphanumeric(),
        },
        _ => true,
    });
    // `GH-7` and what else trackers call their issues.
    let issue = (word.rsplit_once('-'))
        .is_some_and(|(_, number)| number.bytes().all(|b| b.is_ascii_digit()));
    let commit = word.len() >= COMMIT && word.bytes().all(|b| b.is_ascii_hexdigit());
    inside && !issue && !commit
}

/// At the start of a line it would begin a list: `1.` or `1)`.
fn starts_list(word: &str, after: &str) -> bool {
    word.bytes().all(|b| b.is_ascii_digit()) && after.starts_with(['.', ')'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_ends_where_it_should() {
        assert_eq!(code("RUN a | b", 40), "`RUN a | b`");
        assert_eq!(code("RUN echo `id`", 40), "`` RUN echo `id` ``");
        assert_eq!(code("a``b`c", 40), "```a``b`c```");
        assert_eq!(code("", 40), "—");
        assert_eq!(code("a\nb\u{202e}", 40), "`a\\nb\\u{202e}`");
        assert_eq!(code_tail("/usr/bin/chown", 8), "`…n/chown`");
    }

    #[test]
    fn words_stay_and_all_else_is_code() {
        for (text, shown) in [
            (
                "run line 12 before USER, if root may run it",
                "run line 12 before USER, if root may run it",
            ),
            (
                "apt-get -o APT::Sandbox::User=root in line 2",
                "apt-get `-o APT::Sandbox::User=root` in line 2",
            ),
            (
                "CHOWN + NET_BIND_SERVICE (unsure)",
                "CHOWN + NET_BIND_SERVICE (unsure)",
            ),
            ("ask (/usr/bin/x, /bin/y)", "ask (`/usr/bin/x`, `/bin/y`)"),
            ("see @team #12, GH-3.", "see `@team #12`, `GH-3`."),
            ("www.a.org, deadbeef", "`www.a.org`, `deadbeef`"),
            ("1. a", "`1`. a"),
            ("- a", "`-` a"),
            ("1.28.3 it's", "1.28.3 it's"),
            ("*a* _b_ <b> [c](d)", "`*a* _b_ <b> [c](d`)"),
            ("", "—"),
        ] {
            assert_eq!(prose(text, 200), shown);
        }
    }
}
