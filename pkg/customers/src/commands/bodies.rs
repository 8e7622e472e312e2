//! What the bodies of writes may say, and the commands they make.

use millrace_contracts::customers::Address;
use millrace_http::{FieldErrors, Problem, RequestContext};
use millrace_kernel::{EntityId, IdInput, Timestamp};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::user::{CreateUser, Email, UserAddress, UserCommand, UserId, UserName};

/// A user to be created.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CreateUser)]
pub(super) struct CreateUserBody {
    /// His id; a fresh one unless given.
    #[schema(value_type = Option<IdInput>)]
    id: Option<EntityId>,
    /// His name.
    #[schema(min_length = 1, max_length = 100, pattern = r"\S")]
    name: String,
    /// His e-mail address: no other user's, whatever the case of its letters.
    #[schema(
        min_length = 3,
        max_length = 254,
        pattern = r"^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$",
        example = "alice@demo.com"
    )]
    email: String,
}

/// What is to change about a user. What is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UpdateUser)]
pub(super) struct UpdateUserBody {
    /// The name to take.
    #[schema(min_length = 1, max_length = 100, pattern = r"\S")]
    name: Option<String>,
    /// The e-mail address to take: no other user's, whatever the case of its letters.
    #[schema(
        min_length = 3,
        max_length = 254,
        pattern = r"^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$",
        example = "alice@demo.com"
    )]
    email: Option<String>,
}

/// An address for a user's account: `street`, `city`, `state` and `zip`, or `address` alone.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SetUserAddress)]
pub(super) struct SetAddressBody {
    /// The user.
    #[schema(value_type = IdInput)]
    user_id: EntityId,
    /// The street with its number.
    #[schema(min_length = 1, max_length = 200, pattern = r"\S")]
    street: Option<String>,
    /// The city.
    #[schema(min_length = 1, max_length = 200, pattern = r"\S")]
    city: Option<String>,
    /// The state.
    #[schema(min_length = 1, max_length = 200, pattern = r"\S")]
    state: Option<String>,
    /// The postal code.
    #[schema(min_length = 1, max_length = 20, pattern = r"\S")]
    zip: Option<String>,
    /// The whole address in one text.
    #[schema(min_length = 1, max_length = 1000, pattern = r"\S")]
    address: Option<String>,
}

impl CreateUserBody {
    /// # Errors
    /// 422 with every field that is wrong.
    pub(super) fn user(
        self,
        context: &RequestContext,
        at: Timestamp,
    ) -> Result<CreateUser, Problem> {
        let mut errors = FieldErrors::new();
        if let Some(id) = &self.id {
            context.refuse_reserved(&mut errors, "/id", id);
        }
        let name = name(self.name, &mut errors);
        let email = email(&self.email, &mut errors);
        errors.finish()?;
        Ok(CreateUser {
            user_id: UserId::new(self.id.unwrap_or_else(EntityId::generate)),
            name: name.ok_or_else(unchecked)?,
            email: email.ok_or_else(unchecked)?,
            at,
        })
    }
}

impl UpdateUserBody {
    /// # Errors
    /// 422 with every field that is wrong.
    pub(super) fn command(self, at: Timestamp) -> Result<UserCommand, Problem> {
        let mut errors = FieldErrors::new();
        let something = self.name.is_some() || self.email.is_some();
        errors.check(something, "", "must have a name or an email");
        let name = self.name.and_then(|text| name(text, &mut errors));
        let email = self.email.and_then(|text| email(&text, &mut errors));
        errors.finish()?;
        Ok(UserCommand::Update { name, email, at })
    }
}

impl SetAddressBody {
    /// # Errors
    /// 422 with every field that is wrong.
    pub(super) fn command(
        self,
        context: &RequestContext,
        at: Timestamp,
    ) -> Result<(UserId, UserCommand), Problem> {
        let mut errors = FieldErrors::new();
        context.refuse_reserved(&mut errors, "/user_id", &self.user_id);
        let user_id = UserId::new(self.user_id.clone());
        let address = self.address(&mut errors).and_then(|address| {
            UserAddress::new(address)
                .map_err(|wrong| {
                    for (field, reason) in wrong {
                        errors.add(format!("/{field}"), reason.to_string());
                    }
                })
                .ok()
        });
        errors.finish()?;
        let address = address.ok_or_else(unchecked)?;
        Ok((user_id, UserCommand::SetAddress { address, at }))
    }

    /// The address of a body; `None` when it is neither the one nor the other, which is noted.
    fn address(self, errors: &mut FieldErrors) -> Option<Address> {
        let parts = [
            ("/street", &self.street),
            ("/city", &self.city),
            ("/state", &self.state),
            ("/zip", &self.zip),
        ];
        if let Some(address) = self.address {
            let both = parts.iter().any(|(_, part)| part.is_some());
            errors.check(
                !both,
                "/address",
                "must not stand beside parts of an address",
            );
            return (!both).then_some(Address::Text { address });
        }
        if parts.iter().all(|(_, part)| part.is_none()) {
            let reason = "must have street, city, state and zip, or an address";
            errors.add("", reason);
            return None;
        }
        for (pointer, part) in parts {
            errors.check(part.is_some(), pointer, "is missing");
        }
        Some(Address::Parts {
            street: self.street?,
            city: self.city?,
            state: self.state?,
            zip: self.zip?,
        })
    }
}

/// A check noted no error and gave no value, which is a defect.
fn unchecked() -> Problem {
    Problem::internal("a body passed its checks without a value")
}

fn name(text: String, errors: &mut FieldErrors) -> Option<UserName> {
    UserName::new(text)
        .map_err(|wrong| errors.add("/name", wrong.to_string()))
        .ok()
}

fn email(text: &str, errors: &mut FieldErrors) -> Option<Email> {
    text.parse()
        .map_err(|wrong: crate::user::InvalidEmail| errors.add("/email", wrong.to_string()))
        .ok()
}
