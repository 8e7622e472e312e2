use std::{fmt, str::FromStr};

use crate::{Context, Epoch, Partition, Position};

/// Where a write stands in its log, as clients carry it from a write's `Log-Position` header to a
/// read's `at_least`.
///
/// The text is `<context>/<position>`, to which the server appends what it needs to wait cheaply:
/// `~<epoch>~<partition>_<position>[.<partition>_<position>…]`. All of it is URL-safe as it stands.
/// Clients may hand back the bare form; then every partition has to reach the position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogToken {
    /// The log's owner.
    pub context: Context,
    /// The last position written.
    pub position: Position,
    /// The log's life, where the token says it.
    pub epoch: Option<Epoch>,
    /// The partitions written and the last position in each; empty in the bare form.
    pub partitions: Vec<(Partition, Position)>,
}

/// The most partitions a token may name; an append that touches more gets a bare token.
pub const MAX_TOKEN_PARTITIONS: usize = 16;

/// A text that is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be <context>/<position>, as a Log-Position header gave it")]
pub struct TokenError;

impl fmt::Display for LogToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.context, self.position)?;
        let Some(epoch) = self.epoch else {
            return Ok(());
        };
        write!(f, "~{epoch}")?;
        if self.partitions.is_empty() || self.partitions.len() > MAX_TOKEN_PARTITIONS {
            return Ok(());
        }
        for (index, (partition, position)) in self.partitions.iter().enumerate() {
            let lead = if index == 0 { '~' } else { '.' };
            write!(f, "{lead}{partition}_{position}")?;
        }
        Ok(())
    }
}

impl FromStr for LogToken {
    type Err = TokenError;
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (context, rest) = text.split_once('/').ok_or(TokenError)?;
        let context = Context::new(context).map_err(|_| TokenError)?;
        let mut parts = rest.split('~');
        let position = digits(parts.next())?;
        let epoch = match parts.next() {
            Some(text) => Some(Epoch::new(digits(Some(text))?)),
            None => None,
        };
        let partitions = match parts.next() {
            Some(text) => partitions(text)?,
            None => Vec::new(),
        };
        if parts.next().is_some() {
            return Err(TokenError);
        }
        Ok(Self {
            context,
            position: Position::new(position),
            epoch,
            partitions,
        })
    }
}

/// A number of plain digits that fits a signed 64-bit store.
fn digits(text: Option<&str>) -> Result<u64, TokenError> {
    let text = text.ok_or(TokenError)?;
    if text.is_empty() || text.len() > 18 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(TokenError);
    }
    text.parse().map_err(|_| TokenError)
}

fn partitions(text: &str) -> Result<Vec<(Partition, Position)>, TokenError> {
    let found: Vec<_> = text
        .split('.')
        .take(MAX_TOKEN_PARTITIONS + 1)
        .map(|one| {
            let (partition, position) = one.split_once('_').ok_or(TokenError)?;
            let number = u16::try_from(digits(Some(partition))?).map_err(|_| TokenError)?;
            Ok((
                Partition::new(number),
                Position::new(digits(Some(position))?),
            ))
        })
        .collect::<Result<_, _>>()?;
    if found.len() > MAX_TOKEN_PARTITIONS {
        return Err(TokenError);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_went() {
        for text in [
            "ordering/0",
            "ordering/17~1",
            "banking/9~2~3_9",
            "ordering/9~1~0_8.15_9",
        ] {
            let token: LogToken = text.parse().unwrap();
            assert_eq!(token.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in [
            "",
            "ordering",
            "ordering/",
            "/1",
            "ordering/-1",
            "ordering/+1",
            "Ordering/1",
            "ordering/1~",
            "ordering/1~1~",
            "ordering/1~1~x_1",
            "ordering/1~1~1_1~",
            "ordering/9999999999999999999",
            "ordering/1 ",
            "ordering/1~1~70000_1",
        ] {
            assert!(text.parse::<LogToken>().is_err(), "{text:?}");
        }
    }
}
