//! What a verification came to, for people, programs and the exit code.

use millrace_es::Position;
use millrace_kernel::Timestamp;
use millrace_projecting::{Difference, GenerationId};
use serde::Serialize;

use crate::{
    failure::Failure,
    output::{Table, shortened},
};

/// The longest reason in the table, in characters.
const MAX_WHY_CHARS: usize = 100;

/// How a view or a stream stands to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that was compared is the same.
    Equal,
    /// Something differs.
    Different,
    /// There is nothing to compare now, and nothing is wrong with that.
    Skipped,
    /// It could not be compared.
    Unchecked,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Different => "DIFFERENT",
            Self::Skipped => "skipped",
            Self::Unchecked => "UNCHECKED",
        }
    }
}

/// What a look at a view, or at a stream, came to.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Whose it is.
    pub context: &'static str,
    /// The projection; none for the context's stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projection: Option<&'static str>,
    /// How it stands.
    pub result: Verdict,
    /// Why it was skipped or not compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The generation that answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<GenerationId>,
    /// Keys of the view, or positions of the stream, that were compared.
    pub checked: u64,
    /// Rows of the view that were compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// How many rows, or positions, differ.
    pub differences: u64,
    /// Keys that wait for dead letters and were not compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parked: Option<u64>,
    /// Some of those.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parked_keys: Vec<String>,
    /// Keys that were left out, because they have too many events or need another release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<u64>,
    /// The log's newest position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<Position>,
    /// The stream's last sequence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Position>,
    /// Rows that differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub named: Vec<Difference>,
    /// Positions at which the stream differs, and what is there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub positions: Vec<Elsewhere>,
}

/// A position at which a stream differs.
#[derive(Debug, Serialize)]
pub struct Elsewhere {
    pub position: Position,
    pub what: String,
}

impl Outcome {
    /// Nothing compared yet.
    pub fn new(context: &'static str, projection: Option<&'static str>) -> Self {
        Self {
            context,
            projection,
            result: Verdict::Unchecked,
            why: None,
            generation: None,
            checked: 0,
            rows: None,
            differences: 0,
            parked: None,
            parked_keys: Vec::new(),
            left_out: None,
            head: None,
            last: None,
            named: Vec::new(),
            positions: Vec::new(),
        }
    }

    /// It could not be compared.
    pub fn because(mut self, result: Verdict, why: impl Into<String>) -> Self {
        self.result = result;
        self.why = Some(why.into());
        self
    }

    /// It was compared.
    pub fn counted(mut self, checked: u64, differences: u64) -> Self {
        self.checked = checked;
        self.differences = differences;
        self.result = if differences == 0 {
            Verdict::Equal
        } else {
            Verdict::Different
        };
        self
    }

    /// Its name among others.
    pub fn name(&self) -> String {
        match self.projection {
            Some(projection) => projection.to_owned(),
            None => format!("stream of {}", self.context),
        }
    }

    /// What differs, to be looked at again: streams of the view, or positions.
    pub fn differing(&self) -> Vec<String> {
        let mut names: Vec<String> = match self.projection {
            Some(_) => self
                .named
                .iter()
                .filter_map(|one| one.key.clone())
                .collect(),
            None => {
                let positions = self.positions.iter();
                positions.map(|one| one.position.to_string()).collect()
            }
        };
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// What a whole run came to.
#[derive(Debug, Serialize)]
pub struct Report {
    pub at: Timestamp,
    /// What the sample was drawn with.
    pub seed: u32,
    pub projections: Vec<Outcome>,
    pub streams: Vec<Outcome>,
}

impl Report {
    pub fn begin(seed: u32) -> Self {
        Self {
            at: Timestamp::now(),
            seed,
            projections: Vec::new(),
            streams: Vec::new(),
        }
    }

    fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.projections.iter().chain(&self.streams)
    }

    pub fn outcomes_mut(&mut self) -> impl Iterator<Item = &mut Outcome> {
        self.projections.iter_mut().chain(&mut self.streams)
    }

    /// A row for each view and stream.
    pub fn table(&self) -> Table {
        let mut table = Table::new(&[
            "context",
            "view or stream",
            "result",
            "#checked",
            "#differences",
            "#parked",
            "#left out",
            "note",
        ]);
        let number = |count: Option<u64>| count.map_or_else(String::new, |count| count.to_string());
        for one in self.outcomes() {
            table.row([
                one.context.to_owned(),
                one.name(),
                one.result.as_str().to_owned(),
                one.checked.to_string(),
                one.differences.to_string(),
                number(one.parked),
                number(one.left_out),
                shortened(one.why.as_deref().unwrap_or_default(), MAX_WHY_CHARS),
            ]);
        }
        table
    }

    /// What differs, and how to draw the same sample again.
    pub fn differences(&self) -> String {
        let mut table = Table::new(&[
            "view or stream",
            "key",
            "row",
            "#position",
            "difference",
            "columns",
        ]);
        let mut any = false;
        for one in self.outcomes() {
            for row in &one.named {
                any = true;
                table.row([
                    one.name(),
                    row.key.clone().unwrap_or_default(),
                    row.row.clone(),
                    row.position.to_string(),
                    row.kind.as_str().to_owned(),
                    row.columns.join(","),
                ]);
            }
            for place in &one.positions {
                any = true;
                table.row([
                    one.name(),
                    String::new(),
                    String::new(),
                    place.position.to_string(),
                    place.what.clone(),
                    String::new(),
                ]);
            }
        }
        let drawn = format!("the sample was drawn with --seed {}\n", self.seed);
        if any {
            return format!("\n{table}\n{drawn}");
        }
        format!("\n{drawn}")
    }

    /// How the command ends: a difference goes before what could not be compared.
    pub fn end(&self) -> Result<(), Failure> {
        let names = |result: Verdict| {
            let those = self.outcomes().filter(|one| one.result == result);
            those.map(Outcome::name).collect::<Vec<_>>().join(", ")
        };
        let different = names(Verdict::Different);
        if !different.is_empty() {
            return Err(Failure::Different(format!(
                "{different}: not what the log says; see docs/verify.md for what to do"
            )));
        }
        let unchecked = names(Verdict::Unchecked);
        if !unchecked.is_empty() {
            return Err(Failure::Unavailable(anyhow::anyhow!(
                "could not be compared: {unchecked}"
            )));
        }
        Ok(())
    }
}
