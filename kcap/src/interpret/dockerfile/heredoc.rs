//! Finds the heredocs that an instruction announces.
//!
//! BuildKit splits the instruction into words as a shell does, with its own small lexer, and takes
//! words that are `<<NAME` and nothing else. The lexer is followed here to the letter: what it takes
//! for a heredoc decides which lines are instructions. Its escape character is always `\`, and
//! variables keep their text, for none is set.

use std::{iter::Peekable, str::Chars};

/// Most substitutions within each other.
const DEEPEST: usize = 100;

/// A heredoc as announced.
#[derive(Debug, PartialEq, Eq)]
pub struct Announced {
    /// The word that announces it.
    pub word: String,
    /// The word that ends it.
    pub name: String,
    /// Variables are expanded in it.
    pub expand: bool,
    /// Tabs at the start of a line do not count.
    pub chomp: bool,
}

/// Why a text has no words.
#[derive(Debug, PartialEq, Eq)]
pub enum Error {
    /// A quote or substitution does not end, or is none that BuildKit knows.
    Syntax,
    /// More than [`DEEPEST`] substitutions within each other.
    Deep,
}

impl Error {
    /// What is wrong, and what to do.
    pub fn message(&self) -> String {
        match self {
            Self::Syntax => {
                "the heredoc's name has a bad quote or substitution: use a plain word".to_owned()
            }
            Self::Deep => {
                format!("more than {DEEPEST} substitutions within each other: use fewer")
            }
        }
    }
}

/// The heredocs that a line announces, in order.
///
/// # Errors
/// Where a heredoc's name cannot be read. A line that as a whole is not well-formed has no heredocs.
pub fn announced(line: &str) -> Result<Vec<Announced>, Error> {
    if !line.contains("<<") {
        return Ok(Vec::new());
    }
    let words = match Lexer::of(line, true).words(true) {
        Err(Error::Syntax) => return Ok(Vec::new()),
        words => words?,
    };
    let heredocs = words.into_iter().filter_map(|w| heredoc(w).transpose());
    heredocs.collect()
}

/// The heredoc that a word announces, if it does.
fn heredoc(word: String) -> Result<Option<Announced>, Error> {
    let digits = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let Some(rest) = digits.strip_prefix("<<") else {
        return Ok(None);
    };
    let chomp = rest.starts_with('-');
    let rest = rest.strip_prefix('-').unwrap_or(rest);
    let rest = rest.trim_start_matches(['\t', '\n', '\x0c', '\r', ' ']);
    if rest.is_empty() || rest.contains('<') {
        return Ok(None);
    }
    // Without quotes and with them: where both have as many, no part of the word was quoted.
    let mut plain = Lexer::of(rest, false).words(false)?;
    if plain.len() != 1 {
        return Ok(None);
    }
    let raw = Lexer::of(rest, true).words(false)?;
    let [raw] = &raw[..] else {
        return Err(Error::Syntax);
    };
    let name = plain.remove(0);
    let quotes = |word: &str| word.matches(['\'', '"']).count();
    Ok(Some(Announced {
        expand: quotes(&name) == quotes(raw),
        chomp,
        name,
        word,
    }))
}

/// Splits a text into words.
struct Lexer<'a> {
    rest: Peekable<Chars<'a>>,
    /// The word being read. One for all levels, as in BuildKit, where a substitution within a word
    /// therefore drops what is before it.
    word: String,
    /// Quotes stay.
    raw_quotes: bool,
    /// Escape characters stay.
    raw_escapes: bool,
    /// Levels.
    depth: usize,
}

/// Words of one level.
#[derive(Default)]
struct Words {
    words: Vec<String>,
    inside: bool,
}

impl<'a> Lexer<'a> {
    fn of(text: &'a str, raw_quotes: bool) -> Self {
        Self {
            rest: text
                .strip_prefix('\u{feff}')
                .unwrap_or(text)
                .chars()
                .peekable(),
            word: String::new(),
            raw_quotes,
            raw_escapes: false,
            depth: 0,
        }
    }

    /// All words.
    fn words(mut self, raw_escapes: bool) -> Result<Vec<String>, Error> {
        Ok(self.until(None, raw_escapes)?.1)
    }

    /// Text and words up to a character, or to the end.
    fn until(
        &mut self,
        stop: Option<char>,
        raw_escapes: bool,
    ) -> Result<(String, Vec<String>), Error> {
        if self.depth > DEEPEST {
            return Err(Error::Deep);
        }
        self.depth += 1;
        let outer = std::mem::replace(&mut self.raw_escapes, raw_escapes);
        let result = self.level(stop);
        self.raw_escapes = outer;
        self.depth -= 1;
        result
    }

