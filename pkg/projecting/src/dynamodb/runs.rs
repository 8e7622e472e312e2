//! Runs over dead letters in DynamoDB: one item per run, whose counts rise in the transactions of the
//! letters, and whose place among the letters moves in the transaction that begins streams.

use async_trait::async_trait;
use aws_sdk_dynamodb::{
    Client,
    error::SdkError,
    types::{AttributeValue, Put, TransactWriteItem, Update},
};
use millrace_kernel::{EntityId, Timestamp};

use super::{
    DynamoStore,
    apply::store_failure,
    items::{Table, Transacted, pause, transact},
    keys,
    letter_walk::{MAX_PAGES_PER_PUSH, Place},
    values::{get_number, get_text, number, store_error, text},
};
use crate::{
    dead_letters::Subject,
    error::{StoreError, unavailable},
    generation::GenerationId,
    letter_runs::{
        LetterRun, LetterRuns, LetterSelector, Next, OnFailure, RunState, RunStatus, StoredRun,
    },
    letters::Action,
    owner::Owner,
    stores::{BadItem, Item},
};

/// How often a change of a run whose rivals win is tried again.
const MAX_ATTEMPTS: u32 = 8;

/// A run with what only this store keeps of it.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) stored: StoredRun,
    /// What it has begun and not yet seen the end of.
    open: Vec<OpenRequest>,
    place: Place,
    revision: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct OpenRequest {
    generation: GenerationId,
    id: String,
}

/// A stream that a run takes.
#[derive(Debug, Clone)]
struct Taken {
    subject: Subject,
    /// How many letters it may take.
    letters: Option<u64>,
}

pub(super) async fn load(
    client: &Client,
    control_table: &str,
    owner: &Owner,
) -> Result<Option<Kept>, StoreError> {
    let found = client
        .get_item()
        .table_name(control_table)
        .set_key(Some(keys::letter_run(owner)))
        .consistent_read(true)
        .send()
        .await
        .map_err(store_error)?;
    found.item.map(|item| read_run(&item, owner)).transpose()
}

fn read_run(item: &Item, owner: &Owner) -> Result<Kept, StoreError> {
    let parsed = |name: &str| get_text(item, name).map_err(StoreError::from);
    let bad = |name: &str| StoreError::from(BadItem::at(name));
    let selector: LetterSelector = serde_json::from_str(parsed("selector")?)
        .map_err(|error| StoreError::Unusable(Box::new(error)))?;
    let projection = parsed("projection")?.to_owned();
    let open = item
        .get("open")
        .and_then(|value| value.as_l().ok())
        .ok_or_else(|| bad("open"))?;
    let open: Vec<OpenRequest> = open
        .iter()
        .map(|one| {
            let one = one.as_m().map_err(|_| BadItem::at("open"))?;
            Ok(OpenRequest {
                generation: GenerationId::new(get_number(one, "generation")?),
                id: get_text(one, "id")?.to_owned(),
            })
        })
        .collect::<Result<_, BadItem>>()?;
    Ok(Kept {
        stored: StoredRun {
            state: RunState {
                owner: owner.clone(),
                projection: projection.clone(),
                status: RunStatus::parse(parsed("status")?).ok_or_else(|| bad("status"))?,
                matched: get_number(item, "matched")?,
                redriven: get_number(item, "redriven")?,
                discarded: get_number(item, "discarded")?,
                failed: get_number(item, "failed")?,
                open: u64::try_from(open.len()).unwrap_or(u64::MAX),
            },
            run: LetterRun {
                projection,
                selector,
                action: Action::parse(parsed("action")?).ok_or_else(|| bad("action"))?,
                on_failure: OnFailure::parse(parsed("on_failure")?)
                    .ok_or_else(|| bad("on_failure"))?,
                max_messages: get_number(item, "max_messages").ok(),
            },
            version: get_number(item, "version")?,
        },
        open,
        place: Place {
            generation: get_number(item, "at_generation")?,
            after: get_text(item, "after_letter").ok().map(str::to_owned),
            taken: get_text(item, "taken").ok().map(str::to_owned),
        },
        revision: get_number(item, "revision")?,
    })
}

