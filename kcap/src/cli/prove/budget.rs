//! `--budget`: a number of builds, or a time.

use std::time::Duration;

use crate::prove::proof::Budget;

/// `5`, `90s`, `30m` or `2h`.
pub fn parse(text: &str) -> Result<Budget, String> {
    let wrong = || "it is neither a number of builds nor a time: 5, 90s, 30m, 2h".to_owned();
    let unit = match text.chars().last() {
        Some('s') => Some(1),
        Some('m') => Some(60),
        Some('h') => Some(3600),
        _ => None,
    };
    let digits = text.strip_suffix(['s', 'm', 'h']).unwrap_or(text);
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    match unit {
        None => Ok(Budget::Builds(
            usize::try_from(number).map_err(|_| wrong())?,
        )),
        Some(unit) => {
            let seconds = number.checked_mul(unit).ok_or_else(wrong)?;
            Ok(Budget::Time(Duration::from_secs(seconds)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times() {
        assert_eq!(parse("5"), Ok(Budget::Builds(5)));
        for (text, seconds) in [("0s", 0), ("90s", 90), ("30m", 1800), ("2h", 7200)] {
            assert_eq!(parse(text), Ok(Budget::Time(Duration::from_secs(seconds))));
        }
        for odd in ["", "s", "-1", "1.5h", "5d", "18446744073709551615h", "1 m"] {
            parse(odd).unwrap_err();
        }
    }
}
