//! What the bodies of writes may say, and the commands they make.

use millrace_http::{FieldErrors, Problem, RequestContext};
use millrace_kernel::{EntityId, IdInput, Money, MoneyInput};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::account::{
    AccountId, Amount, Currency, MAX_DESCRIPTION_CHARS, MAX_HOLDER_NAME_CHARS, MAX_REASON_CHARS,
    MoveMoney, OpenAccount, Side, TransactionId, Transfer, TransferId, UserId,
};

/// An account to be opened.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OpenAccount)]
pub(super) struct OpenAccountBody {
    /// Its id; a fresh one unless given.
    #[schema(value_type = Option<IdInput>)]
    id: Option<EntityId>,
    /// Who holds it, by name.
    #[schema(min_length = 1, max_length = 200, pattern = r"\S")]
    holder_name: String,
    /// The user who holds it, where it is one.
    #[schema(value_type = Option<IdInput>)]
    user_id: Option<EntityId>,
    /// What it is kept in, `USD` unless said: one of AUD, BRL, CAD, CHF, CNY, CZK, DKK, EUR, GBP,
    /// HKD, INR, MXN, NOK, NZD, PLN, SEK, USD and ZAR, whose amounts have at most 2 decimals, or JPY
    /// and KRW, whose amounts have none.
    #[schema(pattern = "^[A-Z]{3}$")]
    currency: Option<String>,
    /// What it is opened with: from 0 to 999999999999.99. Above 0 it is the account's first deposit.
    #[schema(value_type = Option<MoneyInput>)]
    initial_deposit: Option<Money>,
}

/// Money to be paid in or out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MoveMoney)]
pub(super) struct MoveMoneyBody {
    /// How much: above 0 and at most 999999999999.99.
    #[schema(value_type = MoneyInput)]
    amount: Money,
    /// What it is for.
    #[schema(max_length = 500)]
    description: Option<String>,
}

/// Money to go from one account to another.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Transfer)]
pub(super) struct TransferBody {
    /// The account that it goes from.
    #[schema(value_type = IdInput)]
    from_account_id: EntityId,
    /// The account that it goes to: another one, kept in the same currency.
    #[schema(value_type = IdInput)]
    to_account_id: EntityId,
    /// How much: above 0 and at most 999999999999.99.
    #[schema(value_type = MoneyInput)]
    amount: Money,
    /// What it is for.
    #[schema(max_length = 500)]
    description: Option<String>,
}

/// An account to be closed. All of it may be left out.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CloseAccount)]
pub(super) struct CloseAccountBody {
    /// Why.
    #[schema(max_length = 500)]
    reason: Option<String>,
}

impl OpenAccountBody {
    /// # Errors
    /// 422 with every field that is wrong.
    pub(super) fn account(self, context: &RequestContext) -> Result<OpenAccount, Problem> {
        let mut errors = FieldErrors::new();
        for (pointer, id) in [("/id", &self.id), ("/user_id", &self.user_id)] {
            if let Some(id) = id {
                context.refuse_reserved(&mut errors, pointer, id);
            }
        }
        let blank = self.holder_name.trim().is_empty();
        errors.check(!blank, "/holder_name", "must not be empty");
        errors.at_most_chars("/holder_name", &self.holder_name, MAX_HOLDER_NAME_CHARS);
        let currency = match &self.currency {
            None => Some(Currency::USD),
            Some(code) => code
                .parse()
                .map_err(|wrong: crate::account::InvalidCurrency| {
                    errors.add("/currency", wrong.to_string());
                })
                .ok(),
        };
        let initial_deposit = match self.initial_deposit {
            Some(sum) if sum < Money::ZERO => {
                errors.add("/initial_deposit", "must not be below 0");
                None
            }
            Some(sum) if sum > Money::ZERO => amount(sum, "/initial_deposit", &mut errors),
            Some(_) | None => None,
        };
        errors.finish()?;
        Ok(OpenAccount {
            account_id: AccountId::new(self.id.unwrap_or_else(EntityId::generate)),
            holder_name: self.holder_name,
            user_id: self.user_id.map(UserId::new),
            currency: currency.ok_or_else(unchecked)?,
            initial_deposit: initial_deposit.map(|amount| MoveMoney {
                transaction_id: transaction_id(),
                amount,
                currency: None,
                description: None,
            }),
        })
    }
}

impl MoveMoneyBody {
    /// # Errors
    /// 422 with every field that is wrong.
    pub(super) fn movement(self) -> Result<MoveMoney, Problem> {
        let mut errors = FieldErrors::new();
        let amount = amount(self.amount, "/amount", &mut errors);
        description(self.description.as_deref(), &mut errors);
        errors.finish()?;
        Ok(MoveMoney {
            transaction_id: transaction_id(),
            amount: amount.ok_or_else(unchecked)?,
            currency: None,
            description: self.description,
        })
    }
}

impl TransferBody {
    /// # Errors
    /// 422 with every field that is wrong.
    pub(super) fn transfer(self, context: &RequestContext) -> Result<Transfer, Problem> {
        let mut errors = FieldErrors::new();
        context.refuse_reserved(&mut errors, "/from_account_id", &self.from_account_id);
        context.refuse_reserved(&mut errors, "/to_account_id", &self.to_account_id);
        let amount = amount(self.amount, "/amount", &mut errors);
        description(self.description.as_deref(), &mut errors);
        let side = |account_id| Side {
            account_id: AccountId::new(account_id),
            transaction_id: transaction_id(),
        };
        let (from, to) = (side(self.from_account_id), side(self.to_account_id));
        if from.account_id == to.account_id {
            errors.add(
                "/to_account_id",
                crate::account::InvalidTransfer::ToItself.to_string(),
            );
        }
        errors.finish()?;
        let transfer_id = TransferId::new(EntityId::generate());
        let amount = amount.ok_or_else(unchecked)?;
        Transfer::new(transfer_id, from, to, amount, self.description).map_err(Problem::internal)
    }
}

impl CloseAccountBody {
    /// # Errors
    /// 422 when the reason is too long.
    pub(super) fn reason(self) -> Result<Option<String>, Problem> {
        let mut errors = FieldErrors::new();
        if let Some(reason) = &self.reason {
            errors.at_most_chars("/reason", reason, MAX_REASON_CHARS);
        }
        errors.finish()?;
        Ok(self.reason)
    }
}

fn transaction_id() -> TransactionId {
    TransactionId::new(EntityId::generate())
}

/// A check noted no error and gave no value, which is a defect.
fn unchecked() -> Problem {
    Problem::internal("a body passed its checks without a value")
}

fn amount(sum: Money, pointer: &str, errors: &mut FieldErrors) -> Option<Amount> {
    Amount::new(sum)
        .map_err(|wrong| errors.add(pointer, wrong.to_string()))
        .ok()
}

fn description(text: Option<&str>, errors: &mut FieldErrors) {
    if let Some(text) = text {
        errors.at_most_chars("/description", text, MAX_DESCRIPTION_CHARS);
    }
}
