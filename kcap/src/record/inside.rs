//! What an executor was told to build, read from inside its container as it starts: its command line
//! names the Dockerfile. Best effort: the process may be over, and then nothing is known.

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::{
        fd::{AsRawFd as _, FromRawFd as _},
        unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

/// Longest command line read, in bytes.
const COMMAND: u64 = 128 << 10;
/// Most arguments that are kept.
const ARGUMENTS: usize = 4096;
/// Longest environment read, in bytes.
const ENVIRONMENT: u64 = 1 << 20;
/// Longest value of a variable that is kept, in bytes.
const VALUE: usize = 1024;
/// Largest Dockerfile read, in bytes.
const DOCKERFILE: u64 = 4 << 20;

/// The command line of a process; empty where it is over.
pub fn command(pid: u32) -> Vec<String> {
    let mut bytes = vec![];
    if let Ok(file) = File::open(format!("/proc/{pid}/cmdline")) {
        // Nobody is helped by an error: what was read is what there is.
        let _ = file.take(COMMAND).read_to_end(&mut bytes);
    }
    arguments(&bytes)
}

/// NUL-separated arguments.
pub fn arguments(bytes: &[u8]) -> Vec<String> {
    if bytes.is_empty() {
        return vec![];
    }
    bytes
        .strip_suffix(b"\0")
        .unwrap_or(bytes)
        .split(|&b| b == 0)
        .take(ARGUMENTS)
        .map(|arg| String::from_utf8_lossy(arg).into_owned())
        .collect()
}

/// What a command line takes in memory, roughly, in bytes.
pub fn size(command: &[String]) -> usize {
    // A string, and what keeps account of its memory.
    const ARGUMENT: usize = size_of::<String>() + 32;
    command.iter().map(|arg| arg.len() + ARGUMENT).sum()
}

/// Those of a process's variables that are wanted; none where it is over. The values are what the
/// process was started with.
pub fn variables(pid: u32, wanted: &[String]) -> BTreeMap<String, String> {
    let mut bytes = vec![];
    if wanted.is_empty() {
        return BTreeMap::new();
    }
    if let Ok(file) = File::open(format!("/proc/{pid}/environ")) {
        // As for the command line.
        let _ = file.take(ENVIRONMENT).read_to_end(&mut bytes);
    }
    wanted_of(&bytes, wanted)
}

/// Those of NUL-separated variables that are wanted.
pub fn wanted_of(environment: &[u8], wanted: &[String]) -> BTreeMap<String, String> {
    environment
        .split(|&b| b == 0)
        .filter_map(|line| {
            let at = line.iter().position(|&b| b == b'=')?;
            let name = str::from_utf8(&line[..at]).ok()?;
            let value = &line[at + 1..];
            let value = &value[..value.len().min(VALUE)];
            (wanted.iter().any(|wanted| wanted == name))
                .then(|| (name.to_owned(), String::from_utf8_lossy(value).into_owned()))
        })
        .collect()
}

/// Where a process looks for files: what leads to them is held on to, so that the process may end.
pub struct Site {
    root: File,
    cwd: PathBuf,
}

impl Site {
    /// That of a process; `None` where it is over.
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self {
            // Not read: its file system may be a tenant's, who may keep one waiting.
            root: OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
                .open(format!("/proc/{pid}/root"))
                .ok()?,
            cwd: std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?,
        })
    }
}

/// The Dockerfile that an executor with this command line builds there, as it names it, and its bytes.
pub fn dockerfile(site: &Site, command: &[String]) -> Option<(PathBuf, Vec<u8>)> {
    let named = option(command, "--dockerfile", "-f").unwrap_or_else(|| "Dockerfile".into());
    let context = option(command, "--context", "-c").unwrap_or_else(|| "/workspace/".into());
    // Of the other kinds of context, Kaniko fetches the Dockerfile later.
    let context = context
        .strip_prefix("dir://")
        .unwrap_or(&context)
        .to_owned();
    // As Kaniko's resolveDockerfilePath (cmd/executor/cmd/root.go): as given, else in the context.
    [site.cwd.join(&named), Path::new(&context).join(&named)]
        .iter()
        .find_map(|path| Some((named.clone().into(), read_in(&site.root, path).ok()?)))
}

/// The value of an option in any of the forms that Kaniko's parser takes; the last one counts.
pub(crate) fn option(command: &[String], long: &str, short: &str) -> Option<String> {
    let mut value = None;
    let mut args = command.iter().skip(1);
    while let Some(arg) = args.next() {
        if arg == long || arg == short {
            value = args.next().cloned().or(value);
        } else if let Some(given) = arg
            .strip_prefix(long)
            .and_then(|rest| rest.strip_prefix('='))
        {
            value = Some(given.to_owned());
        } else if let Some(given) = arg.strip_prefix(short)
            && !arg.starts_with("--")
        {
            value = Some(given.strip_prefix('=').unwrap_or(given).to_owned());
        }
    }
    value
}

/// Reads a file below a root, out of which no link leads.
fn read_in(root: &File, path: &Path) -> io::Result<Vec<u8>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: integers, for which zero is a value.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    // Not waiting for the writer of a pipe.
    how.flags = (libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY) as u64;
    how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
    // SAFETY: the path and the struct are live, and the struct is of the size given.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            root.as_raw_fd(),
            path.as_ptr(),
            &raw const how,
            size_of_val(&how),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor.
    let file = unsafe { File::from_raw_fd(fd as i32) };
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = vec![];
    file.take(DOCKERFILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > DOCKERFILE {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_in_all_their_forms() {
        let of = |text| option(&words(text), "--dockerfile", "-f");
        assert_eq!(of("x -f a").as_deref(), Some("a"));
        assert_eq!(of("x -fa").as_deref(), Some("a"));
        assert_eq!(of("x -f=a").as_deref(), Some("a"));
        assert_eq!(of("x --dockerfile a").as_deref(), Some("a"));
        assert_eq!(of("x --dockerfile=a -f b").as_deref(), Some("b"));
        assert_eq!(of("x --force --dockerfiles=a"), None);
        assert_eq!(of("x -f"), None);
    }

    #[test]
    fn no_link_leads_out_of_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("root");
        std::fs::create_dir_all(inner.join("etc")).unwrap();
        std::fs::write(dir.path().join("secret"), "outside").unwrap();
        std::fs::write(inner.join("etc/file"), "inside").unwrap();
        symlink("/etc/file", inner.join("absolute")).unwrap();
        symlink("../../../secret", inner.join("up")).unwrap();
        let root = File::open(&inner).unwrap();
        let read = |path: &str| read_in(&root, Path::new(path));
        assert_eq!(read("/etc/file").unwrap(), b"inside");
        assert_eq!(read("absolute").unwrap(), b"inside");
        assert!(read("up").is_err());
        assert!(read("/../secret").is_err());
        assert!(read("/etc").is_err());
    }
}
