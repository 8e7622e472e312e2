use std::fmt;

use serde::Serialize;

use crate::output::Table;

/// One measured number, with what it is held against.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// What was measured: `append.events_only`, `commands.max`, …
    pub name: String,
    /// The number.
    pub value: f64,
    /// What it counts: `events/s`, `ms`, …
    pub unit: &'static str,
    /// The same measured with a plain tool in the same run: its name and its number.
    pub baseline: Option<(String, f64)>,
    /// `value / baseline`.
    pub ratio: Option<f64>,
    /// What it should reach.
    pub target: Option<Target>,
}

/// What a figure should reach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The number itself.
    AtLeast(f64),
    /// The number itself.
    AtMost(f64),
    /// The ratio to the baseline.
    RatioAtLeast(f64),
    /// The ratio to the baseline.
    RatioAtMost(f64),
}

impl Figure {
    /// A number alone.
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            value,
            unit,
            baseline: None,
            ratio: None,
            target: None,
        }
    }

    /// Holds it against a baseline of the same run.
    #[must_use]
    pub fn over(mut self, baseline: impl Into<String>, number: f64) -> Self {
        self.ratio = (number > 0.0).then_some(self.value / number);
        self.baseline = Some((baseline.into(), number));
        self
    }

    /// Says what it should reach.
    #[must_use]
    pub const fn target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    /// Whether it reaches its target; `None` without one, or without the ratio it is about.
    pub fn met(&self) -> Option<bool> {
        match self.target? {
            Target::AtLeast(bound) => Some(self.value >= bound),
            Target::AtMost(bound) => Some(self.value <= bound),
            Target::RatioAtLeast(bound) => Some(self.ratio? >= bound),
            Target::RatioAtMost(bound) => Some(self.ratio? <= bound),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, ">= {}", number(*bound)),
            Self::AtMost(bound) => write!(f, "<= {}", number(*bound)),
            Self::RatioAtLeast(bound) => write!(f, ">= {bound} x"),
            Self::RatioAtMost(bound) => write!(f, "<= {bound} x"),
        }
    }
}

/// The figures as a table.
pub fn table(figures: &[Figure]) -> Table {
    let mut table = Table::new(&[
        "figure",
        "#value",
        "unit",
        "#ratio",
        "#baseline",
        "of",
        "target",
        "met",
    ]);
    for figure in figures {
        let (of, baseline) = match &figure.baseline {
            Some((name, value)) => (name.clone(), number(*value)),
            None => Default::default(),
        };
        table.row([
            figure.name.clone(),
            number(figure.value),
            figure.unit.to_owned(),
            figure.ratio.map(|r| format!("{r:.2}")).unwrap_or_default(),
            baseline,
            of,
            figure.target.map(|t| t.to_string()).unwrap_or_default(),
            match figure.met() {
                Some(true) => "yes".to_owned(),
                Some(false) => "NO".to_owned(),
                None => String::new(),
            },
        ]);
    }
    table
}

/// A number with as many decimals as it deserves.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_about_the_value_or_the_ratio() {
        let figure = Figure::new("a", 60.0, "x/s").over("b", 100.0);
        assert_eq!(figure.ratio, Some(0.6));
        assert_eq!(
            figure.clone().target(Target::RatioAtLeast(0.6)).met(),
            Some(true)
        );
        assert_eq!(
            figure.clone().target(Target::RatioAtMost(0.5)).met(),
            Some(false)
        );
        assert_eq!(
            figure.clone().target(Target::AtMost(60.0)).met(),
            Some(true)
        );
        assert_eq!(figure.target(Target::AtLeast(61.0)).met(), Some(false));
        let alone = Figure::new("a", 1.0, "ms").target(Target::RatioAtLeast(1.0));
        assert_eq!(alone.met(), None);
    }
}
