//! Many files and folders at once: found in a bounded walk that follows no links, read side by
//! side, each reduced as soon as it is read.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{anyhow, bail};

use super::objects::Object;
use super::{Content, Keep, content, objects, shown, unlisted};
use crate::combine::Build;

/// Endings of files that are looked at in folders.
const ENDINGS: [&str; 2] = ["json", "kcap"];
/// Most files read at once: a bound on folders that are something else.
const FILES: usize = 1_000_000;
/// Deepest folder below one that was given.
const DEPTH: usize = 32;
/// Most threads that read.
const THREADS: usize = 8;
/// A buffer that a large file left is not kept, and files above it are read one at a time.
const LARGE: usize = 4 << 20;

/// Most bytes of files of which all is kept, where not all is wanted of all; in memory they take up to
/// twice as much.
const KEPT: u64 = 64 << 20;
/// How many times as large as a capture its report can be.
const UNPACKED: u64 = 8;

/// What was read.
#[derive(Debug)]
pub struct Many<T = Build> {
    /// The builds of all files, in the order of the files.
    pub builds: Vec<T>,
    /// How many files were read.
    pub files: usize,
    /// JSON files in folders that kcap did not write, and left out.
    pub foreign: usize,
}

/// Reads every report, capture and matrix of `paths`; of folders, all `.json` and `.kcap` files
/// below, hidden ones left out.
///
/// # Errors
/// Where one cannot be read, a file that was named is something else, or there is none: one line.
pub fn builds(paths: &[PathBuf], keep: Keep) -> anyhow::Result<Many> {
    each(paths, keep, |build| build)
}

/// Reads them as [`builds`] does, and makes something smaller of each as soon as it is read.
///
/// # Errors
/// Those of [`builds`].
pub fn each<T: Send>(
    paths: &[PathBuf],
    keep: Keep,
    of: impl Fn(Build) -> T + Sync,
) -> anyhow::Result<Many<T>> {
    let files = find(paths)?;
    let keeps = keeps(&files, keep);
    let results = read(&files, &keeps, &of);
    let mut many = Many {
        builds: Vec::new(),
        files: files.len(),
        foreign: 0,
    };
    let mut failed = Vec::new();
    for (file, result) in files.iter().zip(results) {
        match result {
            Ok(Some(builds)) => many.builds.extend(builds),
            Ok(None) if file.found => many.foreign += 1,
            Ok(None) => failed.push(anyhow!(
                "cannot read {}: neither a report nor a matrix of kcap; give a file that kcap wrote",
                shown(&file.path)
            )),
            Err(error) => failed.push(error),
        }
    }
    let more = failed.len().saturating_sub(1);
    match failed.into_iter().next() {
        None => {}
        Some(first) if more == 0 => return Err(first),
        Some(first) => bail!("{first:#} (and {more} more that cannot be read)"),
    }
    if many.builds.is_empty() {
        let names: Vec<String> = paths.iter().take(3).map(|path| shown(path)).collect();
        bail!(
            "no report in {}: give reports, captures, or folders of them (*.json, *.kcap)",
            names.join(", ")
        );
    }
    Ok(many)
}

struct Input {
    path: PathBuf,
    /// In a folder, not named itself.
    found: bool,
    /// It is in an object store.
    object: Option<Object>,
}

fn find(paths: &[PathBuf]) -> anyhow::Result<Vec<Input>> {
    let mut files = Vec::new();
    for path in paths {
        if objects::is_folder(path) {
            objects::list(path, FILES + 1 - files.len(), &mut |path, object| {
                files.push(Input {
                    path,
                    found: true,
                    object: Some(object),
                });
            })?;
        } else if path.as_os_str() == "-" || !path.is_dir() {
            files.push(Input {
                path: path.clone(),
                found: false,
                object: None,
            });
        } else {
            walk(path, &mut files)?;
        }
        if files.len() > FILES {
            bail!(
                "more than {FILES} files in {}: give fewer at once",
                shown(path)
            );
        }
    }
    Ok(files)
}

