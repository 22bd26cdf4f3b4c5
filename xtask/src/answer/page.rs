//! docs/question.md, and the short answer in the README: pure, over data.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use kcap::combine::Profile;
use kcap::combine::check::NAMED;
use kcap::report::Cap;

use super::needs::{self, Answer, Best, Needs, built};
use super::{Data, built as builds, is_ordinary, sets};
use crate::lab::capabilities::{ALL, Set};
use crate::truth::record::{Consequence, Outcome};

/// Most Dockerfiles that are named in a cell.
const NAMES: usize = 6;
/// The policy that an article on Kaniko gives.
const ARTICLE: &str = "article";

/// The answer in a few lines.
///
/// # Errors
/// Where the corpus is too large to try all sets.
pub fn short(data: &Data) -> Result<String> {
    let (all, ordinary) = (data.every(), data.ordinary());
    let (best, few) = (needs::best(&all)?, needs::best(&ordinary)?);
    let article = article()?;
    let union = last(&best)?;
    let six = best.get(6).context("the corpus needs fewer than six")?;
    let of = |set: Set| format!("{} of {}", built(&ordinary, set), ordinary.len());
    let also = |set: Set| format!("{} of {}", built(&all, set), all.len());
    let most = last(&few)?;
    let mut text = format!(
        "In our corpus {} builds {} Dockerfiles written as ordinary projects write theirs, and {} in all, most \
         of which were made to provoke. No other six build more. The five that an article on Kaniko \
         gives (policy `article`) lack {} of these, and build {} and {}. ",
        code(six.set),
        of(six.set),
        also(six.set),
        less(six.set, article),
        of(article),
        also(article),
    );
    for number in Set(six.set.0 & !article.0).iter() {
        let wants = wanting(&all, number);
        let _ = write!(
            text,
            "Nothing tells that {} is missing: of {} Dockerfiles that need it, {} build to the end, and \
             give another image. ",
            ALL[number],
            wants.len(),
            silent(&all, number)
        );
    }
    let _ = write!(
        text,
        "To build all the ordinary ones takes {} ({}), to build all takes {}: Docker's default without {}, \
         which no build needed. With nothing, {} and {} build.",
        most.set.iter().count(),
        more(most.set, six.set),
        union.set.iter().count(),
        less(Set::DOCKER_DEFAULT, union.set),
        of(Set::default()),
        also(Set::default()),
    );
    Ok(wrapped(&text, 100))
}

