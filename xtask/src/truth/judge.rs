//! Builds, judged by what builds with the whole starting set came to.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::image::{Difference, How, Image, Reader, diff};
use super::noise;
use super::record::{self, Consequence, Outcome, PLACES, Place, Unstable, Witness};
use super::search::Verdict;
use crate::corpus::Expect;
use crate::lab::capabilities::Set;
use crate::lab::kaniko::{Ended, Kaniko, Recipe};

/// How many times as long as the first reference build another may take.
const PATIENCE: u32 = 10;

/// Bytes of a log line that are written down, at most.
const LINE: usize = 300;

/// What one build came to.
enum Product {
    Image(Image),
    Failure(Ended, Witness),
}

/// What builds are compared with.
enum Reference {
    Image {
        image: Image,
        unstable: BTreeSet<String>,
    },
    Failure(Ended, Witness),
}

/// Builds one Dockerfile again and again.
struct Builder<'a> {
    kaniko: &'a Kaniko,
    recipe: Recipe,
    reader: Reader,
    builds: u32,
}

impl Builder<'_> {
    fn build(&mut self, set: Set) -> Result<Product> {
        let is_first = self.builds == 0;
        self.builds += 1;
        let began = Instant::now();
        let built = self
            .kaniko
            .build(&self.recipe, set)
            .with_context(|| format!("cannot build with {set}"))?;
        if is_first {
            // A build that waits for ever is known sooner then, and on a slow machine none is
            // ended that would have come to an end.
            let patience = began.elapsed() * PATIENCE + Duration::from_secs(30);
            self.recipe.timeout = self.recipe.timeout.min(patience);
        }
        if built.ended == Ended::Exited(0) {
            // The first image's layers are those that others share, if they share any.
            let image = self.reader.read(&built.image(), is_first)?;
            return Ok(Product::Image(image));
        }
        let mut witness = last_lines(&built.log);
        if built.ended == Ended::TimedOut {
            witness.output = std::mem::take(&mut witness.error);
            witness.error = "it did not come to an end".into();
        }
        Ok(Product::Failure(built.ended, witness))
    }

    fn image(&mut self, set: Set) -> Result<Image> {
        match self.build(set)? {
            Product::Image(image) => Ok(image),
            Product::Failure(_, witness) => bail!(
                "it fails with the whole starting set: {} {}",
                witness.output,
                witness.error
            ),
        }
    }

    /// Builds with the whole starting set until two images are the same but for content.
    fn images(&mut self, start: Set, notes: &mut Vec<String>) -> Result<Reference> {
        let first = self.image(start)?;
        let second = self.image(start)?;
        let found = diff(&first, &second);
        if without_content(&found).is_empty() {
            return Ok(Reference::Image {
                image: first,
                unstable: contents(&found),
            });
        }
        let third = self.image(start)?;
        notes.push("one reference build of three was another".into());
        let mut apart = Vec::new();
        for image in [first, second] {
            let found = diff(&image, &third);
            if without_content(&found).is_empty() {
                return Ok(Reference::Image {
                    image,
                    unstable: contents(&found),
                });
            }
            apart = found;
        }
        let places: Vec<&str> = without_content(&apart)
            .into_iter()
            .map(|difference| difference.place.as_str())
            .take(PLACES)
            .collect();
        bail!(
            "builds with the whole starting set differ from one another in {}: such a Dockerfile \
             has no truth",
            places.join(", ")
        )
    }

    fn failures(&mut self, start: Set) -> Result<Reference> {
        let (Product::Failure(ended, first), Product::Failure(again, second)) =
            (self.build(start)?, self.build(start)?)
        else {
            bail!("it is expected to fail, and succeeds with the whole starting set");
        };
        if (ended, &first) != (again, &second) {
            bail!(
                "it fails in different ways with the whole starting set: {:?}, then {:?}",
                first.error,
                second.error
            );
        }
        Ok(Reference::Failure(ended, first))
    }
}

/// Judges builds of one Dockerfile.
pub struct Judge<'a> {
    builder: Builder<'a>,
    reference: Reference,
    /// What a reader of the truth should know.
    pub notes: Vec<String>,
}

impl<'a> Judge<'a> {
    /// Builds with the whole starting set, twice or more, to know what to expect.
    ///
    /// # Errors
    /// Where that does not come to what is expected, or not to the same each time.
    pub fn new(kaniko: &'a Kaniko, recipe: Recipe, expect: Expect, start: Set) -> Result<Self> {
        let mut builder = Builder {
            kaniko,
            recipe,
            reader: Reader::default(),
            builds: 0,
        };
        let mut notes = Vec::new();
        let reference = match expect {
            Expect::Success => builder.images(start, &mut notes)?,
            Expect::Fail => builder.failures(start)?,
        };
        Ok(Self {
            builder,
            reference,
            notes,
        })
    }

    /// How many builds there were.
    pub fn builds(&self) -> u32 {
        self.builder.builds
    }

    /// Builds with a set. What does not do the first time is tried again, and where the two do not
    /// agree, once more: two of three decide.
    ///
    /// # Errors
    /// Where a build cannot be made at all.
    pub fn judge(&mut self, set: Set) -> Result<Verdict> {
        let first = self.once(set)?;
        if first == Verdict::Same {
            return Ok(first);
        }
        if self.once(set)? != Verdict::Same {
            return Ok(first);
        }
        self.notes.push(format!("with {set} it does at times"));
        self.once(set)
    }

