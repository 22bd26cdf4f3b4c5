//! The image: what operations leave in a folder, written as a docker archive where `--tar-path` asks
//! for one. It holds what the files are like in truth, so that what was lost for want of a capability is
//! lost in it.

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs::{self, File, Permissions},
    io::Read as _,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt as _, chown},
    },
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::sys::Res;

/// Where operations leave files. A container's: no operation that does is performed elsewhere.
const FOLDER: &str = "/kcap-image";
/// A user that nobody here is.
const FOREIGN: u32 = 4242;
/// CAP_NET_BIND_SERVICE, permitted and effective: `struct vfs_cap_data` of revision 2.
const FILE_CAPS: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const CAPABILITY: &str = "security.capability";

/// A file of a name, new or not.
fn file(name: &str) -> Res<PathBuf> {
    let path = Path::new(FOLDER).join(name);
    fs::create_dir_all(FOLDER)
        .and_then(|()| fs::write(&path, name))
        .map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}

/// A file that is another's, where CHOWN allows that; fatal where not.
pub fn own(fatal: bool) -> Res {
    let path = file(if fatal { "must-own" } else { "own" })?;
    refused(chown(&path, Some(FOREIGN), None), fatal, &path)
}

/// A file of a foreign group with a setgid bit, which is lost in silence without FSETID.
pub fn setgid() -> Res {
    let path = file("setgid")?;
    refused(chown(&path, None, Some(FOREIGN)), false, &path)?;
    refused(
        fs::set_permissions(&path, Permissions::from_mode(0o2755)),
        false,
        &path,
    )
}

/// A file with capabilities of its own, which takes SETFCAP.
pub fn file_caps() -> Res {
    let path = file("file-caps")?;
    let name = CString::new(CAPABILITY).expect("no zero in it");
    let at = CString::new(path.as_os_str().as_bytes()).expect("no zero in it");
    // SAFETY: both names end with a zero, and the value is as long as said.
    let set = unsafe {
        libc::setxattr(
            at.as_ptr(),
            name.as_ptr(),
            FILE_CAPS.as_ptr().cast(),
            FILE_CAPS.len(),
            0,
        )
    };
    let done = if set == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    };
    refused(done, false, &path)
}

/// A file whose content is another each time.
pub fn noise() -> Res {
    let path = file("noise")?;
    fs::write(&path, random()?.to_le_bytes()).map_err(|e| format!("{}: {e}", path.display()))
}

/// A file whose owner is another each time: no two builds give the same image.
pub fn chaos() -> Res {
    let path = file("chaos")?;
    let owner = u32::from_le_bytes(random()?.to_le_bytes()[..4].try_into().expect("four bytes"));
    chown(&path, Some(owner % 1_000_000), None).map_err(|e| format!("{}: {e}", path.display()))
}

/// Fails in so many of a hundred builds.
pub fn luck(percent: u64) -> Res {
    if random()? % 100 < percent {
        return Err("it was no lucky day".into());
    }
    Ok(())
}

fn random() -> Res<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|e| format!("/dev/urandom: {e}"))?;
    Ok(u64::from_le_bytes(bytes))
}

/// A refusal is no error unless it is fatal.
fn refused(done: std::io::Result<()>, fatal: bool, path: &Path) -> Res {
    match done {
        Err(e) if fatal || e.raw_os_error() != Some(libc::EPERM) => {
            Err(format!("{}: {e}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Writes the image.
pub fn save(to: &Path) -> Res {
    write(to).map_err(|e| format!("{}: {e}", to.display()))
}

fn write(to: &Path) -> std::io::Result<()> {
    let mut layer = tar::Builder::new(vec![]);
    let mut names: BTreeMap<String, PathBuf> = BTreeMap::new();
    for entry in fs::read_dir(FOLDER).into_iter().flatten() {
        let entry = entry?;
        names.insert(
            entry.file_name().to_string_lossy().into_owned(),
            entry.path(),
        );
    }
    for (name, path) in names {
        let meta = fs::metadata(&path)?;
        let mut caps = [0u8; 64];
        let at = CString::new(path.as_os_str().as_bytes())?;
        let attribute = CString::new(CAPABILITY)?;
        // SAFETY: both names end with a zero, and there is as much room as said.
        let got = unsafe {
            libc::getxattr(
                at.as_ptr(),
                attribute.as_ptr(),
                caps.as_mut_ptr().cast(),
                caps.len(),
            )
        };
        if let Ok(length) = usize::try_from(got) {
            let key = format!("SCHILY.xattr.{CAPABILITY}");
            layer.append_pax_extensions([(key.as_str(), &caps[..length])])?;
        }
        let bytes = fs::read(&path)?;
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(meta.mode() & 0o7777);
        header.set_uid(meta.uid().into());
        header.set_gid(meta.gid().into());
        layer.append_data(&mut header, name, &bytes[..])?;
    }
    let layer = layer.into_inner()?;
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["sha256:{}"]}}}}"#,
        hex(&layer)
    );
    let manifest = format!(
        r#"[{{"Config":"sha256:{}","RepoTags":null,"Layers":["layer.tar"]}}]"#,
        hex(config.as_bytes())
    );
    // What is there was made for it.
    let mut archive = tar::Builder::new(File::options().write(true).truncate(true).open(to)?);
    for (name, bytes) in [
        (
            format!("sha256:{}", hex(config.as_bytes())),
            config.as_bytes(),
        ),
        ("layer.tar".into(), &layer[..]),
        ("manifest.json".into(), manifest.as_bytes()),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes)?;
    }
    archive.finish()
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}
