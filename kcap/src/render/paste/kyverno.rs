//! A Kyverno policy: pods of the build namespace drop all, and add no more than this.

use std::io::{self, Write};

use super::{Allow, Exporter, commented};

/// The policy.
pub struct Kyverno;

/// Whom it is for.
const MATCH: &str = "    match:
      any:
      - resources:
          kinds:
          - Pod
          namespaces:
          - ";
/// And when.
const WHEN: &str = "  # where builds run
    preconditions:
      all:
      - key: \"{{ request.operation || 'BACKGROUND' }}\"
        operator: NotEquals
        value: DELETE
    validate:
      failureAction: Enforce";
/// What is looked at.
const EACH: &str = "      foreach:
      - list: request.object.spec.[ephemeralContainers, initContainers, containers][]
        deny:
          conditions:
            all:";

impl Exporter for Kyverno {
    fn write(&self, allow: &Allow, to: &mut dyn Write) -> io::Result<()> {
        commented(&allow.comments(), "", to)?;
        writeln!(to, "apiVersion: kyverno.io/v1\nkind: ClusterPolicy")?;
        let matches = format!("{MATCH}{}{WHEN}", allow.named("builds"));
        let name = allow.named("build-capabilities");
        writeln!(to, "metadata:\n  name: {name}")?;
        writeln!(to, "spec:\n  background: true\n  rules:")?;
        writeln!(to, "  - name: drop-all\n{matches}")?;
        writeln!(
            to,
            "      message: containers are to drop ALL capabilities\n{EACH}"
        )?;
        writeln!(
            to,
            "            - key: ALL\n              operator: AnyNotIn"
        )?;
        writeln!(
            to,
            "              value: \"{{{{ element.securityContext.capabilities.drop[] || `[]` }}}}\""
        )?;
        writeln!(to, "  - name: add-only-what-builds-need\n{matches}")?;
        writeln!(
            to,
            "      message: the capability is not among those that builds need\n{EACH}"
        )?;
        writeln!(
            to,
            "            - key: \"{{{{ element.securityContext.capabilities.add[] || `[]` }}}}\""
        )?;
        writeln!(to, "              operator: AnyNotIn")?;
        if allow.add.is_empty() {
            return writeln!(to, "              value: []");
        }
        writeln!(to, "              value:")?;
        for cap in &allow.add {
            let mark = if allow.is_unsure(*cap) {
                "  # unsure: one run cannot settle it"
            } else {
                ""
            };
            writeln!(to, "              - {cap}{mark}")?;
        }
        Ok(())
    }
}
