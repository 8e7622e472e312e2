//! How every contract is read.

use millrace_es::DecodeError;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// Reads the public part of a payload of a version up to the newest that the contract knows.
pub(crate) fn read<T: DeserializeOwned>(
    event_type: &str,
    schema_version: u16,
    payload: &RawValue,
    newest: u16,
) -> Result<T, DecodeError> {
    if schema_version > newest {
        return Err(DecodeError::NewerVersion {
            event_type: event_type.to_owned(),
            found: schema_version,
            newest,
        });
    }
    serde_json::from_str(payload.get()).map_err(|source| DecodeError::Malformed {
        event_type: event_type.to_owned(),
        schema_version,
        source,
    })
}
