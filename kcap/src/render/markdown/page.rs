//! A page of Markdown that grows block by block, within what a forge takes as a comment.

use std::fmt::Write as _;

/// Most bytes of a page. GitHub takes 65,536 characters; who posts it may add a line.
pub const LIMIT: usize = 64_000;
/// Kept free for what ends the page.
const RESERVE: usize = 1000;
/// Most rows of a table.
const ROWS: usize = 200;

/// Where the text of a column stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Left.
    Left,
    /// Right: numbers.
    Right,
    /// In the middle: marks.
    Middle,
}

/// A page. Everything given to it is Markdown on one line; nothing makes it longer than [`LIMIT`].
#[derive(Default)]
pub struct Page {
    text: String,
    /// Blocks that had no room.
    left_out: usize,
}

impl Page {
    fn room(&self) -> usize {
        (LIMIT - RESERVE).saturating_sub(self.text.len())
    }

    fn block(&mut self, block: &str) {
        if block.len() + 2 > self.room() {
            self.left_out += 1;
            return;
        }
        self.text.push_str(block);
        self.text.push_str("\n\n");
    }

    /// The line that says what it is about.
    pub fn heading(&mut self, text: &str) {
        self.block(&format!("### {text}"));
    }

    /// A paragraph.
    pub fn paragraph(&mut self, text: &str) {
        self.block(text);
    }

    /// A list; more than `most` are counted.
    pub fn list(&mut self, items: &[String], most: usize) {
        if items.is_empty() {
            return;
        }
        let mut lines: Vec<String> = (items.iter().take(most))
            .map(|item| format!("- {item}"))
            .collect();
        if items.len() > most {
            lines.push(format!("- and {} more", items.len() - most));
        }
        self.block(&lines.join("\n"));
    }

    /// A table of at most half of the room that is left, so that what follows has room too. Rows
    /// that have none are counted, as so many of `what`.
    pub fn table(
        &mut self,
        columns: &[(&str, Align)],
        rows: impl IntoIterator<Item = Vec<String>>,
        what: &str,
    ) {
        let most = self.room() / 2;
        let names: Vec<String> = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        let mut table = row(&names);
        let rules = columns.iter().map(|(_, align)| match align {
            Align::Left => "---".to_owned(),
            Align::Right => "--:".to_owned(),
            Align::Middle => ":-:".to_owned(),
        });
        table += "\n";
        table += &row(&rules.collect::<Vec<_>>());
        let (mut shown, mut more) = (0, 0);
        for cells in rows {
            debug_assert_eq!(cells.len(), columns.len(), "{cells:?}");
            let row = row(&cells);
            if more > 0 || shown == ROWS || table.len() + row.len() + 2 > most {
                more += 1;
                continue;
            }
            table.push('\n');
            table += &row;
            shown += 1;
        }
        if shown > 0 {
            self.block(&table);
        }
        if more > 0 {
            self.paragraph(&format!(
                "{more} more {what} are left out here: `--format json` has them."
            ));
        }
    }

    /// Something that is folded away; `summary` is plain words of ours.
    pub fn details(&mut self, summary: &str, fill: impl FnOnce(&mut Self)) {
        const START: &str = "<details><summary>";
        const END: &str = "</details>\n\n";
        let start = self.text.len();
        let _ = write!(self.text, "{START}{summary}</summary>\n\n");
        let filled = self.text.len();
        if self.room() == 0 {
            self.text.truncate(start);
            self.left_out += 1;
            return;
        }
        fill(self);
        if self.text.len() == filled {
            self.text.truncate(start);
            return;
        }
        // Within what is kept free.
        self.text += END;
    }

    /// Lines as they are, safe to show; `kind` is what colours them.
    pub fn lines(&mut self, kind: &str, lines: &[String]) {
        let longest = lines.iter().flat_map(|line| line.split(|c| c != '`'));
        let longest = longest.map(str::len).max().unwrap_or(0);
        let fence = "`".repeat(longest.max(2) + 1);
        self.block(&format!("{fence}{kind}\n{}\n{fence}", lines.join("\n")));
    }

    /// The whole page, with one line break at its end.
    pub fn finish(mut self) -> String {
        if self.left_out > 0 {
            let _ = write!(
                self.text,
                "{} more parts are left out here, for want of room: `--format json` has them.",
                self.left_out
            );
        }
        let end = self.text.trim_end().len();
        self.text.truncate(end);
        self.text.push('\n');
        self.text
    }
}

/// A pipe in a cell is its end, in code too, unless a backslash is before it. Parsers differ on what a
/// backslash before that means: none is left there.
fn row(cells: &[String]) -> String {
    let mut row = String::from("|");
    for cell in cells {
        let _ = write!(
            row,
            " {} |",
            cell.replace("\\|", "\\\\u{7c}").replace('|', "\\|")
        );
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_is_counted_and_what_is_open_is_closed() {
        let mut page = Page::default();
        page.heading("x");
        for _ in 0..8 {
            page.details("many", |page| {
                let cell = "y".repeat(500);
                let rows = (0..1000).map(|_| vec![cell.clone(), "|".to_owned()]);
                page.table(&[("A", Align::Left), ("B", Align::Right)], rows, "rows");
                page.paragraph(&"z".repeat(9000));
            });
        }
        let text = page.finish();
        assert!(text.len() <= LIMIT, "{}", text.len());
        assert!(text.len() > LIMIT / 2, "{}", text.len());
        assert_eq!(
            text.matches("<details>").count(),
            text.matches("</details>").count()
        );
        assert!(text.contains(" more rows are left out here"), "{text}");
        assert!(text.contains(" more parts are left out here"), "{text}");
        assert!(text.ends_with("has them.\n"), "{text}");
        assert!(text.contains("y | \\| |"), "{text}");
        assert_eq!(row(&["a\\|b".to_owned()]), "| a\\\\u{7c}b |");
    }

    #[test]
    fn nothing_is_no_page_of_blank_lines() {
        let mut page = Page::default();
        page.heading("x");
        page.details("nothing", |_| {});
        page.list(&[], 5);
        page.table(&[("A", Align::Left)], [], "rows");
        assert_eq!(page.finish(), "### x\n");
    }
}
