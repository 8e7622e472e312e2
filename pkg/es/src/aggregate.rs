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

/// A claim on a name that must be unique in its scope (an e-mail address), taken or given back with
/// the events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// What kind of name: `user-email`.
    pub scope: &'static str,
    /// The name, already folded to its comparable form.
    pub value: String,
    /// Who holds it.
    pub holder: String,
    /// Take it, or give it back.
    pub release: bool,
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

    /// The names that an event on this state gives back and takes, in this order: a rule over all
    /// aggregates, which none of them can hold alone. They change hands in the append's transaction,
    /// or the append is not taken.
    #[must_use]
    fn reservations(&self, event: &Self::Event) -> Vec<Reservation> {
        let _ = event;
        Vec::new()
    }

    /// Why a command is refused whose event takes a name that somebody else holds; `None` where no
    /// event takes any.
    #[must_use]
    fn reserved(scope: &'static str, value: &str) -> Option<Self::Refusal> {
        let _ = (scope, value);
        None
    }
}
