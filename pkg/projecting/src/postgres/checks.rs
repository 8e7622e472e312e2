//! What the last check of each view and stream came to.

use millrace_kernel::Timestamp;
use sqlx::Row;
use time::OffsetDateTime;

use super::PgStore;
use crate::error::StoreError;

/// The most keys that are kept of a check, to be looked at again by the next.
const MAX_DIFFERING: usize = 100;

/// What a check came to, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptCheck {
    /// Whose view or stream it is.
    pub context: String,
    /// The projection; none for the context's stream.
    pub projection: Option<String>,
    /// How many keys of the view, or positions of the stream, were compared.
    pub checked: u64,
    /// How many rows, or positions, differed.
    pub differences: u64,
    /// Some of what differed: streams of a view, or positions.
    pub differing: Vec<String>,
    /// When.
    pub checked_at: Timestamp,
}

impl PgStore {
    /// Keeps what a check came to, in place of the one before. `checked_at` is the database's.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn keep_check(&self, check: &KeptCheck) -> Result<(), StoreError> {
        let named = check.differing.len().min(MAX_DIFFERING);
        let as_i64 = |count| i64::try_from(count).unwrap_or(i64::MAX);
        sqlx::query(
            "INSERT INTO checks (context, projection, checked, differences, differing)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (context, projection) DO UPDATE SET
                 checked = excluded.checked, differences = excluded.differences,
                 differing = excluded.differing, checked_at = now()",
        )
        .bind(&check.context)
        .bind(check.projection.as_deref().unwrap_or_default())
        .bind(as_i64(check.checked))
        .bind(as_i64(check.differences))
        .bind(&check.differing[..named])
        .execute(self.control())
        .await?;
        Ok(())
    }

    /// What the last checks came to, of this database and of those of views that have their own.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn kept_checks(&self) -> Result<Vec<KeptCheck>, StoreError> {
        let mut kept = Vec::new();
        for store in self.all() {
            let rows = sqlx::query(
                "SELECT context, projection, checked, differences, differing, checked_at
                 FROM checks ORDER BY context, projection",
            )
            .fetch_all(store.control())
            .await?;
            for row in &rows {
                let projection: String = row.try_get("projection")?;
                let as_u64 = |count: i64| u64::try_from(count).unwrap_or(0);
                kept.push(KeptCheck {
                    context: row.try_get("context")?,
                    projection: Some(projection).filter(|name| !name.is_empty()),
                    checked: as_u64(row.try_get("checked")?),
                    differences: as_u64(row.try_get("differences")?),
                    differing: row.try_get("differing")?,
                    checked_at: Timestamp::new(row.try_get::<OffsetDateTime, _>("checked_at")?),
                });
            }
        }
        Ok(kept)
    }
}
