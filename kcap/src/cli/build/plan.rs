//! What to build, made ready before the first build starts.

use std::{
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};

use super::{log::Instructions, progress::Watched};
use crate::{
    cli::dockerfile,
    interpret::dockerfile::{Dockerfile, parse},
    launch::{Engine, Request},
    record::Job,
};

/// A Dockerfile to build, or why it cannot be.
pub struct Planned {
    /// Its path as found.
    pub path: PathBuf,
    /// The path as shown.
    pub shown: String,
    /// What its build takes, or why there is none.
    pub ready: Result<Ready>,
}

/// What a build takes.
pub struct Ready {
    text: Vec<u8>,
    dockerfile: Dockerfile,
    /// The context as given, and where it is.
    context: (PathBuf, PathBuf),
}

impl Planned {
    /// For progress.
    pub fn watched(&self) -> Watched {
        let ready = self.ready.as_ref().ok();
        let instructions = ready.map(|ready| Instructions::of(&ready.dockerfile));
        Watched::new(&self.shown, instructions)
    }
}

/// Reads the Dockerfiles and finds their contexts.
///
/// # Errors
/// Where there is one Dockerfile, and it cannot be built. Of several, the others can.
pub fn plan(context: Option<&Path>, paths: &[PathBuf]) -> Result<Vec<Planned>> {
    if let Some(context) = context {
        folder(context)?;
    }
    let mut planned = vec![];
    for path in paths {
        let ready = ready(path, context);
        if paths.len() == 1
            && let Err(why) = ready
        {
            return Err(why);
        }
        planned.push(Planned {
            path: path.clone(),
            shown: shown(path),
            ready,
        });
    }
    Ok(planned)
}

/// The path as text; one that is none keeps its bytes apart from others'.
fn shown(path: &Path) -> String {
    match path.to_str() {
        Some(text) => text.to_owned(),
        None => path.as_os_str().as_bytes().escape_ascii().to_string(),
    }
}

fn ready(path: &Path, context: Option<&Path>) -> Result<Ready> {
    let text = dockerfile::read(path)?;
    let dockerfile = parse(&text)
        .with_context(|| format!("{} is no Dockerfile that can be built", path.display()))?;
    let context = match context {
        Some(given) => given,
        None => match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        },
    };
    Ok(Ready {
        text,
        dockerfile,
        context: (context.to_owned(), folder(context)?),
    })
}

/// Where a context is.
fn folder(path: &Path) -> Result<PathBuf> {
    let found = path.canonicalize().with_context(|| {
        format!(
            "cannot use the context {}: -c takes a folder on this host",
            path.display()
        )
    })?;
    if !found.is_dir() {
        bail!("the context {} is no folder: -c takes one", path.display());
    }
    Ok(found)
}

impl Ready {
    /// The Dockerfile as parsed.
    pub fn dockerfile(&self) -> &Dockerfile {
        &self.dockerfile
    }

    /// Its bytes.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The context as given.
    pub fn context(&self) -> String {
        self.context.0.display().to_string()
    }

    /// The folder of the context.
    pub fn folder(&self) -> &Path {
        &self.context.1
    }

    /// What its build takes, where that of all is `request`.
    ///
    /// # Errors
    /// Where the Dockerfile has gone meanwhile.
    pub fn request(&self, path: &Path, request: &Request) -> Result<Request> {
        Ok(Request {
            dockerfile: path
                .canonicalize()
                .with_context(|| format!("cannot read the Dockerfile {}", path.display()))?,
            context: self.context.1.clone(),
            ..request.clone()
        })
    }
}

/// A build whose container is made by `engine` once its turn has come.
///
/// # Errors
/// Where the Dockerfile has gone meanwhile.
pub fn job(path: &Path, ready: Ready, request: &Request, engine: &Arc<dyn Engine>) -> Result<Job> {
    let request = ready.request(path, request)?;
    let engine = Arc::clone(engine);
    Ok(Job {
        context: Some(ready.context()),
        dockerfile: (path.to_owned(), ready.text),
        launch: Box::new(move || engine.prepare(&request)),
        timeout: None,
    })
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, fs};

    use super::*;

    #[test]
    fn one_that_cannot_be_built_stops_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let (good, bad) = (dir.path().join("good"), dir.path().join("bad"));
        fs::write(&good, "FROM scratch\n").unwrap();
        fs::write(&bad, "FROM\n").unwrap();
        let both = plan(None, &[bad.clone(), good.clone()]).unwrap();
        assert!(both[0].ready.is_err());
        let ready = both[1].ready.as_ref().unwrap();
        assert_eq!(
            ready.context,
            (dir.path().to_owned(), dir.path().canonicalize().unwrap())
        );
        let error = format!("{:#}", plan(None, &[bad]).err().unwrap());
        assert!(error.contains("bad is no Dockerfile"), "{error}");
        assert!(error.contains("line 1, column "), "{error}");
        // A context that is asked for is everybody's.
        assert!(plan(Some(&good), &[good.clone(), good.clone()]).is_err());
    }

    #[test]
    fn paths_that_are_no_text_are_shown_apart() {
        let of = |bytes: &[u8]| shown(Path::new(OsStr::from_bytes(bytes)));
        assert_eq!(of("größe/\u{1b}".as_bytes()), "größe/\u{1b}");
        assert_ne!(of(b"\xff/Dockerfile"), of(b"\xfe/Dockerfile"));
    }
}
