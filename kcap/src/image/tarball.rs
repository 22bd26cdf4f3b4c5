//! Members of a tar archive, with long names and extended headers read within bounds.
//!
//! The `tar` crate reads headers; extended ones it would take into memory whole, however long an
//! archive says that they are, and cut at line ends, so they are read here.

use std::{
    ffi::OsStr,
    io::{self, Read},
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use tar::{Entries, Entry, EntryType};

use crate::render::escape;

/// Most bytes of an extended header or a long name.
const EXTENSION: u64 = 1 << 20;
/// Most members of an archive.
const MEMBERS: usize = 1_000_000;
/// Most columns of a name in an error.
const NAME: usize = 100;
/// Most columns of an error of the library's.
const ERROR: usize = 300;

/// What a header says of a member, after its extensions.
#[derive(Debug)]
pub struct Member {
    /// Its path, as written.
    pub path: PathBuf,
    /// Where a link leads, as written; empty for others.
    pub link: PathBuf,
    /// What it is.
    pub kind: EntryType,
    /// Bytes of its content.
    pub size: u64,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Permissions.
    pub mode: u32,
    /// Time of its last change, in seconds since the epoch.
    pub mtime: i64,
    /// Major and minor number of a device; 0 for others.
    pub device: (u32, u32),
    /// Extended attributes: name and value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Extensions that bear on the next member.
#[derive(Default)]
struct Pending {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<i64>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Calls `each` with every member and its content.
///
/// # Errors
/// Where the archive is damaged or out of bounds; those of `each`.
pub fn members<R: Read>(
    entries: Entries<'_, R>,
    each: &mut dyn FnMut(&Member, &mut Entry<'_, R>) -> Result<()>,
) -> Result<()> {
    let mut pending = Pending::default();
    let mut count = 0;
    for entry in entries.raw(true) {
        let mut entry = entry.map_err(plain).context("the archive is damaged")?;
        count += 1;
        ensure!(
            count <= MEMBERS,
            "the archive has more than {MEMBERS} members"
        );
        match entry.header().entry_type() {
            EntryType::XGlobalHeader => {}
            EntryType::XHeader => pending.extend(&extension(&mut entry)?)?,
            EntryType::GNULongName => pending.path = Some(long_name(&mut entry)?),
            EntryType::GNULongLink => pending.link = Some(long_name(&mut entry)?),
            _ => {
                let member = std::mem::take(&mut pending).member(&entry)?;
                each(&member, &mut entry)?;
            }
        }
    }
    Ok(())
}

fn extension<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>> {
    let size = entry.size();
    ensure!(
        size <= EXTENSION,
        "the archive has an extended header of {size} bytes, more than {EXTENSION}"
    );
    let mut bytes = Vec::with_capacity(size as usize);
    entry
        .read_to_end(&mut bytes)
        .context("the archive is damaged")?;
    ensure!(
        bytes.len() as u64 == size,
        "the archive ends within a header"
    );
    Ok(bytes)
}

fn long_name<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>> {
    let mut name = extension(entry)?;
    name.truncate(name.iter().position(|b| *b == 0).unwrap_or(name.len()));
    Ok(name)
}

impl Pending {
    fn extend(&mut self, records: &[u8]) -> Result<()> {
        let mut rest = records;
        while !rest.is_empty() {
            let (key, value, after) =
                record(rest).context("the archive has a damaged extended header")?;
            rest = after;
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(number(value)?),
                b"uid" => self.uid = Some(number(value)?),
                b"gid" => self.gid = Some(number(value)?),
                b"mtime" => {
                    let whole = value.split(|b| *b == b'.').next().unwrap_or(value);
                    self.mtime = Some(number(whole)?);
                }
                _ if key.starts_with(b"GNU.sparse.") => {
                    bail!("the archive has a sparse file, which layers of images have not")
                }
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        self.xattrs.push((name.to_vec(), value.to_vec()));
                    }
                }
            }
        }
        Ok(())
    }

    fn member<R: Read>(self, entry: &Entry<'_, R>) -> Result<Member> {
        let header = entry.header();
        let bytes = self
            .path
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let path = PathBuf::from(OsStr::from_bytes(&bytes));
        let damaged = || format!("the archive has a damaged header, at {}", shown(&bytes));
        ensure!(!bytes.contains(&0), "{}", damaged());
        let header_size = header.entry_size().map_err(plain).with_context(damaged)?;
        // Written where a header has no room for it: for eight gigabytes and more.
        if let Some(size) = self.size {
            ensure!(size == header_size, "{} is too large", shown(&bytes));
        }
        ensure!(
            !header.entry_type().is_gnu_sparse(),
            "the archive has a sparse file, which layers of images have not"
        );
        // A field that is empty stands for 0.
        let fields = header.as_old();
        let field = |bytes: &[u8], value: io::Result<u64>| -> Result<u64> {
            match value {
                Ok(value) => Ok(value),
                Err(_) if bytes.iter().all(|b| matches!(b, 0 | b' ')) => Ok(0),
                Err(e) => Err(plain(e)).with_context(damaged),
            }
        };
        let id = |held: Option<u32>, bytes: &[u8], value| match held {
            Some(id) => Ok(id),
            None => u32::try_from(field(bytes, value)?).with_context(damaged),
        };
        let device = match (header.as_ustar(), header.as_gnu()) {
            (Some(header), _) => Some((&header.dev_major, &header.dev_minor)),
            (_, Some(header)) => Some((&header.dev_major, &header.dev_minor)),
            (None, None) => None,
        };
        let number = |bytes: &[u8; 8], value: io::Result<Option<u32>>| -> Result<u32> {
            let value = value.map(|number| number.unwrap_or(0).into());
            u32::try_from(field(bytes, value)?).with_context(damaged)
        };
        Ok(Member {
            link: self
                .link
                .or_else(|| header.link_name_bytes().map(Into::into))
                .map(|link| PathBuf::from(OsStr::from_bytes(&link)))
                .unwrap_or_default(),
            kind: header.entry_type(),
            size: header_size,
            uid: id(self.uid, &fields.uid, header.uid())?,
            gid: id(self.gid, &fields.gid, header.gid())?,
            mode: id(None, &fields.mode, header.mode().map(u64::from))? & 0o7777,
            mtime: match self.mtime {
                Some(mtime) => mtime,
                None => field(&fields.mtime, header.mtime())? as i64,
            },
            device: match (header.entry_type(), device) {
                (EntryType::Char | EntryType::Block, Some((major, minor))) => (
                    number(major, header.device_major())?,
                    number(minor, header.device_minor())?,
                ),
                _ => (0, 0),
            },
            xattrs: self.xattrs,
            path,
        })
    }
}

/// The first of the records `LENGTH KEY=VALUE\n`, and what follows it. The length decides, not the
/// line: the value of an attribute can hold any byte.
fn record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = records.iter().position(|b| *b == b' ')?;
    let length: usize = std::str::from_utf8(&records[..blank]).ok()?.parse().ok()?;
    let pair = records.get(blank + 1..length)?.strip_suffix(b"\n")?;
    let equals = pair.iter().position(|b| *b == b'=')?;
    Some((&pair[..equals], &pair[equals + 1..], &records[length..]))
}

fn number<T: std::str::FromStr>(value: &[u8]) -> Result<T> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .with_context(|| {
            format!(
                "the archive has a damaged extended header: {}",
                shown(value)
            )
        })
}

/// The library's errors repeat what a header holds, as it is.
fn plain(error: io::Error) -> anyhow::Error {
    anyhow!("{}", escape::head(&error.to_string(), ERROR))
}

/// A name from an archive, safe to show and not long.
pub fn shown(name: &[u8]) -> String {
    format!("`{}`", escape::head(&String::from_utf8_lossy(name), NAME))
}
