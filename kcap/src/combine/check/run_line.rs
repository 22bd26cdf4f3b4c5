//! A `docker run` line to what it grants.

use super::grant::Grant;
use super::named::Named;
use super::policy::{Kind, Policy, PolicyError};
use crate::report::Cap;

/// Programs whose `run` and `create` take docker's options, and the policy that is their default.
const ENGINES: [(&str, &str); 3] = [
    ("docker", "docker-default"),
    ("podman", "podman-default"),
    // nerdctl takes containerd's set, which is docker's.
    ("nerdctl", "docker-default"),
];

/// A line that starts a container.
struct Line {
    engine: &'static str,
    default: &'static str,
    words: Vec<String>,
}

/// The policy of the one such line in a text; `None` where there is none.
///
/// # Errors
/// Where there are several, or it names a capability that there is not.
pub fn read(name: &str, text: &str) -> Result<Option<Policy>, PolicyError> {
    let mut lines = lines(text);
    let Some(line) = lines.pop() else {
        return Ok(None);
    };
    if !lines.is_empty() {
        return Err(PolicyError::new(
            "it starts several containers: give the one line alone",
        ));
    }
    let mut grant = Grant::default();
    let mut notes = Vec::new();
    let mut user = None;
    let mut words = line.words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let (flag, value) = match word.split_once('=') {
            Some((flag, value)) => (flag, Some(value)),
            None => (word, None),
        };
        match flag {
            "--privileged" if value.is_none_or(|v| matches!(v, "true" | "1")) => {
                grant.privileged = true;
            }
            "--cap-add" | "--cap-drop" => {
                let names = value.or_else(|| words.next()).unwrap_or_default();
                let list = if flag == "--cap-add" {
                    &mut grant.add
                } else {
                    &mut grant.drop
                };
                for name in names.split(',') {
                    list.take(name.trim())?;
                }
            }
            "--user" | "-u" => user = value.or_else(|| words.next()),
            _ => {}
        }
    }
    let default = Named::find(line.default).map_or(0, |named| named.allowed);
    if let Some(user) = user
        && !matches!(user.split(':').next(), Some("0" | "root"))
    {
        notes.push(
            "it runs as another user than root: such a process has none of these in effect, and \
             only programs with file capabilities or the set-user-ID bit can use them"
                .to_owned(),
        );
    }
    if !grant.drop.all && !grant.privileged {
        notes.push(format!(
            "without --cap-drop=all the container also has {}'s default set",
            line.engine
        ));
    }
    Ok(Some(Policy {
        name: name.to_owned(),
        kind: Kind::RunLine,
        source: None,
        allowed: Cap::of_mask(grant.docker(default)).collect(),
        notes,
    }))
}

fn lines(text: &str) -> Vec<Line> {
    let mut found = Vec::new();
    // A backslash at the end of a line goes on in the next.
    let text = text.replace("\\\r\n", " ").replace("\\\n", " ");
    for line in text.lines() {
        let Some(words) = shlex::split(line) else {
            continue;
        };
        let engine = words.iter().enumerate().find_map(|(at, word)| {
            let base = word.rsplit('/').next().unwrap_or(word);
            let (engine, default) = ENGINES.iter().find(|(engine, _)| *engine == base)?;
            Some((at, *engine, *default))
        });
        let Some((at, engine, default)) = engine else {
            continue;
        };
        let verb = |word: &String| matches!(word.as_str(), "run" | "create");
        let Some(start) = words[at..].iter().position(verb) else {
            continue;
        };
        found.push(Line {
            engine,
            default,
            words: words[at + start + 1..].to_vec(),
        });
    }
    found
}
