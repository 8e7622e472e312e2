//! Settings that must never be seen.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// A value that no log, error or `--help` shows; [`Secret::expose`] is the only way to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Hides a value.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself, for whoever needs it to work.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl<T> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl FromStr for Secret<String> {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// A URL that may be shown: its user and password are replaced by `…`.
#[must_use]
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return "…".to_owned();
    };
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_end);
    // What follows `?` may carry a password too.
    let path = path.split(['?', '#']).next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://…@{host}{path}"),
        None => format!("{scheme}://{authority}{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_nothing() {
        let secret: Secret<String> = "hunter2".parse().unwrap();
        assert_eq!(format!("{secret} {secret:?}"), "(secret) (secret)");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn a_url_loses_user_password_and_parameters() {
        for (url, shown) in [
            (
                "postgres://u:p@ss@db:5432/millrace?password=x",
                "postgres://…@db:5432/millrace",
            ),
            ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
            ("nats://token@host", "nats://…@host"),
            ("postgres:///db?password=x", "postgres:///db"),
            ("user:password", "…"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}
