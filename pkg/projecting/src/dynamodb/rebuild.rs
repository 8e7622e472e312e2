//! Rebuilds of views in DynamoDB.

use std::{num::NonZeroU32, sync::Arc};

use async_trait::async_trait;
use aws_sdk_dynamodb::{
    error::{ProvideErrorMetadata, SdkError},
    types::{Delete, DeleteRequest, TransactWriteItem, WriteRequest},
};

use super::{
    DynamoStore,
    apply::DynamoGeneration,
    control::{MAX_ATTEMPTS, pace_attributes, query},
    items::pause,
    keys,
    values::{get_epoch, get_lane, get_number, get_position, get_text, store_error},
};
use crate::{
    error::{StoreError, unavailable},
    generation::{
        Activation, ContextHead, Generation, GenerationId, GenerationStatus, Switched, is_kept_for,
    },
    owner::Owner,
    rebuild::{LaneProgress, Pace, RebuildStore, require_loaded},
    store::GenerationStore,
    stores::Item,
    view::View,
};

#[async_trait]
impl RebuildStore for DynamoStore {
    async fn generations(&self, projection: &str) -> Result<Vec<Generation>, StoreError> {
        Self::generations(self, projection).await
    }

    async fn begin(
        &self,
        view: &View,
        owner: &Owner,
        heads: &[ContextHead],
        pace: Pace,
    ) -> Result<Generation, StoreError> {
        let definition = view.dynamodb()?.table();
        for attempt in 0..MAX_ATTEMPTS {
            let revision = self.revision(view.name()).await?;
            let known = self.generations(view.name()).await?;
            if let Some(own) = Generation::of_owner(known, owner)? {
                return Ok(own);
            }
            let status = GenerationStatus::Loading;
            let made = self
                .create(view, &definition, heads, status, Some(owner.clone()))
                .await?;
            let changes = vec![self.put_generation(&made, pace)?];
            if self.change(view.name(), revision, changes).await? {
                tracing::info!(projection = view.name(), generation = %made.id, %owner, "a rebuild begins");
                return Ok(made);
            }
            // Another process was first; what was made here is seen by nobody.
            self.erase(&made).await?;
            pause(attempt).await;
        }
        Err(contended(view.name()))
    }

    async fn progress(&self, generation: GenerationId) -> Result<Vec<LaneProgress>, StoreError> {
        let table = self.control_table();
        let items = query(self.client(), &table, &keys::checkpoints(generation), None).await?;
        items
            .iter()
            .map(|item| {
                Ok(LaneProgress {
                    lane: get_lane(item)?,
                    epoch: get_epoch(item)?,
                    position: get_position(item, "position")?,
                    target: get_position(item, "target").unwrap_or_default(),
                    events: get_number(item, "events").unwrap_or(0),
                })
            })
            .collect()
    }

    async fn standing(
        &self,
        generation: &Generation,
    ) -> Result<Option<(GenerationStatus, Pace)>, StoreError> {
        let Some(item) = self.generation_item(generation).await? else {
            return Ok(None);
        };
        let most: Option<u32> = get_number(&item, "max_events_per_second").ok();
        let suspended = item.get("suspended").and_then(|one| one.as_bool().ok());
        let pace = Pace {
            max_events_per_second: most.and_then(NonZeroU32::new),
            suspended: suspended.copied().unwrap_or(false),
        };
        let status = GenerationStatus::from_stored(get_text(&item, "status")?);
        Ok(Some((status, pace)))
    }

    async fn set_pace(&self, generation: &Generation, pace: Pace) -> Result<(), StoreError> {
        let attributes = pace_attributes(pace);
        let change = match attributes.contains_key("max_events_per_second") {
            true => "SET suspended = :suspended, max_events_per_second = :max_events_per_second",
            false => "SET suspended = :suspended REMOVE max_events_per_second",
        };
        let values = attributes
            .into_iter()
            .map(|(name, value)| (format!(":{name}"), value))
            .collect();
        let sent = self
            .client()
            .update_item()
            .table_name(self.control_table())
            .set_key(Some(keys::generation(
                &generation.projection,
                generation.id,
            )))
            .update_expression(change)
            .condition_expression("attribute_exists(pk)")
            .set_expression_attribute_values(Some(values))
            .send()
            .await;
        match sent {
            Ok(_) => Ok(()),
            Err(SdkError::ServiceError(refused))
                if refused.err().is_conditional_check_failed_exception() =>
            {
                Err(StoreError::Gone(generation.id))
            }
            Err(error) => Err(store_error(error)),
        }
    }

    fn open(
        &self,
        generation: &Generation,
        view: &View,
    ) -> Result<Arc<dyn GenerationStore>, StoreError> {
        Ok(Arc::new(DynamoGeneration::new(
            self.client().clone(),
            self.control_table(),
            generation,
            Arc::clone(view.dynamodb()?),
            true,
        )))
    }

