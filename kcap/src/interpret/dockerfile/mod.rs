//! Reads a Dockerfile as BuildKit's parser does, which is also Kaniko's: stages and instructions
//! with their lines, flags, arguments and heredocs.
//!
//! What BuildKit accepts is accepted, with the same lines and the same words, odd ones included:
//! `cat<<EOF` and `echo it's <<EOF` are no heredocs, a comment may stand inside a continued
//! instruction, flags are read byte by byte. Flags and their values are not judged: an executor may
//! know more of them than this file. Nothing is expanded.
//!
//! `lines` joins lines to instructions, `words` takes one apart, `heredoc` finds its heredocs, and
//! `syntax` puts the parts together.

mod heredoc;
mod lines;
mod syntax;
#[cfg(test)]
mod tests;
mod words;

use std::fmt;

pub use syntax::parse;

/// Largest Dockerfile in bytes. The largest in public use have some hundred KiB, of heredocs.
pub const MOST_BYTES: usize = 4 << 20;

/// Most instructions of a Dockerfile: an image has at most some hundred layers.
pub const MOST_INSTRUCTIONS: usize = 100_000;

/// A Dockerfile taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// Parser directives at its top, in order.
    pub directives: Vec<Directive>,
    /// What escapes a character and continues a line: `\`, or `` ` `` where a directive says so.
    pub escape: char,
    /// The `ARG`s before the first `FROM`.
    pub args: Vec<Instruction>,
    /// The stages, at least one.
    pub stages: Vec<Stage>,
}

impl Dockerfile {
    /// All instructions in the order of the file, every `FROM` before those of its stage.
    pub fn instructions(&self) -> impl Iterator<Item = &Instruction> {
        let stages = self.stages.iter();
        (self.args.iter())
            .chain(stages.flat_map(|s| std::iter::once(&s.from).chain(&s.instructions)))
    }
}

/// A line `# name=value` at the top that says how to parse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// `syntax`, `escape` or `check`.
    pub name: String,
    /// As written.
    pub value: String,
    /// Its line, from 1.
    pub line: u32,
}

/// A build stage: a `FROM` and what follows it up to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// From 0, as `COPY --from=0` has it.
    pub index: usize,
    /// The name after `AS`, in lower case: names of stages have no case.
    pub name: Option<String>,
    /// An image or an earlier stage, as written: variables are not expanded.
    pub base: String,
    /// Its `FROM`.
    pub from: Instruction,
    /// What follows.
    pub instructions: Vec<Instruction>,
}

impl Stage {
    /// The line of its `FROM`, from 1.
    pub fn line(&self) -> u32 {
        self.from.line
    }
}

/// An instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Which one.
    pub keyword: Keyword,
    /// Its first line, from 1.
    pub line: u32,
    /// Its last line, from 1: with the bodies of heredocs, and with comments and empty lines where
    /// a continued instruction is the last of the file.
    pub end_line: u32,
    /// The instruction in one line, as Kaniko logs it and BuildKit shows it: continued lines are
    /// joined, comments between them are gone, blanks around it too, bodies of heredocs are left
    /// out, nothing is expanded.
    pub text: String,
    /// Flags in order, `--mount` and the like; some may be given more than once.
    pub flags: Vec<Flag>,
    /// How the arguments were written.
    pub form: Form,
    /// The arguments after the flags: elements of the array in exec form; alternating names and
    /// values for `ENV` and `LABEL`, quotes included; `NONE`, or `CMD` and its arguments for
    /// `HEALTHCHECK`; words for `ADD`, `ARG` (quotes included), `COPY`, `EXPOSE`, `FROM` and
    /// `VOLUME`; none for `ONBUILD`; for all others the rest of the line as one.
    pub args: Vec<String>,
    /// Heredocs of `ADD`, `COPY` and `RUN`, in order.
    pub heredocs: Vec<Heredoc>,
    /// What an `ONBUILD` puts off, with its lines. `None` for other instructions, and where what it
    /// puts off has no known keyword, which is found out only when it is due.
    pub trigger: Option<Box<Instruction>>,
}

impl Instruction {
    /// Whether a message of Kaniko's log (without level, time and colours) is this instruction,
    /// about to be executed. How many blanks or control characters stand where some stand does not
    /// matter: a log pads lines, and what collects it may change them.
    pub fn matches_log(&self, message: &str) -> bool {
        fn words(text: &str) -> impl Iterator<Item = &str> {
            text.split(|c: char| c.is_whitespace() || c.is_control())
                .filter(|word| !word.is_empty())
        }
        words(&self.text).eq(words(message))
    }

    /// The value of the first flag of this name; the empty text where it has none.
    pub fn flag(&self, name: &str) -> Option<&str> {
        let flag = self.flags.iter().find(|flag| flag.name == name)?;
        Some(flag.value.as_deref().unwrap_or_default())
    }
}

/// `--name=value`, or `--name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// Without the dashes.
    pub name: String,
    /// What follows the first `=`.
    pub value: Option<String>,
}

/// How arguments were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As text; what `RUN`, `CMD`, `ENTRYPOINT` and `HEALTHCHECK` hand to the shell.
    Shell,
    /// As a JSON array of strings: no shell for `RUN` and its like.
    Exec,
}

/// A text within the Dockerfile, between `<<name` and a line `name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it, without quotes.
    pub name: String,
    /// No part of the word was quoted: variables in it are expanded.
    pub expand: bool,
    /// Written as `<<-`: tabs at the start of a line do not count. `content` still has them.
    pub chomp: bool,
    /// The lines between, as written, with their ends.
    pub content: String,
    /// The first line of the content, from 1; where there is none, the line that ends it.
    pub line: u32,
}

macro_rules! keywords {
    ($($keyword:ident $name:literal,)*) => {
        /// An instruction's keyword.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Keyword {
            $(#[doc = concat!("`", $name, "`")] $keyword,)*
        }

        impl Keyword {
            /// All of them, by name.
            pub const ALL: &[Keyword] = &[$(Keyword::$keyword,)*];

            /// In upper case, as it is usually written.
            pub fn name(self) -> &'static str {
                match self {
                    $(Keyword::$keyword => $name,)*
                }
            }
        }
    };
}

keywords! {
    Add "ADD",
    Arg "ARG",
    Cmd "CMD",
    Copy "COPY",
    Entrypoint "ENTRYPOINT",
    Env "ENV",
    Expose "EXPOSE",
    From "FROM",
    Healthcheck "HEALTHCHECK",
    Label "LABEL",
    Maintainer "MAINTAINER",
    Onbuild "ONBUILD",
    Run "RUN",
    Shell "SHELL",
    Stopsignal "STOPSIGNAL",
    User "USER",
    Volume "VOLUME",
    Workdir "WORKDIR",
}

impl Keyword {
    /// By name in any case, as BuildKit compares: by lower-case letters of Unicode.
    fn of(word: &str) -> Option<Self> {
        let lower = |c: char| c.to_lowercase().next().unwrap_or(c);
        let is = |name: &str| {
            word.chars()
                .map(lower)
                .eq(name.chars().map(|c| c.to_ascii_lowercase()))
        };
        Self::ALL.iter().copied().find(|k| is(k.name()))
    }

    /// Whether it can have heredocs.
    fn takes_heredocs(self) -> bool {
        matches!(self, Self::Add | Self::Copy | Self::Run)
    }
}

impl fmt::Display for Keyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a file is no Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// What is wrong and what to do, in one line, safe to show.
    pub message: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "line {}, column {}: {}",
            self.line, self.column, self.message
        )
    }
}

impl std::error::Error for ParseError {}
