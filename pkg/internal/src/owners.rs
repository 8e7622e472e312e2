use std::{fmt, str::FromStr};

use millrace_es::Context;
use millrace_runtime::{Secret, secret::without_password};

use crate::{OwnerClient, OwnerError};

/// Where a context's owner is reached: `<context>=<URL>`, such as `customers=http://command:8090`.
#[derive(Clone, PartialEq, Eq)]
pub struct Owner {
    /// Whose log it has.
    pub context: Context,
    /// Its internal port.
    pub url: String,
}

/// A text that names no owner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an owner is <context>=<URL>, such as customers=http://command:8090; this one {0}")]
pub struct InvalidOwner(String);

impl FromStr for Owner {
    type Err = InvalidOwner;

    fn from_str(text: &str) -> Result<Self, InvalidOwner> {
        let (context, url) = text
            .split_once('=')
            .ok_or_else(|| InvalidOwner("has no `=`".to_owned()))?;
        let context =
            Context::new(context.trim()).map_err(|error| InvalidOwner(format!("has {error}")))?;
        let url = url.trim().trim_end_matches('/');
        if !["http://", "https://"].iter().any(|scheme| {
            url.strip_prefix(scheme)
                .is_some_and(|rest| !rest.is_empty())
        }) {
            return Err(InvalidOwner(
                "has a URL that is neither http:// nor https://".to_owned(),
            ));
        }
        Ok(Self {
            context,
            url: url.to_owned(),
        })
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.context, without_password(&self.url))
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The owners of the contexts that a process has no log of.
#[derive(Debug, Clone, Default)]
pub struct Owners {
    /// Each of them.
    pub owners: Vec<Owner>,
    /// What they ask for at the door.
    pub token: Option<Secret<String>>,
}

impl Owners {
    /// The client of a context's owner; `None` when nobody is named. Of two the first is taken.
    ///
    /// # Errors
    /// [`OwnerError::Misconfigured`] when its URL is none.
    pub fn client(&self, context: &Context) -> Result<Option<OwnerClient>, OwnerError> {
        self.owners
            .iter()
            .find(|owner| owner.context == *context)
            .map(|owner| OwnerClient::new(owner.clone(), self.token.clone()))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_a_context_and_a_url() {
        let owner: Owner = " customers = http://command:8090/ ".parse().unwrap();
        assert_eq!(owner.to_string(), "customers=http://command:8090");
        for wrong in [
            "customers",
            "customers=command:8090",
            "=http://a",
            "customers=http://",
        ] {
            let error = wrong.parse::<Owner>().unwrap_err().to_string();
            assert!(error.starts_with("an owner is <context>=<URL>"), "{error}");
        }
    }

    #[test]
    fn a_password_in_an_owners_url_is_not_shown() {
        let owner: Owner = "customers=http://user:hunter2@command:8090"
            .parse()
            .unwrap();
        assert_eq!(format!("{owner:?}"), "customers=http://…@command:8090");
    }
}
