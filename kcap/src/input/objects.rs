//! Reports in an object store, where `kcap watch` writes them. Without the `remote` feature a path of one
//! is an error that says so.

use std::path::Path;

/// Endings of objects that are looked at.
const ENDINGS: [&str; 2] = [".json", ".kcap"];

/// A path of an object store that names what is below it, not one object.
pub fn is_folder(path: &Path) -> bool {
    text(path).is_some_and(|text| !ENDINGS.iter().any(|ending| text.ends_with(ending)))
}

fn text(path: &Path) -> Option<&str> {
    path.to_str().filter(|text| text.starts_with("s3://"))
}

#[cfg(feature = "remote")]
mod remote {
    use std::{
        path::{Path, PathBuf},
        sync::Arc,
    };

    use anyhow::{Context as _, Result};

    use super::{ENDINGS, text};
    use crate::input::{Content, Keep, LIMIT, held};
    use crate::remote::{Location, Store};

    /// Bytes that any object may have, whatever its listing says.
    const SMALL: u64 = 4 << 20;

    /// One that was found.
    pub struct Object {
        store: Arc<Store>,
        key: String,
        /// Bytes.
        pub size: u64,
    }

    impl Object {
        /// What it holds, as `content` tells of a file.
        ///
        /// # Errors
        /// Where it cannot be had, or is damaged or too large: one line with its name.
        pub fn content(&self, name: &str, keep: Keep, buffer: &mut Vec<u8>) -> Result<Content> {
            let mut read = || {
                // Reports do not grow. What says that it is small shall not fill the memory.
                let most = self.size.clamp(SMALL, LIMIT);
                let bytes = self.store.get(&self.key, most)?;
                held(name, &bytes[..], bytes.len() as u64, keep, buffer)
            };
            read().with_context(|| format!("cannot read {name}"))
        }
    }

    /// The bytes of one object; `None` where the path is of this host.
    pub fn one(path: &Path) -> Option<Result<Vec<u8>>> {
        let read = |text| {
            let location = Location::parse(text)?;
            Store::from_env(&location.bucket)?.get(&location.key, LIMIT)
        };
        text(path).map(read)
    }

    /// Gives `found` each object below a path, in the order of keys and at most so many: reports, matrices,
    /// and captures that have no report beside them. Hidden names are left out.
    ///
    /// # Errors
    /// Where they cannot be listed: one line with the path.
    pub fn list(path: &Path, most: usize, found: &mut dyn FnMut(PathBuf, Object)) -> Result<()> {
        let Some(text) = text(path) else {
            return Ok(());
        };
        let location = Location::parse(text)?;
        let store = Arc::new(Store::from_env(&location.bucket)?);
        let prefix = location.prefix();
        let mut count = 0;
        let mut reported = String::new();
        store.list(&prefix, &mut |listed| {
            if wanted(
                &listed.key[prefix.len().min(listed.key.len())..],
                &mut reported,
            ) {
                let path = format!("s3://{}/{}", location.bucket, listed.key);
                let object = Object {
                    store: store.clone(),
                    key: listed.key,
                    size: listed.size,
                };
                found(path.into(), object);
                count += 1;
            }
            count < most
        })
    }

    /// A name below the prefix is looked at. `reported`: the last report's name without its ending; in the
    /// order of keys its capture comes next.
    fn wanted(name: &str, reported: &mut String) -> bool {
        let Some((stem, ending)) = name.rsplit_once('.') else {
            return false;
        };
        if !ENDINGS.contains(&&name[stem.len()..]) || name.split('/').any(|p| p.starts_with('.')) {
            return false;
        }
        if ending == "json" {
            stem.clone_into(reported);
            return true;
        }
        stem != reported
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn captures_with_a_report_and_hidden_names_are_left_out() {
            let names = [
                ".kcap",
                "a/.x/y.json",
                "a/1.json",
                "a/1.kcap",
                "a/2.kcap",
                "a/b.txt",
                "a/c/",
                "d.json",
            ];
            let mut reported = String::new();
            let wanted: Vec<&str> = (names.into_iter())
                .filter(|name| wanted(name, &mut reported))
                .collect();
            assert_eq!(wanted, ["a/1.json", "a/2.kcap", "d.json"]);
        }
    }
}

#[cfg(feature = "remote")]
pub use remote::{Object, list, one};

#[cfg(not(feature = "remote"))]
mod remote {
    use std::path::{Path, PathBuf};

    use anyhow::{Result, anyhow};

    use super::text;
    use crate::input::{Content, Keep, shown};

    /// There is none.
    pub struct Object {
        /// Bytes.
        pub size: u64,
        never: std::convert::Infallible,
    }

    impl Object {
        /// Nothing.
        pub fn content(&self, _: &str, _: Keep, _: &mut Vec<u8>) -> Result<Content> {
            match self.never {}
        }
    }

    fn cannot(path: &Path) -> anyhow::Error {
        anyhow!(
            "cannot read {}: this kcap is built without object stores (--features remote)",
            shown(path)
        )
    }

    /// An error, where the path is of an object store.
    pub fn one(path: &Path) -> Option<Result<Vec<u8>>> {
        text(path).map(|_| Err(cannot(path)))
    }

    /// An error.
    pub fn list(path: &Path, _: usize, _: &mut dyn FnMut(PathBuf, Object)) -> Result<()> {
        Err(cannot(path))
    }
}

#[cfg(not(feature = "remote"))]
pub use remote::{Object, list, one};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_end_as_a_report_is_a_folder() {
        for (path, folder) in [
            ("s3://b/team/", true),
            ("s3://b/team", true),
            ("s3://b", true),
            ("s3://b/team/x.json", false),
            ("s3://b/team/x.kcap", false),
            ("/s3/b", false),
        ] {
            assert_eq!(is_folder(Path::new(path)), folder, "{path}");
        }
    }
}
