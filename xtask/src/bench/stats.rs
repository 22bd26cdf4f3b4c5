//! Medians and quartiles.

/// Median and quartiles of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// First quartile.
    pub low: f64,
    /// Median.
    pub mid: f64,
    /// Third quartile.
    pub high: f64,
}

impl Spread {
    /// Of at least one value, interpolated linearly between neighbours. `NaN` sorts last.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let position = part * (sorted.len().checked_sub(1)?) as f64;
            let (below, above) = (position.floor() as usize, position.ceil() as usize);
            let share = position - position.floor();
            Some(sorted[below] + share * (sorted[above] - sorted[below]))
        };
        Some(Self {
            low: at(0.25)?,
            mid: at(0.5)?,
            high: at(0.75)?,
        })
    }

    /// `mid (low–high)` with a number of decimals.
    pub fn show(&self, decimals: usize) -> String {
        let Self { low, mid, high } = self;
        format!("{mid:.decimals$} ({low:.decimals$}–{high:.decimals$})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_neighbours() {
        let s = Spread::of([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((s.low, s.mid, s.high), (1.75, 2.5, 3.25));
        let s = Spread::of([7.0]).unwrap();
        assert_eq!((s.low, s.mid, s.high), (7.0, 7.0, 7.0));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn an_outlier_moves_nothing() {
        let calm = Spread::of([1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        let loud = Spread::of([1.0, 2.0, 3.0, 4.0, 500.0]).unwrap();
        assert_eq!(calm, loud);
    }
}
