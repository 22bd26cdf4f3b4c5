//! The base image `busybox`: BusyBox, and what a small Linux system has around it.
//!
//! Everything in it is root's, so unpacking it needs no capability: what a build on it needs, its
//! own Dockerfile needs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{setup, sh};

/// The image's name, as `FROM busybox` means it.
pub const NAME: &str = "docker.io/library/busybox:latest";

/// The accounts that a BusyBox image has.
const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
sync:x:4:100:sync:/bin:/bin/sync
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
";

const GROUP: &str = "\
root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
lp:x:7:
mail:x:8:
kmem:x:9:
wheel:x:10:root
cdrom:x:11:
dialout:x:18:
floppy:x:19:
video:x:28:
audio:x:29:
tape:x:32:
www-data:x:33:
operator:x:37:
utmp:x:43:
plugdev:x:46:
staff:x:50:
lock:x:54:
netdev:x:82:
users:x:100:
nobody:x:65534:
";

const SHADOW: &str = "\
root:*:10933:0:99999:7:::
daemon:*:10933:0:99999:7:::
bin:*:10933:0:99999:7:::
sys:*:10933:0:99999:7:::
sync:*:10933:0:99999:7:::
mail:*:10933:0:99999:7:::
www-data:*:10933:0:99999:7:::
operator:*:10933:0:99999:7:::
nobody:*:10933:0:99999:7:::
";

const FOLDERS: [(&str, u32); 20] = [
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("sbin", 0o755),
    ("srv", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/sbin", 0o755),
    ("var", 0o755),
    ("var/log", 0o755),
    ("var/spool", 0o755),
    ("var/spool/mail", 0o755),
    ("var/tmp", 0o1777),
    ("var/www", 0o755),
];

/// Makes the image in buildah's storage in `scratch`.
///
/// # Errors
/// Where a file cannot be written, or buildah fails.
pub fn make(scratch: &Path) -> Result<()> {
    let context = scratch.join("busybox");
    root(&context.join("root")).context("cannot lay out the base image busybox")?;
    fs::write(
        context.join("Dockerfile"),
        "FROM scratch\nCOPY root/ /\n\
         ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nCMD [\"sh\"]\n",
    )
    .context("cannot write the base image's Dockerfile")?;
    super::image(scratch, &context, NAME)
}

fn root(root: &Path) -> Result<()> {
    fs::create_dir_all(root)?;
    for (folder, mode) in FOLDERS {
        let path = root.join(folder);
        fs::create_dir_all(&path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    fs::copy(setup::BUSYBOX, root.join("bin/busybox"))?;
    for name in sh::output(Command::new(setup::BUSYBOX).arg("--list"))?.lines() {
        if name != "busybox" {
            symlink("busybox", root.join("bin").join(name))?;
        }
    }
    symlink("/bin/env", root.join("usr/bin/env"))?;
    for (name, content, mode) in [
        ("passwd", PASSWD, 0o644),
        ("group", GROUP, 0o644),
        ("shadow", SHADOW, 0o600),
        ("shells", "/bin/sh\n/bin/ash\n", 0o644),
        ("profile", "umask 022\n", 0o644),
    ] {
        let path = root.join("etc").join(name);
        fs::write(&path, content)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}
