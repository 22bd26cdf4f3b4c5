//! What two images differ in.

use super::super::comparison::{gathered, id};
use super::page::{Align, Page};
use super::text::{code, code_tail};
use super::{PATH, TEXT};
use crate::compare::{Difference, comparison::Comparison};

/// The comparison; what is in a folder that is missing or added is counted with the folder, unless
/// `all`.
pub fn comparison(comparison: &Comparison, all: bool) -> String {
    let mut page = Page::default();
    let [a, b] = &comparison.images;
    let images = format!(
        "{} → {}",
        code_tail(&a.name, PATH),
        code_tail(&b.name, PATH)
    );
    let count = comparison.differences.len();
    page.heading(&match count {
        0 if comparison.noise.is_empty() => format!("Same: {images}"),
        0 => format!("Same but for noise: {images}"),
        1 => format!("1 difference: {images}"),
        _ => format!("{count} differences: {images}"),
    });
    let lines = if all {
        Vec::from_iter(comparison.differences.iter().map(|d| (d, 0)))
    } else {
        gathered(&comparison.differences)
    };
    let rows = lines.iter().map(|(difference, inside)| {
        let mut what = code(&difference.what.to_string(), TEXT);
        match inside {
            0 => {}
            1 => what += ", with 1 entry in it",
            n => what += &format!(", with {n} entries in it"),
        }
        vec![place(difference), what]
    });
    let columns = [("Where", Align::Left), ("What", Align::Left)];
    page.table(&columns, rows, "differences");
    if !comparison.noise.is_empty() {
        let counted = comparison.noise.iter().map(|noisy| noisy.differences.len());
        let summary = format!("Noise, which does not count: {}", counted.sum::<usize>());
        let rows = comparison.noise.iter().map(|noisy| {
            let first = noisy.differences.first();
            vec![
                noisy.rule.to_string(),
                noisy.differences.len().to_string(),
                first.map_or_else(String::new, place),
            ]
        });
        let columns = [
            ("Rule", Align::Left),
            ("Differences", Align::Right),
            ("The first", Align::Left),
        ];
        page.details(&summary, |page| page.table(&columns, rows, "rules"));
    }
    let rows = comparison.images.iter().map(|image| {
        vec![
            code_tail(&image.name, PATH),
            code(id(image).as_str(), TEXT),
            image.entries.to_string(),
        ]
    });
    let columns = [
        ("Image", Align::Left),
        ("Id", Align::Left),
        ("Entries", Align::Right),
    ];
    page.details("Images", |page| page.table(&columns, rows, "images"));
    page.finish()
}

fn place(difference: &Difference) -> String {
    code_tail(&difference.place.to_string(), PATH)
}
