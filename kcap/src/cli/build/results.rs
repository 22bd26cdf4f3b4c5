//! Where the results of builds go: a file each, written when its build has ended. Whether they can
//! be written is tried before the first build starts.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    capture::Capture,
    cli::output::{self, Output},
    report::Report,
};

/// What to write, and where.
pub struct Results {
    names: Vec<String>,
    /// Folder of reports.
    reports: Option<PathBuf>,
    /// Folder of captures.
    captures: Option<PathBuf>,
    /// A file for the report of the only build.
    report: Option<Output>,
    /// A file for its capture.
    capture: Option<Output>,
}

impl Results {
    /// For builds of these names: a folder for reports, a file for the only report, and a folder
    /// for captures, or a file for the only one.
    ///
    /// # Errors
    /// Where something cannot be written, or a file is meant for several.
    pub fn open(
        names: Vec<String>,
        out: Option<&Path>,
        report: Option<&Path>,
        capture: Option<&Path>,
    ) -> Result<Self> {
        let several = names.len() > 1;
        if several && report.is_some() {
            bail!(
                "--report takes one report, and there are {}: give a folder with -o",
                names.len()
            );
        }
        if let Some(capture) = capture.filter(|path| several && path.as_os_str() == "-") {
            bail!(
                "--capture {} takes one capture, and there are {}: give a folder",
                capture.display(),
                names.len()
            );
        }
        if let (Some(report), Some(capture)) = (report, capture)
            && (report == capture || output::is_stdout(report) && output::is_stdout(capture))
        {
            bail!("--report and --capture name the same file: give each its own");
        }
        let into_folder = capture.filter(|path| several || path.is_dir());
        let results = Self {
            reports: out.map(Path::to_owned),
            captures: into_folder.map(Path::to_owned),
            report: (report.map(Output::report).transpose()?)
                .map(|to| to.later(output::REPORT_MODE)),
            capture: (capture.filter(|_| into_folder.is_none()))
                .map(Output::capture)
                .transpose()?
                .map(|to| to.later(output::CAPTURE_MODE)),
            names,
        };
        for (folder, ending) in [(&results.reports, "json"), (&results.captures, "kcap")] {
            let Some(folder) = folder else { continue };
            output::try_folder(folder)?;
            for name in &results.names {
                let path = folder.join(format!("{name}.{ending}"));
                if path.is_dir() {
                    bail!(
                        "cannot write {}: there is a folder of that name",
                        path.display()
                    );
                }
            }
        }
        Ok(results)
    }

    /// Writes what was seen of a build, by its position, and says what became of it.
    pub fn write(
        &mut self,
        job: usize,
        capture: Option<&Capture>,
        report: &Report,
        out: &mut dyn Write,
    ) -> Vec<Result<()>> {
        let name = &self.names[job];
        let mut written = vec![];
        if let (Some(to), Some(capture)) = (self.capture.take(), capture) {
            written.push(to.write_capture(capture, out));
        }
        if let (Some(folder), Some(capture)) = (&self.captures, capture) {
            let path = folder.join(format!("{name}.kcap"));
            let to = made(folder).and_then(|()| Output::capture(&path));
            written.push(to.and_then(|to| to.write_capture(capture, out)));
        }
        if let Some(to) = self.report.take() {
            written.push(to.write_report(report, out));
        }
        if let Some(folder) = &self.reports {
            let path = folder.join(format!("{name}.json"));
            let to = made(folder).and_then(|()| Output::report(&path));
            written.push(to.and_then(|to| to.write_report(report, out)));
        }
        written
    }
}

fn made(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{interpret::interpret, report};

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn write(results: &mut Results, job: usize) {
        let capture = Capture::default();
        for result in results.write(job, Some(&capture), &interpret(&capture), &mut vec![]) {
            result.unwrap();
        }
    }

    fn listed(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn each_build_has_its_own_files_when_it_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let (out, captures) = (dir.path().join("a/b"), dir.path().join("c"));
        let mut results =
            Results::open(names(&["x", "y"]), Some(&out), None, Some(&captures)).unwrap();
        assert!(listed(dir.path()).is_empty());
        write(&mut results, 1);
        assert_eq!(listed(&out), ["y.json"]);
        assert_eq!(listed(&captures), ["y.kcap"]);
        report::from_json(&fs::read(out.join("y.json")).unwrap()).unwrap();
        write(&mut results, 0);
        assert_eq!(listed(&out), ["x.json", "y.json"]);
    }

    #[test]
    fn one_build_can_have_files_of_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let (report, capture) = (dir.path().join("r"), dir.path().join("c"));
        let mut results = Results::open(
            names(&["x"]),
            Some(dir.path()),
            Some(&report),
            Some(&capture),
        )
        .unwrap();
        write(&mut results, 0);
        assert_eq!(listed(dir.path()), ["c", "r", "x.json"]);
        // A folder that is there is one.
        let mut results = Results::open(names(&["x"]), None, None, Some(dir.path())).unwrap();
        write(&mut results, 0);
        assert_eq!(listed(dir.path()), ["c", "r", "x.json", "x.kcap"]);
    }

    #[test]
    fn what_cannot_be_is_found_out_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        fs::create_dir(dir.path().join("x.json")).unwrap();
        let both = || names(&["x", "y"]);
        let error = |names, out: Option<&Path>, report: Option<&Path>, capture: Option<&Path>| {
            format!(
                "{:#}",
                Results::open(names, out, report, capture).err().unwrap()
            )
        };
        assert!(error(both(), None, Some(&file), None).contains("folder with -o"));
        assert!(error(both(), None, None, Some("-".as_ref())).contains("give a folder"));
        assert!(error(both(), Some(&file), None, None).contains("cannot write into the folder"));
        assert!(error(both(), Some(dir.path()), None, None).contains("folder of that name"));
        let one = || names(&["y"]);
        assert!(error(one(), None, Some(&file), Some(&file)).contains("same file"));
        assert!(error(one(), None, Some("/nonexistent/x".as_ref()), None).contains("cannot write"));
        assert_eq!(listed(dir.path()), ["file", "x.json"]);
    }
}
