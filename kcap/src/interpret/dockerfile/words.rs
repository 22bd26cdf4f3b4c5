//! Splits an instruction in one line into keyword, flags and arguments.
//!
//! On bytes, as BuildKit does it: what is no UTF-8 becomes U+FFFD only in what is kept.

use serde::{Deserialize, Deserializer, de};

use super::Flag;
use crate::render::escape;

/// Bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Bytes of the file within an error message: bounded, and safe to show.
pub fn shown(bytes: &[u8]) -> String {
    // No character has more than four bytes.
    let bytes = &bytes[..bytes.len().min(4 * 64)];
    format!("\"{}\"", escape::head(&text(bytes), 40))
}

/// How many characters.
pub fn characters(bytes: &[u8]) -> u32 {
    u32::try_from(String::from_utf8_lossy(bytes).chars().count()).unwrap_or(u32::MAX)
}

/// The first character and its length in bytes; U+FFFD of length 1 for what is none.
fn first(bytes: &[u8]) -> Option<(char, usize)> {
    let head = &bytes[..bytes.len().min(4)];
    let valid = match str::from_utf8(head) {
        Ok(head) => head,
        Err(error) => str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default(),
    };
    match valid.chars().next() {
        Some(c) => Some((c, c.len_utf8())),
        None => (!head.is_empty()).then_some((char::REPLACEMENT_CHARACTER, 1)),
    }
}

/// Without white space at the start.
pub fn trim_start(mut bytes: &[u8]) -> &[u8] {
    while let Some((c, length)) = first(bytes)
        && c.is_whitespace()
    {
        bytes = &bytes[length..];
    }
    bytes
}

/// Without white space at the end.
fn trim_end(mut bytes: &[u8]) -> &[u8] {
    // No white space has more than three bytes.
    while let Some(length) = (1..=3.min(bytes.len())).find(|length| {
        let tail = str::from_utf8(&bytes[bytes.len() - length..]);
        tail.is_ok_and(|tail| tail.chars().all(char::is_whitespace))
    }) {
        bytes = &bytes[..bytes.len() - length];
    }
    bytes
}

/// Without white space around it.
pub fn trim(bytes: &[u8]) -> &[u8] {
    trim_end(trim_start(bytes))
}

/// White space that separates words.
fn separates(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\x0b' | b'\x0c' | b'\r' | b' ')
}

/// White space where BuildKit takes each byte for a character: U+0085 and U+00A0 are white space,
/// and so are these bytes, even within another character.
fn byte_separates(byte: u8) -> bool {
    char::from(byte).is_whitespace()
}

/// Splits at the first white space: what is before it, and what is after it, if there is any.
pub fn split_once(line: &[u8]) -> (&[u8], Option<&[u8]>) {
    let Some(start) = line.iter().position(|&b| separates(b)) else {
        return (line, None);
    };
    let end = (line[start..].iter()).position(|&b| !separates(b));
    (
        &line[..start],
        Some(&line[end.map_or(line.len(), |n| start + n)..]),
    )
}

/// Splits at white space.
pub fn split(line: &[u8]) -> Vec<&[u8]> {
    let mut words = Vec::new();
    let mut rest = Some(line).filter(|line| !line.is_empty());
    while let Some(line) = rest {
        let word;
        (word, rest) = split_once(line);
        words.push(word);
    }
    words
}

/// An instruction's parts, all within its line.
pub struct Parts<'a> {
    /// As written.
    pub keyword: &'a [u8],
    /// Flags.
    pub flags: Vec<Flag>,
    /// What follows the flags, without white space around it.
    pub args: &'a [u8],
}

/// Splits an instruction.
pub fn parts(line: &[u8], escape: u8) -> Parts<'_> {
    let (keyword, rest) = split_once(trim(line));
    let (flags, args) = flags(rest.unwrap_or_default(), escape);
    Parts {
        keyword,
        flags,
        args: trim(args),
    }
}

