//! Flags of `docker run` and `podman run`: comment lines, then all flags in one line.

use std::io::{self, Write};

use super::{Allow, Exporter, commented};
use crate::report::Cap;

/// docker.
pub struct Docker;

/// podman, which takes the same flags.
pub struct Podman;

impl Exporter for Docker {
    fn write(&self, allow: &Allow, to: &mut dyn Write) -> io::Result<()> {
        flags(allow, to)
    }
}

impl Exporter for Podman {
    fn write(&self, allow: &Allow, to: &mut dyn Write) -> io::Result<()> {
        flags(allow, to)
    }
}

fn flags(allow: &Allow, to: &mut dyn Write) -> io::Result<()> {
    commented(&allow.comments(), "", to)?;
    if !allow.unsure.is_empty() {
        let unsure: Vec<String> = allow.unsure.iter().map(Cap::to_string).collect();
        writeln!(to, "# unsure, one run cannot settle: {}", unsure.join(" "))?;
    }
    write!(to, "--cap-drop=all")?;
    for cap in &allow.add {
        write!(to, " --cap-add={cap}")?;
    }
    writeln!(to)
}
