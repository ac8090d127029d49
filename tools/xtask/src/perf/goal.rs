//! What was to be reached, and whether it was.

use serde::{Deserialize, Serialize};

/// Bounds on our figure, on its ratio to the anchor's, or on both. The text is for people.
#[derive(Clone, Default, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Goal {
    pub(crate) text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_max: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_min: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ours_max: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ours_min: Option<f64>,
}

impl Goal {
    /// Whether anything is asked for.
    pub(crate) fn is_set(&self) -> bool {
        [self.ratio_max, self.ratio_min, self.ours_max, self.ours_min].iter().any(Option::is_some)
    }

    /// How far beyond the goal we are, by the bound that is nearest to being missed: 1 is just
    /// reached, 2 twice as good, 0.5 half as good. `None`: a figure that is asked for is missing.
    pub(crate) fn margin(&self, ours: Option<f64>, ratio: Option<f64>) -> Option<f64> {
        let mut margin = f64::INFINITY;
        let bounds = [
            (self.ratio_max, ratio, true),
            (self.ratio_min, ratio, false),
            (self.ours_max, ours, true),
            (self.ours_min, ours, false),
        ];
        for (bound, figure, is_max) in bounds {
            let Some(bound) = bound else { continue };
            let figure = figure?;
            let (worse, better) = if is_max { (figure, bound) } else { (bound, figure) };
            // A bound of none at all (nobody silent) has no factor: kept or not.
            margin = margin.min(match worse {
                0.0 => f64::MAX,
                _ if better == 0.0 => 0.0,
                _ => better / worse,
            });
        }
        margin.is_finite().then_some(margin)
    }

    /// `None` where nothing can be said.
    pub(crate) fn is_met(&self, ours: Option<f64>, ratio: Option<f64>) -> Option<bool> {
        self.margin(ours, ratio).map(|margin| margin >= 1.0)
    }

    /// The value of ours at which the goal is just reached, as far as it depends on the anchor's.
    pub(crate) fn line(&self, anchor: Option<f64>, share: bool) -> Option<f64> {
        if let Some(bound) = self.ours_max.or(self.ours_min) {
            return Some(bound);
        }
        let bound = self.ratio_max.or(self.ratio_min)?;
        let anchor = anchor?;
        Some(if share { anchor / bound } else { anchor * bound })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_has_a_side_on_which_it_is_good() {
        let at_most = Goal { ratio_max: Some(0.5), ..Goal::default() };
        assert_eq!(at_most.is_met(None, Some(0.5)), Some(true));
        assert_eq!(at_most.is_met(None, Some(0.51)), Some(false));
        let at_least = Goal { ratio_min: Some(0.7), ..Goal::default() };
        assert_eq!(at_least.is_met(None, Some(0.7)), Some(true));
        assert_eq!(at_least.is_met(None, Some(0.69)), Some(false));
    }

    #[test]
    fn all_bounds_must_hold() {
        let goal = Goal { ours_min: Some(20_000.0), ratio_min: Some(1.5), ..Goal::default() };
        assert_eq!(goal.is_met(Some(21_000.0), Some(1.6)), Some(true));
        assert_eq!(goal.is_met(Some(21_000.0), Some(1.4)), Some(false));
        assert_eq!(goal.is_met(Some(19_000.0), Some(1.6)), Some(false));
        assert_eq!(goal.is_met(Some(21_000.0), None), None);
    }

    #[test]
    fn nobody_may_be_silent() {
        let goal = Goal { ours_max: Some(0.0), ..Goal::default() };
        assert_eq!(goal.is_met(Some(0.0), None), Some(true));
        assert_eq!(goal.is_met(Some(1.0), None), Some(false));
        assert_eq!(goal.is_met(None, None), None);
    }

    #[test]
    fn the_margin_is_that_of_the_bound_nearest_to_being_missed() {
        let goal = Goal { ours_max: Some(10.0), ratio_max: Some(0.5), ..Goal::default() };
        assert_eq!(goal.margin(Some(5.0), Some(0.5)), Some(1.0));
        assert_eq!(goal.margin(Some(20.0), Some(0.25)), Some(0.5));
    }

    #[test]
    fn the_line_of_a_goal_depends_on_the_anchor() {
        let goal = Goal { ratio_max: Some(0.125), ..Goal::default() };
        assert_eq!(goal.line(Some(16.0), false), Some(2.0));
        let share = Goal { ratio_min: Some(0.5), ..Goal::default() };
        assert_eq!(share.line(Some(1.0), true), Some(2.0));
    }
}
