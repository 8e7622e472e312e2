//! Accounts by the state they are in, for tests.

use millrace_kernel::EntityId;

use super::*;

pub fn id(text: &str) -> EntityId {
    EntityId::new(text).unwrap()
}

pub fn money(text: &str) -> Money {
    text.parse().unwrap()
}

pub fn amount(text: &str) -> Amount {
    Amount::new(money(text)).unwrap()
}

pub fn movement(text: &str) -> MoveMoney {
    MoveMoney {
        transaction_id: TransactionId::new(id("t-1")),
        amount: amount(text),
        currency: None,
        description: Some("asked for".into()),
    }
}

/// Asks for an account of this id in this currency.
pub fn request(account: &str, currency: Currency) -> OpenAccount {
    OpenAccount {
        account_id: AccountId::new(id(account)),
        holder_name: "Ann".into(),
        user_id: Some(UserId::new(id("shivam_99"))),
        currency,
        initial_deposit: None,
    }
}

pub fn open() -> AccountCommand {
    AccountCommand::Open(Box::new(request("a-1", Currency::USD)))
}

pub fn deposit(text: &str) -> AccountCommand {
    AccountCommand::Deposit(movement(text))
}

pub fn withdraw(text: &str) -> AccountCommand {
    AccountCommand::Withdraw(movement(text))
}

pub fn close() -> AccountCommand {
    AccountCommand::Close {
        reason: Some("moved away".into()),
    }
}

pub fn transfer(from: &str, to: &str, text: &str) -> Result<Transfer, InvalidTransfer> {
    let side = |account: &str, transaction: &str| Side {
        account_id: AccountId::new(id(account)),
        transaction_id: TransactionId::new(id(transaction)),
    };
    let transfer_id = TransferId::new(id("x-1"));
    let (from, to) = (side(from, "t-1"), side(to, "t-2"));
    Transfer::new(transfer_id, from, to, amount(text), Some("dinner".into()))
}

/// What happens when a new account gets these commands, each of which it takes.
pub fn events(commands: &[AccountCommand]) -> Vec<AccountEvent> {
    let mut account = Account::default();
    let mut events = Vec::new();
    for command in commands {
        let happened = account.decide(command).unwrap();
        account = happened.iter().fold(account, Account::evolve);
        events.extend(happened);
    }
    events
}

/// The account after these commands.
pub fn after(commands: &[AccountCommand]) -> Account {
    events(commands)
        .iter()
        .fold(Account::default(), Account::evolve)
}

/// An open account with this on it.
pub fn with(text: &str) -> Account {
    after(&[open(), deposit(text)])
}

pub fn empty() -> Account {
    after(&[open()])
}

pub fn closed() -> Account {
    after(&[open(), close()])
}

/// An open account of this id in this currency, with this on it; nothing for `0`.
pub fn holding(account: &str, currency: Currency, text: &str) -> Account {
    let mut wanted = request(account, currency);
    wanted.initial_deposit = (money(text) > Money::ZERO).then(|| movement(text));
    after(&[AccountCommand::Open(Box::new(wanted))])
}
