//! What a running `kcap watch` can be told anew: the file of `--config`, read again at SIGHUP.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Deserializer, de::Error as _};

use super::{retention::Keep, webhook::Address};
use crate::capture::Identity;

/// Largest file that is read, in bytes.
const LARGEST: u64 = 1 << 20;
const DAY: u64 = 86_400;

/// Settings that can change while builds are watched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Only builds with all of these labels or annotations are watched.
    pub only: BTreeMap<String, String>,
    /// Labels and annotations that reports carry.
    pub labels: Vec<String>,
    /// Days for which reports are kept; all where none.
    pub keep_days: Option<u64>,
    /// Megabytes of reports that are kept, in all.
    pub keep_megabytes: Option<u64>,
    /// Where refusals are posted to as well.
    #[serde(deserialize_with = "address")]
    pub webhook: Option<Address>,
}

fn address<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Address>, D::Error> {
    let text = String::deserialize(from)?;
    let address = Address::parse(&text);
    address
        .map(Some)
        .map_err(|why| D::Error::custom(format!("{why:#}")))
}

impl Settings {
    /// Reads a file.
    ///
    /// # Errors
    /// Where it cannot be read, or says what kcap does not know.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let meta =
            std::fs::metadata(path).with_context(|| format!("cannot read the settings {shown}"))?;
        if !meta.is_file() || meta.len() > LARGEST {
            bail!("the settings {shown} are no file of at most {LARGEST} bytes");
        }
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the settings {shown}"))?;
        toml::from_str(&text)
            .map_err(|e| anyhow::anyhow!("cannot read the settings {shown}: {}", e.message()))
    }

    /// What is kept of reports.
    pub fn keep(&self) -> Keep {
        Keep {
            age: self.keep_days.map(|days| days.saturating_mul(DAY)),
            bytes: self.keep_megabytes.map(|mb| mb.saturating_mul(1_000_000)),
        }
    }

    /// Why a build is not wanted, if so.
    pub fn refuses(&self, identity: &Identity) -> Option<String> {
        let (name, value) =
            (self.only.iter()).find(|(name, value)| identity.labels.get(*name) != Some(value))?;
        Some(format!("it has no label {name}={value}"))
    }

    /// Labels and annotations that are looked at.
    pub fn wanted(&self) -> Vec<String> {
        let mut all: Vec<String> = self.labels.clone();
        all.extend(self.only.keys().cloned());
        all.sort();
        all.dedup();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Settings::read(file.path())
    }

    #[test]
    fn settings_are_read_and_what_is_unknown_is_said() {
        let settings = read("keep-days = 14\n[only]\n\"kcap/trace\" = \"yes\"\n").unwrap();
        assert_eq!(settings.keep().age, Some(14 * DAY));
        let mut identity = Identity::default();
        assert!(settings.refuses(&identity).is_some());
        identity.labels.insert("kcap/trace".into(), "yes".into());
        assert_eq!(settings.refuses(&identity), None);
        let hooked = read("webhook = \"https://hooks.example/a\"\n").unwrap();
        assert_eq!(hooked.webhook.unwrap().to_string(), "https://hooks.example");
        let wrong = "webhook = \"hooks.example/a\"";
        for wrong in ["keep-day = 1", "keep-days = -1", "only = 3", "\0", wrong] {
            let error = format!("{:#}", read(wrong).unwrap_err());
            assert!(
                error.starts_with("cannot read the settings") && !error.contains('\n'),
                "{error}"
            );
        }
    }
}
