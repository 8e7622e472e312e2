//! Generations of views in DynamoDB, and where they are.

use std::sync::Arc;

use aws_sdk_dynamodb::{
    Client,
    types::{AttributeValue, Put, PutRequest, TransactWriteItem, Update, WriteRequest},
};
use millrace_kernel::Timestamp;

use super::{
    DynamoView,
    actions::Control,
    apply::{DynamoGeneration, store_failure},
    items::{Transacted, pause, transact},
    keys,
    tables::create_table,
    values::{
        get_epoch, get_lane, get_number, get_position, get_text, get_time, number, store_error,
        text,
    },
};
use crate::{
    error::{StoreError, unavailable},
    folder::Folder,
    generation::{
        Checkpoint, ContextHead, Generation, GenerationId, GenerationStatus, of_one_life,
        of_this_life, require_reached,
    },
    stores::{Item, KeyAttribute, TableDefinition},
    view::View,
};

/// How often a change of generations whose rivals win is tried again.
const MAX_ATTEMPTS: u32 = 8;

/// The most puts of one `BatchWriteItem`, by DynamoDB's own limit.
const MAX_BATCH_PUTS: usize = 25;

/// The most checkpoints that one switch can hold still: a transaction's actions but the two or
/// three that switch.
const MAX_SWITCH_LANES: usize = 96;

/// Views in DynamoDB: a table per generation, and one for the projector's own records.
#[derive(Debug, Clone)]
pub struct DynamoStore {
    client: Client,
    namespace: String,
}

impl DynamoStore {
    /// Speaks for a namespace: its tables are `<namespace>_projections` and
    /// `<namespace>_<projection>_g<id>`.
    #[must_use]
    pub fn new(client: Client, namespace: impl Into<String>) -> Self {
        Self {
            client,
            namespace: namespace.into(),
        }
    }

