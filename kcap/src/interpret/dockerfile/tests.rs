use std::{fs, path::Path};

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

fn parsed(text: &str) -> Dockerfile {
    parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

/// The only instruction after `FROM`.
fn one(line: &str) -> Instruction {
    let mut parsed = parsed(&format!("FROM a\n{line}\n"));
    assert_eq!(parsed.stages[0].instructions.len(), 1, "{line:?}");
    parsed.stages[0].instructions.remove(0)
}

fn refused(text: &str) -> String {
    match parse(text.as_bytes()) {
        Ok(parsed) => panic!("{text:?} is taken: {parsed:?}"),
        Err(error) => error.to_string(),
    }
}

/// What `tests/dockerfiles/oracle.py` wrote.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Oracle {
    Error(String),
    Commands(Vec<Command>),
}

#[derive(Deserialize)]
struct Command {
    cmd: String,
    sub_cmd: Option<String>,
    json: bool,
    original: String,
    start_line: u32,
    end_line: u32,
    flags: Vec<String>,
    value: Vec<String>,
    heredocs: Vec<OracleHeredoc>,
}

#[derive(Deserialize)]
struct OracleHeredoc {
    name: String,
    content: String,
}

#[test]
fn fixtures_are_read_as_buildkit_reads_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dockerfiles");
    let mut seen = (0, 0);
    for entry in fs::read_dir(&folder).expect("there are fixtures") {
        let path = entry.expect("the folder can be read").path();
        if path.extension().is_none_or(|e| e != "Dockerfile") {
            continue;
        }
        let text = fs::read(&path).expect("the fixture can be read");
        let json = fs::read(path.with_extension("json")).expect("it has an oracle");
        let oracle = serde_json::from_slice(&json).expect("the oracle is as written");
        match (parse(&text), oracle) {
            (Err(_), Oracle::Error(_)) => seen.1 += 1,
            (Ok(parsed), Oracle::Commands(commands)) => {
                assert_eq!(parsed.instructions().count(), commands.len(), "{path:?}");
                for (instruction, command) in parsed.instructions().zip(&commands) {
                    compare(instruction, command, &path);
                }
                seen.0 += 1;
            }
            (Err(error), _) => panic!("{path:?} is taken by BuildKit, not here: {error}"),
            (Ok(_), Oracle::Error(error)) => panic!("{path:?} is taken here, not there: {error}"),
        }
    }
    assert!(
        seen.0 >= 42 && seen.1 >= 16,
        "fixtures are missing: {seen:?}"
    );
}

fn compare(instruction: &Instruction, command: &Command, path: &Path) {
    let at = format!("{path:?}, line {}", command.start_line);
    let name = |keyword: Keyword| keyword.name().to_lowercase();
    assert_eq!(
        name(instruction.keyword),
        command.cmd.to_lowercase(),
        "{at}"
    );
    assert_eq!(instruction.line, command.start_line, "{at}");
    assert_eq!(instruction.end_line, command.end_line, "{at}");
    // The oracle appends the bodies of heredocs.
    let original = command.original.split('\n').next().unwrap_or_default();
    assert_eq!(instruction.text, original.trim(), "{at}");
    let flags: Vec<String> = (instruction.flags.iter())
        .map(|flag| match &flag.value {
            Some(value) => format!("--{}={value}", flag.name),
            None => format!("--{}", flag.name),
        })
        .collect();
    assert_eq!(flags, command.flags, "{at}");
    let inner = match (&instruction.trigger, &command.sub_cmd) {
        (None, None) => instruction,
        (Some(inner), Some(sub)) => {
            assert_eq!(name(inner.keyword), sub.to_lowercase(), "{at}");
            assert_eq!(
                (inner.line, inner.end_line),
                (instruction.line, instruction.end_line)
            );
            inner
        }
        (None, Some(sub)) => {
            assert_eq!(Keyword::of(sub), None, "{at}");
            return;
        }
        (Some(_), None) => panic!("{at}: a trigger"),
    };
    assert_eq!(inner.form == Form::Exec, command.json, "{at}");
    assert_eq!(inner.args, command.value, "{at}");
    // The oracle leaves out those of ONBUILD.
    if instruction.keyword != Keyword::Onbuild {
        let heredocs = |h: &Heredoc| (h.name.clone(), h.content.clone());
        let ours: Vec<_> = inner.heredocs.iter().map(heredocs).collect();
        let theirs = command.heredocs.iter();
        let theirs: Vec<_> = theirs
            .map(|h| (h.name.clone(), h.content.clone()))
            .collect();
        assert_eq!(ours, theirs, "{at}");
    }
}

