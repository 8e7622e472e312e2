//! Runs commands on a log: what the command service does, without HTTP.

use std::{collections::BTreeMap, sync::Arc};

use millrace_banking::account::{
    Account, AccountCommand, AccountEvent, AccountId, Amount, Currency, MoveMoney, OpenAccount,
    Side, TransactionId, Transfer, TransferId,
};
use millrace_es::{Aggregate, DomainEvent, EventId, Metadata, NewEvent, StreamId, StreamVersion};
use millrace_eventlog::{
    AppendRequest, Appended, EventLog, ExpectedVersion, PgEventLog, StreamAppend,
};
use millrace_kernel::EntityId;
use rand::{RngExt as _, rngs::StdRng};

/// The accounts of a log that nobody else writes to.
pub struct Teller {
    log: Arc<PgEventLog>,
    accounts: BTreeMap<String, (Account, StreamVersion)>,
    transactions: u64,
}

pub fn id(text: &str) -> EntityId {
    EntityId::new(text).unwrap()
}

fn amount(text: &str) -> Amount {
    Amount::new(text.parse().unwrap()).unwrap()
}

impl Teller {
    pub fn new(log: Arc<PgEventLog>) -> Self {
        Self {
            log,
            accounts: BTreeMap::new(),
            transactions: 0,
        }
    }

    fn transaction(&mut self) -> TransactionId {
        self.transactions += 1;
        TransactionId::new(id(&format!("t-{}", self.transactions)))
    }

    fn movement(&mut self, text: &str) -> MoveMoney {
        MoveMoney {
            transaction_id: self.transaction(),
            amount: amount(text),
            currency: None,
            description: self
                .transactions
                .is_multiple_of(2)
                .then(|| format!("no. {}", self.transactions)),
        }
    }

    pub async fn open(&mut self, account: &str, holder: &str) {
        let command = AccountCommand::Open(Box::new(OpenAccount {
            account_id: AccountId::new(id(account)),
            holder_name: holder.to_owned(),
            user_id: None,
            currency: Currency::USD,
            initial_deposit: None,
        }));
        assert!(self.run(account, command).await);
    }

    pub async fn deposit(&mut self, account: &str, text: &str) -> bool {
        let command = AccountCommand::Deposit(self.movement(text));
        self.run(account, command).await
    }

    pub async fn withdraw(&mut self, account: &str, text: &str) -> bool {
        let command = AccountCommand::Withdraw(self.movement(text));
        self.run(account, command).await
    }

    pub async fn close(&mut self, account: &str) -> bool {
        self.run(account, AccountCommand::Close { reason: None })
            .await
    }

    /// Whether the account took the command.
    async fn run(&mut self, account: &str, command: AccountCommand) -> bool {
        let (state, _) = self.accounts.get(account).cloned().unwrap_or_default();
        let Ok(events) = state.decide(&command) else {
            return false;
        };
        self.append(vec![(account.to_owned(), events)]).await;
        true
    }

    /// Whether both accounts took it.
    pub async fn transfer(&mut self, from: &str, to: &str, text: &str) -> bool {
        let mut side = |account: &str| Side {
            account_id: AccountId::new(id(account)),
            transaction_id: self.transaction(),
        };
        let (sender, receiver) = (side(from), side(to));
        let transfer_id = TransferId::new(id(&format!("x-{}", self.transactions)));
        let wanted = Transfer::new(transfer_id, sender, receiver, amount(text), None).unwrap();
        let state = |account: &str| self.accounts.get(account).cloned().unwrap_or_default().0;
        match wanted.decide([&state(from), &state(to)]) {
            Err(_) => false,
            Ok([sent, received]) => {
                let both = vec![(from.to_owned(), sent), (to.to_owned(), received)];
                self.append(both).await;
                true
            }
        }
    }

    /// Appends decided events of some accounts, all or none.
    async fn append(&mut self, decided: Vec<(String, Vec<AccountEvent>)>) -> Option<Appended> {
        let metadata = Arc::new(Metadata::default());
        let mut streams = Vec::new();
        for (account, events) in &decided {
            let (state, version) = self.accounts.remove(account).unwrap_or_default();
            streams.push(StreamAppend {
                stream: StreamId::of(Account::CATEGORY, &id(account)),
                expected: match version {
                    StreamVersion::ZERO => ExpectedVersion::NoStream,
                    version => ExpectedVersion::Exact(version),
                },
                events: events.iter().map(|e| new_event(e, &metadata)).collect(),
            });
            let state = events.iter().fold(state, Account::evolve);
            let version = version.plus(events.len() as u64);
            self.accounts.insert(account.clone(), (state, version));
        }
        if decided.iter().all(|(_, events)| events.is_empty()) {
            return None;
        }
        let request = AppendRequest {
            streams,
            ..AppendRequest::default()
        };
        Some(self.log.append(request).await.unwrap())
    }

    /// Appends an event that no decision made.
    pub async fn forge(&mut self, account: &str, event: AccountEvent) {
        self.append(vec![(account.to_owned(), vec![event])]).await;
    }

    /// Runs so many random commands, of which some are refused, and gives the accounts' ids.
    pub async fn script(&mut self, random: &mut StdRng, commands: usize) -> Vec<String> {
        let accounts: Vec<String> = (0..6).map(|n| format!("a-{n}")).collect();
        for (n, account) in accounts.iter().enumerate() {
            self.open(account, &format!("Holder no. {n}")).await;
        }
        for _ in 0..commands {
            let from = &accounts[random.random_range(0..accounts.len())];
            let to = &accounts[random.random_range(0..accounts.len())];
            let cents: u32 = random.random_range(1..20_000);
            let text = format!("{}.{:02}", cents / 100, cents % 100);
            match random.random_range(0..20) {
                0..8 => self.deposit(from, &text).await,
                8..14 => self.withdraw(from, &text).await,
                14..19 if from != to => self.transfer(from, to, &text).await,
                _ => self.close(from).await,
            };
        }
        accounts
    }
}

fn new_event(event: &AccountEvent, metadata: &Arc<Metadata>) -> NewEvent {
    NewEvent {
        id: EventId::generate(),
        event_type: event.event_type().into(),
        schema_version: event.schema_version(),
        payload: event.encode().unwrap(),
        metadata: Arc::clone(metadata),
    }
}
