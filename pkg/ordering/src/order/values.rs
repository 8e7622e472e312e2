//! The values an order is made of, checked where they enter so that what is illegal cannot be
//! built. Stored events are not checked against these again: a limit may become narrower later.

use millrace_kernel::Money;

use super::OrderItem;

/// The most an order may cost, 99999999.99: what `DECIMAL(10,2)` holds.
pub const MAX_TOTAL_AMOUNT: Money = Money::constant(9_999_999_999);
/// The most lines of an order.
pub const MAX_ITEMS: usize = 200;
/// The most of one thing in one line.
pub const MAX_QUANTITY: u32 = 1_000_000;
/// The longest description of an order or of a line, in characters.
pub const MAX_DESCRIPTION_CHARS: usize = 500;
/// The longest shipping address, in characters.
pub const MAX_SHIPPING_ADDRESS_CHARS: usize = 1_000;
/// The longest notes, in characters.
pub const MAX_NOTES_CHARS: usize = 2_000;
/// The longest reason for a change of status, in characters.
pub const MAX_REASON_CHARS: usize = 500;

/// How many of one thing: 1 to [`MAX_QUANTITY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantity(u32);

/// A number that is no quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a whole number from 1 to {MAX_QUANTITY}")]
pub struct InvalidQuantity;

impl Quantity {
    /// Takes a count.
    ///
    /// # Errors
    /// [`InvalidQuantity`] for 0 or more than [`MAX_QUANTITY`].
    pub const fn new(count: u32) -> Result<Self, InvalidQuantity> {
        if count == 0 || count > MAX_QUANTITY {
            return Err(InvalidQuantity);
        }
        Ok(Self(count))
    }

    /// The count.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// The lines of an order: 1 to [`MAX_ITEMS`], and what they cost together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Items {
    lines: Vec<OrderItem>,
    sum: Money,
}

/// Lines that make no order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidItems {
    /// There are none; leave them out and give a total instead.
    #[error("must have at least one item, or be left out")]
    Empty,
    /// There are too many.
    #[error("must have at most {MAX_ITEMS} items")]
    TooMany,
    /// Together they cost nothing, or more than an order may.
    #[error(transparent)]
    Sum(InvalidTotal),
}

/// A sum that no order may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTotal {
    /// It is nothing or less.
    #[error("must be above 0")]
    NotPositive,
    /// It is too much.
    #[error("must be at most {MAX_TOTAL_AMOUNT}")]
    TooLarge,
    /// It is not what the lines cost together.
    #[error("is not what the items cost together, {items}")]
    Disagrees {
        /// What the lines cost together.
        items: Money,
    },
}

impl Items {
    /// Takes lines and sums them up.
    ///
    /// # Errors
    /// See [`InvalidItems`].
    pub fn new(lines: Vec<OrderItem>) -> Result<Self, InvalidItems> {
        if lines.is_empty() {
            return Err(InvalidItems::Empty);
        }
        if lines.len() > MAX_ITEMS {
            return Err(InvalidItems::TooMany);
        }
        let sum = lines
            .iter()
            .try_fold(Money::ZERO, |sum, line| {
                sum.checked_add(line.unit_price.checked_times(line.quantity)?)
            })
            .ok_or(InvalidItems::Sum(InvalidTotal::TooLarge))
            .and_then(|sum| in_range(sum).map_err(InvalidItems::Sum))?;
        Ok(Self { lines, sum })
    }
}

/// What is ordered and what it costs: lines, or a sum, or both when they agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Total {
    items: Vec<OrderItem>,
    amount: Money,
}

impl Total {
    /// The total of these lines.
    #[must_use]
    pub fn of_items(items: Items) -> Self {
        Self {
            amount: items.sum,
            items: items.lines,
        }
    }

    /// A total without lines.
    ///
    /// # Errors
    /// [`InvalidTotal`] when it is not above 0 and at most [`MAX_TOTAL_AMOUNT`].
    pub fn of_amount(amount: Money) -> Result<Self, InvalidTotal> {
        Ok(Self {
            items: Vec::new(),
            amount: in_range(amount)?,
        })
    }

    /// Lines with the total that they are said to have.
    ///
    /// # Errors
    /// [`InvalidTotal::Disagrees`] when they have another.
    pub fn of_both(items: Items, amount: Money) -> Result<Self, InvalidTotal> {
        if items.sum != amount {
            return Err(InvalidTotal::Disagrees { items: items.sum });
        }
        Ok(Self::of_items(items))
    }

    /// The lines; none where only a sum was given.
    #[must_use]
    pub fn items(&self) -> &[OrderItem] {
        &self.items
    }

    /// How many lines.
    #[must_use]
    pub fn items_count(&self) -> u32 {
        u32::try_from(self.items.len()).unwrap_or(u32::MAX)
    }

    /// What it costs.
    #[must_use]
    pub const fn amount(&self) -> Money {
        self.amount
    }
}

fn in_range(amount: Money) -> Result<Money, InvalidTotal> {
    if amount <= Money::ZERO {
        return Err(InvalidTotal::NotPositive);
    }
    if amount > MAX_TOTAL_AMOUNT {
        return Err(InvalidTotal::TooLarge);
    }
    Ok(amount)
}
