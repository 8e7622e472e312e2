//! What only other contexts ask for, on the internal endpoint: movements under ids that they choose,
//! as `millrace_contracts::banking` says.
//!
//! A movement is decided by its account and appended to the account's stream, and in the same append
//! what became of the id to the id's own ([`crate::instruction`]). Whoever comes second with an id
//! finds that stream taken, reads it, and is told what became of it.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::post,
};
use http::StatusCode;
use millrace_contracts::banking::{self, TransactionAnswer};
use millrace_es::{Aggregate, Metadata, StreamId};
use millrace_eventlog::{
    Answer, AppendError, EventLog, Execute, ExecuteError, ExpectedVersion, Outcome, Repository,
    RepositoryOptions, StreamAppend, encode_events,
};
use millrace_http::{AnswerBuilder, FieldErrors, PathId, Problem, Write, Written};
use millrace_kernel::EntityId;
use tokio::sync::Mutex;

use crate::{
    account::{
        Account, AccountCommand, AccountId, Amount, Currency, MAX_DESCRIPTION_CHARS, MoveMoney,
        TransactionId,
    },
    instruction::{Direction, Instructed, Instruction, InstructionEvent, Mismatch, Void},
    problems::TRANSACTION_MISMATCH,
};

/// How often what became of an id is looked for when others were faster: the next look finds it.
const MAX_LOOKS: u32 = 8;

/// How many ids are worked on at once in this process, at most; ids that share a gate wait for each
/// other.
const GATES: usize = 256;

/// What the internal routes work with.
#[derive(Debug, Clone)]
pub struct InternalState {
    accounts: Arc<Repository<Account>>,
    instructions: Arc<Repository<Instruction>>,
    /// One request of an id at a time. The log alone makes sure that an id moves money once; but
    /// every decision that it refuses takes back what others decided on the same account since.
    gates: Arc<[Mutex<()>]>,
}

impl InternalState {
    /// On the log of banking.
    #[must_use]
    pub fn new(log: &Arc<dyn EventLog>, options: RepositoryOptions) -> Self {
        Self {
            accounts: Arc::new(Repository::new(Arc::clone(log), options)),
            instructions: Arc::new(Repository::new(Arc::clone(log), options)),
            gates: (0..GATES).map(|_| Mutex::new(())).collect(),
        }
    }

    fn gate(&self, id: &EntityId) -> &Mutex<()> {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let gates = self.gates.len() as u64;
        &self.gates[usize::try_from(hasher.finish() % gates).unwrap_or_default()]
    }
}

/// The internal routes, to stand below `/internal/v1/banking`.
pub fn internal_routes() -> Router<InternalState> {
    Router::new()
        .route("/transactions/{transaction_id}/withdrawal", post(withdraw))
        .route("/transactions/{transaction_id}/deposit", post(deposit))
        .route("/transactions/{transaction_id}/void", post(void))
}

async fn withdraw(
    State(state): State<InternalState>,
    PathId(id): PathId,
    write: Write<banking::MoveMoney>,
) -> Result<Response, Problem> {
    instruct(&state, id, Direction::Withdrawal, write).await
}

async fn deposit(
    State(state): State<InternalState>,
    PathId(id): PathId,
    write: Write<banking::MoveMoney>,
) -> Result<Response, Problem> {
    instruct(&state, id, Direction::Deposit, write).await
}

async fn void(
    State(state): State<InternalState>,
    PathId(id): PathId,
    write: Write<banking::VoidTransaction>,
) -> Result<Response, Problem> {
    let (body, request) = write.split();
    let command = Void {
        transaction_id: TransactionId::new(id.clone()),
        account_id: AccountId::new(body.account_id),
    };
    let execute = Execute {
        id: &id,
        command,
        if_match: None,
        metadata: request.metadata,
        key: None,
        new: false,
    };
    let _alone = state.gate(&id).lock().await;
    let executed = state.instructions.execute(execute, voided).await?;
    Ok(Written(executed).into_response())
}

fn voided(outcome: Outcome<'_, Instruction>) -> Answer {
    match outcome {
        Outcome::Refused { refusal, .. } => mismatch(*refusal).into_answer(),
        Outcome::Done { state, .. } => match state.answer() {
            Some(answer) => AnswerBuilder::json(StatusCode::OK, &answer).build(),
            // A void leaves no instruction unknown.
            None => Problem::internal("an instruction is unknown after its void").into_answer(),
        },
    }
}

