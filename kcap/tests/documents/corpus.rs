//! The corpus' captures, interpreted.

use std::{
    fs::{self, File},
    io::{self, BufReader, Write as _},
    path::PathBuf,
};

use kcap::{
    capture,
    combine::{Build, Matrix, merge},
    interpret::interpret,
    report::Report,
};

/// The repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The names of all folders with a capture.
pub fn names() -> Vec<String> {
    let mut names = vec![];
    for entry in fs::read_dir(root().join("corpus")).expect("the corpus is there") {
        let path = entry.expect("it can be read").path();
        if path.join("capture.kcap").is_file() {
            names.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    names.sort();
    assert!(names.len() >= 40, "the corpus has {} captures", names.len());
    names
}

/// One of them.
pub fn report(name: &str) -> Report {
    let path = root().join("corpus").join(name).join("capture.kcap");
    let file = File::open(path).expect("there is a capture");
    let capture = capture::read(BufReader::new(file));
    interpret(&capture.unwrap_or_else(|e| panic!("{name}: {e}")))
}

/// All that several need.
pub fn matrix(names: &[String]) -> Matrix {
    let builds = names
        .iter()
        .map(|name| Build::traced(name.clone(), report(name)));
    Matrix::of(merge(builds))
}

/// Says, past the capturing of test output, that a test cannot run.
pub fn skip(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(io::stdout(), "SKIP: {test}: {why}");
}
