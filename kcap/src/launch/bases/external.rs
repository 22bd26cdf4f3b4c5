//! Which images a Dockerfile takes from elsewhere, with Kaniko's rules (`MakeKanikoStages` in its
//! `pkg/dockerfile/dockerfile.go`, `resolveExtraStageDigests` in `pkg/executor/build.go`): those of the
//! stages that are built, by `FROM` and by `COPY --from`. A `RUN --mount` takes none: Kaniko leaves out
//! mounts from elsewhere.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
};

use super::{
    expand::{Variables, expand},
    flags::Flags,
    reference::Reference,
};
use crate::{
    interpret::dockerfile::{Dockerfile, Instruction, Keyword},
    render::escape,
};

/// Most columns of a part of the Dockerfile in a note.
const SHOWN: usize = 100;

/// What was written, and what it becomes, or why it cannot be expanded.
type Name = (String, Result<String, &'static str>);

/// What is taken from elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct External {
    /// Names of images, as Kaniko is to find them: expanded, in the order of the Dockerfile, each once.
    pub names: Vec<String>,
    /// What could not be found out, a line for people each.
    pub notes: Vec<String>,
}

/// The images that a Dockerfile takes from elsewhere when it is built with these flags of Kaniko's.
///
/// What an image's own `ONBUILD` takes is not among them, since only the image says so.
pub fn external(dockerfile: &Dockerfile, flags: &[OsString]) -> External {
    let flags = Flags::read(flags);
    let mut found = External::default();
    let globals = found.globals(dockerfile, &flags);
    let stages = &dockerfile.stages;
    let bases: Vec<Result<String, &'static str>> = stages
        .iter()
        .map(|stage| expand(&stage.base, &globals))
        .collect();

    let Some(mut wanted) = targets(dockerfile, &flags) else {
        let target = "--target names no stage, which Kaniko refuses: no base image is kept";
        found.notes.push(target.to_owned());
        return found;
    };
    // The last of a name for COPY, the first for FROM.
    let mut names: HashMap<&str, usize> = HashMap::new();
    for (index, stage) in stages.iter().enumerate() {
        names.extend(stage.name.as_deref().map(|name| (name, index)));
    }
    let base_stage = |stage: usize| {
        let base = bases[stage].as_deref().ok()?.to_lowercase();
        (0..stage).find(|earlier| stages[*earlier].name.as_deref() == Some(&base))
    };
    // By line, since stages are gone through backwards.
    let mut images: BTreeMap<(u32, usize), Name> = BTreeMap::new();
    for index in (0..stages.len()).rev() {
        if !wanted[index] {
            continue;
        }
        let stage = &stages[index];
        let base = base_stage(index);
        let put_off: &[Instruction] = match base {
            Some(base) => {
                wanted[base] = true;
                &stages[base].instructions
            }
            None => {
                let name = (stage.base.clone(), bases[index].clone());
                images.insert((stage.line(), 0), name);
                &[]
            }
        };
        let triggers = put_off.iter().filter_map(|i| i.trigger.as_deref());
        for (nth, copy) in triggers.chain(&stage.instructions).enumerate() {
            let Some(from) = copy.flag("from").filter(|_| copy.keyword == Keyword::Copy) else {
                continue;
            };
            let known = names.get(from.to_lowercase().as_str()).copied();
            match known.or_else(|| from.parse().ok()) {
                Some(other) => {
                    if let Some(wanted) = wanted.get_mut(other).filter(|_| other < index) {
                        *wanted = true;
                    }
                }
                None if from.is_empty() => {}
                // Kaniko expands nothing here.
                None => {
                    let name = (from.to_owned(), Ok(from.to_owned()));
                    images.insert((copy.line, nth + 1), name);
                }
            }
        }
    }
    for ((line, _), name) in images {
        found.add(line, name);
    }
    found
}

impl External {
    /// The `ARG`s before the first `FROM`, and the build arguments, which may do without one.
    fn globals(&mut self, dockerfile: &Dockerfile, flags: &Flags) -> Variables {
        let mut given = Variables::new();
        for (name, value) in &flags.build_args {
            if value.is_none() {
                self.notes.push(format!(
                    "--build-arg {} has its value from the executor's environment, which is not \
                     looked into for names of base images",
                    escape::head(name, SHOWN)
                ));
            }
            given.insert(name.clone(), value.clone().unwrap_or_default());
        }
        let mut declared = Variables::new();
        for arg in &dockerfile.args {
            for word in &arg.args {
                let Some((name, value)) = word.split_once('=') else {
                    continue;
                };
                let mut before = declared.clone();
                before.extend(given.clone());
                match unquoted(value).and_then(|value| expand(value, &before)) {
                    Ok(value) => {
                        declared.insert(name.to_owned(), value);
                    }
                    Err(why) => self.notes.push(format!(
                        "line {}: {} cannot be expanded: {why}",
                        arg.line,
                        escape::head(word, SHOWN)
                    )),
                }
            }
        }
        for (name, value) in &flags.build_args {
            // Up to a second `=`, and only where there is something (`unifyArgs`).
            let value = value.as_deref().unwrap_or_default().split('=').next();
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                declared.insert(name.clone(), value.to_owned());
            }
        }
        declared
    }

    fn add(&mut self, line: u32, (written, name): Name) {
        // Not what it becomes: build arguments can be secrets.
        let written = escape::head(&written, SHOWN);
        match name {
            Ok(name) if name == "scratch" || self.names.contains(&name) => {}
            Ok(name) if Reference::parse(&name).is_some() => self.names.push(name),
            Ok(_) => self.notes.push(format!(
                "line {line}: `{written}` is no name of an image: it is not kept"
            )),
            Err(why) => self.notes.push(format!(
                "line {line}: `{written}` cannot be expanded: {why}; its image is not kept"
            )),
        }
    }
}

