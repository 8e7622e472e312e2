use millrace_testkit::{StoredFormats, payload_schema};

use super::{
    stored::{EVENT_TYPES, TRANSACTION_REFUSED, TRANSACTION_SETTLED, TRANSACTION_VOIDED},
    *,
};
use crate::account::fixtures::{id, money};

fn wanted() -> Instructed {
    Instructed {
        transaction_id: TransactionId::new(id("pay-1")),
        account_id: AccountId::new(id("a-1")),
        direction: Direction::Withdrawal,
        amount: money("30"),
        currency: Currency::USD,
    }
}

fn void_of(account: &str) -> Void {
    Void {
        transaction_id: TransactionId::new(id("pay-1")),
        account_id: AccountId::new(id(account)),
    }
}

/// Every state in which something became of an instruction.
fn decided() -> [Instruction; 3] {
    let insufficient = AccountRefusal::InsufficientFunds {
        balance: money("10"),
        requested: money("30"),
    };
    let voided = Instruction::Unknown.decide(&void_of("a-1")).unwrap();
    [
        wanted().settled(money("70")),
        wanted().refused(insufficient).unwrap(),
        voided.into_iter().next().unwrap(),
    ]
    .map(|event| Instruction::default().evolve(&event))
}

#[test]
fn nothing_is_answered_for_an_id_that_nobody_used() {
    assert_eq!(Instruction::Unknown.answer_to(&wanted()), Ok(None));
    assert_eq!(Instruction::Unknown.answer(), None);
}

#[test]
fn whoever_asks_again_is_told_what_became_of_it_and_so_is_a_void() {
    for state in decided() {
        let answer = state.answer().unwrap();
        assert_eq!(state.answer_to(&wanted()), Ok(Some(answer)));
        assert_eq!(state.decide(&void_of("a-1")), Ok(Vec::new()));
    }
    let reasons = decided().map(|state| match state.answer().unwrap() {
        TransactionAnswer::Done(done) => done.balance.to_string(),
        TransactionAnswer::Refused(refused) => refused.reason.as_str().to_owned(),
    });
    assert_eq!(reasons, ["70.00", "insufficient-funds", "voided"]);
}

#[test]
fn what_became_of_an_id_stays() {
    for state in decided() {
        let again = state.clone().evolve(&wanted().settled(money("40")));
        assert_eq!(again, state);
    }
}

#[test]
fn the_same_id_for_something_else_is_a_mistake() {
    let change = |change: fn(&mut Instructed)| {
        let mut other = wanted();
        change(&mut other);
        other
    };
    let account = change(|it| it.account_id = AccountId::new(id("a-2")));
    let others = [
        change(|it| it.direction = Direction::Deposit),
        change(|it| it.amount = money("31")),
        change(|it| it.currency = Currency::stored("EUR").unwrap()),
    ];
    for state in decided() {
        assert_eq!(state.answer_to(&account), Err(Mismatch));
        assert_eq!(state.decide(&void_of("a-2")), Err(Mismatch));
        for other in &others {
            // Of a void only the account is known.
            let agrees = matches!(state, Instruction::Voided(_));
            assert_eq!(
                state.answer_to(other).is_ok(),
                agrees,
                "{state:?} {other:?}"
            );
        }
    }
}

fn formats() -> StoredFormats {
    StoredFormats {
        folder: concat!(env!("CARGO_MANIFEST_DIR"), "/instruction"),
        versions: [
            (
                (TRANSACTION_SETTLED, 1),
                payload_schema::<TransactionSettled>(),
            ),
            (
                (TRANSACTION_REFUSED, 1),
                payload_schema::<TransactionWasRefused>(),
            ),
            (
                (TRANSACTION_VOIDED, 1),
                payload_schema::<TransactionVoided>(),
            ),
        ]
        .into(),
        written: EVENT_TYPES.to_vec(),
        renamed: Vec::new(),
    }
}

#[test]
fn schemas_are_committed_and_change_compatibly() {
    formats().check_schemas();
}

#[test]
fn every_version_is_known_and_the_newest_is_written() {
    formats().check_versions();
}

#[test]
fn what_every_version_wrote_decodes() {
    formats().check_golden::<InstructionEvent>();
}

#[test]
fn what_a_newer_release_wrote_is_never_called_malformed() {
    formats().check_refusals::<InstructionEvent>();
}