    /// The table has its indexes from the beginning, so that only its status changes.
    async fn finish(&self, generation: &Generation, view: &View) -> Result<(), StoreError> {
        for attempt in 0..MAX_ATTEMPTS {
            let revision = self.revision(view.name()).await?;
            match self.standing(generation).await? {
                None | Some((GenerationStatus::Retired, _)) => {
                    return Err(StoreError::Gone(generation.id));
                }
                Some((GenerationStatus::Loading, _)) => {}
                Some(_) => return Ok(()),
            }
            require_loaded(generation, &self.progress(generation.id).await?)?;
            let changes = vec![self.set_status(generation, GenerationStatus::Candidate)?];
            if self.change(view.name(), revision, changes).await? {
                tracing::info!(projection = view.name(), generation = %generation.id, "the load is finished; projectors keep it current");
                return Ok(());
            }
            pause(attempt).await;
        }
        Err(contended(view.name()))
    }

    async fn activate(
        &self,
        generation: &Generation,
        heads: &[ContextHead],
        how: Activation,
    ) -> Result<Switched, StoreError> {
        self.make_active(generation, heads, how).await
    }

    async fn clear(
        &self,
        generation: &Generation,
        kept_for: Option<GenerationId>,
    ) -> Result<bool, StoreError> {
        for attempt in 0..=MAX_ATTEMPTS {
            let revision = self.revision(&generation.projection).await?;
            let Some(item) = self.generation_item(generation).await? else {
                return Ok(true);
            };
            let status = GenerationStatus::from_stored(get_text(&item, "status")?);
            generation.require_idle(status)?;
            let replaced_by = get_number(&item, "replaced_by").ok();
            if !is_kept_for(kept_for, replaced_by.map(GenerationId::new)) {
                return Ok(false);
            }
            if status == GenerationStatus::Retired {
                break;
            }
            if attempt == MAX_ATTEMPTS {
                return Err(contended(&generation.projection));
            }
            let changes = vec![self.set_status(generation, GenerationStatus::Retired)?];
            if self
                .change(&generation.projection, revision, changes)
                .await?
            {
                break;
            }
            pause(attempt).await;
        }
        self.erase(generation).await?;
        tracing::info!(projection = generation.projection, generation = %generation.id, "dropped a generation");
        Ok(true)
    }

    async fn forget(&self, generation: &Generation) -> Result<(), StoreError> {
        for attempt in 0..MAX_ATTEMPTS {
            let revision = self.revision(&generation.projection).await?;
            if self.generation_item(generation).await?.is_none() {
                return Ok(());
            }
            let delete = Delete::builder()
                .table_name(self.control_table())
                .set_key(Some(keys::generation(
                    &generation.projection,
                    generation.id,
                )))
                .build()
                .map_err(|error| StoreError::Unusable(Box::new(error)))?;
            let changes = vec![TransactWriteItem::builder().delete(delete).build()];
            if self
                .change(&generation.projection, revision, changes)
                .await?
            {
                return Ok(());
            }
            pause(attempt).await;
        }
        Err(contended(&generation.projection))
    }
}

impl DynamoStore {
    pub(super) async fn generation_item(
        &self,
        generation: &Generation,
    ) -> Result<Option<Item>, StoreError> {
        let found = self
            .client()
            .get_item()
            .table_name(self.control_table())
            .set_key(Some(keys::generation(
                &generation.projection,
                generation.id,
            )))
            .consistent_read(true)
            .send()
            .await
            .map_err(store_error)?;
        Ok(found.item)
    }

    /// Removes what a generation consists of, but not its place among the others. Its checkpoints
    /// go first, so that a late writer is fenced off.
    pub(super) async fn erase(&self, generation: &Generation) -> Result<(), StoreError> {
        let id = generation.id;
        self.delete_records(&keys::checkpoints(id)).await?;
        let dropped = self
            .client()
            .delete_table()
            .table_name(&generation.place)
            .send()
            .await;
        match dropped {
            Ok(_) => {}
            Err(SdkError::ServiceError(refused))
                if refused.err().code() == Some("ResourceNotFoundException") => {}
            Err(error) => return Err(store_error(error)),
        }
        for records in [
            keys::parked_keys(id),
            keys::letters(id),
            keys::open_requests(id),
            keys::done_requests(id),
        ] {
            self.delete_records(&records).await?;
        }
        Ok(())
    }

    /// Deletes all records of a partition key of the control table.
    async fn delete_records(&self, pk: &str) -> Result<(), StoreError> {
        let items = query(self.client(), &self.control_table(), pk, None).await?;
        let mut requests = Vec::with_capacity(items.len());
        for mut item in items {
            item.retain(|name, _| name == keys::PK || name == keys::SK);
            let delete = DeleteRequest::builder()
                .set_key(Some(item))
                .build()
                .map_err(|error| StoreError::Unusable(Box::new(error)))?;
            requests.push(WriteRequest::builder().delete_request(delete).build());
        }
        self.write_all(requests).await
    }
}

fn contended(projection: &str) -> StoreError {
    unavailable(format!(
        "other processes keep changing the generations of {projection}"
    ))
}
