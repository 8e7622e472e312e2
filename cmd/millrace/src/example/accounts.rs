//! Bank accounts: opened, filled, drawn on, with money sent between them, some closed.

use reqwest::Method;
use serde_json::json;

use super::{Dice, Step, USERS, money};

/// How many stay open.
const OPEN: u32 = 24;
/// How many are emptied and closed.
const CLOSED: u32 = 6;
/// The least that an account is opened with, in cents. What leaves it later is less, whatever
/// comes in meanwhile, so that nothing here is ever refused.
const LEAST_INITIAL: u32 = 100_000;
/// The most that leaves an account in one movement, in cents.
const MOST_OUT: u32 = 9_000;
/// The most movements of one account.
const MOST_MOVEMENTS: usize = 10;

/// The numbers of all accounts.
pub(super) fn all() -> impl Iterator<Item = u32> {
    1..=OPEN + CLOSED
}

/// The account that pays an order.
pub(super) fn paying(order: u32) -> String {
    id(order % OPEN + 1)
}

/// How an account begins. All of them have to be there before money is sent between them.
pub(super) fn opening(number: u32) -> Step {
    let mut dice = Dice(number);
    let user = USERS[dice.below(USERS.len())];
    let mut account = json!({
        "id": id(number), "user_id": user, "holder_name": holder(user),
    });
    if number <= OPEN {
        let initial = LEAST_INITIAL + cents(&mut dice, 200_000);
        account["initial_deposit"] = json!(money(initial));
    }
    Step::post("/accounts", account)
}

/// What happens on it after that.
pub(super) fn movements(number: u32) -> Vec<Step> {
    if number > OPEN {
        return ending(number);
    }
    let mut dice = Dice(number + 1_000);
    let count = 2 + dice.below(MOST_MOVEMENTS - 1);
    (0..count).map(|_| movement(number, &mut dice)).collect()
}

fn movement(number: u32, dice: &mut Dice) -> Step {
    let out = money(100 + cents(dice, MOST_OUT - 100));
    match dice.below(6) {
        0 | 1 => {
            let amount = money(1_000 + cents(dice, 150_000));
            let path = format!("/accounts/{}/deposits", id(number));
            Step::post(&path, json!({"amount": amount, "description": "Salary"}))
        }
        2 | 3 => {
            let path = format!("/accounts/{}/withdrawals", id(number));
            Step::post(&path, json!({"amount": out, "description": "Groceries"}))
        }
        _ => {
            let others = usize::try_from(OPEN - 1).unwrap_or(1);
            let other = (number + u32::try_from(dice.below(others)).unwrap_or(0)) % OPEN + 1;
            let body = json!({
                "from_account_id": id(number), "to_account_id": id(other), "amount": out,
                "description": "Dinner, my share",
            });
            Step::post("/transfers", body)
        }
    }
}

/// An account that is emptied and closed; nobody sends anything to it.
fn ending(number: u32) -> Vec<Step> {
    let amount = json!({"amount": money(5_000 + number * 100)});
    let path = |what: &str| format!("/accounts/{}/{what}", id(number));
    vec![
        Step::post(&path("deposits"), amount.clone()),
        Step::post(&path("withdrawals"), amount),
        Step {
            method: Method::POST,
            path: path("close"),
            body: None,
        },
    ]
}

fn id(number: u32) -> String {
    format!("example-account-{number:02}")
}

fn holder(user: &str) -> String {
    let mut letters = user.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// Fewer cents than the bound.
fn cents(dice: &mut Dice, bound: u32) -> u32 {
    let bound = usize::try_from(bound).unwrap_or(usize::MAX);
    u32::try_from(dice.below(bound)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Cents in "12.34".
    fn read(amount: &serde_json::Value) -> i64 {
        amount.as_str().unwrap().replace('.', "").parse().unwrap()
    }

    #[test]
    fn no_account_is_ever_short_in_whatever_order_the_lives_are_lived() {
        let mut funds = BTreeMap::new();
        for number in all() {
            let opening = opening(number).body.unwrap();
            let initial = opening.get("initial_deposit").map_or(0, read);
            funds.insert(id(number), initial);
        }
        for number in all() {
            // Nothing that others send is counted, since it may come last.
            let mut own = funds[&id(number)];
            for step in movements(number) {
                let Some(body) = step.body else { continue };
                let amount = read(&body["amount"]);
                if step.path.ends_with("/deposits") {
                    own += amount;
                } else {
                    own -= amount;
                }
                assert!(own >= 0, "account {number} is short");
            }
        }
    }

    #[test]
    fn money_is_sent_between_different_accounts_that_stay_open() {
        let all: Vec<Step> = all().flat_map(movements).collect();
        let transfers: Vec<_> = all
            .iter()
            .filter(|step| step.path == "/transfers")
            .collect();
        assert!(transfers.len() > 20, "{}", transfers.len());
        let open: Vec<String> = (1..=OPEN).map(id).collect();
        for transfer in transfers {
            let body = transfer.body.as_ref().unwrap();
            assert_ne!(body["from_account_id"], body["to_account_id"]);
            for side in ["from_account_id", "to_account_id"] {
                assert!(open.iter().any(|id| body[side] == *id.as_str()), "{body}");
            }
        }
        let closings = all.iter().filter(|step| step.path.ends_with("/close"));
        assert_eq!(closings.count(), CLOSED as usize);
    }
}
