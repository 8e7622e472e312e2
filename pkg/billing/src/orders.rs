//! The orders on an invoice.

use std::collections::BTreeSet;

use millrace_contracts::ordering::OrderCreated;
use millrace_kernel::{EntityId, Money, Timestamp};
use serde::{Deserialize, Serialize};

/// An order on an invoice. Stored format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The order.
    pub order_id: EntityId,
    /// What was ordered.
    pub description: String,
    /// What it costs, in US dollars.
    pub amount: Money,
    /// When it was bought.
    pub purchase_dt: Timestamp,
}

impl Line {
    /// The line of an order as it was created: with its own description, else its items', else its
    /// number.
    #[must_use]
    pub fn of(order: &OrderCreated) -> Self {
        let items = || {
            let all: Vec<&str> = order.items.iter().map(|item| &*item.description).collect();
            (!all.is_empty()).then(|| all.join(", "))
        };
        let description = order.description.clone().or_else(items);
        Self {
            order_id: order.order_id.clone(),
            description: description.unwrap_or_else(|| format!("Order {}", order.order_id)),
            amount: order.total_amount,
            purchase_dt: order.purchase_dt.unwrap_or(order.created_at),
        }
    }

    fn place(&self) -> (Timestamp, &EntityId) {
        (self.purchase_dt, &self.order_id)
    }
}

/// The orders of a user in a month, and what they come to.
///
/// Who was taken off stays known: an order is on the invoice if it was created and never called off,
/// whatever becomes known first and however often.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Orders {
    /// Those on the invoice, as they were bought.
    lines: Vec<Line>,
    /// Those that were cancelled or deleted.
    gone: BTreeSet<EntityId>,
    total: Money,
}

/// A sum that is beyond what money can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMuch;

impl Orders {
    /// As they were stored.
    #[must_use]
    pub const fn stored(lines: Vec<Line>, gone: BTreeSet<EntityId>, total: Money) -> Self {
        Self { lines, gone, total }
    }

    /// Those on the invoice, as they were bought.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Those that were cancelled or deleted.
    #[must_use]
    pub const fn gone(&self) -> &BTreeSet<EntityId> {
        &self.gone
    }

    /// What those on the invoice cost together.
    #[must_use]
    pub const fn total(&self) -> Money {
        self.total
    }

    /// Puts an order on the invoice, unless it is there or was called off.
    ///
    /// # Errors
    /// [`TooMuch`] when no amount could say the total.
    pub fn put(&mut self, line: Line) -> Result<(), TooMuch> {
        if self.gone.contains(&line.order_id) || self.find(&line.order_id).is_some() {
            return Ok(());
        }
        self.total = self.total.checked_add(line.amount).ok_or(TooMuch)?;
        let index = self
            .lines
            .partition_point(|other| other.place() < line.place());
        self.lines.insert(index, line);
        Ok(())
    }

    /// Takes an order off for good, on the invoice or not yet.
    ///
    /// # Errors
    /// [`TooMuch`] when no amount could say the total.
    pub fn take_off(&mut self, order_id: &EntityId) -> Result<(), TooMuch> {
        if let Some(index) = self.find(order_id) {
            let line = self.lines.remove(index);
            self.total = self.total.checked_sub(line.amount).ok_or(TooMuch)?;
        }
        self.gone.insert(order_id.clone());
        Ok(())
    }

    fn find(&self, order_id: &EntityId) -> Option<usize> {
        self.lines
            .iter()
            .position(|line| line.order_id == *order_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, created, id};

    #[test]
    fn an_order_is_called_by_its_description_else_its_items_else_its_number() {
        let mut order = created("o-1", "1", "50.00", at(1));
        assert_eq!(Line::of(&order).description, "Order o-1");
        order.items = ["Widget", "Gadget"].map(crate::testing::item).into();
        assert_eq!(Line::of(&order).description, "Widget, Gadget");
        order.description = Some("A gift".to_owned());
        assert_eq!(Line::of(&order).description, "A gift");
    }

    #[test]
    fn an_order_was_bought_when_it_says_so_else_when_it_was_created() {
        let mut order = created("o-1", "1", "50.00", at(1));
        assert_eq!(Line::of(&order).purchase_dt, at(1));
        order.purchase_dt = Some(at(0));
        assert_eq!(Line::of(&order).purchase_dt, at(0));
    }

    #[test]
    fn what_was_called_off_stays_off() {
        let line = |order: &str, minute| Line::of(&created(order, "1", "0.10", at(minute)));
        let mut orders = Orders::default();
        orders.take_off(&id("o-2")).unwrap();
        for line in [
            line("o-3", 3),
            line("o-2", 2),
            line("o-1", 1),
            line("o-3", 3),
        ] {
            orders.put(line).unwrap();
        }
        let there: Vec<&str> = orders
            .lines()
            .iter()
            .map(|line| line.order_id.as_str())
            .collect();
        assert_eq!(there, ["o-1", "o-3"]);
        assert_eq!(orders.total(), Money::from_cents(20));
        for gone in ["o-1", "o-1", "o-3"] {
            orders.take_off(&id(gone)).unwrap();
        }
        assert_eq!((orders.lines(), orders.total()), (&[][..], Money::ZERO));
    }
}
