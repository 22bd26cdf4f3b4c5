//! Lines to instructions, instructions to stages.

use super::{
    Dockerfile, Form, Heredoc, Instruction, Keyword, MOST_INSTRUCTIONS, ParseError, Stage,
    heredoc::{self, Announced},
    lines::{Joined, Lines, trim_end_of_line},
    words::{self, Json, shown},
};

/// Parses a Dockerfile.
///
/// # Errors
/// Where BuildKit refuses it for its form: the first such place. Flags are not judged. Beyond
/// BuildKit, a file without `FROM`, one of more than [`MOST_BYTES`](super::MOST_BYTES) or
/// [`MOST_INSTRUCTIONS`], and a hundred substitutions within each other are errors.
pub fn parse(text: &[u8]) -> Result<Dockerfile, ParseError> {
    let mut lines = Lines::of(text)?;
    let mut args = Vec::new();
    let mut stages: Vec<Stage> = Vec::new();
    let mut count = 0;
    while let Some(joined) = lines.joined()? {
        count += 1;
        if count > MOST_INSTRUCTIONS {
            return Err(joined.error(
                0,
                format!("more than {MOST_INSTRUCTIONS} instructions: is it a Dockerfile?"),
            ));
        }
        let read = take_apart(&joined.text, lines.escape);
        let mut instruction = read
            .map_err(|wrong| joined.error(wrong.at, wrong.message))?
            .ok_or_else(|| joined.error(0, unknown(&joined.text)))?;
        check(&instruction).map_err(|message| joined.error(0, message))?;
        instruction.line = joined.line;
        instruction.end_line = joined.end;
        read_heredocs(&mut instruction, &joined, &mut lines)?;
        match (instruction.keyword, stages.last_mut()) {
            (Keyword::From, _) => {
                let stage =
                    stage(stages.len(), instruction).map_err(|message| joined.error(0, message))?;
                stages.push(stage);
            }
            (_, Some(stage)) => stage.instructions.push(instruction),
            (Keyword::Arg, None) => args.push(instruction),
            (keyword, None) => {
                let message = format!("{keyword} before the first FROM: only ARG may stand there");
                return Err(joined.error(0, message));
            }
        }
    }
    if stages.is_empty() {
        let what = if args.is_empty() {
            "no instructions"
        } else {
            "no FROM"
        };
        return Err(lines.error(format!("the file has {what}: add FROM and an image")));
    }
    Ok(Dockerfile {
        directives: lines.directives,
        escape: char::from(lines.escape),
        args,
        stages,
    })
}

/// What is wrong with a line whose keyword is unknown.
fn unknown(line: &[u8]) -> String {
    let keyword = shown(words::split_once(words::trim(line)).0);
    format!("{keyword} is no instruction: is the line before it to be continued?")
}

/// The stage that a `FROM` begins.
fn stage(index: usize, from: Instruction) -> Result<Stage, String> {
    let (base, name) = match &from.args[..] {
        [base] => (base, None),
        [base, between, name] if between.eq_ignore_ascii_case("as") => (base, Some(name)),
        _ => return Err("FROM takes an image, or an image, AS and a name".to_owned()),
    };
    let name = name.map(|name| name.to_lowercase());
    if let Some(name) = &name {
        let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
        let allowed =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        if !starts || !name.chars().all(allowed) {
            return Err(format!(
                "{} is no name of a stage: start with a letter, go on with letters, digits, - _ .",
                shown(name.as_bytes())
            ));
        }
    }
    Ok(Stage {
        index,
        name,
        base: base.clone(),
        from,
        instructions: Vec::new(),
    })
}