    fn once(&mut self, set: Set) -> Result<Verdict> {
        let result = self.builder.build(set)?;
        Ok(match (&self.reference, result) {
            (Reference::Image { image, unstable }, Product::Image(other)) => {
                let found = decisive(diff(image, &other), unstable);
                if found.is_empty() {
                    Verdict::Same
                } else {
                    differs(Outcome::Changed, places(&found))
                }
            }
            (Reference::Image { .. }, Product::Failure(_, witness)) => {
                differs(Outcome::Failed, witness)
            }
            (Reference::Failure(ended, known), Product::Failure(other, witness)) => {
                if (*ended, known) == (other, &witness) {
                    Verdict::Same
                } else {
                    differs(Outcome::Failed, witness)
                }
            }
            (Reference::Failure(..), Product::Image(_)) => {
                differs(Outcome::Changed, Witness::default())
            }
        })
    }

    /// What builds were compared with, to be written down.
    pub fn reference(&self) -> record::Reference {
        let (unstable, failure) = match &self.reference {
            Reference::Image { unstable, .. } => (unstable.clone(), None),
            Reference::Failure(_, witness) => (BTreeSet::new(), Some(witness.clone())),
        };
        record::Reference {
            stable: unstable.is_empty(),
            unstable: unstable
                .into_iter()
                .map(|path| Unstable {
                    rule: noise::rule(&path).map(str::to_owned),
                    path,
                })
                .collect(),
            failure,
        }
    }
}

fn differs(outcome: Outcome, witness: Witness) -> Verdict {
    Verdict::Differs(Consequence { outcome, witness })
}

/// The differences that are not about content alone.
fn without_content(found: &[Difference]) -> Vec<&Difference> {
    found.iter().filter(|d| d.how != [How::Content]).collect()
}

/// The paths with other content.
fn contents(found: &[Difference]) -> BTreeSet<String> {
    let differ = found.iter().filter(|d| d.how.contains(&How::Content));
    differ.map(|d| d.place.clone()).collect()
}

/// The differences that count.
fn decisive(found: Vec<Difference>, unstable: &BTreeSet<String>) -> Vec<Difference> {
    found
        .into_iter()
        .filter_map(|mut difference| {
            let place = &difference.place;
            if unstable.contains(place) || noise::rule(place).is_some() {
                difference.how.retain(|how| *how != How::Content);
            }
            (!difference.how.is_empty()).then_some(difference)
        })
        .collect()
}

fn places(found: &[Difference]) -> Witness {
    let place = |difference: &Difference| Place {
        path: difference.place.clone(),
        how: difference.how.iter().map(How::to_string).collect(),
    };
    Witness {
        differs: found.iter().take(PLACES).map(place).collect(),
        more: found.len().saturating_sub(PLACES),
        ..Witness::default()
    }
}

/// The executor's last line, and the last one before it of a program that it ran.
fn last_lines(log: &str) -> Witness {
    let mut lines = log.lines().rev().filter(|line| !line.trim().is_empty());
    let error = lines.next().map(shown).unwrap_or_default();
    let is_executors = |line: &str| line.starts_with("time=\"");
    let output = lines.next().filter(|line| !is_executors(line));
    Witness {
        error,
        output: output.map(shown).unwrap_or_default(),
        ..Witness::default()
    }
}

/// A line made printable, and cut where it is too long.
fn shown(line: &str) -> String {
    let mut text: String = line
        .trim()
        .chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = (!c.is_control()).then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect();
    if text.len() > LINE {
        let end = (0..=LINE).rev().find(|&at| text.is_char_boundary(at));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(place: &str, how: &[How]) -> Difference {
        Difference {
            place: place.into(),
            how: how.into(),
        }
    }

    #[test]
    fn noise_is_about_content_alone() {
        let mode = How::Other("mode 0644 → 0600".into());
        let found = vec![
            difference("/a", &[How::Content]),
            difference("/unstable", &[How::Content]),
            difference("/var/log/x", &[mode.clone(), How::Content]),
            difference("/var/log/y", &[How::Content]),
            difference("/var/log/z", &[How::Missing]),
        ];
        let unstable = BTreeSet::from(["/unstable".to_owned()]);
        assert_eq!(
            decisive(found, &unstable),
            [
                difference("/a", &[How::Content]),
                difference("/var/log/x", &[mode]),
                difference("/var/log/z", &[How::Missing]),
            ]
        );
    }

    #[test]
    fn the_last_lines_of_a_log_are_the_witness() {
        let log = "time=\"…\" level=info msg=\"Running: [x]\"\nout\nchown: /a: \u{1b}no\n\
                   error building image: exit status 1\n\n";
        let witness = last_lines(log);
        assert_eq!(witness.error, "error building image: exit status 1");
        assert_eq!(witness.output, "chown: /a: \\u{1b}no");
        let own = last_lines("time=\"…\" level=info msg=\"Taking snapshot\"\nerror\n");
        assert_eq!((own.error.as_str(), own.output.as_str()), ("error", ""));
        assert_eq!(shown(&"ä".repeat(1000)).chars().count(), LINE / 2 + 1);
    }

    #[test]
    fn few_places_are_written_down() {
        let all: Vec<_> = (0..8)
            .map(|n| difference(&format!("/{n}"), &[How::Added]))
            .collect();
        let witness = places(&all);
        assert_eq!((witness.differs.len(), witness.more), (PLACES, 3));
        assert_eq!(witness.differs[0].how, ["added"]);
    }
}