fn walk(root: &Path, files: &mut Vec<Input>) -> anyhow::Result<()> {
    let mut folders = VecDeque::from([(root.to_owned(), 0)]);
    while let Some((folder, depth)) = folders.pop_front() {
        let mut entries = Vec::new();
        for entry in unlisted(fs::read_dir(&folder), &folder)? {
            let entry = unlisted(entry, &folder)?;
            entries.push((entry.path(), unlisted(entry.file_type(), &folder)?));
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        for (path, kind) in entries {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let ending = path.extension().and_then(|ending| ending.to_str());
            if name.starts_with('.') {
            } else if kind.is_dir() && depth < DEPTH {
                folders.push_back((path, depth + 1));
            } else if kind.is_file() && ending.is_some_and(|e| ENDINGS.contains(&e)) {
                files.push(Input {
                    path,
                    found: true,
                    object: None,
                });
            }
            if files.len() > FILES {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// How much is kept of each file. Known before any is read, so that it does not depend on which is read
/// first.
fn keeps(files: &[Input], keep: Keep) -> Vec<Keep> {
    let Keep::Some(most) = keep else {
        return vec![keep; files.len()];
    };
    let mut left = KEPT;
    (files.iter().enumerate())
        .map(|(at, file)| {
            let length = match &file.object {
                Some(object) => object.size,
                None => fs::metadata(&file.path).map_or(0, |found| found.len()),
            };
            let packed = file.path.extension().is_some_and(|ending| ending == "kcap");
            let size = length.saturating_mul(if packed { UNPACKED } else { 1 });
            left = left.saturating_sub(size);
            if at < most && left > 0 {
                Keep::Reports
            } else {
                Keep::Briefs
            }
        })
        .collect()
}

/// What is made of a file's builds; `None` where it is not kcap's.
type Made<T> = anyhow::Result<Option<Vec<T>>>;

/// What each file holds, in their order.
fn read<T: Send>(
    files: &[Input],
    keeps: &[Keep],
    of: &(impl Fn(Build) -> T + Sync),
) -> Vec<Made<T>> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    // What is far away is waited for, whatever the number of processors.
    let far = files.iter().any(|file| file.object.is_some());
    let threads = if far { THREADS } else { threads.min(THREADS) };
    let threads = threads.min(files.len());
    let next = AtomicUsize::new(0);
    // One large file in memory at a time, whatever the number of threads.
    let large = Mutex::new(());
    let work = || {
        let mut buffer = Vec::new();
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = files.get(at) else {
                return done;
            };
            let length = match &file.object {
                Some(object) => object.size,
                None => fs::metadata(&file.path).map_or(u64::MAX, |found| found.len()),
            };
            // A pipe has no length that tells.
            let alone = (length == 0 || length > LARGE as u64).then(|| {
                large
                    .lock()
                    .unwrap_or_else(|poisoned| poisoned.into_inner())
            });
            let read = match &file.object {
                Some(object) => object.content(&shown(&file.path), keeps[at], &mut buffer),
                None => content(&file.path, keeps[at], &mut buffer),
            };
            let made = read.map(|content| match content {
                Content::One(build) => Some(vec![of(*build)]),
                Content::Matrix(builds) => Some(builds.into_iter().map(of).collect()),
                Content::Foreign => None,
            });
            done.push((at, made));
            if buffer.capacity() > LARGE {
                buffer = Vec::new();
            }
            drop(alone);
        }
    };
    let mut done: Vec<(usize, Made<T>)> = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut done = work();
        for other in others {
            match other.join() {
                Ok(more) => done.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{self, Capture};
    use crate::combine::{Matrix, merge};
    use crate::interpret::interpret;

    fn report(dockerfile: &str) -> crate::report::Report {
        let mut report = interpret(&Capture::default());
        report.subject.dockerfile = Some(dockerfile.to_owned());
        report.subject.dockerfile_sha256 = Some("ab".repeat(32));
        report.subject.exit_status = Some(0);
        report
    }

    fn json(value: &impl serde::Serialize) -> String {
        serde_json::to_string(value).unwrap()
    }

    fn names(many: Many) -> Vec<String> {
        many.builds
            .into_iter()
            .map(|build| build.dockerfile)
            .collect()
    }

    #[test]
    fn folders_hold_reports_captures_and_matrices_and_what_is_not_kcap_s_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        fs::create_dir(at(".hidden")).unwrap();
        fs::write(at("a.json"), json(&report("a"))).unwrap();
        fs::write(at("sub/b.json"), json(&report("b"))).unwrap();
        fs::write(at(".hidden/x.json"), "{").unwrap();
        fs::write(at("truth.json"), r#"{"schema": "kcap.truth/v1"}"#).unwrap();
        fs::write(at("note.txt"), "no report").unwrap();
        let matrix = Matrix::of(vec![Build::traced("c".into(), report("c"))]);
        fs::write(at("m.json"), json(&matrix)).unwrap();
        let mut packed = Vec::new();
        capture::write(&Capture::default(), &mut packed).unwrap();
        fs::write(at("d.kcap"), packed).unwrap();
        std::os::unix::fs::symlink("/", at("root")).unwrap();

        for keep in [Keep::Briefs, Keep::Reports] {
            let many = builds(&[dir.path().to_owned()], keep).unwrap();
            assert_eq!((many.files, many.foreign), (5, 1));
            let kept = many.builds.iter().all(|build| build.report.is_some());
            assert_eq!(kept, keep == Keep::Reports);
            assert!(many.builds.iter().all(|build| build.runs.len() == 1));
            let d = shown(&at("d.kcap"));
            assert_eq!(names(many), ["a", &d, "c", "b"]);
        }
        // Named, what is not kcap's is an error.
        let error = builds(&[at("a.json"), at("truth.json")], Keep::Briefs).unwrap_err();
        assert!(error.to_string().contains("truth.json"), "{error}");
        // Twice the same is the same.
        let many = builds(&[at("a.json"), at("a.json")], Keep::Briefs).unwrap();
        assert_eq!(merge(many.builds)[0].runs.len(), 1);
    }

    #[test]
    fn of_some_all_is_kept_and_of_the_others_what_they_need() {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..5)
            .map(|n| {
                let path = dir.path().join(format!("{n}.json"));
                fs::write(&path, json(&report(&n.to_string()))).unwrap();
                path
            })
            .collect();
        let kept = |keep| -> Vec<bool> {
            let builds = builds(&paths, keep).unwrap().builds;
            builds.iter().map(|build| build.report.is_some()).collect()
        };
        assert_eq!(kept(Keep::Some(3)), [true, true, true, false, false]);
        assert_eq!(kept(Keep::Some(9)), [true; 5]);
        // One that is too large ends it.
        let whole = fs::read(&paths[1]).unwrap();
        let padded = [whole, vec![b' '; KEPT as usize]].concat();
        fs::write(&paths[1], padded).unwrap();
        assert_eq!(kept(Keep::Some(9)), [true, false, false, false, false]);
    }

    #[test]
    fn what_cannot_be_read_is_named_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let whole = json(&report("a"));
        fs::write(at("cut.json"), &whole[..whole.len() / 2]).unwrap();
        fs::write(at("later.json"), r#"{"schema": "kcap.report/v2"}"#).unwrap();
        fs::write(at("matrix.json"), r#"{"schema": "kcap.matrix/v9"}"#).unwrap();
        let error = |names: &[&str]| {
            let paths: Vec<PathBuf> = names.iter().map(|name| at(name)).collect();
            format!("{:#}", builds(&paths, Keep::Briefs).unwrap_err())
        };
        assert!(error(&["cut.json"]).contains("malformed report"));
        assert!(error(&["later.json"]).contains("kcap.report/v2"));
        assert!(error(&["matrix.json"]).contains("kcap.matrix/v9"));
        assert!(error(&["cut.json", "later.json"]).ends_with("(and 1 more that cannot be read)"));
        assert!(error(&["none.json"]).starts_with("cannot open "));
        fs::create_dir(at("empty")).unwrap();
        assert!(error(&["empty"]).starts_with("no report in "));
    }

    #[test]
    fn what_is_larger_than_any_report_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("big.json");
        let file = fs::File::create(&path).unwrap();
        // Sparse: it takes no room, and reads as the start of an object and zeros.
        std::io::Write::write_all(&mut &file, b"{").unwrap();
        file.set_len(2 << 30).unwrap();
        let error = builds(&[path], Keep::Briefs).unwrap_err();
        assert!(
            format!("{error:#}").contains("larger than 256 MiB"),
            "{error:#}"
        );
    }
}