#[test]
fn stages_have_names_and_bases() {
    let parsed = parsed(
        "# syntax=docker/dockerfile:1\n# escape=`\nARG V=1\nFROM a:${V} AS Build\nRUN x\n\
         from build\nFROM --platform=$P scratch as last-1_2.3\nCOPY --from=Build a b\n",
    );
    assert_eq!(parsed.escape, '`');
    let directives: Vec<_> = parsed
        .directives
        .iter()
        .map(|d| (&*d.name, &*d.value, d.line))
        .collect();
    assert_eq!(
        directives,
        [("syntax", "docker/dockerfile:1", 1), ("escape", "`", 2)]
    );
    assert_eq!(parsed.args.len(), 1);
    let stages: Vec<_> = (parsed.stages.iter())
        .map(|s| {
            (
                s.index,
                s.name.as_deref(),
                &*s.base,
                s.line(),
                s.instructions.len(),
            )
        })
        .collect();
    assert_eq!(
        stages,
        [
            (0, Some("build"), "a:${V}", 4, 1),
            (1, None, "build", 6, 0),
            (2, Some("last-1_2.3"), "scratch", 7, 1)
        ]
    );
    let lines: Vec<u32> = parsed.instructions().map(|i| i.line).collect();
    assert_eq!(lines, [3, 4, 5, 6, 7, 8]);
    assert_eq!(parsed.stages[2].from.flag("platform"), Some("$P"));
    assert_eq!(parsed.stages[2].instructions[0].flag("link"), None);
}

#[test]
fn heredocs_know_where_they_are_and_how_to_be_read() {
    let run = one("RUN cat \\\n <<A <<-'B' <<\"C\"\nA\n\tb\n\tB\nc\n\nC");
    let heredocs: Vec<_> = (run.heredocs.iter())
        .map(|h| (&*h.name, h.expand, h.chomp, &*h.content, h.line))
        .collect();
    assert_eq!(
        heredocs,
        [
            ("A", true, false, "", 4),
            ("B", false, true, "\tb\n", 5),
            ("C", false, false, "c\n\n", 7)
        ]
    );
    assert_eq!((run.line, run.end_line), (2, 9));
    let onbuild = one("ONBUILD RUN <<EOF\nx\nEOF");
    let trigger = onbuild.trigger.expect("ONBUILD has a trigger");
    assert!(onbuild.heredocs.is_empty());
    assert_eq!(trigger.heredocs[0].content, "x\n");
    assert_eq!((onbuild.end_line, trigger.end_line), (4, 4));
    assert_eq!(trigger.text, "RUN <<EOF");
}

