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
    let words = match Lexer::of(line, true, true).words() {
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
    let mut plain = Lexer::of(rest, false, false).words()?;
    if plain.len() != 1 {
        return Ok(None);
    }
    let raw = Lexer::of(rest, true, false).words()?;
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
    /// What was read since it was last cleared.
    text: String,
    /// The word being read. Every substitution with an operator clears it, as in BuildKit: what is
    /// before one within a word is lost.
    word: String,
    /// Quotes stay.
    raw_quotes: bool,
    /// Escape characters stay.
    raw_escapes: bool,
    /// Substitutions within each other.
    depth: usize,
}

impl<'a> Lexer<'a> {
    fn of(text: &'a str, raw_quotes: bool, raw_escapes: bool) -> Self {
        Self {
            rest: text
                .strip_prefix('\u{feff}')
                .unwrap_or(text)
                .chars()
                .peekable(),
            text: String::new(),
            word: String::new(),
            raw_quotes,
            raw_escapes,
            depth: 0,
        }
    }

    /// All words.
    fn words(mut self) -> Result<Vec<String>, Error> {
        let mut words = Vec::new();
        while let Some(&c) = self.rest.peek() {
            self.text.clear();
            self.unit(c)?;
            if matches!(c, '\\' | '<' | '\'' | '"') {
                self.word.push_str(&self.text);
                continue;
            }
            // Of a substitution too, white space separates words.
            for c in self.text.chars() {
                if !c.is_whitespace() {
                    self.word.push(c);
                } else if !self.word.is_empty() {
                    words.push(std::mem::take(&mut self.word));
                }
            }
        }
        if !self.word.is_empty() {
            words.push(self.word);
        }
        Ok(words)
    }

    /// Reads what begins with this next character.
    fn unit(&mut self, c: char) -> Result<(), Error> {
        match c {
            '$' => self.dollar()?,
            '<' => self.less(),
            '\'' => self.single()?,
            '"' => self.double()?,
            '\\' => {
                self.rest.next();
                self.text.extend(self.raw_escapes.then_some(c));
                self.text.extend(self.rest.next());
            }
            _ => self.text.extend(self.rest.next()),
        }
        Ok(())
    }

    /// Reads a part of a substitution, up to a character, which is left out.
    fn until(&mut self, stop: char, raw_escapes: bool) -> Result<(), Error> {
        if self.depth == DEEPEST {
            return Err(Error::Deep);
        }
        self.depth += 1;
        self.word.clear();
        let outer = std::mem::replace(&mut self.raw_escapes, raw_escapes);
        loop {
            let c = *self.rest.peek().ok_or(Error::Syntax)?;
            if c == stop {
                break;
            }
            self.unit(c)?;
        }
        self.rest.next();
        self.raw_escapes = outer;
        self.depth -= 1;
        Ok(())
    }

    /// Reads `<`, or `<<` with the blanks after it.
    fn less(&mut self) {
        self.text.extend(self.rest.next());
        if let Some(second) = self.rest.next_if_eq(&'<') {
            self.text.push(second);
            while let Some(c) = self.rest.next_if(|c| matches!(c, '\t' | '\r' | ' ')) {
                self.text.push(c);
            }
        }
    }

    /// Reads what is within single quotes.
    fn single(&mut self) -> Result<(), Error> {
        let quote = self.rest.next().filter(|_| self.raw_quotes);
        self.text.extend(quote);
        loop {
            match self.rest.next().ok_or(Error::Syntax)? {
                '\'' => break,
                c => self.text.push(c),
            }
        }
        self.text.extend(quote);
        Ok(())
    }

    /// Reads what is within double quotes.
    fn double(&mut self) -> Result<(), Error> {
        let quote = self.rest.next().filter(|_| self.raw_quotes);
        self.text.extend(quote);
        loop {
            match self.rest.peek().ok_or(Error::Syntax)? {
                '"' => break,
                '$' => self.dollar()?,
                '\\' => {
                    self.rest.next();
                    self.text.extend(self.raw_escapes.then_some('\\'));
                    let escaped = self.rest.next_if(|c| matches!(c, '"' | '$' | '\\'));
                    self.text.push(escaped.unwrap_or('\\'));
                }
                _ => self.text.extend(self.rest.next()),
            }
        }
        self.rest.next();
        self.text.extend(quote);
        Ok(())
    }

    /// Reads a variable or substitution, which stays as it is.
    fn dollar(&mut self) -> Result<(), Error> {
        self.text.extend(self.rest.next());
        let Some(brace) = self.rest.next_if_eq(&'{') else {
            self.name();
            return Ok(());
        };
        self.text.push(brace);
        if matches!(self.rest.peek(), None | Some('{' | '}' | ':')) {
            return Err(Error::Syntax);
        }
        self.name();
        let operator = self.rest.next().ok_or(Error::Syntax)?;
        self.text.push(operator);
        match operator {
            '}' => return Ok(()),
            '/' => {
                // A second one, for all matches, is dropped.
                self.rest.next_if_eq(&'/');
                self.until('/', true)?;
                self.text.push('/');
                self.until('}', true)?;
            }
            ':' => {
                let second = self.rest.next().ok_or(Error::Syntax)?;
                if matches!(second, '#' | '%') {
                    return Err(Error::Syntax);
                }
                self.text.push(second);
                self.until('}', false)?;
            }
            '+' | '-' | '?' => self.until('}', false)?,
            '#' | '%' => self.until('}', true)?,
            _ => return Err(Error::Syntax),
        }
        self.text.push('}');
        Ok(())
    }

    /// Reads a variable's name, if there is one.
    fn name(&mut self) {
        match self.rest.peek() {
            Some(c) if c.is_numeric() => {
                while let Some(c) = self.rest.next_if(|c| c.is_numeric()) {
                    self.text.push(c);
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => self.text.extend(self.rest.next()),
            _ => {
                while let Some(c) = self.rest.next_if(|&c| c.is_alphanumeric() || c == '_') {
                    self.text.push(c);
                }
            }
        }
    }
}
