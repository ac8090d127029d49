//! What people look at: a table in Markdown and a page with plots.

mod html;
mod markdown;
mod plots;

pub(crate) use self::html::page;
pub(crate) use self::markdown::{document, table};

use super::results::{Measure, Results};

/// Goals in the order of the table, each with the measures it consists of.
fn goals(results: &Results) -> Vec<(&str, Vec<(&str, &Measure)>)> {
    let mut goals: Vec<(&str, Vec<(&str, &Measure)>)> = Vec::new();
    for (identifier, measure) in &results.measures {
        // The line that joins parts says nothing they do not.
        if !measure.parts.is_empty() {
            continue;
        }
        let goal = identifier.split('-').next().unwrap_or(identifier);
        match goals.last_mut() {
            Some((last, parts)) if *last == goal => parts.push((identifier, measure)),
            _ => goals.push((goal, vec![(identifier, measure)])),
        }
    }
    goals
}

/// Three figures that count, thousands apart.
fn show(value: f64) -> String {
    let magnitude = value.abs();
    let decimals = match magnitude {
        _ if magnitude >= 100.0 || value == 0.0 => 0,
        _ if magnitude >= 10.0 => 1,
        _ if magnitude >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) =
        text.split_once('.').map_or((text.as_str(), None), |(w, f)| (w, Some(f)));
    let digits = whole.trim_start_matches('-');
    let mut grouped = if value < 0.0 { "-".to_owned() } else { String::new() };
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) && digits.len() > 4 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    fraction.map_or(grouped.clone(), |fraction| format!("{grouped}.{fraction}"))
}

fn show_range(range: Option<[f64; 2]>) -> Option<String> {
    range.map(|[min, max]| format!("{} to {}", show(min), show(max)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn fixture() -> Results {
        serde_json::from_str(include_str!("fixture.json")).expect("a run")
    }

    #[test]
    fn numbers_have_three_figures_that_count() {
        let shown = [2.3456, 0.1234, 16.14, 561_234.0, 4221.0, 0.0, 1234.5].map(show);
        assert_eq!(shown, ["2.35", "0.123", "16.1", "561,234", "4221", "0", "1234"]);
    }

    #[test]
    fn parts_of_a_goal_stay_together_and_what_joins_them_is_left_out() {
        let results = fixture();
        let goals = goals(&results);
        let (_, parts) = goals.iter().find(|(goal, _)| *goal == "P2").unwrap();
        let names: Vec<_> = parts.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["P2-certificate", "P2-psk"]);
    }
}
