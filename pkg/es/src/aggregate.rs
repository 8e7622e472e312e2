use serde_json::value::RawValue;

use crate::DecodeError;

/// The events of one aggregate, as its context stores them.
pub trait DomainEvent: Sized + Send + Sync + 'static {
    /// The public type, such as `order.created`.
    fn event_type(&self) -> &'static str;

    /// The schema version this code writes for [`DomainEvent::event_type`].
    fn schema_version(&self) -> u16;

    /// The payload as JSON.
    ///
    /// # Errors
    /// When the value has no JSON form, which is a defect of the event type.
    fn encode(&self) -> Result<Box<RawValue>, serde_json::Error>;

    /// Reads a stored payload of any version ever written, upcasting on the way.
    ///
    /// # Errors
    /// See [`DecodeError`].
    fn decode(
        event_type: &str,
        schema_version: u16,
        payload: &RawValue,
    ) -> Result<Self, DecodeError>;
}

/// A consistency boundary: a state, what may happen to it, and how it changes when it happened.
/// Pure and synchronous; times, ids and looked-up facts come in with the command.
pub trait Aggregate: Clone + Default + Send + Sync + 'static {
    /// The stream category: `order` makes `order-<id>`.
    const CATEGORY: &'static str;
    /// Rises when the state's serialised form or meaning changes; older snapshots are discarded.
    const SNAPSHOT_VERSION: u16;

    /// What may be asked.
    type Command: Send + Sync;
    /// What can happen.
    type Event: DomainEvent;
    /// Why it may be refused.
    type Refusal: std::error::Error + Send + Sync + 'static;

    /// Decides. No events means that it is already so, and nothing else.
    ///
    /// # Errors
    /// The refusal, when a rule of the domain says no.
    fn decide(&self, command: &Self::Command) -> Result<Vec<Self::Event>, Self::Refusal>;

    /// The state after a fact. Never refuses: it happened.
    #[must_use]
    fn evolve(self, event: &Self::Event) -> Self;
}