    /// The SDK's client.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn control_table(&self) -> String {
        format!("{}_projections", self.namespace)
    }

    /// Makes the control table. Safe to run twice and concurrently.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let definition = TableDefinition {
            partition_key: KeyAttribute::text(keys::PK),
            sort_key: Some(KeyAttribute::text(keys::SK)),
            local_indexes: &[],
            global_indexes: &[],
        };
        create_table(&self.client, &self.control_table(), &definition).await
    }

    /// See [`crate::PgStore::ensure_generation`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn ensure_generation(
        &self,
        view: &View,
        heads: &[ContextHead],
    ) -> Result<Generation, StoreError> {
        let definition = view.dynamodb()?.table();
        for attempt in 0..MAX_ATTEMPTS {
            let revision = self.revision(view.name()).await?;
            let known = self.generations(view.name()).await?;
            let mut stale = Vec::new();
            for generation in known.iter().filter(|one| {
                one.version == view.version()
                    && matches!(
                        one.status,
                        GenerationStatus::Active | GenerationStatus::Candidate
                    )
            }) {
                let found = checkpoints(&self.client, &self.control_table(), generation.id).await?;
                if of_this_life(&found, heads) {
                    return Ok(generation.clone());
                }
                if generation.status == GenerationStatus::Candidate {
                    stale.push(generation);
                }
            }
            let answers = known
                .iter()
                .any(|one| one.status == GenerationStatus::Active && one.version <= view.version());
            let status = if answers {
                GenerationStatus::Candidate
            } else {
                GenerationStatus::Active
            };
            let made = self.create(view, &definition, heads, status).await?;
            let mut changes = vec![self.put_generation(&made)?];
            for generation in stale {
                changes.push(self.set_status(generation, GenerationStatus::Retired)?);
            }
            if self.change(view.name(), revision, changes).await? {
                tracing::info!(
                    projection = view.name(),
                    generation = %made.id,
                    status = status.as_str(),
                    "made a generation"
                );
                return Ok(made);
            }
            // Another process was first; what was made here is seen by nobody.
            self.drop_table(&made.place).await;
            pause(attempt).await;
        }
        Err(unavailable(format!(
            "other processes keep changing the generations of {}",
            view.name()
        )))
    }

    /// The generations of a projection, newest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn generations(&self, projection: &str) -> Result<Vec<Generation>, StoreError> {
        let items = query(
            &self.client,
            &self.control_table(),
            &keys::generations(projection),
            None,
        )
        .await?;
        let mut found = items
            .iter()
            .map(read_generation)
            .collect::<Result<Vec<_>, _>>()?;
        found.sort_by_key(|one| std::cmp::Reverse(one.id));
        Ok(found)
    }

    /// How far a generation is, by lane.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn checkpoints(
        &self,
        generation: GenerationId,
    ) -> Result<Vec<Checkpoint>, StoreError> {
        checkpoints(&self.client, &self.control_table(), generation).await
    }

    /// See [`crate::PgStore::switch`]. Only the live generation's checkpoints are held still: the
    /// candidate's never go back.
    ///
    /// # Errors
    /// [`StoreError::Behind`] when the candidate is not far enough; else see [`StoreError`].
    pub async fn switch(
        &self,
        candidate: &Generation,
        heads: &[ContextHead],
    ) -> Result<(), StoreError> {
        let projection = candidate.projection.as_str();
        for attempt in 0..MAX_ATTEMPTS {
            let revision = self.revision(projection).await?;
            let known = self.generations(projection).await?;
            let live = known
                .iter()
                .filter(|one| {
                    one.status == GenerationStatus::Active
                        && one.version <= candidate.version
                        && one.id != candidate.id
                })
                .max_by_key(|one| one.version);
            let mut changes = Vec::new();
            let mut same_life = true;
            if let Some(live) = live {
                // The live one is read first: what the candidate has reached then, it keeps.
                let theirs = checkpoints(&self.client, &self.control_table(), live.id).await?;
                let own = checkpoints(&self.client, &self.control_table(), candidate.id).await?;
                same_life = of_one_life(&own, &theirs);
                if same_life {
                    if theirs.len() > MAX_SWITCH_LANES {
                        return Err(StoreError::Invalid(format!(
                            "a switch in DynamoDB holds at most {MAX_SWITCH_LANES} partitions still"
                        )));
                    }
                    changes = self.hold_still(live.id, &theirs)?;
                    let needed = theirs.into_iter().map(|one| (one.lane, one.position));
                    require_reached(candidate.id, &own, needed)?;
                } else {
                    let needed = heads.iter().flat_map(ContextHead::lanes);
                    require_reached(candidate.id, &own, needed)?;
                }
            }
            if let Some(live) = live.filter(|one| one.version == candidate.version) {
                let left = if same_life {
                    GenerationStatus::Retained
                } else {
                    GenerationStatus::Retired
                };
                changes.push(self.set_status(live, left)?);
            }
            changes.push(self.set_status(candidate, GenerationStatus::Active)?);
            if self.change(projection, revision, changes).await? {
                tracing::info!(projection, generation = %candidate.id, "switched to a generation");
                return Ok(());
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
        let control = Control {
            table: self.control_table(),
            generation: live,
        };
        at.iter()
            .map(|one| control.require_checkpoint(one).map_err(store_failure))
            .collect()
    }

    /// Opens a generation to fold into by hand.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn folder(&self, generation: &Generation, view: &View) -> Result<Folder, StoreError> {
        let view = Arc::clone(view.dynamodb()?);
        Folder::open(Arc::new(self.generation(generation, view))).await
    }

    /// Opens a generation for the process that folds into it.
    pub(crate) fn generation(
        &self,
        generation: &Generation,
        view: Arc<dyn DynamoView>,
    ) -> DynamoGeneration {
        DynamoGeneration::new(
            self.client.clone(),
            self.control_table(),
            generation.id,
            generation.place.clone(),
            view,
        )
    }

    async fn create(
        &self,
        view: &View,
        definition: &TableDefinition,
        heads: &[ContextHead],
        status: GenerationStatus,
    ) -> Result<Generation, StoreError> {
        let counted = self
            .client
            .update_item()
            .table_name(self.control_table())
            .set_key(Some(keys::counter()))
            .update_expression("ADD newest :one")
            .expression_attribute_values(":one", number(1))
            .return_values(aws_sdk_dynamodb::types::ReturnValue::UpdatedNew)
            .send()
            .await
            .map_err(store_error)?;
        let id = get_number(&counted.attributes.unwrap_or_default(), "newest")?;
        let generation = Generation {
            id: GenerationId::new(id),
            projection: view.name().to_owned(),
            version: view.version(),
            status,
            place: format!("{}_{}_g{id}", self.namespace, view.name()),
            created_at: Timestamp::now(),
        };
        create_table(&self.client, &generation.place, definition).await?;
        let items: Vec<Item> = heads
            .iter()
            .flat_map(|head| head.lanes().map(|(lane, _)| (lane, head.epoch)))
            .map(|(lane, epoch)| {
                let mut item = keys::checkpoint(generation.id, &lane);
                item.insert("context".to_owned(), text(lane.context.as_str()));
                item.insert("partition".to_owned(), number(lane.partition));
                item.insert("position".to_owned(), number(0));
                item.insert("epoch".to_owned(), number(epoch));
                item
            })
            .collect();
        self.put_all(items).await?;
        Ok(generation)
    }

    async fn put_all(&self, items: Vec<Item>) -> Result<(), StoreError> {
        let table = self.control_table();
        for page in items.chunks(MAX_BATCH_PUTS) {
            let mut requests = Vec::with_capacity(page.len());
            for item in page {
                let put = PutRequest::builder()
                    .set_item(Some(item.clone()))
                    .build()
                    .map_err(|error| StoreError::Unusable(Box::new(error)))?;
                requests.push(WriteRequest::builder().put_request(put).build());
            }
            let mut attempt = 0;
            while !requests.is_empty() {
                let answer = self
                    .client
                    .batch_write_item()
                    .request_items(&table, requests)
                    .send()
                    .await
                    .map_err(store_error)?;
                requests = answer
                    .unprocessed_items
                    .and_then(|mut left| left.remove(&table))
                    .unwrap_or_default();
                if !requests.is_empty() {
                    pause(attempt).await;
                    attempt += 1;
                }
                if attempt > MAX_ATTEMPTS {
                    return Err(unavailable("the control table is throttled"));
                }
            }
        }
        Ok(())
    }

    async fn revision(&self, projection: &str) -> Result<Option<u64>, StoreError> {
        let found = self
            .client
            .get_item()
            .table_name(self.control_table())
            .set_key(Some(keys::pointer(projection)))
            .consistent_read(true)
            .send()
            .await
            .map_err(store_error)?;
        match found.item {
            None => Ok(None),
            Some(item) => Ok(Some(get_number(&item, "revision")?)),
        }
    }

    /// Changes a projection's generations if nobody else did since they were read.
    async fn change(
        &self,
        projection: &str,
        revision: Option<u64>,
        mut changes: Vec<TransactWriteItem>,
    ) -> Result<bool, StoreError> {
        let update = Update::builder()
            .table_name(self.control_table())
            .set_key(Some(keys::pointer(projection)))
            .update_expression("SET #r = :next")
            .condition_expression(match revision {
                None => "attribute_not_exists(#r)",
                Some(_) => "#r = :seen",
            })
            .expression_attribute_names("#r", "revision")
            .set_expression_attribute_values(Some(
                [(":next".to_owned(), number(revision.unwrap_or(0) + 1))]
                    .into_iter()
                    .chain(revision.map(|seen| (":seen".to_owned(), number(seen))))
                    .collect(),
            ))
            .build()
            .map_err(|error| StoreError::Unusable(Box::new(error)))?;
        changes.push(TransactWriteItem::builder().update(update).build());
        let done = transact(&self.client, changes)
            .await
            .map_err(store_failure)?;
        Ok(matches!(done, Transacted::Done))
    }

    fn put_generation(&self, generation: &Generation) -> Result<TransactWriteItem, StoreError> {
        let mut item = keys::generation(&generation.projection, generation.id);
        item.extend([
            ("id".to_owned(), number(generation.id.get())),
            ("projection".to_owned(), text(&generation.projection)),
            ("version".to_owned(), number(generation.version)),
            ("status".to_owned(), text(generation.status.as_str())),
            ("place".to_owned(), text(&generation.place)),
            (
                "created_at".to_owned(),
                text(generation.created_at.to_string()),
            ),
        ]);
        let put = Put::builder()
            .table_name(self.control_table())
            .set_item(Some(item))
            .build()
            .map_err(|error| StoreError::Unusable(Box::new(error)))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }

    fn set_status(
        &self,
        generation: &Generation,
        status: GenerationStatus,
    ) -> Result<TransactWriteItem, StoreError> {
        let update = Update::builder()
            .table_name(self.control_table())
            .set_key(Some(keys::generation(
                &generation.projection,
                generation.id,
            )))
            .update_expression("SET #t = :status, switched_at = :now")
            .expression_attribute_names("#t", "status")
            .expression_attribute_values(":status", text(status.as_str()))
            .expression_attribute_values(":now", text(Timestamp::now().to_string()))
            .build()
            .map_err(|error| StoreError::Unusable(Box::new(error)))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }

    /// Removes a table that nobody will use; one that stays costs storage only.
    async fn drop_table(&self, table: &str) {
        if let Err(error) = self.client.delete_table().table_name(table).send().await {
            tracing::warn!(table, error = %store_error(error), "a table that was not needed stays");
        }
    }
}

