//! What the refusals of accounts mean to a client.

use millrace_http::{Problem, ProblemType};

use crate::account::{AccountId, AccountRefusal, Transfer, TransferRefusal};

/// The id is in use.
pub static ACCOUNT_EXISTS: ProblemType =
    ProblemType::new("account-exists", "The account exists already", 409);
/// It was closed.
pub static ACCOUNT_CLOSED: ProblemType =
    ProblemType::new("account-closed", "The account is closed", 409);
/// Not while money is on it.
pub static ACCOUNT_NOT_EMPTY: ProblemType = ProblemType::new(
    "account-not-empty",
    "The account cannot be closed while money is on it",
    409,
);
/// Less is there than was asked for.
pub static INSUFFICIENT_FUNDS: ProblemType = ProblemType::new(
    "insufficient-funds",
    "There is not enough money on the account",
    422,
);
/// More would be there than an account can hold.
pub static BALANCE_TOO_LARGE: ProblemType = ProblemType::new(
    "balance-too-large",
    "The account cannot hold that much money",
    422,
);
/// The currency has fewer decimals than the amount.
pub static TOO_MANY_DECIMALS: ProblemType = ProblemType::new(
    "too-many-decimals",
    "The amount has more decimals than its currency",
    422,
);
/// Nothing is exchanged.
pub static CURRENCIES_DIFFER: ProblemType = ProblemType::new(
    "currencies-differ",
    "The accounts are kept in different currencies",
    422,
);

/// The id moved, or was to move, something else.
pub static TRANSACTION_MISMATCH: ProblemType = ProblemType::new(
    "transaction-mismatch",
    "The transaction id was used for something else",
    409,
);

/// All of the above.
pub static ALL: [&ProblemType; 8] = [
    &ACCOUNT_EXISTS,
    &ACCOUNT_CLOSED,
    &ACCOUNT_NOT_EMPTY,
    &INSUFFICIENT_FUNDS,
    &BALANCE_TOO_LARGE,
    &TOO_MANY_DECIMALS,
    &CURRENCIES_DIFFER,
    &TRANSACTION_MISMATCH,
];

/// The answer to a command that an account refused.
pub(crate) fn refused(id: &AccountId, refusal: AccountRefusal) -> Problem {
    let detail = format!("account {id}: {refusal}");
    let of = |kind| Problem::new(kind, detail).with("account_id", id.as_str());
    match refusal {
        AccountRefusal::NotFound => not_found(id),
        AccountRefusal::AlreadyExists => of(&ACCOUNT_EXISTS),
        AccountRefusal::Closed => of(&ACCOUNT_CLOSED),
        AccountRefusal::TooManyDecimals { currency } => of(&TOO_MANY_DECIMALS)
            .with("currency", currency.as_str())
            .with("decimals", currency.decimals()),
        AccountRefusal::OtherCurrency { currency, asked } => of(&CURRENCIES_DIFFER)
            .with("account_currency", currency.as_str())
            .with("currency", asked.as_str()),
        AccountRefusal::InsufficientFunds { balance, requested } => of(&INSUFFICIENT_FUNDS)
            .with("balance", balance.to_string())
            .with("requested", requested.to_string()),
        AccountRefusal::BalanceTooLarge { balance, requested } => of(&BALANCE_TOO_LARGE)
            .with("balance", balance.to_string())
            .with("requested", requested.to_string()),
        AccountRefusal::NotEmpty { balance } => {
            of(&ACCOUNT_NOT_EMPTY).with("balance", balance.to_string())
        }
    }
}

/// The answer to a transfer that one of its accounts refused, or both together.
pub(crate) fn transfer_refused(transfer: &Transfer, refusal: TransferRefusal) -> Problem {
    match refusal {
        TransferRefusal::From(refusal) => refused(&transfer.from().account_id, refusal),
        TransferRefusal::To(refusal) => refused(&transfer.to().account_id, refusal),
        TransferRefusal::CurrenciesDiffer { from, to } => {
            Problem::new(&CURRENCIES_DIFFER, refusal.to_string())
                .with("from_currency", from.as_str())
                .with("to_currency", to.as_str())
        }
    }
}

/// 404 for an account.
pub(crate) fn not_found(id: &AccountId) -> Problem {
    Problem::not_found(format_args!("account {id}"))
}
