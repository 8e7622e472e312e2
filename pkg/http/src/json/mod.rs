mod access;
mod de;
mod parse;
mod stand_in;
#[cfg(test)]
mod tests;

pub(crate) use de::from_node;
pub(crate) use parse::{Node, SyntaxError, parse};

use serde::de::DeserializeOwned;

use crate::{Problem, fields::Part, problem::types};

/// Bodies above this many bytes get their first field error only: finding the others means reading
/// the body again for each.
const MAX_COLLECTED_BYTES: usize = 16 * 1024;

/// Reads a request body strictly.
///
/// # Errors
/// 400 when it is not JSON, 422 with the fields that are unknown, missing or wrong.
pub fn from_slice<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let tree = parse(body).map_err(|error| malformed(&error))?;
    from_node(&tree, Part::Body, body.len() <= MAX_COLLECTED_BYTES).map_err(Problem::invalid)
}

fn malformed(error: &SyntaxError) -> Problem {
    Problem::new(&types::MALFORMED_JSON, error.to_string())
        .with("line", error.line)
        .with("column", error.column)
}
