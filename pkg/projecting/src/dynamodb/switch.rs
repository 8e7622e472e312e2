//! Which generation answers: switches and rollbacks.

use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem};

use super::{
    DynamoStore,
    actions::Control,
    apply::store_failure,
    control::{MAX_ATTEMPTS, checkpoints},
    items::pause,
    values::{get_number, number},
};
use crate::{
    error::{StoreError, unavailable},
    generation::{
        Activation, Checkpoint, ContextHead, Generation, GenerationId, GenerationStatus, Switched,
        of_one_life, require_reached,
    },
};

/// The most checkpoints that one switch can hold still: a transaction's actions but those that
/// switch.
const MAX_SWITCH_LANES: usize = 94;

impl DynamoStore {
    /// See [`crate::PgStore::switch`]. Only the live generation's checkpoints are held still: the
    /// candidate's never go back.
    ///
    /// # Errors
    /// [`StoreError::Behind`] when the candidate is not far enough; [`StoreError::Invalid`] when it
    /// is no candidate; else see [`StoreError`].
    pub async fn switch(
        &self,
        candidate: &Generation,
        heads: &[ContextHead],
    ) -> Result<Switched, StoreError> {
        self.make_active(candidate, heads, Activation::Switch).await
    }

    pub(super) async fn make_active(
        &self,
        wanted: &Generation,
        heads: &[ContextHead],
        how: Activation,
    ) -> Result<Switched, StoreError> {
        let projection = wanted.projection.as_str();
        for attempt in 0..MAX_ATTEMPTS {
            let revision = self.revision(projection).await?;
            let known = self.generations(projection).await?;
            let Some(wanted) = known.iter().find(|one| one.id == wanted.id) else {
                return Err(StoreError::Gone(wanted.id));
            };
            let live = how.live(wanted, &known);
            if live.is_some_and(|live| live.id == wanted.id) {
                let previous = self.previous(wanted).await?;
                return Ok(Switched { previous });
            }
            how.check(wanted)?;
            let mut changes = Vec::new();
            let mut same_life = true;
            if let Some(live) = live.filter(|_| !how.is_forced()) {
                // The live one is read first: what the candidate has reached then, it keeps.
                let theirs = checkpoints(self.client(), &self.control_table(), live.id).await?;
                let own = checkpoints(self.client(), &self.control_table(), wanted.id).await?;
                same_life = of_one_life(&own, &theirs);
                if same_life {
                    changes = self.hold_still(live.id, &theirs)?;
                    let needed = theirs.into_iter().map(|one| (one.lane, one.position));
                    require_reached(wanted.id, &own, needed)?;
                } else {
                    let needed = heads.iter().flat_map(ContextHead::lanes);
                    require_reached(wanted.id, &own, needed)?;
                }
            }
            let left = if same_life {
                GenerationStatus::Retained
            } else {
                GenerationStatus::Retired
            };
            for one in how.leaving(wanted, &known) {
                changes.push(self.set_replaced(one, left, wanted.id)?);
            }
            let previous = live.map(|one| one.id);
            changes.push(self.set_active(wanted, previous, how.is_forced())?);
            if self.change(projection, revision, changes).await? {
                tracing::info!(projection, generation = %wanted.id, ?previous, "switched to a generation");
                return Ok(Switched { previous });
            }
            pause(attempt).await;
        }
        Err(unavailable(format!(
            "the live generation of {projection} does not stand still"
        )))
    }

    fn hold_still(
        &self,
        live: GenerationId,
        at: &[Checkpoint],
    ) -> Result<Vec<TransactWriteItem>, StoreError> {
        if at.len() > MAX_SWITCH_LANES {
            return Err(StoreError::Invalid(format!(
                "a switch in DynamoDB holds at most {MAX_SWITCH_LANES} partitions still"
            )));
        }
        let control = Control {
            table: self.control_table(),
            generation: live,
        };
        at.iter()
            .map(|one| control.require_checkpoint(one).map_err(store_failure))
            .collect()
    }

    fn set_active(
        &self,
        generation: &Generation,
        previous: Option<GenerationId>,
        forced: bool,
    ) -> Result<TransactWriteItem, StoreError> {
        let mut set =
            "REMOVE replaced_by SET #t = :status, switched_at = :now, forced = :forced".to_owned();
        let mut change = self
            .status_update(generation, GenerationStatus::Active)
            .expression_attribute_values(":forced", AttributeValue::Bool(forced));
        if let Some(previous) = previous {
            set.push_str(", previous = :previous");
            change = change.expression_attribute_values(":previous", number(previous.get()));
        }
        Self::built(change.update_expression(set))
    }

    /// It stops answering, and is kept for the one that took over.
    fn set_replaced(
        &self,
        generation: &Generation,
        status: GenerationStatus,
        by: GenerationId,
    ) -> Result<TransactWriteItem, StoreError> {
        let change = self
            .status_update(generation, status)
            .expression_attribute_values(":by", number(by.get()))
            .update_expression("SET #t = :status, switched_at = :now, replaced_by = :by");
        Self::built(change)
    }

    async fn previous(&self, generation: &Generation) -> Result<Option<GenerationId>, StoreError> {
        let item = self.generation_item(generation).await?.unwrap_or_default();
        Ok(get_number(&item, "previous").ok().map(GenerationId::new))
    }
}
