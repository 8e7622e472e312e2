//! A user: his name, his e-mail address, and the address of his account.
//!
//! Ids, events, commands, refusals, state, decisions, in that order. Everything is pure: times and
//! generated ids come in with the command. Events are stored formats: their fields may only be
//! added to, as optional ones, and everything else is a new schema version with a step in
//! [`stored`] that lifts the old one (a check over `schemas/` and `golden/` holds this).

use millrace_contracts::customers::Address;
use millrace_es::{Aggregate, Reservation};
use millrace_kernel::{Timestamp, id_type};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(test)]
pub(crate) mod fixtures;
pub mod stored;
#[cfg(test)]
mod tests;
mod values;

pub use values::{
    Email, InvalidAddress, InvalidEmail, InvalidUserName, MAX_ADDRESS_CHARS, MAX_EMAIL_CHARS,
    MAX_PART_CHARS, MAX_USER_NAME_CHARS, MAX_ZIP_CHARS, UserAddress, UserName,
};

// ---------------------------------------------------------------------------------------- ids

id_type! {
    /// Names a user.
    UserId
}

// ------------------------------------------------------------------------------------- events

/// A user was created. Stored format `user.created` version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UserCreated {
    /// The user.
    pub id: UserId,
    /// His name.
    pub name: String,
    /// His e-mail address, as he writes it.
    pub email: String,
    /// When he was created.
    pub created_at: Timestamp,
}

/// A user's name or e-mail address changed. It says both as they are now. Stored format
/// `user.updated` version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UserUpdated {
    /// The user.
    pub id: UserId,
    /// His name.
    pub name: String,
    /// His e-mail address, as he writes it.
    pub email: String,
    /// When it changed.
    pub updated_at: Timestamp,
}

/// A user's account was created: he has an address now. Stored format `account.created` version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccountCreated {
    /// The user.
    pub user_id: UserId,
    /// His address.
    #[serde(flatten)]
    pub address: Address,
    /// When it was created.
    pub created_at: Timestamp,
}

/// A user's account has another address. Stored format `account.updated` version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccountUpdated {
    /// The user.
    pub user_id: UserId,
    /// His address now.
    #[serde(flatten)]
    pub address: Address,
    /// When it changed.
    pub updated_at: Timestamp,
}

/// What can happen to a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserEvent {
    /// He was created.
    Created(UserCreated),
    /// His name or e-mail address changed.
    Updated(UserUpdated),
    /// He has an address now.
    AccountCreated(AccountCreated),
    /// He has another address.
    AccountUpdated(AccountUpdated),
}

impl UserEvent {
    /// The user it happened to.
    #[must_use]
    pub const fn user_id(&self) -> &UserId {
        match self {
            Self::Created(event) => &event.id,
            Self::Updated(event) => &event.id,
            Self::AccountCreated(event) => &event.user_id,
            Self::AccountUpdated(event) => &event.user_id,
        }
    }
}

// ----------------------------------------------------------------------------------- commands

/// Asks for a new user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateUser {
    /// His id, chosen or generated.
    pub user_id: UserId,
    /// His name.
    pub name: UserName,
    /// His e-mail address.
    pub email: Email,
    /// Now.
    pub at: Timestamp,
}

/// What may be asked of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserCommand {
    /// Be created.
    Create(CreateUser),
    /// Take another name, another e-mail address, or both.
    Update {
        /// The name to take.
        name: Option<UserName>,
        /// The e-mail address to take.
        email: Option<Email>,
        /// Now.
        at: Timestamp,
    },
    /// Take an address.
    SetAddress {
        /// The address to take.
        address: UserAddress,
        /// Now.
        at: Timestamp,
    },
}

// ----------------------------------------------------------------------------------- refusals

/// Why a user refuses a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserRefusal {
    /// There is no such user.
    #[error("there is no such user")]
    NotFound,
    /// A user of this id exists.
    #[error("a user with this id exists already")]
    AlreadyExists,
    /// Another user has this e-mail address, in whatever case.
    #[error("the e-mail address is used by another user")]
    EmailTaken {
        /// The address, folded.
        email: String,
    },
}

// -------------------------------------------------------------------------------------- state

/// A user as his events made him.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum User {
    /// Nothing happened yet.
    #[default]
    Absent,
    /// He is known.
    Known(Box<UserDetails>),
}

/// What is known about a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserDetails {
    /// His id.
    pub id: UserId,
    /// His name.
    pub name: String,
    /// His e-mail address, as he writes it.
    pub email: String,
    /// The address of his account, once he has one.
    pub address: Option<Address>,
}

