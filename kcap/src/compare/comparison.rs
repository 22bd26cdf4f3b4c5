//! Two images compared, for people and programs: `kcap.comparison/v1`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Image,
    difference::{Difference, differences},
    judge::sort_out,
    noise::{Noise, Rule},
};

/// Name and version of the format.
pub const SCHEMA: &str = "kcap.comparison/v1";

/// What two images differ in.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Comparison {
    /// Name and major version of this format: `kcap.comparison/v1`.
    pub schema: &'static str,
    /// Nothing that counts differs.
    pub same: bool,
    /// The images.
    pub images: [Summary; 2],
    /// How many differences of each kind count.
    pub counts: BTreeMap<&'static str, usize>,
    /// Those that count, by place.
    pub differences: Vec<Difference>,
    /// Those that a rule of noise is about, by rule.
    pub noise: Vec<Noisy>,
}

/// An image that was compared.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Summary {
    /// What the caller calls it.
    pub name: String,
    /// Digest of its configuration.
    pub id: String,
    /// Digest of its manifest, where it came with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// Entries, the root among them.
    pub entries: usize,
}

/// Differences that a rule of noise is about.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Noisy {
    /// The rule.
    pub rule: Rule,
    /// Why it holds.
    pub reason: &'static str,
    /// The differences, by place.
    pub differences: Vec<Difference>,
}

impl Comparison {
    /// Compares two images, each with what the caller calls it. Where `exact`, there is no noise.
    pub fn of(a: (&str, &Image), b: (&str, &Image), exact: bool) -> Self {
        let found = differences(a.1, b.1);
        let mut noise: BTreeMap<Rule, Vec<Difference>> = BTreeMap::new();
        let counting = if exact {
            found
        } else {
            let judged = sort_out(found, &Noise::default());
            for (rule, difference) in judged.noise {
                noise.entry(rule).or_default().push(difference);
            }
            // Nothing is known of what equal builds differ in: everything else counts.
            let mut counting = [
                judged.decisive,
                judged.undecided,
                judged.unstable,
                judged.history,
            ]
            .concat();
            counting.sort();
            counting
        };
        let mut counts = BTreeMap::new();
        for difference in &counting {
            *counts.entry(difference.what.name()).or_default() += 1;
        }
        Self {
            schema: SCHEMA,
            same: counting.is_empty(),
            images: [a, b].map(|(name, image)| Summary {
                name: name.into(),
                id: image.id.clone(),
                manifest: image.manifest.clone(),
                entries: image.tree.entries().len(),
            }),
            counts,
            differences: counting,
            noise: noise
                .into_iter()
                .map(|(rule, differences)| Noisy {
                    rule,
                    reason: rule.reason(),
                    differences,
                })
                .collect(),
        }
    }
}

/// The JSON Schema of a comparison, with one trailing newline.
pub fn schema() -> String {
    let mut schema = schemars::schema_for!(Comparison);
    schema.insert("$id".to_owned(), SCHEMA.into());
    format!("{:#}\n", schema.to_value())
}
