//! An aggregate for tests: a counter with a ceiling.

use millrace_es::{Aggregate, DecodeError, DomainEvent, upcast};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    pub amount: u64,
}

impl DomainEvent for Added {
    fn event_type(&self) -> &'static str {
        "counter.added"
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

#[derive(Debug, Clone, Copy)]
pub struct Add {
    pub amount: u64,
    pub ceiling: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{total} is too close to {ceiling}")]
pub struct TooHigh {
    pub total: u64,
    pub ceiling: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    pub total: u64,
}

impl Aggregate for Counter {
    const CATEGORY: &'static str = "counter";
    const SNAPSHOT_VERSION: u16 = 1;
    type Command = Add;
    type Event = Added;
    type Refusal = TooHigh;

    fn decide(&self, command: &Add) -> Result<Vec<Added>, TooHigh> {
        if command.amount == 0 {
            return Ok(Vec::new());
        }
        if self.total + command.amount > command.ceiling {
            return Err(TooHigh {
                total: self.total,
                ceiling: command.ceiling,
            });
        }
        Ok(vec![Added {
            amount: command.amount,
        }])
    }

    fn evolve(self, event: &Added) -> Self {
        Self {
            total: self.total + event.amount,
        }
    }
}