fn read_generation(item: &Item) -> Result<Generation, StoreError> {
    let status = get_text(item, "status")?;
    Ok(Generation {
        id: GenerationId::new(get_number(item, "id")?),
        projection: get_text(item, "projection")?.to_owned(),
        version: get_number(item, "version")?,
        status: GenerationStatus::parse(status).unwrap_or(GenerationStatus::Retired),
        place: get_text(item, "place")?.to_owned(),
        created_at: get_time(item, "created_at")?,
    })
}

/// The checkpoints of a generation, by lane, read consistently.
pub(super) async fn checkpoints(
    client: &Client,
    control_table: &str,
    generation: GenerationId,
) -> Result<Vec<Checkpoint>, StoreError> {
    let items = query(client, control_table, &keys::checkpoints(generation), None).await?;
    items
        .iter()
        .map(|item| {
            Ok(Checkpoint {
                lane: get_lane(item)?,
                position: get_position(item, "position")?,
                epoch: get_epoch(item)?,
            })
        })
        .collect()
}

/// All items of a partition key (whose sort key begins so), consistently, page by page.
pub(super) async fn query(
    client: &Client,
    table: &str,
    pk: &str,
    prefix: Option<&str>,
) -> Result<Vec<Item>, StoreError> {
    let mut found = Vec::new();
    let mut from: Option<Item> = None;
    loop {
        let condition = match prefix {
            None => "pk = :pk",
            Some(_) => "pk = :pk AND begins_with(sk, :prefix)",
        };
        let answer = client
            .query()
            .table_name(table)
            .consistent_read(true)
            .key_condition_expression(condition)
            .set_expression_attribute_values(Some(
                [(":pk".to_owned(), text(pk))]
                    .into_iter()
                    .chain(prefix.map(|prefix| (":prefix".to_owned(), text(prefix))))
                    .collect::<std::collections::HashMap<_, AttributeValue>>(),
            ))
            .set_exclusive_start_key(from)
            .send()
            .await
            .map_err(store_error)?;
        found.extend(answer.items.unwrap_or_default());
        match answer.last_evaluated_key {
            Some(key) if !key.is_empty() => from = Some(key),
            _ => return Ok(found),
        }
    }
}