/// The page.
///
/// # Errors
/// Where the corpus is too large to try all sets.
pub fn page(data: &Data) -> Result<String> {
    let (all, ordinary, provoking) = (data.every(), data.ordinary(), data.provoking());
    let groups = [&all, &ordinary, &provoking];
    let best = needs::best(&all)?;
    let mut text = String::from(
        "# Which minimal set builds all or most Dockerfiles?\n\n\
         Made by `cargo xtask answer --write`; do not edit.\n\n\
         Asked of Kaniko since 2019, and answered with lists that somebody tried. Here is what replays \
         say of our corpus: each Dockerfile was built by real Kaniko with Docker's default set, then \
         without each of its capabilities, then with what was left, and the images were compared \
         (`cargo xtask truth`, which knows nothing of kcap). *Builds* means: gives the same image.\n\n\
         ## The short answer\n\n",
    );
    text += &short(data)?;
    text.push('\n');
    text += &wrapped(
        "Whoever wants one line and no tracing takes these six, after `drop: [ALL]`, and adds SETFCAP where \
         a RUN or a COPY makes files with capabilities, NET_BIND_SERVICE or NET_RAW where a RUN opens such \
         a port or socket. Traced, most builds get less.",
        100,
    );
    text += "\n## What the corpus is, and is not\n\n";
    text += &wrapped(
        &format!(
            "{} Dockerfiles build under Docker's default set. {} of them, the `x-…`, are written as \
             ordinary projects write theirs (compilers and interpreters imitated). The other {} were \
             each made to provoke one pattern. {} more fail as they should and are left out ({}).\n",
            all.len(),
            ordinary.len(),
            provoking.len(),
            data.failing.len(),
            list(data.failing.iter().map(String::as_str)),
        ),
        100,
    );
    text.push('\n');
    text += &wrapped(
        "We chose them, so this is no sample: the shares say nothing about how many Dockerfiles of the \
         world a set builds. They say which sets are enough for which patterns, and which patterns break a \
         set. Bases are `scratch`, BusyBox and Debian: no `apk`, `dnf` or real `npm`. No build has a \
         network but loopback, none a seccomp profile. `net.ipv4.ip_unprivileged_port_start` is 1024 and \
         `ping_group_range` empty, the kernel's own values; an engine that opens them, as Docker does, \
         takes away a part of the needs for NET_BIND_SERVICE and NET_RAW. The executor is one version of \
         Kaniko, run as root.",
        100,
    );
    text += "\n## Who needs what\n\n\
             Dockerfiles that do not build without it, whatever else is allowed. *Silent*: those of them \
             whose build goes through without it, and gives another image.\n\n\
             | capability | all | silent | `x-…` | made to provoke | which |\n|---|---|---|---|---|---|\n";
    let named = Set(all.iter().fold(0, |set, one| set | one.named().0));
    let mut rows: Vec<(usize, usize)> = (Set::DOCKER_DEFAULT.iter())
        .chain(
            named
                .iter()
                .filter(|&number| !Set::DOCKER_DEFAULT.has(number)),
        )
        .map(|number| (number, wanting(&all, number).len()))
        .collect();
    rows.sort_by_key(|(number, count)| (usize::MAX - count, *number));
    for (number, _) in rows {
        let counts = groups.map(|group| wanting(group, number).len().to_string());
        let names = wanting(&all, number);
        let names = match names.len() {
            0 => "none".to_owned(),
            1..=NAMES => list(names.into_iter()),
            _ => String::new(),
        };
        let [all_of_them, rest @ ..] = counts;
        let _ = writeln!(
            text,
            "| {} | {all_of_them} | {} | {} | {names} |",
            ALL[number],
            silent(&all, number),
            rest.join(" | ")
        );
    }
    any_of(&mut text, &all);
    spare(&mut text, &all);
    looks(&mut text, data);
    for (title, group) in [("all", &all), ("the `x-…`", &ordinary)] {
        let _ = write!(
            text,
            "\n## How far a few capabilities go: {title}\n\n\
             For each number of capabilities the set that builds most of the {}; all sets were tried.\n\n\
             | capabilities | the best set | builds | as good |\n|---|---|---|---|\n",
            group.len()
        );
        curve(&mut text, &needs::best(group)?, group.len());
    }
    known(&mut text, groups, data)?;
    checked(&mut text, data, &best)?;
    text += "\n## A few sets instead of one\n\n\
             One pod's set has to be enough for the Dockerfile that needs most. Where pods can differ, \
             `kcap report --profiles 3` groups the Dockerfiles; it goes by one traced run of each, and \
             allows what that run could not settle. *Granted* is the mean over Dockerfiles.\n";
    for (title, profiles) in ["the `x-…`", "all"].into_iter().zip(&data.profiles) {
        grouped(&mut text, title, profiles);
    }
    Ok(text)
}

fn article() -> Result<Set> {
    let named = NAMED.iter().find(|named| named.name == ARTICLE);
    Ok(Set(named.context("the article's set has gone")?.allowed))
}

fn last(best: &[Best]) -> Result<Best> {
    best.last().copied().context("no Dockerfile builds")
}

/// Names of those that cannot do without.
fn wanting<'a>(group: &[&'a Needs], number: usize) -> Vec<&'a str> {
    let wants = group.iter().filter(|one| !one.does_without(number));
    wants.map(|one| one.name.as_str()).collect()
}

/// How many of them come to an end without it, with another image.
fn silent(group: &[&Needs], number: usize) -> usize {
    let wants = group.iter().filter(|one| !one.does_without(number));
    wants.filter(|one| one.changes.has(number)).count()
}