/// Where Kaniko 1.28's BuildKit (0.32) differs from the one that the fixtures come from.
#[test]
fn newer_buildkit_is_followed() {
    let run = one(r#"RUN ["a"] x"#);
    assert_eq!(
        (run.form, run.args),
        (Form::Shell, vec![r#"["a"] x"#.to_owned()])
    );
    assert_eq!(one("RUN cat <<  EOF\nx\nEOF").heredocs[0].content, "x\n");
    assert!(one("RUN cat <<- EOF").heredocs.is_empty());
    let parsed = parsed("# escape=`\nFROM a\nRUN --a` b=c\\ d\n");
    let run = &parsed.stages[0].instructions[0];
    assert_eq!((run.flag("a b"), &*run.args[0]), (Some("c\\"), "d"));
    // A substitution with an operator drops what is before it within a word.
    assert!(one("RUN <<E${x:-y}").heredocs.is_empty());
    assert_eq!(one("RUN x${x:-y <<E} z\nE}").heredocs[0].name, "E}");
    // Flags are read byte by byte: U+00E0 holds the byte of U+00A0, a white space.
    let copy = one("COPY --chown=\u{e0} a b");
    assert_eq!(copy.flag("chown"), Some("\u{c3}"));
    assert_eq!(copy.args, ["a", "b"]);
    // The Kelvin sign is a K in lower case.
    assert_eq!(one("WOR\u{212a}DIR /").keyword, Keyword::Workdir);
}

#[test]
fn errors_say_what_where_and_what_to_do() {
    for (text, error) in [
        (
            "",
            "line 1, column 1: the file has no instructions: add FROM and an image",
        ),
        (
            "ARG a\n",
            "line 1, column 1: the file has no FROM: add FROM and an image",
        ),
        (
            "\n RUN a\nFROM a\n",
            "line 2, column 2: RUN before the first FROM: only ARG may stand there",
        ),
        (
            "FROM a\n  éFOO b\n",
            "line 2, column 3: \"éFOO\" is no instruction: is the line before it to be continued?",
        ),
        (
            "FROM a\nFROM\u{a0}b\n",
            "line 2, column 1: \"FROM\u{a0}b\" is no instruction: is the line before it to be continued?",
        ),
        (
            "FROM a\nA\x1b[31m\n",
            "line 2, column 1: \"A\\u{1b}[31m\" is no instruction: is the line before it to be continued?",
        ),
        (
            "FROM a\n\\\n",
            "line 2, column 1: \"\" is no instruction: is the line before it to be continued?",
        ),
        ("FROM\n", "line 1, column 1: FROM without argument: add it"),
        (
            "FROM a b\n",
            "line 1, column 1: FROM takes an image, or an image, AS and a name",
        ),
        (
            "FROM a AS 1\n",
            "line 1, column 1: \"1\" is no name of a stage: start with a letter, go on with letters, digits, - _ .",
        ),
        (
            "FROM a\nCOPY a\n",
            "line 2, column 1: COPY without destination: add it",
        ),
        (
            "FROM a\nADD\n",
            "line 2, column 1: ADD without argument: add it",
        ),
        (
            "FROM a\nWORKDIR \\\n\n",
            "line 2, column 1: WORKDIR without argument: add it",
        ),
        (
            "FROM a\nENV =a\n",
            "line 2, column 1: ENV without a name before =: add it",
        ),
        (
            "FROM a\nARG a =b\n",
            "line 2, column 1: ARG without a name before =: add it",
        ),
        (
            "FROM a\nVOLUME [\" \"]\n",
            "line 2, column 1: VOLUME with an empty path: remove it",
        ),
        (
            "FROM a\nSHELL sh -c\n",
            "line 2, column 1: SHELL takes a JSON array of strings: write [\"/bin/sh\", \"-c\"]",
        ),
        (
            "FROM a\nSHELL []\n",
            "line 2, column 1: SHELL without argument: add it",
        ),
        (
            "FROM a\nHEALTHCHECK x\n",
            "line 2, column 1: HEALTHCHECK takes NONE, or CMD and a command",
        ),
        (
            "FROM a\nHEALTHCHECK none x\n",
            "line 2, column 1: HEALTHCHECK NONE takes no arguments: remove them",
        ),
        (
            "FROM a\nHEALTHCHECK CMD\n",
            "line 2, column 1: HEALTHCHECK CMD without a command: add it",
        ),
        (
            "FROM a\nONBUILD\n",
            "line 2, column 8: ONBUILD without an instruction: add one",
        ),
        (
            "FROM a\nONBUILD onbuild RUN x\n",
            "line 2, column 9: ONBUILD may not follow ONBUILD: remove it",
        ),
        (
            "FROM a\nONBUILD FROM\n",
            "line 2, column 9: FROM may not follow ONBUILD: remove it",
        ),
        (
            "FROM a\nENV a=b \\\n  # c\n  é c=d\n",
            "line 2, column 5: \"é\" has no =: write name=value",
        ),
        (
            "FROM a\nRUN \\\n\n  [1]\n",
            "line 4, column 3: the array has elements that are no strings: quote them",
        ),
        (
            "FROM a\nRUN é \\\n # c\n é <<A \\\n <<A  <<B\nA\nA\n",
            "line 5, column 7: the heredoc \"B\" has no end: add a line with this word alone",
        ),
        (
            "\u{feff}# escape=xy\nFROM a",
            "line 1, column 1: escape character \"xy\" is neither \\ nor `: use one of them",
        ),
        (
            "#check=a\n#Check=b\nFROM a",
            "line 2, column 1: a second directive check: remove one",
        ),
    ] {
        assert_eq!(refused(text), error, "{text:?}");
    }
    let long = format!("FROM a\n{}\n", "é".repeat(1000));
    assert!(refused(&long).len() < 200, "what is quoted is bounded");
}

#[test]
fn size_is_bounded() {
    let fill = |bytes: usize| {
        let mut text = format!("FROM a\n#{}\n", "c".repeat(60_000)).repeat(bytes / 60_000);
        text.extend(std::iter::repeat_n('\n', bytes - text.len()));
        text
    };
    assert!(parse(fill(MOST_BYTES).as_bytes()).is_ok());
    assert!(refused(&fill(MOST_BYTES + 1)).contains("more than 4194304"));
    assert!(
        parse(("FROM a\n".to_owned() + &"RUN\n".repeat(MOST_INSTRUCTIONS - 1)).as_bytes()).is_ok()
    );
    let many = "FROM a\n".to_owned() + &"RUN\n".repeat(MOST_INSTRUCTIONS);
    assert!(refused(&many).contains("more than 100000 instructions"));
    let line = |bytes: usize, end: &str| format!("FROM a\nRUN {}{end}", "x".repeat(bytes - 4));
    assert!(parse(line(65535, "\n").as_bytes()).is_ok());
    assert!(refused(&line(65535, "\r\n")).contains("more than 65535 bytes"));
    assert!(refused(&line(65536, "")).contains("more than 65535 bytes"));
    let nested = |n: usize| format!("RUN <<E {}{}\nE", "${a:-".repeat(n), "}".repeat(n));
    assert_eq!(one(&nested(100)).heredocs.len(), 1);
    let deep = format!("FROM a\n{}", nested(101));
    assert!(refused(&deep).contains("substitutions within each other"));
    // Continued lines add up to more than any one may have; nested ones must not be copied again
    // and again.
    let part = "x".repeat(60_000) + "\\\n";
    let deep = format!(
        "RUN <<E {}{}{}\nE",
        "${a:-".repeat(99),
        part.repeat(15),
        "}".repeat(99)
    );
    assert_eq!(one(&deep).heredocs.len(), 1);
}

#[test]
fn what_is_no_text_is_read() {
    let parsed = parse(b"FROM a\nRUN \xff\0 <<E\n\xc3\nE\nCMD [\"\xff\"]\nENV \x80=\xa0\n")
        .expect("it is valid");
    let [run, cmd, env] = &parsed.stages[0].instructions[..] else {
        panic!("{parsed:?}");
    };
    assert_eq!(run.text, "RUN \u{fffd}\0 <<E");
    assert_eq!(run.heredocs[0].content, "\u{fffd}\n");
    assert_eq!((cmd.form, &*cmd.args[0]), (Form::Exec, "\u{fffd}"));
    assert_eq!(env.args, ["\u{fffd}", "\u{fffd}"]);
    assert_eq!(one(r#"CMD ["\ud800x"]"#).form, Form::Exec);
}

#[test]
fn a_message_of_the_log_is_matched() {
    let run =
        one("RUN --mount=type=cache,target=/c   apt  \\\n # c\n\t install <<EOF > /x  \nbody\nEOF");
    assert_eq!(
        run.text,
        "RUN --mount=type=cache,target=/c   apt  \t install <<EOF > /x"
    );
    assert!(run.matches_log(&run.text));
    assert!(run.matches_log("RUN --mount=type=cache,target=/c apt install <<EOF > /x     "));
    assert!(!run.matches_log("RUN --mount=type=cache,target=/c apt install <<EOF > /xy"));
    assert!(!run.matches_log("RUN --mount=type=cache,target=/c apt install <<EOF >"));
    assert!(!run.matches_log(""));
    assert!(one("CMD [\"a\", \"\\u00e9\"]").matches_log("CMD [\"a\", \"\\u00e9\"]"));
    assert!(one("run a\x0bb\x1bc").matches_log("run a b c"));
}

/// Pieces of which nasty files are made.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: &[&str] = &[
        "FROM a\n",
        "FROM a AS b\n",
        "RUN ",
        "COPY ",
        "ONBUILD ",
        "ENV ",
        "HEALTHCHECK CMD ",
        "CMD ",
        "ARG x\n",
        "SHELL ",
        "<<E",
        "<<-'E'",
        "\nE\n",
        "\n\tE\n",
        "\n",
        "\r\n",
        "\\\n",
        "`\n",
        "\\",
        "`",
        "# escape=`\n",
        "# c\n",
        "#",
        "[\"a\", \"b\"]",
        "[1]",
        "[",
        "\"",
        "'",
        "$",
        "${",
        "${a:-",
        "}",
        "--x=y ",
        "-- ",
        "a=b",
        " ",
        "\t",
        "\u{a0}",
        "\u{feff}",
        "é",
        "\0",
    ];
    prop_oneof![
        8 => prop::sample::select(PIECES).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ]
}

proptest! {
    #[test]
    fn any_file_is_read_or_refused_with_a_place(pieces in prop::collection::vec(piece(), 0..60), from: bool) {
        let mut text = if from { b"FROM a\n".to_vec() } else { Vec::new() };
        text.extend(pieces.concat());
        let ends = text.iter().filter(|&&b| b == b'\n').count();
        let lines = u32::try_from(ends).expect("it is short")
            + u32::from(text.last().is_some_and(|&b| b != b'\n'));
        match parse(&text) {
            Err(error) => {
                prop_assert!((1..=lines.max(1)).contains(&error.line), "{error}");
                let line = text.split(|&b| b == b'\n').nth(error.line as usize - 1).unwrap_or_default();
                let characters = String::from_utf8_lossy(line).chars().count();
                prop_assert!((1..=characters + 1).contains(&(error.column as usize)), "{error}");
                prop_assert!(!error.message.contains(crate::render::escape::is_unsafe), "{error}");
            }
            Ok(parsed) => {
                let mut last = 0;
                for instruction in parsed.instructions() {
                    prop_assert!(last < instruction.line);
                    prop_assert!(instruction.line <= instruction.end_line);
                    let mut inside = instruction.line;
                    let inner = instruction.trigger.as_deref().unwrap_or(instruction);
                    for heredoc in &inner.heredocs {
                        prop_assert!(inside < heredoc.line && heredoc.line <= instruction.end_line);
                        inside = heredoc.line;
                    }
                    prop_assert!(instruction.matches_log(&instruction.text));
                    last = instruction.end_line;
                }
                prop_assert!(last <= lines);
                prop_assert!(!parsed.stages.is_empty());
            }
        }
    }
}
