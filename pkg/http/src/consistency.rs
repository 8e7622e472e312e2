use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use millrace_es::LogToken;

use crate::{Problem, conditional, query, query::Parameters};

/// The header with which a reader says what it must see at least.
pub const MIN_LOG_POSITION: HeaderName = HeaderName::from_static("min-log-position");
/// The header in which answers say where the log, or what they read, stands.
pub const LOG_POSITION: HeaderName = HeaderName::from_static("log-position");
const PREFER: HeaderName = HeaderName::from_static("prefer");
pub(crate) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// How long a reader waits for a position unless it says otherwise.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(2);
/// The longest a reader may wait for a position.
pub const MAX_WAIT: Duration = Duration::from_secs(30);

/// How fresh an answer has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Consistency {
    /// Whatever the read model has.
    Eventual,
    /// The read model at or beyond a position.
    AtLeast {
        /// What the reader must see.
        token: LogToken,
        /// How long to wait for it.
        wait: Duration,
    },
    /// From the event log, or the row kept in the append's own transaction.
    Strong,
}

impl Consistency {
    /// Takes the parameters and headers that say how fresh the answer has to be.
    pub(crate) fn take(
        parameters: &mut Parameters<'_>,
        headers: &HeaderMap,
        strong_allowed: bool,
    ) -> Result<Self, Problem> {
        let token = token(parameters, headers)?;
        let level = parameters.take("consistency");
        match (level.as_deref(), token) {
            (None | Some("eventual"), None) => Ok(Self::Eventual),
            (None, Some(token)) => Ok(Self::AtLeast {
                token,
                wait: wait(headers),
            }),
            (Some("strong"), None) if strong_allowed => Ok(Self::Strong),
            (Some("strong"), _) if !strong_allowed => Err(query::invalid(
                "consistency",
                "this query has no strong form; use at_least",
            )),
            (Some("strong" | "eventual"), Some(_)) => Err(query::invalid(
                "consistency",
                "contradicts at_least; give one of them",
            )),
            (Some(_), _) => Err(query::invalid("consistency", "must be eventual or strong")),
        }
    }
}

fn token(
    parameters: &mut Parameters<'_>,
    headers: &HeaderMap,
) -> Result<Option<LogToken>, Problem> {
    let from_query = match parameters.take("at_least") {
        Some(text) => Some(
            text.parse::<LogToken>()
                .map_err(|error| query::invalid("at_least", error.to_string()))?,
        ),
        None => None,
    };
    let mut values = headers.get_all(&MIN_LOG_POSITION).iter();
    let from_header = match (values.next(), values.next()) {
        (None, _) => None,
        (Some(_), Some(_)) => {
            return Err(conditional::invalid(
                "/min-log-position",
                "must be one header",
            ));
        }
        (Some(value), None) => {
            let parsed = value.to_str().ok().and_then(|text| text.parse().ok());
            let reason = || millrace_es::TokenError.to_string();
            Some(parsed.ok_or_else(|| conditional::invalid("/min-log-position", reason()))?)
        }
    };
    match (from_query, from_header) {
        (Some(a), Some(b)) if a != b => Err(query::invalid(
            "at_least",
            "contradicts the header Min-Log-Position",
        )),
        (a, b) => Ok(a.or(b)),
    }
}

/// The wait that `Prefer: wait=<seconds>` asks for, within bounds. A preference that cannot be
/// understood is ignored, as RFC 7240 says.
fn wait(headers: &HeaderMap) -> Duration {
    let values = headers.get_all(&PREFER).iter();
    let preferences = values.filter_map(|value| value.to_str().ok());
    for preference in preferences.flat_map(|value| value.split(',')) {
        let Some((name, value)) = preference.split_once('=') else {
            continue;
        };
        if !name.trim().eq_ignore_ascii_case("wait") {
            continue;
        }
        let value = value.split(';').next().unwrap_or_default().trim();
        let value = value.trim_matches('"');
        if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
            // More digits than fit are more than the bound.
            let seconds = value.parse().unwrap_or(u64::MAX);
            return Duration::from_secs(seconds).min(MAX_WAIT);
        }
    }
    DEFAULT_WAIT
}

/// What `Preference-Applied` says about a wait.
pub(crate) fn preference_applied(wait: Duration) -> Option<HeaderValue> {
    HeaderValue::from_str(&format!("wait={}", wait.as_secs())).ok()
}
