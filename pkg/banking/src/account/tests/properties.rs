//! What holds for every script of commands.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

/// How many accounts a script has.
const ACCOUNTS: usize = 3;

/// A step of a script.
#[derive(Debug, Clone)]
enum Step {
    /// A command to one account.
    One(usize, AccountCommand),
    /// A transfer from one account to another, by how far that is.
    Transfer(usize, usize, Amount),
}

fn cents() -> impl Strategy<Value = Amount> {
    let small = 1_i64..1_000;
    let large = Just(99_999_999_999_999_i64);
    prop_oneof![9 => small, 1 => large]
        .prop_map(|cents| Amount::new(Money::from_cents(cents)).unwrap())
}

fn movement() -> impl Strategy<Value = MoveMoney> {
    cents().prop_map(|amount| MoveMoney {
        amount,
        ..account::movement("1")
    })
}

fn script() -> impl Strategy<Value = Vec<Step>> {
    let command = prop_oneof![
        1 => Just(account::close()),
        4 => movement().prop_map(AccountCommand::Deposit),
        4 => movement().prop_map(AccountCommand::Withdraw),
    ];
    let one = (0..ACCOUNTS, command).prop_map(|(place, command)| Step::One(place, command));
    let transfer = (0..ACCOUNTS, 1..ACCOUNTS, cents())
        .prop_map(|(from, step, amount)| Step::Transfer(from, (from + step) % ACCOUNTS, amount));
    vec(prop_oneof![2 => one, 1 => transfer], 0..60)
}

/// The accounts of a script, and what happened to each.
struct Bank {
    accounts: Vec<Account>,
    events: Vec<Vec<AccountEvent>>,
}

impl Bank {
    fn new() -> Self {
        let events: Vec<Vec<AccountEvent>> = (0..ACCOUNTS)
            .map(|place| {
                let wanted = account::request(&format!("a-{place}"), Currency::USD);
                account::events(&[AccountCommand::Open(Box::new(wanted))])
            })
            .collect();
        let fold =
            |events: &Vec<AccountEvent>| events.iter().fold(Account::default(), Account::evolve);
        let accounts = events.iter().map(fold).collect();
        Self { accounts, events }
    }

    /// Lets a step happen, or not, and gives what came in from outside by it.
    fn step(&mut self, step: &Step) -> i128 {
        match step {
            Step::One(place, command) => {
                let events = self.accounts[*place].decide(command).unwrap_or_default();
                self.happen(*place, events)
            }
            Step::Transfer(from, to, amount) => {
                let (a, b) = (format!("a-{from}"), format!("a-{to}"));
                let transfer = account::transfer(&a, &b, &amount.get().to_string()).unwrap();
                let accounts = [&self.accounts[*from], &self.accounts[*to]];
                match transfer.decide(accounts) {
                    Ok([sent, received]) => self.happen(*from, sent) + self.happen(*to, received),
                    Err(_) => 0,
                }
            }
        }
    }

    fn happen(&mut self, place: usize, events: Vec<AccountEvent>) -> i128 {
        let before = self.balance(place);
        self.accounts[place] = events
            .iter()
            .fold(self.accounts[place].clone(), Account::evolve);
        let moved = events.iter().map(signed).sum();
        assert_eq!(
            before + moved,
            self.balance(place),
            "a balance is its movements"
        );
        self.events[place].extend(events);
        moved
    }

    fn balance(&self, place: usize) -> i128 {
        cents_of(self.accounts[place].details().unwrap().balance)
    }

    fn total(&self) -> i128 {
        (0..ACCOUNTS).map(|place| self.balance(place)).sum()
    }
}

fn cents_of(money: Money) -> i128 {
    let mut amount = money.get();
    amount.rescale(2);
    amount.mantissa()
}

fn signed(event: &AccountEvent) -> i128 {
    event.movement().map_or(0, |movement| {
        let sign = if movement.kind.is_credit() { 1 } else { -1 };
        sign * cents_of(movement.amount)
    })
}

proptest! {
    /// Transfers bring nothing in and take nothing out, a total is what came in, no balance is
    /// ever below nothing, and nothing moves on a closed account.
    #[test]
    fn money_is_conserved(script in script()) {
        let mut bank = Bank::new();
        let mut came_in = 0;
        for step in &script {
            let closed: Vec<bool> = bank
                .accounts
                .iter()
                .map(|account| account.status() == Some(AccountStatus::Closed))
                .collect();
            let counts: Vec<usize> = bank.events.iter().map(Vec::len).collect();
            let moved = bank.step(step);
            if matches!(step, Step::Transfer(..)) {
                prop_assert_eq!(moved, 0);
            }
            came_in += moved;
            prop_assert_eq!(bank.total(), came_in);
            for place in 0..ACCOUNTS {
                prop_assert!(bank.balance(place) >= 0);
                prop_assert!(!closed[place] || bank.events[place].len() == counts[place]);
            }
        }
    }

    /// A state that went through its snapshot at any place decides and becomes the same.
    #[test]
    fn a_snapshot_anywhere_changes_nothing(script in script(), at in any::<Index>()) {
        let mut bank = Bank::new();
        for step in &script {
            bank.step(step);
        }
        for (events, state) in bank.events.iter().zip(&bank.accounts) {
            let (before, after) = events.split_at(at.index(events.len() + 1));
            let fold = |state: Account, events: &[AccountEvent]| {
                events.iter().fold(state, Account::evolve)
            };
            let kept = serde_json::to_string(&fold(Account::default(), before)).unwrap();
            let resumed: Account = serde_json::from_str(&kept).unwrap();
            let resumed = fold(resumed, after);
            prop_assert_eq!(&resumed, state);
            for command in [
                account::open(), account::deposit("1"), account::withdraw("1"), account::close(),
            ] {
                prop_assert_eq!(resumed.decide(&command), state.decide(&command));
            }
        }
    }
}
