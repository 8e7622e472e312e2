//! What wakes payments before their time.

use std::sync::Arc;

use millrace_eventlog::Repository;
use millrace_sagas::{Pump, PumpError};
use tokio::sync::Notify;

use super::{News, Payment, payment_of, port::now};
use crate::order::{Order, OrderEvent};

/// Hears what happens to orders, and rings for those that have a payment. The append has put the
/// payment in the schedule already, so nothing depends on this but how soon it is looked at; and an
/// order that a release before payments took begins its payment here, if nobody confirmed it or called
/// it off since.
#[derive(Debug, Clone)]
pub struct PaymentTrigger {
    orders: Arc<Repository<Order>>,
    pump: Pump<Payment>,
    bell: Arc<Notify>,
}

impl PaymentTrigger {
    /// For orders and payments of one log; rings this bell.
    #[must_use]
    pub const fn new(
        orders: Arc<Repository<Order>>,
        pump: Pump<Payment>,
        bell: Arc<Notify>,
    ) -> Self {
        Self { orders, pump, bell }
    }

    /// What happened to an order. May be told twice.
    ///
    /// # Errors
    /// [`PumpError`] when a payment cannot be begun at the moment.
    pub async fn on_order_event(&self, event: &OrderEvent) -> Result<(), PumpError> {
        if let OrderEvent::Created(order) = event {
            let Some(requested) = payment_of(order) else {
                return Ok(());
            };
            let id = order.order_id.get();
            let (now_it_is, _) = self.orders.load(id).await?;
            if !now_it_is.is_pending() {
                return Ok(());
            }
            let begin = now(News::Begin(Box::new(requested)));
            self.pump.tell(id, begin).await?;
        }
        self.bell.notify_one();
        Ok(())
    }
}