/// What is asked of an account, and under which id.
struct Asked {
    wanted: Instructed,
    command: AccountCommand,
}

async fn instruct(
    state: &InternalState,
    id: EntityId,
    direction: Direction,
    write: Write<banking::MoveMoney>,
) -> Result<Response, Problem> {
    let (body, request) = write.split();
    let asked = asked(id, direction, body)?;
    let answer = state.instruct(&asked, &request.metadata).await?;
    Ok(Json(answer).into_response())
}

impl InternalState {
    /// Finds what became of an id, or decides it.
    async fn instruct(
        &self,
        asked: &Asked,
        metadata: &Metadata,
    ) -> Result<TransactionAnswer, Problem> {
        let id = asked.wanted.transaction_id.get();
        let _alone = self.gate(id).lock().await;
        for _ in 0..MAX_LOOKS {
            let (known, _) = self.instructions.load(id).await?;
            if let Some(answer) = known.answer_to(&asked.wanted).map_err(mismatch)? {
                return Ok(answer);
            }
            match self.decide(asked, metadata).await {
                // Whoever was faster, or this very request when the answer to its append was lost.
                Ok(()) | Err(ExecuteError::Append(AppendError::Conflict { .. })) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Problem::contended(MAX_LOOKS))
    }

    /// Has the account decide, and appends to its stream and to the id's what came of it.
    async fn decide(&self, asked: &Asked, metadata: &Metadata) -> Result<(), ExecuteError> {
        let Asked { wanted, command } = asked;
        let stream = StreamId::of(Instruction::CATEGORY, wanted.transaction_id.get());
        let shared = Arc::new(metadata.clone());
        let beside = |outcome: Outcome<'_, Account>| {
            let events = encode_events(&became(wanted, outcome), &shared)?;
            Ok(vec![StreamAppend {
                stream: stream.clone(),
                expected: ExpectedVersion::NoStream,
                events,
            }])
        };
        let execute = Execute {
            id: wanted.account_id.get(),
            command: command.clone(),
            if_match: None,
            metadata: metadata.clone(),
            key: None,
            new: false,
        };
        // The answer is made of what the id's stream holds, and of nothing else.
        let nothing = |_: Outcome<'_, Account>| AnswerBuilder::no_content().build();
        self.accounts
            .execute_beside(execute, beside, nothing)
            .await
            .map(drop)
    }
}

/// What is kept of an instruction on which its account decided.
fn became(wanted: &Instructed, outcome: Outcome<'_, Account>) -> Vec<InstructionEvent> {
    match outcome {
        Outcome::Refused { refusal, .. } => wanted.refused(*refusal).into_iter().collect(),
        Outcome::Done { state, .. } => state
            .details()
            .map(|account| wanted.settled(account.balance))
            .into_iter()
            .collect(),
    }
}

/// # Errors
/// 422 with every field that is wrong.
fn asked(id: EntityId, direction: Direction, body: banking::MoveMoney) -> Result<Asked, Problem> {
    let mut errors = FieldErrors::new();
    let amount = Amount::new(body.amount).map_err(|e| errors.add("/amount", e.to_string()));
    let currency = Currency::stored(&body.currency);
    let currency = currency.map_err(|e| errors.add("/currency", e.to_string()));
    if let Some(text) = &body.description {
        errors.at_most_chars("/description", text, MAX_DESCRIPTION_CHARS);
    }
    errors.finish()?;
    let (Ok(amount), Ok(currency)) = (amount, currency) else {
        return Err(Problem::internal(
            "a body passed its checks without a value",
        ));
    };
    let transaction_id = TransactionId::new(id);
    let movement = MoveMoney {
        transaction_id: transaction_id.clone(),
        amount,
        currency: Some(currency),
        description: body.description,
    };
    Ok(Asked {
        wanted: Instructed {
            transaction_id,
            account_id: AccountId::new(body.account_id),
            direction,
            amount: amount.get(),
            currency,
        },
        command: match direction {
            Direction::Withdrawal => AccountCommand::Withdraw(movement),
            Direction::Deposit => AccountCommand::Deposit(movement),
        },
    })
}

fn mismatch(mismatch: Mismatch) -> Problem {
    Problem::new(&TRANSACTION_MISMATCH, mismatch.to_string())
}