/// Takes the words off the start that begin with `--`, up to one that is just that.
fn flags(line: &[u8], escape: u8) -> (Vec<Flag>, &[u8]) {
    let mut flags = Vec::new();
    let mut at = 0;
    loop {
        at += line[at..]
            .iter()
            .take_while(|&&b| byte_separates(b))
            .count();
        if !line[at..].starts_with(b"--") {
            return (flags, &line[at..]);
        }
        let mut word = String::new();
        let mut quote = None;
        while let Some(&byte) = line.get(at) {
            if quote.is_none() && byte_separates(byte) {
                break;
            }
            at += 1;
            if quote == Some(byte) {
                quote = None;
            } else if quote.is_none() && matches!(byte, b'\'' | b'"') {
                quote = Some(byte);
            } else if byte != escape {
                word.push(char::from(byte));
            } else if let Some(&escaped) = line.get(at) {
                word.push(char::from(escaped));
                at += 1;
            }
        }
        if word == "--" {
            return (flags, &line[at..]);
        }
        let word = word.strip_prefix("--").unwrap_or(&word);
        flags.push(match word.split_once('=') {
            Some((name, value)) => Flag {
                name: name.to_owned(),
                value: Some(value.to_owned()),
            },
            None => Flag {
                name: word.to_owned(),
                value: None,
            },
        });
    }
}

/// Splits at white space that is neither quoted nor escaped. Quotes and escapes stay.
pub fn quoted(line: &[u8], escape: u8) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote = None;
    let mut rest = line;
    while let Some((c, length)) = first(rest) {
        if word.is_none() && c.is_whitespace() {
            rest = &rest[length..];
            continue;
        }
        let current = word.get_or_insert_default();
        if quote.is_none() && c.is_whitespace() {
            words.extend(word.take().filter(|word| !word.is_empty()));
            rest = &rest[length..];
            continue;
        }
        let (one, after) = rest.split_at(length);
        rest = after;
        if one == [escape] && quote != Some('\'') {
            // An escape at the end is left out.
            let Some((_, length)) = first(rest) else {
                break;
            };
            current.push(escape);
            let (escaped, after) = rest.split_at(length);
            current.extend_from_slice(escaped);
            rest = after;
            continue;
        }
        if quote == Some(c) {
            quote = None;
        } else if quote.is_none() && matches!(c, '\'' | '"') {
            quote = Some(c);
        }
        current.extend_from_slice(one);
    }
    words.extend(word.filter(|word| !word.is_empty()));
    words
}

/// Splits `HEALTHCHECK`'s arguments: its type, and the rest.
pub fn health(args: &[u8]) -> (&[u8], &[u8]) {
    let end = args.iter().position(|&b| byte_separates(b));
    let (kind, rest) = args.split_at(end.unwrap_or(args.len()));
    let blanks = rest.iter().take_while(|&&b| byte_separates(b)).count();
    (kind, &rest[blanks..])
}

/// What a text is, read as an array in JSON.
pub enum Json {
    /// No array in JSON.
    No,
    /// An array of other things than strings.
    Mixed,
    /// An array of strings.
    Strings(Vec<String>),
}

/// Reads an array in JSON.
pub fn json(args: &[u8]) -> Json {
    /// A string; unpaired surrogates are taken, as by Go.
    struct Item(String);

    impl<'de> Deserialize<'de> for Item {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl de::Visitor<'_> for Visitor {
                type Value = Item;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("a string")
                }
                fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Item, E> {
                    Ok(Item(text(bytes)))
                }
            }
            from.deserialize_bytes(Visitor)
        }
    }

    let args = trim_start(args);
    if !args.starts_with(b"[") || serde_json::from_slice::<Vec<de::IgnoredAny>>(args).is_err() {
        return Json::No;
    }
    match serde_json::from_slice::<Vec<Item>>(args) {
        Ok(items) => Json::Strings(items.into_iter().map(|item| item.0).collect()),
        Err(_) => Json::Mixed,
    }
}
