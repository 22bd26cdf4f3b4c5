//! GitLab Runner's `config.toml`, where the capabilities of its jobs live: a job cannot ask for them
//! in `.gitlab-ci.yml`. For both of its executors that start containers.

use std::io::{self, Write};

use super::{Allow, Exporter, commented, quoted};
use crate::report::Cap;

/// The runner's settings.
pub struct Gitlab;

impl Exporter for Gitlab {
    fn write(&self, allow: &Allow, to: &mut dyn Write) -> io::Result<()> {
        let add: Vec<String> = allow
            .add
            .iter()
            .map(|cap| quoted(&cap.to_string()))
            .collect();
        let add = add.join(", ");
        commented(&allow.comments(), "", to)?;
        if !allow.unsure.is_empty() {
            let unsure: Vec<String> = allow.unsure.iter().map(Cap::to_string).collect();
            writeln!(to, "# unsure, one run cannot settle: {}", unsure.join(" "))?;
        }
        writeln!(
            to,
            "[[runners]]\n  # keep the one that the runner's executor is of"
        )?;
        writeln!(to, "  [runners.docker]")?;
        writeln!(to, "    cap_drop = [\"ALL\"]\n    cap_add = [{add}]")?;
        writeln!(to, "  [runners.kubernetes]")?;
        let (escalates, why) = allow.escalates_in_pod();
        writeln!(to, "    # {why}")?;
        writeln!(to, "    allow_privilege_escalation = {escalates}")?;
        writeln!(
            to,
            "    [runners.kubernetes.build_container_security_context.capabilities]"
        )?;
        writeln!(to, "      drop = [\"ALL\"]\n      add = [{add}]")
    }
}
