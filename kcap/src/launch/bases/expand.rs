//! Variables in the name of an image, put in as Kaniko does it: by BuildKit's rules for words, with
//! `\` as the escape whatever the Dockerfile says.

use std::{collections::BTreeMap, iter::Peekable, str::Chars};

/// Most substitutions within each other.
const DEEPEST: u32 = 50;
/// Longest result in bytes. No name is as long, and variables can double each other.
const LONGEST: usize = 64 << 10;

/// Names and values.
pub type Variables = BTreeMap<String, String>;

/// The word with its variables put in, and without its quotes and escapes.
///
/// # Errors
/// What Kaniko refuses; patterns (`${name#pattern}`, `%`, `/`), which are not done here; what becomes
/// too long.
pub fn expand(word: &str, variables: &Variables) -> Result<String, &'static str> {
    let mut reader = Reader {
        rest: word.chars().peekable(),
        variables,
        depth: 0,
    };
    reader.until(None)
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    variables: &'a Variables,
    depth: u32,
}

impl Reader<'_> {
    /// All up to this character, which is taken too, or to the end.
    fn until(&mut self, end: Option<char>) -> Result<String, &'static str> {
        let mut out = String::new();
        while let Some(&next) = self.rest.peek() {
            if Some(next) == end {
                self.rest.next();
                return Ok(out);
            }
            if next == '$' {
                out += &self.dollar()?;
            } else {
                self.rest.next();
                match next {
                    '\'' => self.single(&mut out)?,
                    '"' => self.double(&mut out)?,
                    '\\' => out.extend(self.rest.next()),
                    _ => out.push(next),
                }
            }
            if out.len() > LONGEST {
                return Err("it becomes too long");
            }
        }
        match end {
            Some(_) => Err("a } is missing"),
            None => Ok(out),
        }
    }

    fn single(&mut self, out: &mut String) -> Result<(), &'static str> {
        loop {
            match self.rest.next().ok_or("a quote does not end")? {
                '\'' => return Ok(()),
                c => out.push(c),
            }
        }
    }

    fn double(&mut self, out: &mut String) -> Result<(), &'static str> {
        const OPEN: &str = "a quote does not end";
        loop {
            match *self.rest.peek().ok_or(OPEN)? {
                '$' => *out += &self.dollar()?,
                c => {
                    self.rest.next();
                    match c {
                        '"' => return Ok(()),
                        '\\' => match *self.rest.peek().ok_or(OPEN)? {
                            escaped @ ('"' | '$' | '\\') => {
                                self.rest.next();
                                out.push(escaped);
                            }
                            _ => out.push('\\'),
                        },
                        _ => out.push(c),
                    }
                }
            }
            if out.len() > LONGEST {
                return Err("it becomes too long");
            }
        }
    }

    /// What begins with `$`.
    fn dollar(&mut self) -> Result<String, &'static str> {
        self.rest.next();
        if self.rest.peek() != Some(&'{') {
            let name = self.name();
            return Ok(match name.as_str() {
                "" => "$".to_owned(),
                name => self.variables.get(name).cloned().unwrap_or_default(),
            });
        }
        self.rest.next();
        if matches!(self.rest.peek(), None | Some('{' | '}' | ':')) {
            return Err("a substitution has no name");
        }
        let name = self.name();
        let value = self.variables.get(&name).cloned();
        let mut sign = self.rest.next().ok_or("a } is missing")?;
        let value = match sign {
            '}' => return Ok(value.unwrap_or_default()),
            // Empty is as if it were not set.
            ':' => {
                sign = self.rest.next().ok_or("a } is missing")?;
                value.filter(|value| !value.is_empty())
            }
            _ => value,
        };
        if matches!(sign, '#' | '%' | '/') {
            return Err("kcap does not follow patterns in substitutions");
        }
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err("too many substitutions within each other");
        }
        let word = self.until(Some('}'))?;
        self.depth -= 1;
        match sign {
            '-' => Ok(value.unwrap_or(word)),
            '+' => Ok(value.map(|_| word).unwrap_or_default()),
            '?' => value.ok_or("a variable is not set"),
            _ => Err("a substitution has an unknown sign"),
        }
    }

    fn name(&mut self) -> String {
        let special = |c: &char| "@*#?-$!0".contains(*c);
        // Digits first: `0` is one of them as well.
        if self.rest.peek().is_some_and(|c| c.is_numeric()) {
            return self.run(|c| c.is_numeric());
        }
        if let Some(c) = self.rest.next_if(special) {
            return c.into();
        }
        self.run(|c| c.is_alphanumeric() || c == '_')
    }

    fn run(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let mut run = String::new();
        while let Some(c) = self.rest.next_if(|c| wanted(*c)) {
            run.push(c);
        }
        run
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        [("PWD", "/home"), ("SHELL", "bash"), ("NULL", "")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    /// Cases of BuildKit's own table (`envVarTest`), with the same answers.
    #[test]
    fn words_become_what_buildkit_makes_of_them() {
        for (word, expected) in [
            ("hello", "hello"),
            ("he'll'o", "hello"),
            ("he\\'llo", "he'llo"),
            ("abc\\tdef", "abctdef"),
            ("\"abc\\tdef\"", "abc\\tdef"),
            ("\"abc\\\\tdef\"", "abc\\tdef"),
            ("hello\\", "hello"),
            ("hello\\\\", "hello\\"),
            ("\"hel'lo\"", "hel'lo"),
            ("'hello\\'", "hello\\"),
            ("$.", "$."),
            ("he$1x", "hex"),
            ("he$.x", "he$.x"),
            ("he$PWD", "he/home"),
            ("he\\$PWD", "he$PWD"),
            ("he\\\\$PWD", "he\\/home"),
            ("\\${}aaa", "${}aaa"),
            ("he${hi}xx", "hexx"),
            ("he${XXX:-000}xx", "he000xx"),
            ("he${PWD:-000}xx", "he/homexx"),
            ("he${XXX:-${YYY:-yyy}}xx", "heyyyxx"),
            ("he${PWD?}", "he/home"),
            ("he${NULL?}", "he"),
            ("he${NULL-x}", "he"),
            ("he${NULL:-x}", "hex"),
            ("he${PWD:+${SHELL}}xx", "hebashxx"),
            ("he${XXX:+000}xx", "hexx"),
            ("'he${XX}'", "he${XX}"),
            ("\"he'$PWD'\"", "he'/home'"),
            ("he${PWD:+${PWD}:}xx", "he/home:xx"),
            ("he${XXX:-\\$PWD:}xx", "he$PWD:xx"),
            ("he${XXX:-\\${PWD}z}xx", "he${PWDz}xx"),
            ("안\\'녕$PWD", "안'녕/home"),
        ] {
            assert_eq!(
                expand(word, &variables()).as_deref(),
                Ok(expected),
                "{word}"
            );
        }
    }

    #[test]
    fn what_cannot_be_expanded_is_an_error() {
        for word in [
            "he'llo",
            "\"hello\\\"",
            "${}",
            "he${.}",
            "he${XXX:YYY}",
            "he${XXX?}",
            "he${NULL:?}",
            "he${PWD",
            "he${PWD:=000}xx",
            // Of these Kaniko makes something.
            "${PWD#/}",
            "${PWD%e}",
            "${PWD/h/x}",
        ] {
            assert!(expand(word, &variables()).is_err(), "{word}");
        }
        let deep = format!("{}x{}", "${A:-".repeat(100_000), "}".repeat(100_000));
        assert!(expand(&deep, &variables()).is_err());
        let long = [("A".to_owned(), "x".repeat(1000))].into();
        assert!(expand(&"$A".repeat(100), &long).is_err());
    }
}
