use std::collections::HashSet;

use millrace_es::{RecordedEvent, StreamId};
use millrace_kernel::Timestamp;

use super::{
    actions::Counted,
    apply::{DynamoGeneration, conflicts},
    control::query,
    items::{Table, Transacted, check_reason, transact},
    keys, runs,
    values::{DynamoFailure, get_lane, get_number, get_position, get_text, get_time},
    view::ItemWrite,
};
use crate::{
    batch::{Batch, Parked, describe},
    error::StoreError,
    generation::{Checkpoint, GenerationId, Lane},
    letter_runs::{RunPart, RunStatus},
    letters::{Action, DeadLetter, LetterStatus, Reason, RequestId},
    owner::Owner,
    store::{Request, Settled},
    stores::{BadItem, Item},
};

/// Letters that one step of a redrive takes; the request stays open while there are more.
const MAX_REDRIVE_LETTERS: usize = 500;

/// Requests that an owner takes up at a time.
const MAX_REQUESTS: usize = 50;

/// Letters that one transaction of a discard ends; a few more actions go with them.
const MAX_ENDED_PER_TRANSACTION: usize = 90;

pub(super) async fn parked(
    generation: &DynamoGeneration,
    lane: &Lane,
) -> Result<HashSet<StreamId>, StoreError> {
    let items = query(
        &generation.client,
        &generation.control.table,
        &keys::parked_keys(generation.id),
        Some(&keys::parked_prefix(lane)),
    )
    .await?;
    items.iter().map(|item| Ok(get_stream(item)?)).collect()
}

fn get_stream(item: &Item) -> Result<StreamId, BadItem> {
    StreamId::new(get_text(item, "stream")?).map_err(|_| BadItem::at("stream"))
}

pub(super) async fn requests(
    generation: &DynamoGeneration,
    lanes: &[Lane],
) -> Result<Vec<Request>, StoreError> {
    let items = query(
        &generation.client,
        &generation.control.table,
        &keys::open_requests(generation.id),
        None,
    )
    .await?;
    // Their ids rise with time, so these are oldest first.
    let mut found = Vec::new();
    for item in items
        .iter()
        .filter(|item| !item.contains_key("finished_at"))
    {
        let request = read_request(item)?;
        if lanes.contains(&request.lane) {
            found.push(request);
        }
        if found.len() == MAX_REQUESTS {
            break;
        }
    }
    Ok(found)
}

fn read_request(item: &Item) -> Result<Request, StoreError> {
    let action = get_text(item, "action")?;
    Ok(Request {
        id: RequestId(get_text(item, keys::SK)?.to_owned()),
        lane: get_lane(item)?,
        stream: get_stream(item)?,
        action: Action::parse(action)
            .ok_or_else(|| StoreError::Invalid(format!("unknown action {action:?}")))?,
        position: get_position(item, "position").ok(),
        part: match get_text(item, "run") {
            Err(_) => None,
            Ok(owner) => Some(RunPart {
                owner: Owner::new(owner)?,
                max_letters: get_number(item, "max_letters").ok(),
            }),
        },
    })
}

/// How many letters of a generation wait. Without a parked stream there is none, and nothing else
/// is read.
pub(super) async fn count_pending(generation: &DynamoGeneration) -> Result<u64, StoreError> {
    let (client, table) = (&generation.client, &generation.control.table);
    let parked = query(client, table, &keys::parked_keys(generation.id), None).await?;
    if parked.is_empty() {
        return Ok(0);
    }
    let items = query(
        &generation.client,
        &generation.control.table,
        &keys::letters(generation.id),
        None,
    )
    .await?;
    let waiting = items.iter().filter(|item| is_pending(item)).count();
    Ok(u64::try_from(waiting).unwrap_or(u64::MAX))
}

fn is_pending(item: &Item) -> bool {
    get_text(item, "status").is_ok_and(|status| status == LetterStatus::Pending.as_str())
}

