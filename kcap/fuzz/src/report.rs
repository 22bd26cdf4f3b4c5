//! Reports and matrices, as `kcap report` and `kcap check` read them.

use kcap::combine::Build;
use kcap::input::{self, Content, Keep};

use crate::rendered;
use crate::scratch::Scratch;

/// Reads a file that may be a report, a matrix, a capture, or anything.
pub fn report(input: &[u8]) {
    let file = Scratch::new(input);
    let path = file.path();
    let mut buffer = Vec::new();
    let whole = input::content(&path, Keep::Reports, &mut buffer);
    let brief = input::content(&path, Keep::Briefs, &mut buffer);
    let (whole, brief) = match (whole, brief) {
        (Ok(whole), Ok(brief)) => (whole, brief),
        // Reading lean passes over parts that it does not look at.
        (Err(e), _) | (_, Err(e)) => return rendered::error(&e),
    };
    match (whole, brief) {
        (Content::One(whole), Content::One(brief)) => {
            assert_eq!(whole.runs, brief.runs, "read lean and whole");
            let report = whole.report.as_ref().expect("it was to be kept");
            rendered::report(report);
            rendered::builds(vec![*whole]);
            let twice: Vec<Build> = vec![(*brief).clone(), *brief];
            rendered::builds(twice);
        }
        (Content::Matrix(builds), Content::Matrix(lean)) => {
            let runs = |builds: &[Build]| builds.iter().map(|b| b.runs.len()).sum::<usize>();
            assert_eq!(runs(&builds), runs(&lean));
            rendered::builds(builds);
        }
        (Content::Foreign, Content::Foreign) => {}
        _ => panic!("read lean and whole, it is something else"),
    }
}
