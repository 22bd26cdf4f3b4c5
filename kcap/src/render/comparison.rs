//! What two images differ in, for people: a line that sums it up, then a line for each difference.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
};

use super::{
    Style,
    escape::{head, tail},
    table::{COLUMNS, Paint, Screen},
};
use crate::compare::{
    ByteString, Difference, What,
    comparison::{Comparison, Summary},
};

/// Most lines of differences, unless all are asked for.
const LINES: usize = 50;
/// Digits of an id, as engines show it.
const ID: usize = 12;

/// Writes the comparison; with all of its differences where `all`.
pub fn write<W: Write>(
    comparison: &Comparison,
    all: bool,
    style: Style,
    to: &mut W,
) -> io::Result<()> {
    let screen = Screen { to, style };
    let count = comparison.differences.len();
    let (paint, verdict) = match count {
        0 if comparison.noise.is_empty() => (Paint::Good, "SAME".to_owned()),
        0 => (Paint::Good, "SAME but for noise".to_owned()),
        1 => (Paint::Bad, "1 DIFFERENCE".to_owned()),
        _ => (Paint::Bad, format!("{count} DIFFERENCES")),
    };
    let [a, b] = &comparison.images;
    let verdict = screen.paint(paint, &verdict);
    writeln!(screen.to, "{verdict}  {} -> {}", id(a), id(b))?;
    for (side, image) in [("from", a), ("to", b)] {
        let entries = format!("{} entries", image.entries);
        let most = COLUMNS.saturating_sub(entries.len() + 8);
        writeln!(
            screen.to,
            "  {side:<4}  {}  {entries}",
            tail(&image.name, most)
        )?;
    }
    let lines = if all {
        Vec::from_iter(comparison.differences.iter().map(|d| (d, 0)))
    } else {
        gathered(&comparison.differences)
    };
    if !lines.is_empty() {
        writeln!(screen.to)?;
    }
    let most = if all { usize::MAX } else { LINES };
    for (difference, inside) in lines.iter().take(most) {
        let paint = match difference.what {
            What::Missing { .. } => Paint::Bad,
            What::Added { .. } => Paint::Good,
            _ => Paint::Unsure,
        };
        let inside = match inside {
            0 => String::new(),
            1 => ", with 1 entry in it".to_owned(),
            n => format!(", with {n} entries in it"),
        };
        let place = difference.place.to_string();
        let what = screen.paint(paint, &format!("{}{inside}", difference.what));
        writeln!(screen.to, "{place}: {what}")?;
    }
    if let Some(rest) = lines.get(most..).filter(|rest| !rest.is_empty()) {
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for (difference, inside) in rest {
            *kinds.entry(difference.what.name()).or_default() += 1 + inside;
        }
        let kinds: Vec<String> = kinds
            .iter()
            .map(|(kind, n)| format!("{n} {kind}"))
            .collect();
        writeln!(screen.to, "… and {} (--all shows them)", kinds.join(", "))?;
    }
    if !comparison.noise.is_empty() {
        let rules: Vec<String> = comparison
            .noise
            .iter()
            .map(|noisy| format!("{} {}", noisy.differences.len(), noisy.rule))
            .collect();
        let noise = screen.paint(Paint::Unsure, "noise");
        writeln!(screen.to)?;
        writeln!(
            screen.to,
            "{noise}  {} (content alone; --exact counts it)",
            rules.join(", ")
        )?;
    }
    Ok(())
}

pub(super) fn id(image: &Summary) -> String {
    let digits = image.id.strip_prefix("sha256:").unwrap_or(&image.id);
    head(digits.get(..ID).unwrap_or(digits), ID)
}

