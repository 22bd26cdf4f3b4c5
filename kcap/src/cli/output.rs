//! Where results go. Everything is opened, or tried, before the build starts, so that a path that
//! cannot be written is found out then.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::{
        fd::AsFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    capture::{self, Capture},
    render::{self, Format},
    report::Report,
};

/// Permissions of a new report, less those that the umask takes.
pub const REPORT_MODE: u32 = 0o666;
/// Those of a new capture: with `--argv` it holds arguments of the build's programs.
pub const CAPTURE_MODE: u32 = 0o600;
/// Most characters of a file's name that the one beside it repeats.
const SHOWN_NAME: usize = 40;
/// Names tried for it, where others are taken.
const TRIES: u32 = 100;

/// The files, or standard output, that a result goes to.
pub struct Outputs {
    report: Option<Output>,
    capture: Option<Output>,
}

impl Outputs {
    /// Opens them.
    ///
    /// # Errors
    /// Where one cannot be written, or both are the same; nothing is left behind then.
    pub fn open(report: Option<&Path>, capture: Option<&Path>) -> Result<Self> {
        if let (Some(report), Some(capture)) = (report, capture)
            && (report == capture || is_stdout(report) && is_stdout(capture))
        {
            bail!("--report and --capture name the same file: give each its own");
        }
        Ok(Self {
            report: report.map(Output::report).transpose()?,
            capture: capture.map(Output::capture).transpose()?,
        })
    }

    /// Writes the result to each, and says what became of it.
    pub fn write(self, capture: &Capture, report: &Report, out: &mut dyn Write) -> Vec<Result<()>> {
        let mut written = vec![];
        if let Some(to) = self.capture {
            written.push(to.write_capture(capture, out));
        }
        if let Some(to) = self.report {
            written.push(to.write_report(report, out));
        }
        written
    }
}

/// A file, or standard output, that one result goes to.
pub enum Output {
    /// Standard output.
    Stdout,
    /// A device, a pipe, or what a link leads to: written where it is.
    InPlace {
        /// Its path.
        path: PathBuf,
        /// What is there, opened.
        file: File,
    },
    /// A file like the next, of which nothing is there before it is written.
    Later {
        /// Its path.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file, written beside its path first: a result is there whole or not at all.
    File {
        /// Its path.
        path: PathBuf,
        /// The file beside it.
        partial: Partial,
    },
}

impl Output {
    /// For a report.
    ///
    /// # Errors
    /// Where it cannot be written; nothing is left behind then.
    pub fn report(path: &Path) -> Result<Self> {
        Self::open(path, REPORT_MODE)
    }

    /// For a capture.
    ///
    /// # Errors
    /// Where it cannot be written; nothing is left behind then.
    pub fn capture(path: &Path) -> Result<Self> {
        Self::open(path, CAPTURE_MODE)
    }

    fn open(path: &Path, mode: u32) -> Result<Self> {
        if is_stdout(path) {
            return Ok(Self::Stdout);
        }
        let cannot = || {
            format!(
                "cannot write {}: choose a file in a folder that exists and is writable",
                path.display()
            )
        };
        // A link is followed by the kernel, which knows when not to.
        let in_place = path
            .symlink_metadata()
            .is_ok_and(|found| !found.file_type().is_file());
        if in_place {
            let file = OpenOptions::new()
                .write(true)
                .open(path)
                .with_context(cannot)?;
            return Ok(Self::InPlace {
                path: path.to_owned(),
                file,
            });
        }
        Ok(Self::File {
            path: path.to_owned(),
            partial: Partial::create(path, mode).with_context(cannot)?,
        })
    }

    /// Leaves nothing beside its path until it is written: in a build context, that would be built into
    /// the image.
    pub fn later(self, mode: u32) -> Self {
        match self {
            Self::File { path, .. } => Self::Later { path, mode },
            other => other,
        }
    }

