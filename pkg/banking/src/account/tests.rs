use millrace_es::{Aggregate, DomainEvent};

use super::{fixtures as account, fixtures::money, *};

mod formats;
mod properties;

/// Decides, and once more on what became of it.
fn decide_twice(
    account: &Account,
    command: &AccountCommand,
) -> (
    Result<Vec<AccountEvent>, AccountRefusal>,
    Result<Vec<AccountEvent>, AccountRefusal>,
) {
    let first = account.decide(command);
    let happened = first.clone().unwrap_or_default();
    let after = happened.iter().fold(account.clone(), Account::evolve);
    let second = after.decide(command);
    (first, second)
}

fn yen() -> Currency {
    "JPY".parse().unwrap()
}

#[test]
fn an_account_is_opened_once() {
    let (first, second) = decide_twice(&Account::default(), &account::open());
    let Ok([AccountEvent::Opened(event)]) = first.as_deref() else {
        panic!("{first:?}");
    };
    assert_eq!(event.currency, Currency::USD);
    assert_eq!(event.holder_name, "Ann");
    assert_eq!(second, Err(AccountRefusal::AlreadyExists));
    let details = account::empty().details().unwrap().clone();
    assert_eq!(details.balance, Money::ZERO);
}

#[test]
fn what_an_account_is_opened_with_is_a_deposit() {
    let mut wanted = account::request("a-1", Currency::USD);
    wanted.initial_deposit = Some(account::movement("12.50"));
    let events = account::events(&[AccountCommand::Open(Box::new(wanted.clone()))]);
    let [AccountEvent::Opened(_), AccountEvent::Deposited(deposit)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(deposit.account_id, wanted.account_id);
    assert_eq!(
        (deposit.amount, deposit.balance),
        (money("12.50"), money("12.50"))
    );

    wanted.currency = yen();
    let refused = Account::default().decide(&AccountCommand::Open(Box::new(wanted)));
    let currency = yen();
    assert_eq!(refused, Err(AccountRefusal::TooManyDecimals { currency }));
}

#[test]
fn the_id_of_a_closed_account_stays_taken() {
    let refused = account::closed().decide(&account::open());
    assert_eq!(refused, Err(AccountRefusal::AlreadyExists));
}

#[test]
fn deposits_add_up() {
    let (first, second) = decide_twice(&account::empty(), &account::deposit("0.10"));
    for (decided, balance) in [(first, "0.10"), (second, "0.20")] {
        let Ok([AccountEvent::Deposited(event)]) = decided.as_deref() else {
            panic!("{decided:?}");
        };
        assert_eq!(
            (event.amount, event.balance),
            (money("0.10"), money(balance))
        );
        assert_eq!(event.description.as_deref(), Some("asked for"));
    }
}

#[test]
fn a_balance_has_an_upper_bound() {
    let full = Account::Open(AccountDetails {
        balance: MAX_BALANCE.checked_sub(money("1")).unwrap(),
        ..account::empty().details().unwrap().clone()
    });
    let (first, second) = decide_twice(&full, &account::deposit("1"));
    assert!(first.is_ok(), "the bound itself can be reached");
    let refusal = AccountRefusal::BalanceTooLarge {
        balance: MAX_BALANCE,
        requested: money("1"),
    };
    assert_eq!(second, Err(refusal));
}

#[test]
fn what_is_there_can_be_withdrawn_and_no_cent_more() {
    let (first, second) = decide_twice(&account::with("5"), &account::withdraw("5"));
    let Ok([AccountEvent::Withdrawn(event)]) = first.as_deref() else {
        panic!("{first:?}");
    };
    assert_eq!(
        (event.amount, event.balance),
        (money("5"), money("0")),
        "an account can be emptied"
    );
    let refusal = AccountRefusal::InsufficientFunds {
        balance: money("0"),
        requested: money("5"),
    };
    assert_eq!(second, Err(refusal));
    let refused = account::with("5").decide(&account::withdraw("5.01"));
    let refusal = AccountRefusal::InsufficientFunds {
        balance: money("5"),
        requested: money("5.01"),
    };
    assert_eq!(refused, Err(refusal));
}

#[test]
fn an_empty_account_is_closed_and_closed_again_without_an_event() {
    let (first, second) = decide_twice(&account::empty(), &account::close());
    let Ok([AccountEvent::Closed(event)]) = first.as_deref() else {
        panic!("{first:?}");
    };
    assert_eq!(event.reason.as_deref(), Some("moved away"));
    assert_eq!(second, Ok(vec![]), "the second time it is already so");
    let balance = money("0.01");
    let refused = account::with("0.01").decide(&account::close());
    assert_eq!(refused, Err(AccountRefusal::NotEmpty { balance }));
}

#[test]
fn nothing_moves_on_an_account_that_is_not_there_or_was_closed() {
    for (given, refusal) in [
        (Account::default(), AccountRefusal::NotFound),
        (account::closed(), AccountRefusal::Closed),
    ] {
        for command in [account::deposit("1"), account::withdraw("1")] {
            let (first, second) = decide_twice(&given, &command);
            assert_eq!(first, Err(refusal));
            assert_eq!(second, first);
        }
    }
    let refused = Account::default().decide(&account::close());
    assert_eq!(refused, Err(AccountRefusal::NotFound));
}

#[test]
fn an_amount_has_no_more_decimals_than_the_currency() {
    let given = account::holding("a-1", yen(), "100");
    let currency = yen();
    for command in [account::deposit("1.50"), account::withdraw("1.50")] {
        let refused = given.decide(&command);
        assert_eq!(refused, Err(AccountRefusal::TooManyDecimals { currency }));
    }
    assert!(given.decide(&account::withdraw("1.00")).is_ok());
}

#[test]
fn a_transfer_moves_on_both_accounts() {
    let from = account::holding("a", Currency::USD, "10");
    let to = account::holding("b", Currency::USD, "1");
    let transfer = account::transfer("a", "b", "10").unwrap();
    let events = transfer.decide([&from, &to]).unwrap();
    let [
        [AccountEvent::Sent(sent)],
        [AccountEvent::Received(received)],
    ] = events.each_ref().map(Vec::as_slice)
    else {
        panic!("{events:?}");
    };
    assert_eq!((sent.amount, sent.balance), (money("10"), money("0")));
    assert_eq!(
        (received.amount, received.balance),
        (money("10"), money("11"))
    );
    assert_eq!(sent.transfer_id, received.transfer_id);
    assert_ne!(sent.transaction_id, received.transaction_id);
    assert_eq!(sent.to_account_id, received.account_id);
    assert_eq!(received.from_account_id, sent.account_id);

    let after = events[0].iter().fold(from, Account::evolve);
    let again = transfer.decide([&after, &to]);
    let refusal = AccountRefusal::InsufficientFunds {
        balance: money("0"),
        requested: money("10"),
    };
    assert_eq!(again, Err(TransferRefusal::From(refusal)));
}

#[test]
fn a_transfer_says_which_account_refuses() {
    use AccountRefusal::{Closed, NotFound, TooManyDecimals};
    use TransferRefusal::{From, To};
    let absent = Account::default;
    let usd = || account::holding("a", Currency::USD, "10");
    for (from, to, refusal) in [
        (absent(), absent(), From(NotFound)),
        (absent(), usd(), From(NotFound)),
        (usd(), absent(), To(NotFound)),
        (account::closed(), usd(), From(Closed)),
        (usd(), account::closed(), To(Closed)),
        (
            usd(),
            account::holding("b", yen(), "0"),
            TransferRefusal::CurrenciesDiffer {
                from: Currency::USD,
                to: yen(),
            },
        ),
        (
            account::holding("a", yen(), "10"),
            account::holding("b", yen(), "0"),
            From(TooManyDecimals { currency: yen() }),
        ),
    ] {
        let transfer = account::transfer("a", "b", "1.5").unwrap();
        assert_eq!(transfer.decide([&from, &to]), Err(refusal));
    }
    let full = Account::Open(AccountDetails {
        balance: MAX_BALANCE,
        ..account::empty().details().unwrap().clone()
    });
    let refused = account::transfer("a", "b", "1.5").unwrap();
    let refusal = AccountRefusal::BalanceTooLarge {
        balance: MAX_BALANCE,
        requested: money("1.5"),
    };
    assert_eq!(refused.decide([&usd(), &full]), Err(To(refusal)));
}

#[test]
fn a_transfer_to_itself_cannot_be_asked_for() {
    assert_eq!(
        account::transfer("a", "a", "1"),
        Err(InvalidTransfer::ToItself)
    );
}

#[test]
fn amounts_are_above_nothing_and_bounded() {
    let of = |cents| Amount::new(Money::from_cents(cents)).map(Amount::get);
    assert_eq!(of(1), Ok(Money::from_cents(1)));
    assert_eq!(of(99_999_999_999_999), Ok(MAX_MOVEMENT));
    assert_eq!(of(0), Err(InvalidAmount::NotPositive));
    assert_eq!(of(-1), Err(InvalidAmount::NotPositive));
    assert_eq!(of(100_000_000_000_000), Err(InvalidAmount::TooLarge));
    assert_eq!(MAX_MOVEMENT.to_string(), "999999999999.99");
}

#[test]
fn currencies_are_codes_of_the_list() {
    assert!(Currency::TAKEN.is_sorted());
    assert_eq!("USD".parse(), Ok(Currency::USD));
    assert_eq!(Currency::USD.decimals(), 2);
    assert_eq!(yen().decimals(), 0);
    for text in ["", "usd", "US", "USDX", "U5D", "ÄÖ", "US\u{0}"] {
        assert_eq!(text.parse::<Currency>(), Err(InvalidCurrency::NotACode));
    }
    // Three decimals, and no currency at all.
    for text in ["KWD", "XXX"] {
        assert_eq!(text.parse::<Currency>(), Err(InvalidCurrency::NotTaken));
    }
    let stored: Currency = serde_json::from_str("\"XXX\"").unwrap();
    assert!(!stored.is_taken(), "what is stored is read all the same");
    let message = InvalidCurrency::NotTaken.to_string();
    assert!(
        message.starts_with("must be one of AUD, BRL, "),
        "{message}"
    );
}

#[test]
fn names_are_read_as_they_are_written() {
    for status in AccountStatus::ALL {
        assert_eq!(status.as_str().parse(), Ok(status));
        assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
    }
    assert_eq!("open".parse::<AccountStatus>(), Err(InvalidAccountStatus));
    for kind in MovementKind::ALL {
        assert_eq!(kind.as_str().parse(), Ok(kind));
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
    }
    assert_eq!("".parse::<MovementKind>(), Err(InvalidMovementKind));
}

#[test]
fn an_event_knows_its_account_and_its_movement() {
    let events = account::events(&[
        account::open(),
        account::deposit("2"),
        account::withdraw("2"),
        account::close(),
    ]);
    assert!(events.iter().all(|e| e.account_id().as_str() == "a-1"));
    let kinds: Vec<_> = events
        .iter()
        .map(|event| event.movement().map(|movement| movement.kind))
        .collect();
    let [deposit, withdrawal] = [MovementKind::Deposit, MovementKind::Withdrawal];
    assert_eq!(kinds, [None, Some(deposit), Some(withdrawal), None]);
    assert_eq!(events[3].event_type(), stored::ACCOUNT_CLOSED);
    let transfer = account::transfer("a", "b", "1").unwrap();
    let given = account::holding("a", Currency::USD, "1");
    let [sent, received] = transfer.decide([&given, &given]).unwrap();
    let [sent, received] = [&sent[0], &received[0]].map(|event| event.movement().unwrap());
    assert_eq!(sent.counterparty, Some(received.account_id));
    assert_eq!(received.counterparty, Some(sent.account_id));
    assert_eq!(sent.transfer_id, received.transfer_id);
    assert!(received.kind.is_credit() && !sent.kind.is_credit());
}
