//! Generations of views in DynamoDB, and where they are.

use std::sync::Arc;

use aws_sdk_dynamodb::{
    Client,
    types::{
        AttributeValue, Put, PutRequest, TransactWriteItem, Update, WriteRequest,
        builders::UpdateBuilder,
    },
};
use millrace_kernel::Timestamp;

use super::{
    DynamoView,
    apply::{DynamoGeneration, store_failure},
    items::{Table, Transacted, pause, transact},
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
        Checkpoint, ContextHead, Generation, GenerationId, GenerationStatus, of_this_life,
    },
    owner::Owner,
    rebuild::Pace,
    stores::{Item, KeyAttribute, TableDefinition},
    view::View,
};

/// How often a change of generations whose rivals win is tried again.
pub(super) const MAX_ATTEMPTS: u32 = 8;

/// The most writes of one `BatchWriteItem`, by DynamoDB's own limit.
const MAX_BATCH_WRITES: usize = 25;

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
            let mut own = Vec::new();
            for generation in known
                .iter()
                .filter(|one| one.version == view.version() && one.is_own())
            {
                let found = checkpoints(&self.client, &self.control_table(), generation.id).await?;
                own.push((generation.clone(), of_this_life(&found, heads)));
            }
            let (kept, stale) = Generation::to_go_on_with(&own);
            let mut changes = Vec::new();
            for generation in stale {
                changes.push(self.set_status(generation, GenerationStatus::Retired)?);
            }
            if let Some(kept) = kept {
                if changes.is_empty() || self.change(view.name(), revision, changes).await? {
                    return Ok(kept.clone());
                }
                pause(attempt).await;
                continue;
            }
            let answers = known
                .iter()
                .any(|one| one.status == GenerationStatus::Active && one.version <= view.version());
            let status = if answers {
                GenerationStatus::Candidate
            } else {
                GenerationStatus::Active
            };
            let made = self.create(view, &definition, heads, status, None).await?;
            changes.push(self.put_generation(&made, Pace::default())?);
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
            self.erase(&made).await?;
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

    /// A generation's table.
    pub(crate) fn table(&self, generation: &Generation) -> Table {
        Table {
            client: self.client.clone(),
            name: generation.place.clone(),
        }
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
            generation,
            view,
            false,
        )
    }

    /// Makes a table and its lanes' checkpoints, which nobody sees until the generation is put
    /// among the others.
    pub(super) async fn create(
        &self,
        view: &View,
        definition: &TableDefinition,
        heads: &[ContextHead],
        status: GenerationStatus,
        owner: Option<Owner>,
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
            owner,
            forced: false,
        };
        create_table(&self.client, &generation.place, definition).await?;
        let items: Vec<Item> = heads
            .iter()
            .flat_map(|head| head.lanes().map(|(lane, at)| (lane, at, head.epoch)))
            .map(|(lane, target, epoch)| {
                let mut item = keys::checkpoint(generation.id, &lane);
                item.insert("context".to_owned(), text(lane.context.as_str()));
                item.insert("partition".to_owned(), number(lane.partition));
                item.insert("position".to_owned(), number(0));
                item.insert("epoch".to_owned(), number(epoch));
                if status == GenerationStatus::Loading {
                    item.insert("target".to_owned(), number(target));
                    item.insert("events".to_owned(), number(0));
                }
                item
            })
            .collect();
        let mut requests = Vec::with_capacity(items.len());
        for item in items {
            let put = PutRequest::builder()
                .set_item(Some(item))
                .build()
                .map_err(|error| StoreError::Unusable(Box::new(error)))?;
            requests.push(WriteRequest::builder().put_request(put).build());
        }
        self.write_all(requests).await?;
        Ok(generation)
    }

    /// Writes records of the control table, a bounded number at a time.
    pub(super) async fn write_all(&self, all: Vec<WriteRequest>) -> Result<(), StoreError> {
        let table = self.control_table();
        for page in all.chunks(MAX_BATCH_WRITES) {
            let mut requests = page.to_vec();
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

    pub(super) async fn revision(&self, projection: &str) -> Result<Option<u64>, StoreError> {
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
    pub(super) async fn change(
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

    pub(super) fn put_generation(
        &self,
        generation: &Generation,
        pace: Pace,
    ) -> Result<TransactWriteItem, StoreError> {
        let owned = generation.owner.is_some();
        let mut item = keys::generation(&generation.projection, generation.id);
        item.extend([
            ("id".to_owned(), number(generation.id.get())),
            ("projection".to_owned(), text(&generation.projection)),
            ("version".to_owned(), number(generation.version)),
            ("status".to_owned(), text(generation.status.stored(owned))),
            ("place".to_owned(), text(&generation.place)),
            (
                "created_at".to_owned(),
                text(generation.created_at.to_string()),
            ),
        ]);
        if let Some(owner) = &generation.owner {
            item.insert("owner".to_owned(), text(owner.as_str()));
        }
        item.extend(pace_attributes(pace));
        let put = Put::builder()
            .table_name(self.control_table())
            .set_item(Some(item))
            .build()
            .map_err(|error| StoreError::Unusable(Box::new(error)))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }

    pub(super) fn set_status(
        &self,
        generation: &Generation,
        status: GenerationStatus,
    ) -> Result<TransactWriteItem, StoreError> {
        Self::built(self.status_update(generation, status))
    }

    pub(super) fn status_update(
        &self,
        generation: &Generation,
        status: GenerationStatus,
    ) -> UpdateBuilder {
        let stored = status.stored(generation.owner.is_some());
        Update::builder()
            .table_name(self.control_table())
            .set_key(Some(keys::generation(
                &generation.projection,
                generation.id,
            )))
            .update_expression("SET #t = :status, switched_at = :now")
            .expression_attribute_names("#t", "status")
            .expression_attribute_values(":status", text(stored))
            .expression_attribute_values(":now", text(Timestamp::now().to_string()))
    }

    pub(super) fn built(update: UpdateBuilder) -> Result<TransactWriteItem, StoreError> {
        let update = update
            .build()
            .map_err(|error| StoreError::Unusable(Box::new(error)))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }
}

/// How a pace is kept with its generation: no limit is no attribute.
pub(super) fn pace_attributes(pace: Pace) -> Item {
    let mut item = Item::from([("suspended".to_owned(), AttributeValue::Bool(pace.suspended))]);
    if let Some(most) = pace.max_events_per_second {
        item.insert("max_events_per_second".to_owned(), number(most.get()));
    }
    item
}

fn read_generation(item: &Item) -> Result<Generation, StoreError> {
    let status = get_text(item, "status")?;
    let owner = get_text(item, "owner").ok();
    Ok(Generation {
        id: GenerationId::new(get_number(item, "id")?),
        projection: get_text(item, "projection")?.to_owned(),
        version: get_number(item, "version")?,
        status: GenerationStatus::from_stored(status),
        place: get_text(item, "place")?.to_owned(),
        created_at: get_time(item, "created_at")?,
        owner: owner.map(Owner::new).transpose()?,
        forced: matches!(item.get("forced"), Some(AttributeValue::Bool(true))),
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
