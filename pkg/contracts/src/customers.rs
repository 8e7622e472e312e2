//! What others may know of the context `customers`: a user's name and e-mail address, and the
//! address of his account. All events of a user are in one stream, so in order.

use std::fmt;

use millrace_es::{DecodeError, RecordedEvent};
use millrace_kernel::{EntityId, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::read::read;

/// The owner.
pub const CONTEXT: &str = "customers";

/// The type of [`UserCreated`].
pub const USER_CREATED: &str = "user.created";
/// The type of [`UserUpdated`].
pub const USER_UPDATED: &str = "user.updated";
/// The type of [`AccountCreated`].
pub const ACCOUNT_CREATED: &str = "account.created";
/// The type of [`AccountUpdated`].
pub const ACCOUNT_UPDATED: &str = "account.updated";

const USER_CREATED_NEWEST: u16 = 1;
const USER_UPDATED_NEWEST: u16 = 1;
const ACCOUNT_CREATED_NEWEST: u16 = 1;
const ACCOUNT_UPDATED_NEWEST: u16 = 1;

/// Every public event type with the owner's newest schema version that can be read.
pub const EVENT_TYPES: [(&str, u16); 4] = [
    (USER_CREATED, USER_CREATED_NEWEST),
    (USER_UPDATED, USER_UPDATED_NEWEST),
    (ACCOUNT_CREATED, ACCOUNT_CREATED_NEWEST),
    (ACCOUNT_UPDATED, ACCOUNT_UPDATED_NEWEST),
];

/// Where a user has things sent: the parts of an address, or the whole of it in one text. It is
/// shown as `street, city, state zip`, or as the text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Address {
    /// In parts.
    Parts {
        /// The street with its number.
        street: String,
        /// The city.
        city: String,
        /// The state.
        state: String,
        /// The postal code.
        zip: String,
    },
    /// As it was given.
    Text {
        /// The whole address.
        address: String,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parts {
                street,
                city,
                state,
                zip,
            } => write!(f, "{street}, {city}, {state} {zip}"),
            Self::Text { address } => f.write_str(address),
        }
    }
}

/// A user was created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UserCreated {
    /// The user.
    pub id: EntityId,
    /// His name.
    pub name: String,
    /// His e-mail address, as he writes it.
    pub email: String,
    /// When he was created.
    pub created_at: Timestamp,
}

/// A user's name or e-mail address changed. It says both as they are now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UserUpdated {
    /// The user.
    pub id: EntityId,
    /// His name.
    pub name: String,
    /// His e-mail address, as he writes it.
    pub email: String,
    /// When it changed.
    pub updated_at: Timestamp,
}

/// A user's account was created: he has an address now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccountCreated {
    /// The user.
    pub user_id: EntityId,
    /// His address.
    #[serde(flatten)]
    pub address: Address,
    /// When it was created.
    pub created_at: Timestamp,
}

/// A user's account has another address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccountUpdated {
    /// The user.
    pub user_id: EntityId,
    /// His address now.
    #[serde(flatten)]
    pub address: Address,
    /// When it changed.
    pub updated_at: Timestamp,
}

/// What others may know of what happened to a user. Serialised, it is the payload alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum CustomersEvent {
    /// He was created.
    UserCreated(UserCreated),
    /// His name or e-mail address changed.
    UserUpdated(UserUpdated),
    /// He has an address now.
    AccountCreated(AccountCreated),
    /// He has another address.
    AccountUpdated(AccountUpdated),
}

impl CustomersEvent {
    /// Reads an event of any log; `None` when it is another context's, or not public.
    ///
    /// # Errors
    /// [`DecodeError::NewerVersion`] and [`DecodeError::Malformed`].
    pub fn decode(event: &RecordedEvent) -> Result<Option<Self>, DecodeError> {
        if event.context.as_str() != CONTEXT {
            return Ok(None);
        }
        Self::read(&event.event_type, event.schema_version, &event.payload)
    }

    /// Reads a payload of this context's; `None` when its type is not public.
    ///
    /// # Errors
    /// [`DecodeError::NewerVersion`] and [`DecodeError::Malformed`].
    pub fn read(
        event_type: &str,
        version: u16,
        payload: &RawValue,
    ) -> Result<Option<Self>, DecodeError> {
        match event_type {
            USER_CREATED => {
                read(event_type, version, payload, USER_CREATED_NEWEST).map(Self::UserCreated)
            }
            USER_UPDATED => {
                read(event_type, version, payload, USER_UPDATED_NEWEST).map(Self::UserUpdated)
            }
            ACCOUNT_CREATED => {
                read(event_type, version, payload, ACCOUNT_CREATED_NEWEST).map(Self::AccountCreated)
            }
            ACCOUNT_UPDATED => {
                read(event_type, version, payload, ACCOUNT_UPDATED_NEWEST).map(Self::AccountUpdated)
            }
            _ => return Ok(None),
        }
        .map(Some)
    }

    /// The public type, such as `user.created`.
    #[must_use]
    pub const fn event_type(&self) -> &'static str {
        match self {
            Self::UserCreated(_) => USER_CREATED,
            Self::UserUpdated(_) => USER_UPDATED,
            Self::AccountCreated(_) => ACCOUNT_CREATED,
            Self::AccountUpdated(_) => ACCOUNT_UPDATED,
        }
    }

    /// The user it happened to.
    #[must_use]
    pub const fn user_id(&self) -> &EntityId {
        match self {
            Self::UserCreated(event) => &event.id,
            Self::UserUpdated(event) => &event.id,
            Self::AccountCreated(event) => &event.user_id,
            Self::AccountUpdated(event) => &event.user_id,
        }
    }
}
