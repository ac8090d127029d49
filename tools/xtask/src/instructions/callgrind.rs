//! What callgrind writes: the cost of every line, and of every call, function by function.

use std::collections::HashMap;

/// Instructions of each function, without those of the functions it calls.
#[derive(Default, Debug)]
pub(super) struct Profile(HashMap<String, u64>);

impl Profile {
    /// Reads the profile format, version 1.
    pub(super) fn parse(text: &str) -> Self {
        let mut names: HashMap<&str, &str> = HashMap::new();
        let mut costs = HashMap::<&str, u64>::new();
        let mut function = "";
        let mut after_call = false;
        for line in text.lines() {
            if let Some(value) = line.strip_prefix("fn=") {
                // `(number) name` where it is named first, `(number)` ever after.
                let (number, name) = value.split_once(' ').unwrap_or((value, ""));
                function = number;
                if !name.is_empty() {
                    names.insert(number, name);
                }
            } else if let Some(value) = line.strip_prefix("cfn=") {
                if let Some((number, name)) = value.split_once(' ') {
                    names.insert(number, name);
                }
            } else if line.starts_with("calls=") {
                after_call = true;
            } else if line
                .starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first))
            {
                // The line after a call is the cost of what was called, which is counted there.
                if !std::mem::take(&mut after_call) {
                    let cost = line.split(' ').nth(1).and_then(|cost| cost.parse().ok());
                    *costs.entry(function).or_default() += cost.unwrap_or(0);
                }
            }
        }
        let name = |number| names.get(number).copied().unwrap_or(number);
        let mut profile = Self::default();
        for (number, cost) in costs {
            *profile.0.entry(name(number).to_owned()).or_default() += cost;
        }
        profile
    }

    pub(super) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// The functions that take most, in descending order.
    pub(super) fn largest(&self, count: usize) -> Vec<(&str, u64)> {
        let mut all: Vec<_> = self.0.iter().map(|(name, &cost)| (name.as_str(), cost)).collect();
        all.sort_by_key(|&(name, cost)| (std::cmp::Reverse(cost), name));
        all.truncate(count);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# callgrind format\nversion: 1\nevents: Ir\nsummary: 100\n\n\
        ob=(3) /program\nfl=(1) a.rs\nfn=(1) outer\n16 10\n+1 20\nfi=(2) b.rs\n-4 5\n\
        cfn=(2) inner\ncalls=3 40\n* 60\n* 1\n\nfn=(2)\n40 60\n\nfn=(1)\n* 4\n\ntotals: 100\n";

    #[test]
    fn a_function_has_the_cost_of_its_lines_and_not_of_its_calls() {
        let profile = Profile::parse(TEXT);
        assert_eq!(profile.largest(9), [("inner", 60), ("outer", 40)]);
        assert_eq!(profile.total(), 100);
        assert_eq!(profile.largest(1), [("inner", 60)]);
    }
}
