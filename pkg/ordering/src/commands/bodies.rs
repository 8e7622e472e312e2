//! What the bodies of writes may say, and the commands they make.

use millrace_http::{FieldErrors, Problem, RequestContext};
use millrace_kernel::{EntityId, IdInput, Money, MoneyInput, TimeBound, Timestamp};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::order::{
    AccountId, CreateOrder, InvalidItems, Items, MAX_DESCRIPTION_CHARS, MAX_ITEMS, MAX_NOTES_CHARS,
    MAX_REASON_CHARS, MAX_SHIPPING_ADDRESS_CHARS, MAX_TOTAL_AMOUNT, OrderCommand, OrderId,
    OrderItem, OrderStatus, Quantity, Total, UserId,
};

/// An order to be created.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CreateOrder)]
pub(super) struct CreateOrderBody {
    /// Its id; a fresh one unless given.
    #[schema(value_type = Option<IdInput>)]
    id: Option<EntityId>,
    /// Who orders.
    #[schema(value_type = IdInput)]
    user_id: EntityId,
    /// The lines. Without them, `total_amount` is needed.
    #[schema(max_items = 200)]
    items: Option<Vec<ItemBody>>,
    /// What the order costs: above 0 and at most 99999999.99, and what the items cost together.
    #[schema(value_type = Option<MoneyInput>)]
    total_amount: Option<Money>,
    /// Where it goes.
    #[schema(max_length = 1000)]
    shipping_address: Option<String>,
    /// What else is to be said.
    #[schema(max_length = 2000)]
    notes: Option<String>,
    /// The account that is to pay.
    #[schema(value_type = Option<IdInput>)]
    payment_account_id: Option<EntityId>,
}

/// A line of an order to be created.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CreateOrderItem)]
struct ItemBody {
    /// What is ordered.
    #[schema(min_length = 1, max_length = 500)]
    description: String,
    /// How many of it.
    #[schema(minimum = 1, maximum = 1_000_000)]
    quantity: u32,
    /// What one of it costs, from 0 to 99999999.99.
    #[schema(value_type = MoneyInput)]
    unit_price: Money,
}

/// An order to be created from its amount alone.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schema(as = PlaceOrder)]
pub(super) struct PlaceOrderBody {
    /// Who orders.
    #[schema(value_type = IdInput)]
    user_id: EntityId,
    /// What the order costs: above 0 and at most 99999999.99.
    #[schema(value_type = MoneyInput)]
    amount: Money,
}

/// An order to be created that is described in one phrase.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CreateDescribedOrder)]
pub(super) struct DescribedOrderBody {
    /// Who orders.
    #[schema(value_type = IdInput)]
    user_id: EntityId,
    /// What is ordered.
    #[schema(min_length = 1, max_length = 500)]
    description: String,
    /// What the order costs: above 0 and at most 99999999.99.
    #[schema(value_type = MoneyInput)]
    amount: Money,
    /// When it was bought, where that is not now.
    purchase_dt: Option<TimeBound>,
}

/// A status to be taken.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UpdateOrderStatus)]
pub(super) struct UpdateStatusBody {
    /// The status.
    status: OrderStatus,
    /// Why.
    #[schema(max_length = 500)]
    reason: Option<String>,
}

impl CreateOrderBody {
    /// # Errors
    /// 422 with every field that is wrong.
    pub(super) fn order(
        self,
        context: &RequestContext,
        at: Timestamp,
    ) -> Result<CreateOrder, Problem> {
        let mut errors = FieldErrors::new();
        for (pointer, id) in [
            ("/id", self.id.as_ref()),
            ("/user_id", Some(&self.user_id)),
            ("/payment_account_id", self.payment_account_id.as_ref()),
        ] {
            if let Some(id) = id {
                context.refuse_reserved(&mut errors, pointer, id);
            }
        }
        let texts = [
            (
                "/shipping_address",
                &self.shipping_address,
                MAX_SHIPPING_ADDRESS_CHARS,
            ),
            ("/notes", &self.notes, MAX_NOTES_CHARS),
        ];
        for (pointer, text, most) in texts {
            if let Some(text) = text {
                errors.at_most_chars(pointer, text, most);
            }
        }
        // An empty list says no more than none.
        let lines = self.items.filter(|items| !items.is_empty());
        let total = total(lines, self.total_amount, &mut errors);
        errors.finish()?;
        Ok(CreateOrder {
            order_id: OrderId::new(self.id.unwrap_or_else(EntityId::generate)),
            user_id: UserId::new(self.user_id),
            total: total.ok_or_else(unchecked)?,
            shipping_address: self.shipping_address,
            notes: self.notes,
            payment_account_id: self.payment_account_id.map(AccountId::new),
            description: None,
            purchase_dt: None,
            at,
        })
    }
}

