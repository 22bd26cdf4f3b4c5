//! Untrusted text made safe for a page: as text of an element or value of an attribute, and as JSON
//! inside a script element.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Text for an element or a quoted attribute. What a reader could not see, or that makes text look
/// like another, is to be written as escapes before: [`super::super::escape`].
pub fn html(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// JSON that no parser of HTML takes for markup: `<`, `>` and `&` are escapes, and so are the
/// separators that were once line ends to scripts. They can only stand in strings.
pub fn json(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).expect("the page's own types have string keys");
    let mut safe = String::with_capacity(text.len() + text.len() / 16);
    for c in text.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                safe.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => safe.push(c),
        }
    }
    safe
}

/// What a content security policy calls an inline script or style by.
pub fn csp_hash(content: &str) -> String {
    format!(
        "'sha256-{}'",
        STANDARD.encode(Sha256::digest(content.as_bytes()))
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_policys_hash_is_that_of_openssl() {
        // printf '' | openssl dgst -sha256 -binary | base64
        let empty = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='";
        assert_eq!(csp_hash(""), empty);
    }

    /// Text with what parsers of HTML look for in it.
    fn hostile() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            any::<String>(),
            Just("</script".to_owned()),
            Just("</SCRIPT >".to_owned()),
            Just("<!--".to_owned()),
            Just("<script".to_owned()),
            Just("-->".to_owned()),
            Just("]]>".to_owned()),
            Just("&lt;".to_owned()),
            Just("\u{2028}\u{2029}\0\u{202e}\"'`".to_owned()),
        ];
        proptest::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn no_markup_comes_of_data(text in hostile()) {
            let script = json(&vec![&text]);
            prop_assert!(!script.contains(['<', '>', '&', '\u{2028}', '\u{2029}']), "{}", script);
            let back: Vec<String> = serde_json::from_str(&script).unwrap();
            prop_assert_eq!(&back[0], &text);
            let element = html(&text);
            prop_assert!(!element.contains(['<', '>', '"', '\'']), "{}", element);
            let back = element.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
            prop_assert_eq!(back.replace("&#39;", "'").replace("&amp;", "&"), text);
        }
    }
}