/// What is in a folder that is missing or added is counted with the folder.
pub(super) fn gathered(differences: &[Difference]) -> Vec<(&Difference, usize)> {
    let alone = |d: &Difference| matches!(d.what, What::Missing { .. } | What::Added { .. });
    let paths: BTreeSet<(&ByteString, bool)> = differences
        .iter()
        .filter(|d| alone(d))
        .filter_map(|d| Some((d.path()?, matches!(d.what, What::Added { .. }))))
        .collect();
    // The highest folder that a path is in and that goes the same way, which is not the path's own.
    let highest = |d: &Difference| {
        let path = d.path().filter(|_| alone(d))?;
        let added = matches!(d.what, What::Added { .. });
        let mut slashes = path.iter().enumerate().skip(1);
        slashes.find_map(|(at, byte)| {
            let above = ByteString::from(&path[..at]);
            (*byte == b'/' && paths.contains(&(&above, added))).then_some(above)
        })
    };
    let mut inside: BTreeMap<ByteString, usize> = BTreeMap::new();
    let mut lines = Vec::new();
    for difference in differences {
        match highest(difference) {
            Some(above) => *inside.entry(above).or_default() += 1,
            None => lines.push((difference, 0)),
        }
    }
    for (difference, count) in &mut lines {
        if let Some(path) = difference.path().filter(|_| alone(difference)) {
            *count = inside.get(path).copied().unwrap_or(0);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{
        Image,
        made::{Packed, image},
    };

    fn table(a: &Image, b: &Image, all: bool, exact: bool) -> String {
        let comparison = Comparison::of(("a\x1b.tar", a), ("b.tar", b), exact);
        let mut out = Vec::new();
        write(&comparison, all, Style::default(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn same_id(mut image: Image) -> Image {
        image.id = format!("sha256:{}", "0123456789abcdef".repeat(4));
        image
    }

    #[test]
    fn a_line_that_sums_up_and_one_for_each() {
        let a = Packed::default()
            .mode("usr/bin/x", 0o6755)
            .file("var/log/x", "1")
            .file("doc/a/b", "")
            .file("etc/motd", "");
        let b = Packed::default()
            .mode("usr/bin/x", 0o755)
            .file("var/log/x", "2")
            .folder("etc");
        let (a, b) = (same_id(image(&[a])), same_id(image(&[b])));
        let text = "\
3 DIFFERENCES  0123456789ab -> 0123456789ab
  from  a\\u{1b}.tar  12 entries
  to    b.tar  8 entries

/doc: missing, with 2 entries in it
/etc/motd: missing
/usr/bin/x: mode 6755 -> 0755

noise  1 log (content alone; --exact counts it)
";
        // `/doc`, `/doc/a` and `/doc/a/b` are three.
        assert_eq!(
            table(&a, &b, false, false),
            text.replace("3 DIFF", "5 DIFF")
        );
        let all = table(&a, &b, true, true);
        assert!(
            all.contains("/doc/a/b: missing\n") && all.contains("/var/log/x: content"),
            "{all}"
        );
        assert!(
            all.starts_with("6 DIFFERENCES") && !all.contains("noise"),
            "{all}"
        );
        let json = crate::render::json::text(&Comparison::of(("a", &a), ("b", &b), false)).unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["schema"], "kcap.comparison/v1");
        assert_eq!(value["same"], false);
        assert_eq!(
            value["counts"],
            serde_json::json!({"missing": 4, "mode": 1})
        );
        assert_eq!(value["noise"][0]["rule"], "log");
        assert_eq!(value["noise"][0]["differences"][0]["path"], "/var/log/x");
        assert_eq!(value["images"][1]["entries"], 8);
    }

    #[test]
    fn what_is_the_same_is_told() {
        let log = |text: &str| same_id(image(&[Packed::default().file("var/log/x", text)]));
        let start = |a: &str, b: &str| {
            let text = table(&log(a), &log(b), false, false);
            text.split("  ").next().unwrap().to_owned()
        };
        assert_eq!(start("1", "1"), "SAME");
        assert_eq!(start("1", "2"), "SAME but for noise");
    }

    #[test]
    fn many_are_counted_by_kind() {
        let many = |mode: u32| {
            (0..60).fold(Packed::default(), |layer, n| {
                layer.mode(&format!("x{n:02}"), mode)
            })
        };
        let (a, b) = (image(&[many(0o600).file("z", "")]), image(&[many(0o644)]));
        let text = table(&a, &b, false, false);
        assert!(
            text.contains("/x49: ") && !text.contains("/x50: "),
            "{text}"
        );
        assert!(
            text.ends_with("… and 1 missing, 10 mode (--all shows them)\n"),
            "{text}"
        );
        assert!(table(&a, &b, true, false).contains("/x59: mode 0600 -> 0644"));
    }
}