fn any_of(text: &mut String, all: &[&Needs]) {
    let groups: Vec<String> = (all.iter())
        .flat_map(|one| one.any_of.iter().map(move |group| (one, group)))
        .map(|(one, group)| format!("`{}`: {}", one.name, group.names().join(" or ")))
        .collect();
    *text += &match groups.len() {
        0 => "\nThere is no Dockerfile here for which any of several capabilities of Docker's default set \
              would do.\n"
            .to_owned(),
        _ => format!("\nAny of several does: {}.\n", groups.join("; ")),
    };
}

fn spare(text: &mut String, all: &[&Needs]) {
    for one in all.iter().filter(|one| one.spare != Set::default()) {
        let _ = writeln!(
            text,
            "\n`{}` builds with {} allowed, and takes {} beside the rest of Docker's default set. It is \
             counted where a set is exactly the first or holds the second; what lies between its truth \
             does not tell.",
            one.name, one.all, one.spare
        );
    }
}

fn curve(text: &mut String, best: &[Best], of: usize) {
    let mut before = Set::default();
    for (size, best) in best.iter().enumerate() {
        let shown = if size > 1 && before.0 & !best.set.0 == 0 {
            format!("these and {}", less(best.set, before))
        } else {
            best.set.to_string()
        };
        let others = match best.others {
            0 => String::new(),
            1 => "1 other".into(),
            others => format!("{others} others"),
        };
        let _ = writeln!(
            text,
            "| {size} | {shown} | {} ({:.0} %) | {others} |",
            best.built,
            best.built as f64 * 100.0 / of as f64
        );
        before = best.set;
    }
}

/// How it shows that a capability is missing.
fn looks(text: &mut String, data: &Data) {
    *text += "\n## What a missing one looks like\n\n\
              The end of a build without the one capability: an ordinary Dockerfile's where there is one.\n\n\
              | without | in | what became of it |\n|---|---|---|\n";
    for (number, missing) in ALL.iter().enumerate() {
        let told = data
            .without
            .iter()
            .filter(|(without, ..)| *without == number);
        // A failure tells more than a difference, and an ordinary Dockerfile's is met more often.
        let shown = told.min_by_key(|(_, name, without)| {
            (!is_ordinary(name), without.outcome == Outcome::Changed)
        });
        let Some((_, name, without)) = shown else {
            continue;
        };
        let _ = writeln!(text, "| {missing} | `{name}` | {} |", end(without));
    }
}

/// What became of a build, in a cell.
fn end(without: &Consequence) -> String {
    let said = |line: &str| {
        let line = line.strip_prefix("error building image: ").unwrap_or(line);
        format!("`{}`", line.replace('|', "\\|").replace('`', "'"))
    };
    let witness = &without.witness;
    match (without.outcome, witness.differs.first()) {
        (Outcome::Changed, Some(place)) => format!(
            "builds; {}: {}{}",
            said(&place.path),
            place.how.join(", ").replace('|', "\\|"),
            match witness.differs.len() + witness.more {
                1 => String::new(),
                places => format!(", and {} places more", places - 1),
            }
        ),
        (Outcome::Changed, None) => "builds; another image".into(),
        (Outcome::Failed, _) if witness.output.is_empty() => said(&witness.error),
        (Outcome::Failed, _) => format!("{}, {}", said(&witness.output), said(&witness.error)),
    }
}

/// Sets with a name.
fn known(text: &mut String, groups: [&Vec<&Needs>; 3], data: &Data) -> Result<()> {
    *text += "\n## Sets that have a name\n\n\
              `kcap check --policy` takes these names. *Missing*: what Dockerfiles that do not build lack, and \
              how many lack it. Kubernetes' *baseline* says what a pod may add; Shipwright adds without \
              dropping: taken here are the sets alone, after `drop: [ALL]`.\n\n\
              | policy | capabilities | all | `x-…` | made to provoke | missing |\n|---|---|---|---|---|---|\n";
    for named in &NAMED {
        let set = Set(named.allowed);
        let counts = groups.map(|group| format!("{} of {}", built(group, set), group.len()));
        let mut lacking: Vec<(usize, usize)> = (0..ALL.len())
            .filter(|&number| !set.has(number))
            .map(|number| (wanting(groups[0], number).len(), number))
            .filter(|(count, _)| *count > 0)
            .collect();
        lacking.sort_by_key(|(count, number)| (usize::MAX - count, *number));
        let mut lacking: Vec<String> = (lacking.into_iter())
            .map(|(count, number)| format!("{} {count}", ALL[number]))
            .collect();
        for one in &data.all {
            if one.answer(set) == Answer::Untold {
                lacking.push(format!("{} 1 (`{}`)", one.spare, one.name));
            }
        }
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} |",
            named.name,
            set.iter().count(),
            counts.join(" | "),
            lacking.join(", ")
        );
    }
    Ok(())
}

