//! Untrusted text made safe to show.

/// Characters that a terminal may act on or that make text look like another: controls, marks of
/// direction, line and paragraph separators, and others that take no place.
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Columns that a character takes at most: below U+1100 there are no wide ones.
fn columns(c: char) -> usize {
    if c < '\u{1100}' || c == '…' { 1 } else { 2 }
}

/// Columns that a shown text takes at most.
pub fn width(text: &str) -> usize {
    text.chars().map(columns).sum()
}

/// The text with unsafe characters written as escapes.
pub fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// [`shown`], in at most `most` columns; what is cut is marked by `…` at the end.
pub fn head(text: &str, most: usize) -> String {
    // No character is shown in less than a column: more of the text cannot matter.
    let text: String = text.chars().take(most + 1).collect();
    let shown = shown(&text);
    if width(&shown) <= most {
        return shown;
    }
    let mut head = String::new();
    let mut left = most.saturating_sub(1);
    for c in shown.chars() {
        match left.checked_sub(columns(c)) {
            Some(rest) => left = rest,
            None => break,
        }
        head.push(c);
    }
    head + "…"
}

/// [`shown`], in at most `most` columns; what is cut is marked by `…` at the start. For paths,
/// whose end says more.
pub fn tail(text: &str, most: usize) -> String {
    let count = text.chars().count();
    let text: String = text.chars().skip(count.saturating_sub(most + 1)).collect();
    let shown = shown(&text);
    if width(&shown) <= most {
        return shown;
    }
    let mut kept = Vec::new();
    let mut left = most.saturating_sub(1);
    for c in shown.chars().rev() {
        match left.checked_sub(columns(c)) {
            Some(rest) => left = rest,
            None => break,
        }
        kept.push(c);
    }
    std::iter::once('…').chain(kept.into_iter().rev()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_acts_on_is_escaped() {
        assert_eq!(shown("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(shown("x\u{202e}gpj.exe\u{9b}"), "x\\u{202e}gpj.exe\\u{9b}");
        assert_eq!(shown("héllo 世界"), "héllo 世界");
    }

    #[test]
    fn what_is_long_is_cut_and_marked() {
        assert_eq!(head("abcdef", 6), "abcdef");
        assert_eq!(head("abcdefg", 6), "abcde…");
        assert_eq!(tail("/usr/bin/chown", 8), "…n/chown");
        assert_eq!(head(&"x".repeat(100_000), 5).chars().count(), 5);
    }

    proptest! {
        #[test]
        fn nothing_unsafe_and_nothing_wide_gets_out(text in any::<String>(), most in 1usize..40) {
            for out in [head(&text, most), tail(&text, most)] {
                prop_assert!(!out.chars().any(is_unsafe), "{out:?}");
                prop_assert!(width(&out) <= most, "{out:?}");
            }
        }
    }
}