/// A letter as the control table has it.
pub(super) fn read_letter(
    projection: &str,
    generation: GenerationId,
    item: &Item,
) -> Result<DeadLetter, StoreError> {
    let event: RecordedEvent = serde_json::from_str(get_text(item, "event")?)
        .map_err(|error| StoreError::Unusable(Box::new(error)))?;
    Ok(DeadLetter {
        projection: projection.to_owned(),
        generation,
        lane: get_lane(item)?,
        position: get_position(item, "position")?,
        stream: get_stream(item)?,
        event,
        reason: Reason::parse(get_text(item, "reason")?).ok_or_else(|| BadItem::at("reason"))?,
        error: get_text(item, "error")?.to_owned(),
        attempts: get_number(item, "attempts")?,
        first_failure: get_time(item, "first_failure")?,
        last_failure: get_time(item, "last_failure")?,
        status: LetterStatus::parse(get_text(item, "status")?)
            .ok_or_else(|| BadItem::at("status"))?,
    })
}

/// The waiting letters of a stream, oldest first.
async fn pending(
    generation: &DynamoGeneration,
    request: &Request,
) -> Result<Vec<DeadLetter>, StoreError> {
    let items = query(
        &generation.client,
        &generation.control.table,
        &keys::letters(generation.id),
        Some(&keys::letter_prefix(&request.lane, &request.stream)),
    )
    .await?;
    let mut letters = items
        .iter()
        .filter(|item| is_pending(item))
        .map(|item| read_letter("", generation.id, item))
        .collect::<Result<Vec<_>, _>>()?;
    letters.retain(|letter| letter.stream == request.stream);
    letters.sort_by_key(|letter| letter.position);
    Ok(letters)
}

/// Does a request step by step, every step under the fence of the lane.
pub(super) async fn settle(
    generation: &DynamoGeneration,
    request: &Request,
    checkpoint: &Checkpoint,
) -> Result<Settled, DynamoFailure> {
    let mut settled = Settled::default();
    let mut selector = request.selector();
    if let Some(part) = &request.part {
        let run = runs::load(&generation.client, &generation.control.table, &part.owner).await?;
        match run.filter(|run| run.stored.state.status == RunStatus::Running) {
            Some(run) => selector = run.stored.run.selector,
            None => {
                settled.withdrawn = true;
                finish(generation, request, checkpoint, &settled).await?;
                return Ok(settled);
            }
        }
    }
    let most = request
        .max_letters()
        .map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
    let letters = pending(generation, request).await?;
    let mut left = letters.len();
    match request.action {
        Action::Discard => {
            let chosen: Vec<_> = letters
                .iter()
                .filter(|letter| selector.matches(letter))
                .take(most)
                .collect();
            for page in chosen.chunks(MAX_ENDED_PER_TRANSACTION) {
                let mut actions = vec![generation.control.require_checkpoint(checkpoint)?];
                let counted = Counted::Discarded;
                actions.extend(
                    generation
                        .control
                        .count_letters(request, counted, page.len())?,
                );
                for letter in page {
                    actions.push(generation.control.end_letter(
                        &request.lane,
                        &request.stream,
                        letter.position,
                        LetterStatus::Discarded,
                    )?);
                }
                generation.transact_fenced(actions, &request.lane).await?;
            }
            settled.discarded = u64::try_from(chosen.len()).unwrap_or(u64::MAX);
            left -= chosen.len();
        }
        Action::Redrive => {
            settled.unfinished = letters.len().min(most) > MAX_REDRIVE_LETTERS;
            for letter in letters.into_iter().take(most.min(MAX_REDRIVE_LETTERS)) {
                if let Some(error) = redrive_one(generation, request, checkpoint, letter).await? {
                    settled.failed_again = Some(error);
                    settled.unfinished = false;
                    break;
                }
                settled.redriven += 1;
                left -= 1;
            }
        }
    }
    settled.released = left == 0;
    if !settled.unfinished {
        finish(generation, request, checkpoint, &settled).await?;
    }
    Ok(settled)
}