impl User {
    /// What is known; `None` when there is no such user.
    #[must_use]
    pub fn details(&self) -> Option<&UserDetails> {
        match self {
            Self::Absent => None,
            Self::Known(details) => Some(details),
        }
    }
}

// ----------------------------------------------------------------------------------- decisions

/// The kind of name that an e-mail address is among those that must be unique.
const EMAIL_SCOPE: &str = "user-email";

impl Aggregate for User {
    const CATEGORY: &'static str = "user";
    const SNAPSHOT_VERSION: u16 = 1;

    type Command = UserCommand;
    type Event = UserEvent;
    type Refusal = UserRefusal;

    fn decide(&self, command: &UserCommand) -> Result<Vec<UserEvent>, UserRefusal> {
        match (self, command) {
            (Self::Absent, UserCommand::Create(user)) => {
                Ok(vec![UserEvent::Created(UserCreated {
                    id: user.user_id.clone(),
                    name: user.name.as_str().to_owned(),
                    email: user.email.as_str().to_owned(),
                    created_at: user.at,
                })])
            }
            (Self::Known(_), UserCommand::Create(_)) => Err(UserRefusal::AlreadyExists),
            (Self::Absent, _) => Err(UserRefusal::NotFound),
            (Self::Known(user), UserCommand::Update { name, email, at }) => {
                Ok(user.update(name.as_ref(), email.as_ref(), *at))
            }
            (Self::Known(user), UserCommand::SetAddress { address, at }) => {
                Ok(user.set_address(address.get(), *at))
            }
        }
    }

    fn evolve(self, event: &UserEvent) -> Self {
        match (self, event) {
            (_, UserEvent::Created(created)) => Self::Known(Box::new(UserDetails {
                id: created.id.clone(),
                name: created.name.clone(),
                email: created.email.clone(),
                address: None,
            })),
            (Self::Known(mut user), UserEvent::Updated(update)) => {
                user.name.clone_from(&update.name);
                user.email.clone_from(&update.email);
                Self::Known(user)
            }
            (
                Self::Known(mut user),
                UserEvent::AccountCreated(AccountCreated { address, .. })
                | UserEvent::AccountUpdated(AccountUpdated { address, .. }),
            ) => {
                user.address = Some(address.clone());
                Self::Known(user)
            }
            // No decision leads here; a fact that cannot be placed changes nothing.
            (Self::Absent, _) => Self::Absent,
        }
    }

    fn reservations(&self, event: &UserEvent) -> Vec<Reservation> {
        let (id, email) = match event {
            UserEvent::Created(event) => (&event.id, &event.email),
            UserEvent::Updated(event) => (&event.id, &event.email),
            UserEvent::AccountCreated(_) | UserEvent::AccountUpdated(_) => return Vec::new(),
        };
        let of = |email: &str, release| Reservation {
            scope: EMAIL_SCOPE,
            value: Email::folded(email),
            holder: id.to_string(),
            release,
        };
        let before = self.details().map(|user| of(&user.email, true));
        let after = of(email, false);
        if before.as_ref().is_some_and(|it| it.value == after.value) {
            return Vec::new();
        }
        before.into_iter().chain([after]).collect()
    }

    fn reserved(_: &'static str, email: &str) -> Option<UserRefusal> {
        Some(UserRefusal::EmailTaken {
            email: email.to_owned(),
        })
    }
}

impl UserDetails {
    fn update(
        &self,
        name: Option<&UserName>,
        email: Option<&Email>,
        at: Timestamp,
    ) -> Vec<UserEvent> {
        let name = name.map_or(self.name.as_str(), UserName::as_str);
        let email = email.map_or(self.email.as_str(), Email::as_str);
        if name == self.name && email == self.email {
            return Vec::new();
        }
        vec![UserEvent::Updated(UserUpdated {
            id: self.id.clone(),
            name: name.to_owned(),
            email: email.to_owned(),
            updated_at: at,
        })]
    }

    fn set_address(&self, address: &Address, at: Timestamp) -> Vec<UserEvent> {
        let (user_id, wanted) = (self.id.clone(), address.clone());
        match &self.address {
            None => vec![UserEvent::AccountCreated(AccountCreated {
                user_id,
                address: wanted,
                created_at: at,
            })],
            Some(address) if *address == wanted => Vec::new(),
            Some(_) => vec![UserEvent::AccountUpdated(AccountUpdated {
                user_id,
                address: wanted,
                updated_at: at,
            })],
        }
    }
}