fn new_run(owner: &Owner, run: &LetterRun, version: u32, matched: u64) -> Result<Item, StoreError> {
    let selector = serde_json::to_string(&run.selector)
        .map_err(|error| StoreError::Invalid(error.to_string()))?;
    let mut item = keys::letter_run(owner);
    item.extend(
        [
            ("projection", text(&run.projection)),
            ("version", number(version)),
            ("action", text(run.action.as_str())),
            ("selector", text(selector)),
            ("on_failure", text(run.on_failure.as_str())),
            ("status", text(RunStatus::Running.as_str())),
            ("matched", number(matched)),
            ("redriven", number(0)),
            ("discarded", number(0)),
            ("failed", number(0)),
            ("open", AttributeValue::L(Vec::new())),
            ("at_generation", number(0)),
            ("revision", number(0)),
            ("begun_at", text(Timestamp::now().to_string())),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    item.extend(
        run.max_messages
            .map(|max| ("max_messages".to_owned(), number(max))),
    );
    Ok(item)
}

impl DynamoStore {
    async fn kept(&self, owner: &Owner) -> Result<Option<Kept>, StoreError> {
        load(self.client(), &self.control_table(), owner).await
    }

    /// What of a run's requests is still open, and how many letters they may take yet.
    async fn still_open(&self, kept: &Kept) -> Result<(Vec<OpenRequest>, u64), StoreError> {
        let table = Table {
            client: self.client().clone(),
            name: self.control_table(),
        };
        let wanted = kept
            .open
            .iter()
            .map(|one| keys::open_request(one.generation, &one.id))
            .collect();
        let items = table.load(wanted).await.map_err(store_failure)?;
        let mut reserved: u64 = 0;
        let mut ids = Vec::new();
        for item in &items {
            reserved += get_number::<u64>(item, "max_letters").unwrap_or(0);
            ids.push(get_text(item, keys::SK)?);
        }
        let open = kept
            .open
            .iter()
            .filter(|one| ids.contains(&one.id.as_str()));
        Ok((open.cloned().collect(), reserved))
    }

    /// One push; none when another process changed the run meanwhile.
    async fn push(&self, mut kept: Kept) -> Result<Option<RunState>, StoreError> {
        let (open, reserved) = self.still_open(&kept).await?;
        let mut status = RunStatus::Running;
        let mut taken: Vec<Taken> = Vec::new();
        match kept.stored.next(open.len(), reserved) {
            Next::Wait => {}
            Next::End(end) => status = end,
            Next::Begin { streams, letters } => {
                let at_end;
                (taken, at_end) = self.take_streams(&mut kept, streams, letters).await?;
                if at_end && taken.is_empty() && open.is_empty() {
                    status = RunStatus::Done;
                }
            }
        }
        self.save(kept, open, taken, status).await
    }

    /// The next streams of a push and what each may take; whether there are no more after them.
    async fn take_streams(
        &self,
        kept: &mut Kept,
        streams: usize,
        letters: Option<u64>,
    ) -> Result<(Vec<Taken>, bool), StoreError> {
        let mut taken: Vec<Taken> = Vec::new();
        let mut left = letters;
        let mut at_end = false;
        let mut pages_left = MAX_PAGES_PER_PUSH;
        while taken.len() < streams && left != Some(0) && !at_end && pages_left > 0 {
            // One by one where letters are counted: what is left decides whether there is another.
            let step = left.map_or(streams - taken.len(), |_| 1);
            let found;
            (found, at_end) = self
                .next_streams(
                    &kept.stored.run,
                    kept.stored.version,
                    &mut kept.place,
                    step,
                    &mut pages_left,
                )
                .await?;
            for subject in found {
                let letters = match left {
                    None => None,
                    Some(most) => Some(self.count_taken(&kept.stored.run, &subject, most).await?),
                };
                left = left.map(|left| left - letters.unwrap_or(0));
                taken.push(Taken { subject, letters });
            }
        }
        Ok((taken, at_end))
    }

    /// Makes the requests of a push, and keeps with them where the run is.
    async fn save(
        &self,
        mut kept: Kept,
        mut open: Vec<OpenRequest>,
        taken: Vec<Taken>,
        status: RunStatus,
    ) -> Result<Option<RunState>, StoreError> {
        let built = |error| StoreError::Unusable(Box::new(error) as _);
        let mut actions = Vec::with_capacity(taken.len() + 1);
        for one in taken {
            let id = EntityId::generate().to_string();
            let item = self.new_request(&kept.stored, &one, &id);
            open.push(OpenRequest {
                generation: one.subject.generation,
                id,
            });
            let put = Put::builder()
                .table_name(self.control_table())
                .set_item(Some(item))
                .build()
                .map_err(built)?;
            actions.push(TransactWriteItem::builder().put(put).build());
        }
        let listed = open.iter().map(|one| {
            AttributeValue::M(Item::from([
                ("generation".to_owned(), number(one.generation.get())),
                ("id".to_owned(), text(&one.id)),
            ]))
        });
        let optional = |value: &Option<String>| {
            value
                .as_ref()
                .map_or(AttributeValue::Null(true), |value| text(value.as_str()))
        };
        let update = Update::builder()
            .table_name(self.control_table())
            .set_key(Some(keys::letter_run(&kept.stored.state.owner)))
            .update_expression(
                "SET #o = :open, at_generation = :generation, after_letter = :after, \
                 taken = :taken, #t = :status, revision = :next",
            )
            .condition_expression("revision = :seen AND #t = :running")
            .expression_attribute_names("#o", "open")
            .expression_attribute_names("#t", "status")
            .expression_attribute_values(":open", AttributeValue::L(listed.collect()))
            .expression_attribute_values(":generation", number(kept.place.generation))
            .expression_attribute_values(":after", optional(&kept.place.after))
            .expression_attribute_values(":taken", optional(&kept.place.taken))
            .expression_attribute_values(":status", text(status.as_str()))
            .expression_attribute_values(":running", text(RunStatus::Running.as_str()))
            .expression_attribute_values(":seen", number(kept.revision))
            .expression_attribute_values(":next", number(kept.revision + 1))
            .build()
            .map_err(built)?;
        actions.push(TransactWriteItem::builder().update(update).build());
        match transact(self.client(), actions)
            .await
            .map_err(store_failure)?
        {
            Transacted::Cancelled(_) => Ok(None),
            Transacted::Done => {
                kept.stored.state.status = status;
                kept.stored.state.open = u64::try_from(open.len()).unwrap_or(u64::MAX);
                Ok(Some(kept.stored.state))
            }
        }
    }

    fn new_request(&self, stored: &StoredRun, taken: &Taken, id: &str) -> Item {
        let subject = &taken.subject;
        let mut item = self.open_request(subject, stored.run.action, id);
        item.insert("run".to_owned(), text(stored.state.owner.as_str()));
        item.extend(
            taken
                .letters
                .map(|letters| ("max_letters".to_owned(), number(letters))),
        );
        item
    }
}

#[async_trait]
impl LetterRuns for DynamoStore {
    async fn count_run(&self, run: &LetterRun, version: u32) -> Result<u64, StoreError> {
        self.count_matched(run, version).await
    }

    async fn begin_run(
        &self,
        owner: &Owner,
        run: &LetterRun,
        version: u32,
    ) -> Result<RunState, StoreError> {
        for _ in 0..MAX_ATTEMPTS {
            if let Some(kept) = self.kept(owner).await? {
                kept.stored.require_same(run)?;
                return Ok(kept.stored.state);
            }
            let matched = self.count_run(run, version).await?;
            let put = self
                .client()
                .put_item()
                .table_name(self.control_table())
                .set_item(Some(new_run(owner, run, version, matched)?))
                .condition_expression("attribute_not_exists(pk)")
                .send()
                .await;
            match put {
                Ok(_) => {}
                // Another process was first.
                Err(SdkError::ServiceError(refused))
                    if refused.err().is_conditional_check_failed_exception() => {}
                Err(error) => return Err(store_error(error)),
            }
        }
        Err(unavailable(format!("run {owner} is begun and forgotten")))
    }

    async fn find_run(&self, owner: &Owner) -> Result<Option<RunState>, StoreError> {
        let Some(kept) = self.kept(owner).await? else {
            return Ok(None);
        };
        let mut state = kept.stored.state.clone();
        if state.status == RunStatus::Running {
            let (open, _) = self.still_open(&kept).await?;
            state.open = u64::try_from(open.len()).unwrap_or(u64::MAX);
        }
        Ok(Some(state))
    }

    async fn advance_run(&self, owner: &Owner) -> Result<Option<RunState>, StoreError> {
        for attempt in 0..MAX_ATTEMPTS {
            let Some(kept) = self.kept(owner).await? else {
                return Ok(None);
            };
            if kept.stored.state.status != RunStatus::Running {
                return Ok(Some(kept.stored.state));
            }
            if let Some(state) = self.push(kept).await? {
                return Ok(Some(state));
            }
            pause(attempt).await;
        }
        Err(unavailable(format!("run {owner} is pushed by others")))
    }

    async fn cancel_run(&self, owner: &Owner) -> Result<Option<RunState>, StoreError> {
        for attempt in 0..MAX_ATTEMPTS {
            let Some(kept) = self.kept(owner).await? else {
                return Ok(None);
            };
            let open = kept.open.clone();
            let mut state = kept.stored.state.clone();
            if state.status == RunStatus::Running {
                match self
                    .save(kept, Vec::new(), Vec::new(), RunStatus::Cancelled)
                    .await?
                {
                    Some(cancelled) => state = cancelled,
                    None => {
                        pause(attempt).await;
                        continue;
                    }
                }
            }
            // Every step of a request requires that its run goes on, so it may go at any moment.
            for one in open {
                self.client()
                    .delete_item()
                    .table_name(self.control_table())
                    .set_key(Some(keys::open_request(one.generation, &one.id)))
                    .send()
                    .await
                    .map_err(store_error)?;
            }
            // What was counted while it was being cancelled is in it.
            return Ok(self
                .kept(owner)
                .await?
                .map(|kept| kept.stored.state)
                .or(Some(state)));
        }
        Err(unavailable(format!("run {owner} is pushed by others")))
    }

    async fn forget_run(&self, owner: &Owner) -> Result<(), StoreError> {
        self.client()
            .delete_item()
            .table_name(self.control_table())
            .set_key(Some(keys::letter_run(owner)))
            .send()
            .await
            .map_err(store_error)?;
        Ok(())
    }
}
