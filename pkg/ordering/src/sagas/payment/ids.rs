use millrace_kernel::{EntityId, id_type};
use uuid::Uuid;

use crate::order::OrderId;

/// What the ids of withdrawals are derived in. A stored format: another one would pay orders again.
const PAYMENTS: Uuid = Uuid::from_u128(0x6f1c_0d0e_7f0b_5d3a_9a3e_2b7c_51d4_8e01);
/// What the ids of refunds are derived in, as stored.
const REFUNDS: Uuid = Uuid::from_u128(0x6f1c_0d0e_7f0b_5d3a_9a3e_2b7c_51d4_8e02);

id_type! {
    /// Names a movement in banking: derived from the order (UUIDv5), so that it is the same whoever
    /// asks for it and however often.
    TransactionId
}

impl TransactionId {
    /// The withdrawal that pays an order.
    #[must_use]
    pub fn of_payment(order_id: &OrderId) -> Self {
        Self::derived(&PAYMENTS, order_id)
    }

    /// The deposit that gives it back.
    #[must_use]
    pub fn of_refund(order_id: &OrderId) -> Self {
        Self::derived(&REFUNDS, order_id)
    }

    fn derived(namespace: &Uuid, order_id: &OrderId) -> Self {
        let id = Uuid::new_v5(namespace, order_id.as_str().as_bytes());
        Self::new(EntityId::from_uuid(id))
    }
}
