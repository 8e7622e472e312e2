//! Snapshots never change a result: the same script of commands, on a log that keeps a snapshot
//! every few events and is read through it each time, and on one that keeps none.

use std::sync::Arc;

use millrace_banking::account::{
    Account, AccountCommand, AccountId, Amount, Currency, MoveMoney, OpenAccount, Side,
    TransactionId, Transfer, TransferId,
};
use millrace_es::{Metadata, StreamId};
use millrace_eventlog::{
    Answer, EventLog, Execute, ExecuteAcross, Outcome, OutcomeAcross, Repository, RepositoryOptions,
};
use millrace_kernel::{EntityId, Money};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::bank::open_log;

const ACCOUNTS: usize = 2;
/// The scripts that are tried, on one pair of databases.
const SCRIPTS: u32 = 12;
const SNAPSHOT_EVERY: u64 = 3;

#[derive(Debug, Clone)]
enum Step {
    Deposit(usize, i64),
    Withdraw(usize, i64),
    Transfer(usize, i64),
    Close(usize),
}

fn script() -> impl Strategy<Value = Vec<Step>> {
    let place = || 0..ACCOUNTS;
    let cents = || 1_i64..500;
    let step = prop_oneof![
        6 => (place(), cents()).prop_map(|(place, cents)| Step::Deposit(place, cents)),
        4 => (place(), cents()).prop_map(|(place, cents)| Step::Withdraw(place, cents)),
        4 => (place(), cents()).prop_map(|(place, cents)| Step::Transfer(place, cents)),
        1 => place().prop_map(Step::Close),
    ];
    vec(step, 1..24)
}

fn id(text: &str) -> EntityId {
    EntityId::new(text).unwrap()
}

fn movement(cents: i64) -> MoveMoney {
    MoveMoney {
        transaction_id: TransactionId::new(id("t")),
        amount: Amount::new(Money::from_cents(cents)).unwrap(),
        currency: None,
        description: None,
    }
}

/// Who executes the steps, and how its states are kept.
struct Runner {
    log: Arc<dyn EventLog>,
    snapshot_every: u64,
}

impl Runner {
    /// A repository that remembers nothing yet: what it decides on comes out of the log.
    fn fresh(&self) -> Repository<Account> {
        let options = RepositoryOptions {
            snapshot_every: self.snapshot_every,
            ..RepositoryOptions::default()
        };
        Repository::new(Arc::clone(&self.log), options)
    }

    async fn one(&self, account: &EntityId, command: AccountCommand) -> String {
        let request = Execute {
            id: account,
            command,
            if_match: None,
            metadata: Metadata::default(),
            key: None,
            new: false,
        };
        let respond = |outcome: Outcome<'_, Account>| match outcome {
            Outcome::Done { state, version, .. } => answer(format!("{state:?} at {version}")),
            Outcome::Refused { refusal, .. } => answer(refusal.to_string()),
        };
        let done = self.fresh().execute(request, respond).await.unwrap();
        String::from_utf8(done.answer.body.to_vec()).unwrap()
    }

    async fn transfer(&self, from: &EntityId, to: &EntityId, cents: i64) -> String {
        let side = |account: &EntityId| Side {
            account_id: AccountId::new(account.clone()),
            transaction_id: TransactionId::new(id("t")),
        };
        let amount = Amount::new(Money::from_cents(cents)).unwrap();
        let transfer_id = TransferId::new(id("x"));
        let transfer = Transfer::new(transfer_id, side(from), side(to), amount, None).unwrap();
        let request = ExecuteAcross {
            ids: [from, to],
            if_match: [None; 2],
            metadata: Metadata::default(),
            key: None,
            new: [false; 2],
        };
        let respond = |outcome: OutcomeAcross<'_, Account, _, 2>| match outcome {
            OutcomeAcross::Done {
                states, versions, ..
            } => answer(format!("{states:?} at {versions:?}")),
            OutcomeAcross::Refused { refusal, .. } => answer(format!("{refusal:?}")),
        };
        let decide = |accounts: [&Account; 2]| transfer.decide(accounts);
        let done = self.fresh().execute_across(request, decide, respond).await;
        String::from_utf8(done.unwrap().answer.body.to_vec()).unwrap()
    }

    /// Every answer of a script, and the states at its end.
    async fn run(&self, number: usize, script: &[Step]) -> Vec<String> {
        let accounts = [0, 1].map(|place| id(&format!("s{number}.{place}")));
        let mut answers = Vec::new();
        for account in &accounts {
            let open = AccountCommand::Open(Box::new(OpenAccount {
                account_id: AccountId::new(account.clone()),
                holder_name: "Ann".into(),
                user_id: None,
                currency: Currency::USD,
                initial_deposit: None,
            }));
            answers.push(self.one(account, open).await);
        }
        for step in script {
            answers.push(match *step {
                Step::Deposit(place, cents) => {
                    let command = AccountCommand::Deposit(movement(cents));
                    self.one(&accounts[place], command).await
                }
                Step::Withdraw(place, cents) => {
                    let command = AccountCommand::Withdraw(movement(cents));
                    self.one(&accounts[place], command).await
                }
                Step::Transfer(place, cents) => {
                    self.transfer(&accounts[place], &accounts[1 - place], cents)
                        .await
                }
                Step::Close(place) => {
                    let command = AccountCommand::Close { reason: None };
                    self.one(&accounts[place], command).await
                }
            });
        }
        for account in &accounts {
            let (state, version) = self.fresh().load(account).await.unwrap();
            answers.push(format!("{state:?} at {version}"));
        }
        answers
    }
}

fn answer(text: String) -> Answer {
    Answer {
        status: 200,
        headers: Vec::new(),
        body: text.into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_never_change_a_result() {
    let databases = [
        millrace_testkit::postgres().await,
        millrace_testkit::postgres().await,
    ];
    let with = Runner {
        log: open_log(&databases[0]).await,
        snapshot_every: SNAPSHOT_EVERY,
    };
    let without = Runner {
        log: open_log(&databases[1]).await,
        snapshot_every: 0,
    };
    let runtime = tokio::runtime::Handle::current();
    let (mut number, mut kept) = (0, 0);
    let mut runner = TestRunner::new(Config {
        cases: SCRIPTS,
        failure_persistence: None,
        ..Config::default()
    });
    tokio::task::block_in_place(|| {
        let scripts = std::cell::RefCell::new((&mut number, &mut kept));
        runner
            .run(&script(), |script| {
                let (number, kept) = &mut *scripts.borrow_mut();
                **number += 1;
                let (a, b) = runtime.block_on(async {
                    (
                        with.run(**number, &script).await,
                        without.run(**number, &script).await,
                    )
                });
                prop_assert_eq!(a, b);
                let stream = StreamId::of("account", &id(&format!("s{number}.0")));
                let load = |runner: &Runner| runtime.block_on(runner.log.load_snapshot(&stream));
                **kept += usize::from(load(&with).unwrap().is_some());
                prop_assert!(load(&without).unwrap().is_none());
                Ok(())
            })
            .unwrap();
    });
    assert!(kept > 0, "the scripts are long enough for snapshots");
}
