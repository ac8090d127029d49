//! The median of a few repetitions, and between which two they lay.

use serde::{Deserialize, Serialize};

/// What several repetitions showed of one figure.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Summary {
    /// `None` of nothing at all.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() {
            0 => return None,
            odd if odd % 2 == 1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        Some(Self { median, min: values[0], max: values[values.len() - 1] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_or_between_the_two_in_the_middle() {
        let odd = Summary::of([3.0, 1.0, 100.0]).unwrap();
        assert_eq!(odd, Summary { median: 3.0, min: 1.0, max: 100.0 });
        assert_eq!(Summary::of([4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
    }

    #[test]
    fn what_is_no_number_does_not_count() {
        assert_eq!(Summary::of([f64::NAN, f64::INFINITY]), None);
        assert_eq!(Summary::of([f64::NAN, 2.0]).unwrap().median, 2.0);
    }
}