    fn level(&mut self, stop: Option<char>) -> Result<(String, Vec<String>), Error> {
        let mut text = String::new();
        let mut words = Words::default();
        self.word.clear();
        while let Some(&c) = self.rest.peek() {
            if Some(c) == stop {
                self.rest.next();
                return Ok((text, words.end(&mut self.word)));
            }
            match c {
                '$' => {
                    let part = self.dollar()?;
                    part.chars().for_each(|c| words.add(&mut self.word, c));
                    text.push_str(&part);
                }
                '<' | '\'' | '"' => {
                    let part = match c {
                        '<' => self.less(),
                        '\'' => self.single()?,
                        _ => self.double()?,
                    };
                    self.word.push_str(&part);
                    words.inside = true;
                    text.push_str(&part);
                }
                '\\' => {
                    self.rest.next();
                    if self.raw_escapes {
                        words.add_escaped(&mut self.word, c);
                        text.push(c);
                    }
                    let Some(c) = self.rest.next() else { break };
                    words.add_escaped(&mut self.word, c);
                    text.push(c);
                }
                _ => {
                    self.rest.next();
                    words.add(&mut self.word, c);
                    text.push(c);
                }
            }
        }
        match stop {
            Some(_) => Err(Error::Syntax),
            None => Ok((text, words.end(&mut self.word))),
        }
    }

    /// `<`, or `<<` with the blanks after it.
    fn less(&mut self) -> String {
        let mut text = String::from("<");
        self.rest.next();
        if self.rest.next_if_eq(&'<').is_some() {
            text.push('<');
            while let Some(c) = self.rest.next_if(|c| matches!(c, '\t' | '\r' | ' ')) {
                text.push(c);
            }
        }
        text
    }

    /// Within single quotes.
    fn single(&mut self) -> Result<String, Error> {
        let mut text = String::new();
        let quote = self.rest.next();
        text.extend(quote.filter(|_| self.raw_quotes));
        loop {
            match self.rest.next() {
                None => return Err(Error::Syntax),
                Some('\'') => break,
                Some(c) => text.push(c),
            }
        }
        text.extend(quote.filter(|_| self.raw_quotes));
        Ok(text)
    }

    /// Within double quotes.
    fn double(&mut self) -> Result<String, Error> {
        let mut text = String::new();
        let quote = self.rest.next();
        text.extend(quote.filter(|_| self.raw_quotes));
        loop {
            match self.rest.peek() {
                None => return Err(Error::Syntax),
                Some('"') => break,
                Some('$') => text.push_str(&self.dollar()?),
                Some('\\') => {
                    self.rest.next();
                    if self.raw_escapes {
                        text.push('\\');
                    }
                    match self.rest.next_if(|c| matches!(c, '"' | '$' | '\\')) {
                        Some(c) => text.push(c),
                        None if self.rest.peek().is_none() => {}
                        None => text.push('\\'),
                    }
                }
                Some(_) => text.extend(self.rest.next()),
            }
        }
        self.rest.next();
        text.extend(quote.filter(|_| self.raw_quotes));
        Ok(text)
    }

    /// A variable or substitution, which stays as it is.
    fn dollar(&mut self) -> Result<String, Error> {
        self.rest.next();
        if self.rest.next_if_eq(&'{').is_none() {
            return Ok(format!("${}", self.name()));
        }
        if matches!(self.rest.peek(), None | Some('{' | '}' | ':')) {
            return Err(Error::Syntax);
        }
        let name = self.name();
        let mut operator = String::new();
        match self.rest.next() {
            Some('}') => return Ok(format!("${{{name}}}")),
            Some('/') => {
                // All matches, or the first one.
                self.rest.next_if_eq(&'/');
                let pattern = self.until(Some('/'), true)?.0;
                let replacement = self.until(Some('}'), true)?.0;
                return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
            }
            Some(':') => {
                operator.push(':');
                operator.extend(self.rest.next());
            }
            Some(c @ ('+' | '-' | '?' | '#' | '%')) => operator.push(c),
            _ => return Err(Error::Syntax),
        }
        let raw = operator.ends_with(['#', '%']);
        if raw && operator.starts_with(':') {
            return Err(Error::Syntax);
        }
        let word = self.until(Some('}'), raw)?.0;
        Ok(format!("${{{name}{operator}{word}}}"))
    }

    /// A variable's name; empty where there is none.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.rest.peek() {
            Some(c) if c.is_numeric() => {
                while let Some(c) = self.rest.next_if(|c| c.is_numeric()) {
                    name.push(c);
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => name.extend(self.rest.next()),
            _ => {
                while let Some(c) = self.rest.next_if(|&c| c.is_alphanumeric() || c == '_') {
                    name.push(c);
                }
            }
        }
        name
    }
}

impl Words {
    /// Adds a character; white space ends a word.
    fn add(&mut self, word: &mut String, c: char) {
        if !c.is_whitespace() {
            self.add_escaped(word, c);
        } else if self.inside && !word.is_empty() {
            self.words.push(std::mem::take(word));
            self.inside = false;
        }
    }

    /// Adds a character, whatever it is.
    fn add_escaped(&mut self, word: &mut String, c: char) {
        word.push(c);
        self.inside = true;
    }

    /// All words.
    fn end(mut self, word: &mut String) -> Vec<String> {
        if !word.is_empty() {
            self.words.push(std::mem::take(word));
        }
        self.words
    }
}
