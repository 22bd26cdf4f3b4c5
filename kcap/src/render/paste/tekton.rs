//! The step of a Tekton task that builds.

use std::io::{self, Write};

use super::{Allow, Exporter, arguments, commented, image, kubernetes};

/// An entry of `steps`.
pub struct Tekton;

impl Exporter for Tekton {
    fn write(&self, allow: &Allow, to: &mut dyn Write) -> io::Result<()> {
        commented(&allow.comments(), "", to)?;
        writeln!(to, "- name: build\n  image: {}", image(allow))?;
        writeln!(to, "  command:\n  - /kaniko/executor\n  args:")?;
        for argument in arguments(allow) {
            writeln!(to, "  - {argument}")?;
        }
        writeln!(
            to,
            "  # in place of --no-push: --destination=$(params.image)"
        )?;
        kubernetes::context(allow, "  ", to)
    }
}
