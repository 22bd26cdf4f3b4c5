//! Dockerfiles: parsed, and what they take from elsewhere.

use std::ffi::OsString;

use kcap::interpret::dockerfile::{Dockerfile, Instruction, Keyword, parse};
use kcap::launch::bases::external;

use crate::rendered;

/// Parses a Dockerfile.
pub fn dockerfile(input: &[u8]) {
    let parsed = parse(input);
    assert_eq!(parse(input), parsed, "parsed twice");
    match parsed {
        Ok(dockerfile) => read(&dockerfile, input),
        Err(e) => {
            let line = rendered::text("an error", |to| {
                use std::io::Write as _;
                write!(to, "{e}")
            });
            assert!(!line.contains('\n'), "{line:?}");
        }
    }
}

fn read(dockerfile: &Dockerfile, input: &[u8]) {
    // One more where the last line has no end.
    let lines = input.iter().filter(|b| **b == b'\n').count() as u32 + 1;
    let mut last = 0;
    for instruction in dockerfile.instructions() {
        placed(instruction, lines);
        assert!(
            instruction.line > last,
            "line {} after {last}",
            instruction.line
        );
        last = instruction.end_line;
        assert!(
            instruction.matches_log(&instruction.text),
            "{instruction:?}"
        );
    }
    assert!(!dockerfile.stages.is_empty());
    for (index, stage) in dockerfile.stages.iter().enumerate() {
        assert_eq!(stage.index, index);
        assert_eq!(stage.from.keyword, Keyword::From);
        assert!(
            stage
                .instructions
                .iter()
                .all(|i| i.keyword != Keyword::From)
        );
    }
    for flags in [&[][..], &["--target=a"], &["--build-arg", "A=b"]] {
        let flags: Vec<OsString> = flags.iter().map(Into::into).collect();
        let found = external(dockerfile, &flags);
        for note in &found.notes {
            rendered::text("a note", |to| {
                to.extend_from_slice(note.as_bytes());
                Ok(())
            });
        }
        let mut names = found.names.clone();
        names.sort();
        names.dedup();
        assert_eq!(
            names.len(),
            found.names.len(),
            "each once: {:?}",
            found.names
        );
    }
}

fn placed(instruction: &Instruction, lines: u32) {
    assert!(instruction.line >= 1 && instruction.line <= instruction.end_line);
    assert!(
        instruction.end_line <= lines,
        "{instruction:?} of {lines} lines"
    );
    assert!(!instruction.text.contains('\n'), "{instruction:?}");
    for heredoc in &instruction.heredocs {
        assert!((instruction.line..=instruction.end_line).contains(&heredoc.line));
    }
    if let Some(trigger) = &instruction.trigger {
        assert_eq!(instruction.keyword, Keyword::Onbuild);
        placed(trigger, lines);
    }
}
