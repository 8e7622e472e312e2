use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Serialize, de::DeserializeOwned};
use sha2::Sha256;
use utoipa::ToSchema;

use crate::{Problem, problem::types, query, query::Parameters};

/// How many items a page has unless the request says otherwise.
pub const DEFAULT_PAGE_ITEMS: usize = 50;
/// The most items of a page.
pub const MAX_PAGE_ITEMS: usize = 500;
/// The longest cursor that is looked at, in bytes.
const MAX_CURSOR_BYTES: usize = 1024;
/// How much of the signature a cursor carries, in bytes: 128 bits.
const SIGNATURE_BYTES: usize = 16;
/// The shortest secret that signs cursors, in bytes.
const MIN_SECRET_BYTES: usize = 32;

/// Signs the cursors that a service gives out. Every instance of a service needs the same key, or
/// a cursor of one is refused by the next.
#[derive(Clone)]
pub struct CursorKey(Hmac<Sha256>);

/// A secret that is too short to sign with.
#[derive(Debug, thiserror::Error)]
#[error("the cursor key (MILLRACE_CURSOR_KEY) must have at least {MIN_SECRET_BYTES} bytes")]
pub struct ShortSecret;

impl CursorKey {
    /// A key from a secret, as the setting `MILLRACE_CURSOR_KEY` gives it.
    ///
    /// # Errors
    /// [`ShortSecret`] below 32 bytes.
    pub fn new(secret: &[u8]) -> Result<Self, ShortSecret> {
        if secret.len() < MIN_SECRET_BYTES {
            return Err(ShortSecret);
        }
        // HMAC takes keys of any length.
        Hmac::new_from_slice(secret)
            .map(Self)
            .map_err(|_| ShortSecret)
    }

    /// A key that this process makes up: its cursors end with it, and no other process takes them.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "an edge that makes random values: here a secret, of 244 bits"
    )]
    pub fn of_this_process() -> Self {
        let secret = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()].map(uuid::Uuid::into_bytes);
        let mut key = [0; 64];
        key[..MIN_SECRET_BYTES].copy_from_slice(secret.as_flattened());
        Self(Hmac::new(&key.into()))
    }

    fn sign(&self, list: &str, payload: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let mut mac = self.0.clone();
        // The length keeps list and payload from running into each other.
        mac.update(&(list.len() as u64).to_be_bytes());
        mac.update(list.as_bytes());
        mac.update(payload);
        let mut signature = [0; SIGNATURE_BYTES];
        signature.copy_from_slice(&mac.finalize().into_bytes()[..SIGNATURE_BYTES]);
        signature
    }

    fn give(&self, list: &str, payload: &[u8]) -> String {
        let mut bytes = self.sign(list, payload).to_vec();
        bytes.extend_from_slice(payload);
        BASE64.encode(bytes)
    }

    fn take(&self, list: &str, cursor: &str) -> Option<Vec<u8>> {
        if cursor.len() > MAX_CURSOR_BYTES {
            return None;
        }
        let mut bytes = BASE64.decode(cursor).ok()?;
        let signature: [u8; SIGNATURE_BYTES] = bytes.get(..SIGNATURE_BYTES)?.try_into().ok()?;
        let payload = bytes.split_off(SIGNATURE_BYTES);
        let expected = self.sign(list, &payload);
        // In constant time: every byte is looked at.
        let differing = signature
            .iter()
            .zip(expected)
            .fold(0, |d, (a, b)| d | (a ^ b));
        (differing == 0).then_some(payload)
    }
}

/// Which page of a list is asked for.
pub struct PageRequest {
    /// How many items at most.
    pub limit: usize,
    after: Option<Vec<u8>>,
    list: String,
    key: CursorKey,
}

impl PageRequest {
    /// Takes `limit` and `cursor`; the parameters that are left are the list's filters, and a
    /// cursor belongs to one list with one set of filters.
    pub(crate) fn take(
        parameters: &mut Parameters<'_>,
        path: &str,
        key: &CursorKey,
    ) -> Result<Self, Problem> {
        let limit = match parameters.take("limit") {
            None => DEFAULT_PAGE_ITEMS,
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=MAX_PAGE_ITEMS).contains(limit) && !text.starts_with('+'))
                .ok_or_else(|| {
                    let reason = format!("must be a whole number from 1 to {MAX_PAGE_ITEMS}");
                    query::invalid("limit", reason)
                })?,
        };
        let cursor = parameters.take("cursor");
        let mut list = path.to_owned();
        for (name, value) in parameters.canonical() {
            // A name and a value hold no U+0000 once they are accepted, so nothing runs together.
            list.push('\0');
            list.push_str(name);
            list.push('\0');
            list.push_str(value);
        }
        let after = match cursor {
            None => None,
            Some(cursor) => Some(key.take(&list, &cursor).ok_or_else(foreign_cursor)?),
        };
        Ok(Self {
            limit,
            after,
            list,
            key: key.clone(),
        })
    }

    /// The key of the last item of the page before, where this is not the first page.
    ///
    /// # Errors
    /// 400 when the cursor holds another kind of key, as one of an older release may.
    pub fn after<K: DeserializeOwned>(&self) -> Result<Option<K>, Problem> {
        let Some(payload) = &self.after else {
            return Ok(None);
        };
        serde_json::from_slice(payload)
            .map(Some)
            .map_err(|error| foreign_cursor().caused_by(error))
    }

    /// The cursor to what follows an item, given the item's place in the list's order: the values
    /// it is sorted by, down to a unique one.
    ///
    /// # Errors
    /// 500 when the key has no JSON form.
    pub fn cursor<K: Serialize>(&self, place: &K) -> Result<String, Problem> {
        let payload = serde_json::to_vec(place).map_err(Problem::internal)?;
        Ok(self.key.give(&self.list, &payload))
    }

    /// Makes a page of up to `limit + 1` items as a store gave them: the one too many shows that
    /// there is more and is cut off. `place` says where an item stands in the list's order.
    ///
    /// # Errors
    /// 500 when a place has no JSON form.
    pub fn page<T, K: Serialize>(
        &self,
        mut items: Vec<T>,
        place: impl Fn(&T) -> K,
    ) -> Result<Page<T>, Problem> {
        let more = items.len() > self.limit;
        items.truncate(self.limit);
        let next_cursor = match items.last() {
            Some(last) if more => Some(self.cursor(&place(last))?),
            _ => None,
        };
        Ok(Page { items, next_cursor })
    }
}

fn foreign_cursor() -> Problem {
    Problem::new(
        &types::INVALID_CURSOR,
        "The cursor was not given by this list with these filters; begin again without it",
    )
}

/// One page of a list.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// Hand it back as `cursor` to get what follows; null on the last page.
    #[schema(required)]
    pub next_cursor: Option<String>,
}
