//! Differences for people.

use std::fmt;

use super::{ConfigValue, Difference, KEPT, Place, What};
use crate::{
    capture::FileCaps,
    compare::{Step, values::ByteString},
    host::filecaps,
    render::escape,
    report::Cap,
};

/// The attribute that gives a program capabilities.
const CAPABILITY: &[u8] = b"security.capability";
/// Most columns of a value in a line.
const SHOWN: usize = 60;
/// Most names of a hard link in a line.
const NAMES: usize = 3;

/// One line for people, escaped.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// A path, or what is no path and does not start with a slash.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(name) => write!(f, "config {}", escape::head(name, SHOWN)),
            Self::History(number) => write!(f, "history {}", number + 1),
            Self::Path(path) => path.fmt(f),
        }
    }
}

/// The part of the line after the place.
impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { .. } => f.write_str("missing"),
            Self::Added { .. } => f.write_str("added"),
            Self::Type { from, to } => write!(f, "{} -> {}", from.name(), to.name()),
            Self::Mode { from, to } => write!(f, "mode {from} -> {to}"),
            Self::Owner { from, to } => write!(f, "owner {from} -> {to}"),
            Self::Link { from, to } => {
                write!(f, "leads to {} -> {}", cut(from), cut(to))
            }
            Self::HardLink { from, to } => {
                if !from.is_empty() {
                    write!(f, "no hard link of {}", listed(from))?;
                }
                if !to.is_empty() {
                    let comma = if from.is_empty() { "" } else { ", " };
                    write!(f, "{comma}hard link of {}", listed(to))?;
                }
                Ok(())
            }
            Self::Device { from, to } => write!(f, "device {from} -> {to}"),
            Self::Xattr { name, from, to } => {
                let value = |value: &ByteString| attribute(name, value);
                let shown = cut(name);
                match (from, to) {
                    (Some(from), Some(to)) => {
                        write!(f, "{shown} {} -> {}", value(from), value(to))
                    }
                    (Some(from), None) => write!(f, "{shown} missing ({})", value(from)),
                    (None, Some(to)) => write!(f, "{shown} added ({})", value(to)),
                    (None, None) => write!(f, "{shown} the same"),
                }
            }
            Self::Content { from, to, only } => {
                write!(f, "content")?;
                if from.size != to.size {
                    write!(f, " ({} -> {} bytes)", from.size, to.size)?;
                } else {
                    write!(f, " ({} bytes)", from.size)?;
                }
                only.map_or(Ok(()), |rule| write!(f, ", {rule} alone"))
            }
            Self::Config { from, to } => {
                let value = |value: &ConfigValue| escape::head(&value.0.to_string(), SHOWN);
                change(f, from.as_ref().map(value), to.as_ref().map(value))
            }
            Self::History { from, to } => {
                let step = |step: &Step| {
                    let layer = if step.empty_layer { " (no layer)" } else { "" };
                    format!("{}{layer}", escape::head(&step.created_by, SHOWN))
                };
                change(f, from.as_ref().map(step), to.as_ref().map(step))
            }
        }
    }
}

fn change(f: &mut fmt::Formatter<'_>, from: Option<String>, to: Option<String>) -> fmt::Result {
    match (from, to) {
        (Some(from), Some(to)) => write!(f, "{from} -> {to}"),
        (Some(from), None) => write!(f, "missing ({from})"),
        (None, Some(to)) => write!(f, "added ({to})"),
        (None, None) => f.write_str("the same"),
    }
}

fn cut(name: &ByteString) -> String {
    escape::head(&name.to_string(), SHOWN)
}

fn listed(names: &[ByteString]) -> String {
    let shown: Vec<String> = names.iter().take(NAMES).map(cut).collect();
    let more = match names.len().saturating_sub(NAMES) {
        0 => String::new(),
        more if names.len() < KEPT => format!(" and {more} more"),
        _ => " and more".into(),
    };
    format!("{}{more}", shown.join(", "))
}

/// An attribute's value: file capabilities as `getcap` writes them.
fn attribute(name: &[u8], value: &ByteString) -> String {
    if name == CAPABILITY
        && let Ok(caps) = filecaps::parse(value)
        && let Some(text) = capabilities(&caps)
    {
        return text;
    }
    cut(value)
}

fn capabilities(caps: &FileCaps) -> Option<String> {
    let FileCaps::Has {
        permitted,
        inheritable,
        effective,
        rootid,
    } = *caps
    else {
        return None;
    };
    // By the flags that they have, as one text for all that have the same.
    let clause = |mask: u64, flags: &str| {
        let names: Vec<String> = Cap::of_mask(mask)
            .map(|cap| match cap.name() {
                Some(name) => format!("cap_{}", name.to_lowercase()),
                None => cap.to_string(),
            })
            .collect();
        let raised = if effective { "e" } else { "" };
        (!names.is_empty()).then(|| format!("{}={raised}{flags}", names.join(",")))
    };
    let clauses = [
        clause(permitted & inheritable, "ip"),
        clause(permitted & !inheritable, "p"),
        clause(inheritable & !permitted, "i"),
    ];
    let mut text = clauses.into_iter().flatten().collect::<Vec<_>>().join(" ");
    if text.is_empty() {
        text.push('=');
    }
    if let Some(root) = rootid {
        text.push_str(&format!(" [rootid={root}]"));
    }
    Some(text)
}
