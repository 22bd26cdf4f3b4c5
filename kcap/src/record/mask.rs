//! Keeps secrets out of what is written: values of build arguments, variables and credentials.

use crate::launch::arguments::{HIDDEN, LEAST};

/// Lines of the executor's log that name a variable and its value.
const ASSIGNMENTS: [&str; 2] = ["updating env: ", "Applying label "];

/// Texts to hide.
#[derive(Clone, Debug, Default)]
pub struct Mask {
    secrets: Vec<String>,
}

impl Mask {
    /// Hides these.
    pub fn new(mut secrets: Vec<String>) -> Self {
        secrets.retain(|secret| secret.len() >= LEAST);
        // One secret can be a part of another.
        secrets.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        secrets.dedup();
        Self { secrets }
    }

    /// Replaces every secret in a text.
    pub fn hide(&self, text: &mut String) {
        for secret in &self.secrets {
            if text.contains(secret.as_str()) {
                *text = text.replace(secret.as_str(), HIDDEN);
            }
        }
    }

    /// Cuts the value from a log line that says what a variable is set to: it can be made of build
    /// arguments in ways that no search for their values finds.
    pub fn hide_assignment(&self, text: &mut String) {
        for start in ASSIGNMENTS {
            if let Some(at) = text.find(start)
                && let Some(equals) = text[at..].find('=')
            {
                text.truncate(at + equals + 1);
                text.push_str(HIDDEN);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_the_longest_first() {
        let mask = Mask::new(vec![
            "abc".into(),
            "abcdef".into(),
            "1".into(),
            String::new(),
        ]);
        let mut text = "x abcdef y abc z 1".to_owned();
        mask.hide(&mut text);
        assert_eq!(text, "x *** y *** z 1");
    }

    #[test]
    fn assignments_lose_their_value() {
        let mask = Mask::default();
        let mut text = "INFO[0000] updating env: TOKEN=a=b".to_owned();
        mask.hide_assignment(&mut text);
        assert_eq!(text, "INFO[0000] updating env: TOKEN=***");
        let mut text = "INFO[0000] RUN A=b true".to_owned();
        mask.hide_assignment(&mut text);
        assert_eq!(text, "INFO[0000] RUN A=b true");
    }
}
