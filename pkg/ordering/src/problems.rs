//! What the refusals of an order mean to a client.

use millrace_http::{Problem, ProblemType};

use crate::order::{OrderId, OrderRefusal, OrderStatus};

/// The id is in use.
pub static ORDER_EXISTS: ProblemType =
    ProblemType::new("order-exists", "The order exists already", 409);
/// It was deleted.
pub static ORDER_DELETED: ProblemType =
    ProblemType::new("order-deleted", "The order was deleted", 409);
/// Not from this status to that one.
pub static INVALID_TRANSITION: ProblemType = ProblemType::new(
    "invalid-transition",
    "The order cannot take this status",
    409,
);
/// Not once it was sent.
pub static ORDER_NOT_DELETABLE: ProblemType =
    ProblemType::new("order-not-deletable", "The order cannot be deleted", 409);
/// Its receipt is on its way.
pub static RECEIPT_NOT_READY: ProblemType =
    ProblemType::new("receipt-not-ready", "The receipt is not written yet", 404);
/// Its receipt is kept where there are no links.
pub static NO_RECEIPT_LINK: ProblemType =
    ProblemType::new("no-receipt-link", "The receipt has no link", 409);

/// Not by a person, while its payment is under way.
pub static PAYMENT_PENDING: ProblemType = ProblemType::new(
    "payment-pending",
    "The order is confirmed by its payment",
    409,
);

/// All of the above.
pub static ALL: [&ProblemType; 7] = [
    &ORDER_EXISTS,
    &ORDER_DELETED,
    &INVALID_TRANSITION,
    &ORDER_NOT_DELETABLE,
    &RECEIPT_NOT_READY,
    &NO_RECEIPT_LINK,
    &PAYMENT_PENDING,
];

/// The answer to a command that an order refused.
pub(crate) fn refused(id: &OrderId, refusal: OrderRefusal) -> Problem {
    let detail = format!("order {id}: {refusal}");
    match refusal {
        OrderRefusal::NotFound => not_found(id),
        OrderRefusal::AlreadyExists => Problem::new(&ORDER_EXISTS, detail),
        OrderRefusal::Deleted => Problem::new(&ORDER_DELETED, detail),
        OrderRefusal::Transition { from, to } => {
            let next: Vec<&str> = OrderStatus::ALL
                .into_iter()
                .filter(|next| from.may_become(*next))
                .map(OrderStatus::as_str)
                .collect();
            Problem::new(&INVALID_TRANSITION, detail)
                .with("from", from.as_str())
                .with("to", to.as_str())
                .with("allowed", next)
        }
        OrderRefusal::PaymentPending => {
            Problem::new(&PAYMENT_PENDING, detail).with("payment", format!("/orders/{id}/payment"))
        }
        OrderRefusal::NotDeletable { status } => {
            Problem::new(&ORDER_NOT_DELETABLE, detail).with("order_status", status.as_str())
        }
    }
}

/// 404 for a payment.
pub(crate) fn no_payment(id: &OrderId) -> Problem {
    Problem::not_found(format_args!("a payment of order {id}"))
}

/// 404 for an order.
pub(crate) fn not_found(id: &OrderId) -> Problem {
    Problem::not_found(format_args!("order {id}"))
}
