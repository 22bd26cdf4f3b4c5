//! `s3://BUCKET/PREFIX`.

use anyhow::{Result, bail};

/// Longest key that S3 takes, in bytes.
const LONGEST: usize = 1024;

/// A place in an object store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The bucket.
    pub bucket: String,
    /// The key, or what keys begin with; empty for the whole bucket.
    pub key: String,
}

impl Location {
    /// It is written as such a place, whether well or not.
    pub fn is(text: &str) -> bool {
        text.starts_with("s3://")
    }

    /// Reads `s3://BUCKET/KEY`.
    ///
    /// # Errors
    /// Where it is something else, or no such bucket or key can be.
    pub fn parse(text: &str) -> Result<Self> {
        let shown: String = text.chars().flat_map(char::escape_debug).collect();
        let Some(rest) = text.strip_prefix("s3://") else {
            bail!("{shown} is no object store: write s3://BUCKET/PREFIX");
        };
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if bucket.len() < 3 || bucket.len() > 255 || !bucket.chars().all(plain) {
            bail!("{shown}: no bucket has such a name: write s3://BUCKET/PREFIX");
        }
        if !key.is_empty() && !is_addressable(key.trim_end_matches('/')) {
            bail!("{shown}: leave out `.`, `..` and empty parts");
        }
        Ok(Self {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
        })
    }

    /// What names below it begin with: a folder's path, or nothing.
    pub fn prefix(&self) -> String {
        match self.key.trim_end_matches('/') {
            "" => String::new(),
            key => format!("{key}/"),
        }
    }
}

/// A URL can name that object, and names no other by it: `a/../b` would be `b`, and the empty key the
/// bucket itself.
pub fn is_addressable(key: &str) -> bool {
    !key.is_empty()
        && key.len() <= LONGEST
        && (key.split('/')).all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_what_leads_elsewhere_is_refused() {
        let of = |text: &str| Location::parse(text).map(|l| (l.bucket.clone(), l.prefix()));
        for (text, bucket, prefix) in [
            ("s3://builds", "builds", ""),
            ("s3://builds/", "builds", ""),
            ("s3://builds/team-a", "builds", "team-a/"),
            ("s3://builds/a b/ü+%2e/", "builds", "a b/ü+%2e/"),
        ] {
            assert_eq!(of(text).unwrap(), (bucket.into(), prefix.into()), "{text}");
        }
        for text in [
            "builds/x",
            "s3:/builds",
            "s3://",
            "s3://ab/x",
            "s3://user:secret@host/x",
            "s3://builds/../other",
            "s3://builds/a/./b",
            "s3://builds//a",
            "s3://builds/a/..",
        ] {
            let error = of(text).unwrap_err().to_string();
            assert!(!error.contains('\n'), "{text}: {error}");
        }
        let long = "k".repeat(LONGEST + 1);
        assert!(!is_addressable(&long) && !is_addressable("") && is_addressable("a/.b/c"));
    }
}