/// Which stages are asked for; `None` where a target is none.
fn targets(dockerfile: &Dockerfile, flags: &Flags) -> Option<Vec<bool>> {
    let stages = &dockerfile.stages;
    let mut wanted = vec![false; stages.len()];
    if flags.targets.is_empty() {
        *wanted.last_mut()? = true;
    }
    for target in &flags.targets {
        let target = target.to_lowercase();
        let is = |name: &Option<String>| name.as_deref() == Some(&target);
        wanted[stages.iter().position(|stage| is(&stage.name))?] = true;
    }
    Some(wanted)
}

/// A value without the quotes around it.
fn unquoted(value: &str) -> Result<&str, &'static str> {
    let quote = |c: char| matches!(c, '\'' | '"');
    if value.len() < 2 || value.starts_with('\\') {
        return Ok(value);
    }
    let (first, last) = (value.chars().next(), value.chars().next_back());
    match (first.filter(|c| quote(*c)), last.filter(|c| quote(*c))) {
        (None, None) => Ok(value),
        (first, last) if first == last => Ok(&value[1..value.len() - 1]),
        _ => Err("its quotes do not match"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interpret::dockerfile::parse;

    fn found(text: &str, flags: &[&str]) -> External {
        let flags: Vec<OsString> = flags.iter().map(OsString::from).collect();
        external(&parse(text.as_bytes()).unwrap(), &flags)
    }

    fn names(text: &str, flags: &[&str]) -> Vec<String> {
        let found = found(text, flags);
        assert!(found.notes.is_empty(), "{:?}", found.notes);
        found.names
    }

    #[test]
    fn stages_and_scratch_are_not_taken_from_elsewhere() {
        let text = "FROM golang:1 AS Build\nRUN x\nFROM scratch AS empty\nFROM build\n\
                    COPY --from=BUILD /a /b\nCOPY --from=1 /a /b\nCOPY --from=alpine:3 /a /b\n\
                    COPY --from=alpine:3 /c /d\nRUN --mount=from=other:1,target=/x true\n";
        assert_eq!(names(text, &[]), ["golang:1", "alpine:3"]);
    }

    #[test]
    fn only_stages_that_are_built_count() {
        let text = "FROM aa AS one\nFROM bb AS two\nCOPY --from=one / /\nFROM cc AS three\n\
                    FROM dd AS four\n";
        assert_eq!(names(text, &[]), ["dd"]);
        assert_eq!(names(text, &["--target=TWO"]), ["aa", "bb"]);
        assert_eq!(names(text, &["--target", "three,one"]), ["aa", "cc"]);
        let odd = found(text, &["--target=five"]);
        assert!(odd.names.is_empty());
        assert_eq!(odd.notes.len(), 1);
    }

    #[test]
    fn what_a_stage_puts_off_is_done_in_the_next() {
        let text = "FROM aa AS one\nONBUILD COPY --from=cc:1 / /\nFROM one\n";
        assert_eq!(names(text, &[]), ["aa", "cc:1"]);
        assert_eq!(names(text, &["--target=one"]), ["aa"]);
    }

    #[test]
    fn variables_are_put_in() {
        let text = "ARG V=1.2\nARG BASE=\"alpine:$V\" B2='x${NO:-y}z'\nARG EMPTY\n\
                    FROM ${BASE} AS a\nFROM $B2 AS b\nFROM r.example/${EMPTY}xx:${W:-5}\n\
                    COPY --from=a / /\nCOPY --from=b / /\n";
        assert_eq!(names(text, &[]), ["alpine:1.2", "xyz", "r.example/xx:5"]);
    }

    #[test]
    fn build_arguments_win_as_kaniko_has_it() {
        let text = "ARG V=1\nARG BASE=alpine:$V\nFROM $BASE\n";
        assert_eq!(names(text, &["--build-arg", "V=2"]), ["alpine:2"]);
        assert_eq!(names(text, &["--build-arg=BASE=debian"]), ["debian"]);
        // An empty one does not replace what the Dockerfile says, but is there for what follows.
        assert_eq!(names(text, &["--build-arg=BASE="]), ["alpine:1"]);
        // Without ARG, and cut at the second `=`.
        assert_eq!(
            names("FROM $X\n", &["--build-arg=X=busybox=y"]),
            ["busybox"]
        );
        let unknown = found("ARG X=aa\nFROM $X\n", &["--build-arg", "X"]);
        assert_eq!(unknown.names, ["aa"]);
        assert!(unknown.notes[0].contains("environment"));
    }

    #[test]
    fn what_cannot_be_expanded_is_left_out_and_said() {
        for text in [
            "FROM ${X\n",
            "FROM $X\n",
            "FROM ${X#a}\n",
            "FROM Upper\n",
            "ARG X='aa\nFROM $X\n",
            "FROM scratch\nCOPY --from=$X / /\n",
        ] {
            let found = found(text, &[]);
            assert!(found.names.is_empty(), "{text}: {:?}", found.names);
            assert!(!found.notes.is_empty(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_stands_there_a_name_is_one(
            text in "(ARG [A-Z]=[ -~]{0,9}\n){0,3}(FROM [ -~]{1,12}( AS [a-z])?\n(COPY --from=[!-~]{1,9} / /\n)?){1,4}",
            flag in "--(build-arg|target)[= ][ -~]{0,9}",
        ) {
            if let Ok(dockerfile) = parse(text.as_bytes()) {
                let flags: Vec<OsString> = flag.split(' ').map(OsString::from).collect();
                for name in external(&dockerfile, &flags).names {
                    assert!(Reference::parse(&name).is_some(), "{name}");
                }
            }
        }
    }
}