/// What was built with whole sets.
fn checked(text: &mut String, data: &Data, best: &[Best]) -> Result<()> {
    *text += "\n## Built, not only reckoned\n\n";
    *text += &wrapped(
        "That a set which holds all that a Dockerfile needs builds it is an inference from builds without \
         one capability each. So Dockerfiles were built with these sets as they are, and the images \
         compared (`cargo xtask answer --build`). *Reckoned*: those of them that should give the same image.",
        100,
    );
    *text += "\n| set | built | the same image | another image | fails | reckoned | otherwise than reckoned |\n\
              |---|---|---|---|---|---|---|\n";
    let all = data.every();
    for set in sets(best) {
        let found = builds::checked(&data.rows, &all, set)?;
        let apart: Vec<String> = (found.apart.iter())
            .map(|(name, what)| format!("`{name}`: {}", what.replace('|', "\\|")))
            .collect();
        let apart = if apart.is_empty() && found.built > 0 {
            "none".into()
        } else {
            apart.join("; ")
        };
        let named = NAMED.iter().find(|named| named.allowed == set.0);
        let named = named.map_or("the best six".to_owned(), |named| {
            format!("`{}`", named.name)
        });
        let _ = writeln!(
            text,
            "| {named}: {set} | {} | {} | {} | {} | {} | {apart} |",
            found.built,
            found.same,
            found.changed,
            found.built - found.same - found.changed,
            found.reckoned
        );
    }
    Ok(())
}

fn grouped(text: &mut String, title: &str, profiles: &[Profile]) {
    let count: usize = profiles.iter().map(|one| one.dockerfiles.len()).sum();
    let granted: usize = (profiles.iter())
        .map(|one| one.dockerfiles.len() * one.required.len())
        .sum();
    let union: std::collections::BTreeSet<&Cap> =
        profiles.iter().flat_map(|one| &one.required).collect();
    let _ = write!(
        text,
        "\n### {title}\n\nGranted: {:.1} with these sets, {} with one.\n\n\
         | Dockerfiles | set | which |\n|---|---|---|\n",
        granted as f64 / count.max(1) as f64,
        union.len()
    );
    for profile in profiles {
        let set: Vec<String> = profile.required.iter().map(Cap::to_string).collect();
        let names = profile.dockerfiles.iter().map(|path| folder(path));
        let names = if profile.dockerfiles.len() <= 2 * NAMES {
            list(names)
        } else {
            String::new()
        };
        let set = if set.is_empty() {
            "nothing".into()
        } else {
            set.join(" ")
        };
        let _ = writeln!(text, "| {} | {set} | {names} |", profile.dockerfiles.len());
    }
}

/// The corpus' folder that a Dockerfile's path names.
fn folder(path: &str) -> &str {
    path.rsplit('/').nth(1).unwrap_or(path)
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn code(set: Set) -> String {
    format!("`{set}`")
}

/// What a set has beyond another.
fn less(set: Set, other: Set) -> String {
    Set(set.0 & !other.0).to_string()
}

/// What is added to and taken from a set to make another.
fn more(set: Set, than: Set) -> String {
    let gone = Set(than.0 & !set.0);
    let added = format!("{} added", less(set, than).replace(' ', " and "));
    match gone.iter().count() {
        0 => added,
        _ => format!("{added}, {gone} left out"),
    }
}

/// Broken into lines of at most so many columns, between words.
fn wrapped(text: &str, columns: usize) -> String {
    let mut out = String::new();
    let mut at = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if at > 0 && at + 1 + length > columns {
            out.push('\n');
            at = 0;
        }
        if at > 0 {
            out.push(' ');
            at += 1;
        }
        out += word;
        at += length;
    }
    out.push('\n');
    out
}
