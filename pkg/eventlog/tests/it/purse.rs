//! An aggregate for tests: a purse, out of which no more can go than is in it.

use millrace_es::{Aggregate, DecodeError, DomainEvent, upcast};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    pub by: i64,
}

impl DomainEvent for Changed {
    fn event_type(&self) -> &'static str {
        "purse.changed"
    }

    fn schema_version(&self) -> u16 {
        1
    }

    fn encode(&self) -> Result<Box<RawValue>, serde_json::Error> {
        serde_json::value::to_raw_value(self)
    }

    fn decode(event_type: &str, version: u16, payload: &RawValue) -> Result<Self, DecodeError> {
        upcast(event_type, version, payload, &[])
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{total} is in it")]
pub struct TooLittle {
    pub total: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purse {
    pub total: i64,
}

impl Aggregate for Purse {
    const CATEGORY: &'static str = "purse";
    const SNAPSHOT_VERSION: u16 = 1;
    type Command = i64;
    type Event = Changed;
    type Refusal = TooLittle;

    fn decide(&self, by: &i64) -> Result<Vec<Changed>, TooLittle> {
        if self.total + by < 0 {
            return Err(TooLittle { total: self.total });
        }
        Ok(vec![Changed { by: *by }])
    }

    fn evolve(self, event: &Changed) -> Self {
        Self {
            total: self.total + event.by,
        }
    }
}

/// Moves an amount from the first purse to the second; nothing moves for an amount of 0.
pub fn move_(amount: i64, [from, to]: [&Purse; 2]) -> Result<[Vec<Changed>; 2], TooLittle> {
    if amount == 0 {
        return Ok([vec![], vec![]]);
    }
    Ok([from.decide(&-amount)?, to.decide(&amount)?])
}