impl PlaceOrderBody {
    /// # Errors
    /// 422 with every field that is wrong.
    pub(super) fn order(
        self,
        context: &RequestContext,
        at: Timestamp,
    ) -> Result<CreateOrder, Problem> {
        let mut errors = FieldErrors::new();
        context.refuse_reserved(&mut errors, "/userId", &self.user_id);
        let total = amount(self.amount, "/amount", &mut errors);
        errors.finish()?;
        Ok(plain(self.user_id, total.ok_or_else(unchecked)?, at))
    }
}

impl DescribedOrderBody {
    /// # Errors
    /// 422 with every field that is wrong.
    pub(super) fn order(
        self,
        context: &RequestContext,
        at: Timestamp,
    ) -> Result<CreateOrder, Problem> {
        let mut errors = FieldErrors::new();
        context.refuse_reserved(&mut errors, "/user_id", &self.user_id);
        description(&self.description, "/description", &mut errors);
        let total = amount(self.amount, "/amount", &mut errors);
        errors.finish()?;
        Ok(CreateOrder {
            description: Some(self.description),
            purchase_dt: self.purchase_dt.map(|TimeBound(bought)| bought),
            ..plain(self.user_id, total.ok_or_else(unchecked)?, at)
        })
    }
}

impl UpdateStatusBody {
    /// # Errors
    /// 422 when the reason is too long.
    pub(super) fn command(self, at: Timestamp) -> Result<OrderCommand, Problem> {
        let mut errors = FieldErrors::new();
        if let Some(reason) = &self.reason {
            errors.at_most_chars("/reason", reason, MAX_REASON_CHARS);
        }
        errors.finish()?;
        Ok(OrderCommand::UpdateStatus {
            to: self.status,
            reason: self.reason,
            at,
        })
    }
}

/// An order of a sum and nothing else.
fn plain(user_id: EntityId, total: Total, at: Timestamp) -> CreateOrder {
    CreateOrder {
        order_id: OrderId::new(EntityId::generate()),
        user_id: UserId::new(user_id),
        total,
        shipping_address: None,
        notes: None,
        payment_account_id: None,
        description: None,
        purchase_dt: None,
        at,
    }
}

/// A check noted no error and gave no value, which is a defect.
fn unchecked() -> Problem {
    Problem::internal("a body passed its checks without a value")
}

/// The total of a body; `None` when something about it is wrong, which is noted.
fn total(
    lines: Option<Vec<ItemBody>>,
    total_amount: Option<Money>,
    errors: &mut FieldErrors,
) -> Option<Total> {
    let Some(lines) = lines else {
        let Some(sum) = total_amount else {
            errors.add("", "must have items or a total_amount");
            return None;
        };
        return amount(sum, "/total_amount", errors);
    };
    let items = items(lines, errors)?;
    let Some(sum) = total_amount else {
        return Some(Total::of_items(items));
    };
    Total::of_both(items, sum)
        .map_err(|wrong| errors.add("/total_amount", wrong.to_string()))
        .ok()
}

fn amount(amount: Money, pointer: &str, errors: &mut FieldErrors) -> Option<Total> {
    Total::of_amount(amount)
        .map_err(|wrong| errors.add(pointer, wrong.to_string()))
        .ok()
}

fn items(lines: Vec<ItemBody>, errors: &mut FieldErrors) -> Option<Items> {
    if lines.len() > MAX_ITEMS {
        errors.add("/items", InvalidItems::TooMany.to_string());
        return None;
    }
    let mut checked = Vec::with_capacity(lines.len());
    for (index, line) in lines.into_iter().enumerate() {
        if let Some(line) = item(index, line, errors) {
            checked.push(line);
        }
    }
    if !errors.is_empty() {
        return None;
    }
    Items::new(checked)
        .map_err(|wrong| errors.add("/items", wrong.to_string()))
        .ok()
}

fn item(index: usize, line: ItemBody, errors: &mut FieldErrors) -> Option<OrderItem> {
    let at = |field: &str| format!("/items/{index}/{field}");
    let text = line.description;
    if text.is_empty() || text.len() > MAX_DESCRIPTION_CHARS {
        description(&text, &at("description"), errors);
    }
    if line.unit_price < Money::ZERO || line.unit_price > MAX_TOTAL_AMOUNT {
        let reason = format!("must be from 0 to {MAX_TOTAL_AMOUNT}");
        errors.add(at("unit_price"), reason);
    }
    let quantity = Quantity::new(line.quantity)
        .map_err(|wrong| errors.add(at("quantity"), wrong.to_string()))
        .ok()?;
    Some(OrderItem {
        description: text,
        quantity: quantity.get(),
        unit_price: line.unit_price,
    })
}

fn description(text: &str, pointer: &str, errors: &mut FieldErrors) {
    errors.check(!text.is_empty(), pointer, "must not be empty");
    errors.at_most_chars(pointer, text, MAX_DESCRIPTION_CHARS);
}
