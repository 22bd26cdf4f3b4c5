//! What a tar says in front of an entry because it does not fit into the header: PAX records, and
//! GNU's long names.
//!
//! The tar library's own iterator over PAX records splits at line ends, which the value of an
//! attribute may hold: `security.capability` does for some sets of capabilities.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context, Result, bail};
use tar::{Entry, EntryType};

/// What PAX puts before the name of an extended attribute.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// How long such an entry may be, in bytes.
const LENGTH: u64 = 1 << 20;

/// What the next entry has in place of its header's.
#[derive(Debug, Default)]
pub struct Extended {
    /// Its path.
    pub path: Option<Vec<u8>>,
    /// What it links to.
    pub target: Option<Vec<u8>>,
    /// Its owner.
    pub uid: Option<u64>,
    /// Its group.
    pub gid: Option<u64>,
    /// Its extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Extended {
    /// Takes an entry in if it is about the next one, and says whether it was.
    ///
    /// # Errors
    /// Where it is too long or malformed.
    pub fn take(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<bool> {
        let kind = entry.header().entry_type();
        if !matches!(
            kind,
            EntryType::XHeader | EntryType::GNULongName | EntryType::GNULongLink
        ) {
            return Ok(false);
        }
        if entry.size() > LENGTH {
            bail!("an extended header of {} bytes", entry.size());
        }
        let mut data = Vec::new();
        entry.read_to_end(&mut data)?;
        let name = |data: &[u8]| data.split(|byte| *byte == 0).next().map(<[u8]>::to_owned);
        match kind {
            EntryType::GNULongName => self.path = name(&data),
            EntryType::GNULongLink => self.target = name(&data),
            _ => self.records(&data)?,
        }
        Ok(true)
    }

    /// Records are `LENGTH KEY=VALUE\n`, the length that of the whole record.
    fn records(&mut self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let malformed = || format!("malformed extended header {}", data.escape_ascii());
            let blank = data
                .iter()
                .position(|byte| *byte == b' ')
                .with_context(malformed)?;
            let length = number(&data[..blank]).and_then(|length| usize::try_from(length).ok());
            let record = length.and_then(|length| data.get(blank + 1..length));
            let record = record.with_context(malformed)?;
            let record = record.strip_suffix(b"\n").with_context(malformed)?;
            let equals = record
                .iter()
                .position(|byte| *byte == b'=')
                .with_context(malformed)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => self.path = Some(value.to_owned()),
                b"linkpath" => self.target = Some(value.to_owned()),
                b"uid" => self.uid = Some(number(value).with_context(malformed)?),
                b"gid" => self.gid = Some(number(value).with_context(malformed)?),
                // A file of 8 GiB; nothing of the corpus is.
                b"size" => bail!("a file too large for its header"),
                _ => {
                    if let Some(name) = key.strip_prefix(XATTR) {
                        self.xattrs.insert(name.to_owned(), value.to_owned());
                    }
                }
            }
            data = &data[blank + 1 + record.len() + 1..];
        }
        Ok(())
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_anything() {
        let mut extended = Extended::default();
        let records = b"11 path=a\n\n32 SCHILY.xattr.user.x=\n1 a=b\n\0\n11 mtime=1\n12 uid=7000\n";
        extended.records(records).unwrap();
        assert_eq!(extended.path.unwrap(), b"a\n");
        assert_eq!(extended.xattrs[&b"user.x"[..]], b"\n1 a=b\n\0");
        assert_eq!(extended.uid, Some(7000));
    }

    #[test]
    fn malformed_records_are_errors() {
        for bad in [
            "x",
            "8 path=a\n",
            "99 path=a\n",
            "7 path\n",
            "0 a=b\n",
            "10 uid=-1\n",
        ] {
            assert!(
                Extended::default().records(bad.as_bytes()).is_err(),
                "{bad}"
            );
        }
    }
}