/// Closes a request, and releases its stream if no letter of it is left.
async fn finish(
    generation: &DynamoGeneration,
    request: &Request,
    checkpoint: &Checkpoint,
    settled: &Settled,
) -> Result<(), DynamoFailure> {
    let mut actions = vec![generation.control.require_checkpoint(checkpoint)?];
    if settled.released {
        actions.push(generation.control.release(&request.lane, &request.stream)?);
    }
    let now = Timestamp::now();
    actions.extend(generation.control.finish(&request.id, settled, now)?);
    generation.transact_fenced(actions, &request.lane).await
}

/// Folds one letter; why it failed again, if it did.
async fn redrive_one(
    generation: &DynamoGeneration,
    request: &Request,
    checkpoint: &Checkpoint,
    letter: DeadLetter,
) -> Result<Option<String>, DynamoFailure> {
    let position = letter.position;
    let (reason, error) = match fold_one(generation, checkpoint, letter.event).await? {
        Ok(writes) => match write_one(generation, request, checkpoint, position, &writes).await {
            Ok(()) => return Ok(None),
            Err(DynamoFailure::Data(error)) => (Reason::Store, describe(&*error)),
            Err(other) => return Err(other),
        },
        Err(refused) => refused,
    };
    let counted = Counted::Failed;
    let mut actions = generation.control.count_letters(request, counted, 1)?;
    actions.extend([
        generation.control.require_checkpoint(checkpoint)?,
        generation.control.fail_letter(
            &request.lane,
            &request.stream,
            position,
            (reason.as_str(), &error),
            Timestamp::now(),
        )?,
    ]);
    generation.transact_fenced(actions, &request.lane).await?;
    Ok(Some(error))
}

type Refused = (Reason, String);

async fn fold_one(
    generation: &DynamoGeneration,
    checkpoint: &Checkpoint,
    event: RecordedEvent,
) -> Result<Result<Vec<ItemWrite>, Refused>, DynamoFailure> {
    let previous = event.previous;
    let (chunk, too_new) = generation.view.decode(
        checkpoint.lane.clone(),
        checkpoint.epoch,
        previous,
        vec![event],
    );
    let Some(chunk) = chunk else {
        let error = too_new.map_or_else(String::new, |error| describe(&error));
        return Ok(Err((Reason::Malformed, error)));
    };
    let mut batch = Batch::default();
    batch.push(chunk);
    let folded = generation
        .view
        .fold(&generation.table, &batch, 0..1, &Parked::default())
        .await;
    match folded {
        Ok((writes, letters)) => Ok(letters
            .into_iter()
            .next()
            .map_or(Ok(writes), |letter| Err((letter.reason, letter.error)))),
        Err(DynamoFailure::Data(error)) => Ok(Err((Reason::Store, describe(&*error)))),
        Err(other) => Err(other),
    }
}

/// Writes the row that a letter made and ends the letter, in one transaction under the fence.
async fn write_one(
    generation: &DynamoGeneration,
    request: &Request,
    checkpoint: &Checkpoint,
    position: millrace_es::Position,
    writes: &[ItemWrite],
) -> Result<(), DynamoFailure> {
    let table: &Table = &generation.table;
    let control = &generation.control;
    let mut fences = vec![
        control.require_checkpoint(checkpoint)?,
        control.end_letter(
            &request.lane,
            &request.stream,
            position,
            LetterStatus::Redriven,
        )?,
    ];
    fences.extend(control.count_letters(request, Counted::Redriven, 1)?);
    let mut actions = fences.clone();
    for write in writes {
        actions.push(table.guarded_put(write)?);
    }
    let reasons = match transact(&generation.client, actions).await? {
        Transacted::Done => return Ok(()),
        Transacted::Cancelled(reasons) => reasons,
    };
    let mut seen = false;
    for (index, reason) in reasons.iter().enumerate() {
        match reason.code() {
            // Also where another process has ended the letter, or the run is over: the next look
            // says what there is to do.
            Some("ConditionalCheckFailed") if index < fences.len() => {
                return Err(generation.fenced(&request.lane));
            }
            // The row has seen the event: an earlier attempt wrote it and its answer was lost.
            Some("ConditionalCheckFailed") => seen = true,
            code => check_reason(code, reason)?,
        }
    }
    if !seen {
        return Err(conflicts());
    }
    generation.transact_fenced(fences, &request.lane).await
}