/// Reads the heredocs that an instruction announces, from the lines after it.
fn read_heredocs(
    instruction: &mut Instruction,
    joined: &Joined,
    lines: &mut Lines<'_>,
) -> Result<(), ParseError> {
    let outer = instruction;
    let instruction = match &mut outer.trigger {
        Some(trigger) => {
            (trigger.line, trigger.end_line) = (outer.line, outer.end_line);
            trigger
        }
        None => &mut *outer,
    };
    if !instruction.keyword.takes_heredocs() || instruction.form == Form::Exec {
        return Ok(());
    }
    let line = words::text(&joined.text);
    let announced = heredoc::announced(&line).map_err(|error| joined.error(0, error.message()))?;
    let mut after = 0;
    for heredoc in announced {
        // Where it was announced. A word with a substitution may not be found as it was written.
        let at = line[after..].find(&heredoc.word).map(|at| after + at);
        after = at.map_or(after, |at| at + heredoc.word.len());
        let heredoc = read_heredoc(heredoc, lines)?.map_err(|name| {
            let name = shown(name.as_bytes());
            joined.error(
                at.unwrap_or(0),
                format!("the heredoc {name} has no end: add a line with this word alone"),
            )
        })?;
        instruction.heredocs.push(heredoc);
    }
    instruction.end_line = lines.number();
    outer.end_line = lines.number();
    Ok(())
}

/// Reads one heredoc; its name where the file ends before it does.
fn read_heredoc(
    announced: Announced,
    lines: &mut Lines<'_>,
) -> Result<Result<Heredoc, String>, ParseError> {
    let mut content = Vec::new();
    let line = lines.number() + 1;
    while let Some(raw) = lines.raw()? {
        let mut end = trim_end_of_line(raw);
        while announced.chomp && end.first() == Some(&b'\t') {
            end = &end[1..];
        }
        if end == announced.name.as_bytes() {
            return Ok(Ok(Heredoc {
                name: announced.name,
                expand: announced.expand,
                chomp: announced.chomp,
                content: words::text(&content),
                line,
            }));
        }
        content.extend_from_slice(raw);
    }
    Ok(Err(announced.name))
}

/// What is wrong, and where in the line.
struct Wrong {
    at: usize,
    message: String,
}

/// Takes an instruction in one line apart; `None` where its keyword is unknown. Lines are not set.
fn take_apart(line: &[u8], escape: u8) -> Result<Option<Instruction>, Wrong> {
    let text = words::trim(line);
    let parts = words::parts(text, escape);
    let Some(keyword) = Keyword::of(&words::text(parts.keyword)) else {
        return Ok(None);
    };
    let indent = line.len() - words::trim_start(line).len();
    // Arguments are the end of the line.
    let at = indent + text.len() - parts.args.len();
    let mut instruction = Instruction {
        keyword,
        line: 0,
        end_line: 0,
        text: words::text(text),
        flags: parts.flags,
        form: Form::Shell,
        args: Vec::new(),
        heredocs: Vec::new(),
        trigger: None,
    };
    let read = match keyword {
        Keyword::Onbuild => trigger(parts.args, escape).map(|inner| instruction.trigger = inner),
        _ => arguments(&mut instruction, parts.args, escape),
    };
    match read {
        Ok(()) => Ok(Some(instruction)),
        Err(message) => Err(Wrong { at, message }),
    }
}

/// What an `ONBUILD` puts off.
fn trigger(args: &[u8], escape: u8) -> Result<Option<Box<Instruction>>, String> {
    // A keyword with white space that does not separate words is none, but BuildKit looks for these.
    let keyword = words::text(words::trim(words::parts(args, escape).keyword));
    match Keyword::of(&keyword) {
        Some(no @ (Keyword::Onbuild | Keyword::From | Keyword::Maintainer)) => {
            Err(format!("{no} may not follow ONBUILD: remove it"))
        }
        _ if args.is_empty() => Err("ONBUILD without an instruction: add one".to_owned()),
        _ => match take_apart(args, escape) {
            Ok(inner) => Ok(inner.map(Box::new)),
            Err(wrong) => Err(wrong.message),
        },
    }
}