    /// Writes a report.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write_report(self, report: &Report, out: &mut dyn Write) -> Result<()> {
        let plain = render::Style { color: false };
        self.write(out, |mut w| {
            render::write(report, Format::Json, plain, &mut w)
        })
    }

    /// Writes a capture.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write_capture(self, capture: &Capture, out: &mut dyn Write) -> Result<()> {
        self.write(out, |w| capture::write(capture, w))
    }

    fn write(
        self,
        out: &mut dyn Write,
        fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<()> {
        let (result, name) = match self {
            Self::Stdout => (
                fill(out).and_then(|()| out.flush()),
                "standard output".into(),
            ),
            Self::InPlace { path, file } => {
                let emptied = match file.metadata() {
                    Ok(found) if found.is_file() => file.set_len(0),
                    _ => Ok(()),
                };
                (emptied.and_then(|()| filled(&file, fill)), path)
            }
            Self::Later { path, mode } => return Self::open(&path, mode)?.write(out, fill),
            Self::File { path, partial } => (
                filled(&partial.file, fill).and_then(|()| partial.replace(&path)),
                path,
            ),
        };
        result.with_context(|| {
            format!(
                "cannot write {} (free space there, or choose another place)",
                name.display()
            )
        })
    }
}

fn filled(file: &File, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut to = BufWriter::new(file);
    fill(&mut to)?;
    to.flush()
}

/// A new file beside the one that it will replace. Dropped before that, it is removed.
pub struct Partial {
    path: PathBuf,
    file: File,
}

impl Partial {
    fn create(path: &Path, mode: u32) -> io::Result<Self> {
        let Some(name) = path.file_name() else {
            return Err(io::ErrorKind::IsADirectory.into());
        };
        // With what is added, the longest name that a file can have would be too long.
        let shown = name.to_string_lossy();
        let shown: String = shown.chars().take(SHOWN_NAME).collect();
        let mut tries = 0;
        loop {
            let name = format!(".{shown}.{}-{tries}.partial", std::process::id());
            let partial = path.with_file_name(name);
            let opened = OpenOptions::new()
                .write(true)
                // Neither another's file nor what a link leads to.
                .create_new(true)
                .mode(mode)
                .open(&partial);
            match opened {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && tries < TRIES => tries += 1,
                opened => {
                    return Ok(Self {
                        file: opened?,
                        path: partial,
                    });
                }
            }
        }
    }

    fn replace(self, path: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        match fs::rename(&self.path, path) {
            // A file that is a mount of its own, as containers have them, can only be written into.
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
                fs::copy(&self.path, path).map(|_| ())
            }
            done => done,
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After the rename there is nothing left to remove.
        let _ = fs::remove_file(&self.path);
    }
}

/// Tries whether files can be made in a folder, or it be made. Leaves nothing behind.
///
/// # Errors
/// Where they cannot.
pub fn try_folder(path: &Path) -> Result<()> {
    let there = path.ancestors().find(|dir| dir.symlink_metadata().is_ok());
    let there = match there {
        Some(dir) => dir,
        None => Path::new("."),
    };
    let tried = if there.is_dir() {
        Partial::create(&there.join("kcap"), REPORT_MODE).map(drop)
    } else {
        Err(io::ErrorKind::NotADirectory.into())
    };
    tried.with_context(|| {
        format!(
            "cannot write into the folder {}: choose one that is writable, or can be made",
            path.display()
        )
    })
}

/// Whether a path is `-`, or a name of what standard output already is, as `/dev/stdout`.
pub fn is_stdout(path: &Path) -> bool {
    if path == Path::new("-") {
        return true;
    }
    let open = io::stdout()
        .as_fd()
        .try_clone_to_owned()
        .and_then(|fd| File::from(fd).metadata());
    match (open, path.metadata()) {
        (Ok(open), Ok(named)) => {
            (open.dev(), open.ino(), open.rdev()) == (named.dev(), named.ino(), named.rdev())
        }
        _ => false,
    }
}