/// Reads an instruction's arguments.
fn arguments(instruction: &mut Instruction, args: &[u8], escape: u8) -> Result<(), String> {
    let keyword = instruction.keyword;
    // `HEALTHCHECK` has a word before what is shell or exec form.
    let (kind, args) = match keyword {
        Keyword::Healthcheck => words::health(args),
        _ => (&b""[..], args),
    };
    if !kind.is_empty() {
        instruction.args.push(words::text(kind));
    }
    match keyword {
        Keyword::Add
        | Keyword::Cmd
        | Keyword::Copy
        | Keyword::Entrypoint
        | Keyword::Healthcheck
        | Keyword::Run
        | Keyword::Shell
        | Keyword::Volume => match words::json(args) {
            Json::Strings(strings) => {
                instruction.form = Form::Exec;
                instruction.args.extend(strings);
                return Ok(());
            }
            Json::Mixed => {
                return Err("the array has elements that are no strings: quote them".to_owned());
            }
            Json::No => {}
        },
        _ => {}
    }
    let texts = |words: Vec<&[u8]>| words.into_iter().map(words::text).collect::<Vec<_>>();
    match keyword {
        Keyword::Add | Keyword::Copy | Keyword::Expose | Keyword::From | Keyword::Volume => {
            instruction.args = texts(words::split(args));
        }
        Keyword::Arg => {
            let words = words::quoted(args, escape);
            instruction.args = words.iter().map(|word| words::text(word)).collect();
        }
        Keyword::Env | Keyword::Label => instruction.args = pairs(keyword, args, escape)?,
        _ if args.is_empty() => {}
        _ => instruction.args.push(words::text(args)),
    }
    Ok(())
}

/// Alternating names and values.
fn pairs(keyword: Keyword, args: &[u8], escape: u8) -> Result<Vec<String>, String> {
    let words = words::quoted(args, escape);
    let mut pairs = Vec::with_capacity(2 * words.len());
    for (i, word) in words.iter().enumerate() {
        let Some(equals) = word.iter().position(|&b| b == b'=') else {
            if i > 0 {
                return Err(format!("{} has no =: write name=value", shown(word)));
            }
            // The old way: a name, and the rest is the value.
            return match words::split_once(args) {
                (name, Some(value)) => Ok(vec![words::text(name), words::text(value)]),
                (name, None) => {
                    let name = shown(name);
                    Err(format!("{keyword} {name} has no value: write name=value"))
                }
            };
        };
        pairs.push(words::text(&word[..equals]));
        pairs.push(words::text(&word[equals + 1..]));
    }
    Ok(pairs)
}

/// What BuildKit asks of an instruction that is to be executed.
fn check(instruction: &Instruction) -> Result<(), String> {
    let keyword = instruction.keyword;
    let args = &instruction.args;
    let least = match keyword {
        Keyword::Cmd | Keyword::Entrypoint | Keyword::Onbuild | Keyword::Run => 0,
        Keyword::Add | Keyword::Copy => 2,
        _ => 1,
    };
    if args.len() < least {
        let what = if args.is_empty() {
            "argument"
        } else {
            "destination"
        };
        return Err(format!("{keyword} without {what}: add it"));
    }
    let blank = |name: &str| name.is_empty() || name.starts_with('=');
    match keyword {
        Keyword::Env | Keyword::Label if args.iter().step_by(2).any(|name| name.is_empty()) => {
            Err(format!("{keyword} without a name before =: add it"))
        }
        Keyword::Arg if args.iter().any(|arg| blank(arg)) => {
            Err("ARG without a name before =: add it".to_owned())
        }
        Keyword::Volume if args.iter().any(|path| path.trim().is_empty()) => {
            Err("VOLUME with an empty path: remove it".to_owned())
        }
        Keyword::Shell if instruction.form == Form::Shell => {
            Err("SHELL takes a JSON array of strings: write [\"/bin/sh\", \"-c\"]".to_owned())
        }
        Keyword::Healthcheck => match (args[0].to_uppercase().as_str(), args.len()) {
            ("NONE", 1) => Ok(()),
            ("CMD", 2..) => Ok(()),
            ("NONE", _) => Err("HEALTHCHECK NONE takes no arguments: remove them".to_owned()),
            ("CMD", _) => Err("HEALTHCHECK CMD without a command: add it".to_owned()),
            _ => Err("HEALTHCHECK takes NONE, or CMD and a command".to_owned()),
        },
        _ => Ok(()),
    }
}
