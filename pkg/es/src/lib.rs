//! The vocabulary of event sourcing as Millrace speaks it: what an event, an aggregate, a
//! projection, a reaction, a saga is. No I/O and no clock: everything in here can be replayed by
//! construction.

mod aggregate;
mod event;
mod names;
mod projection;
mod reaction;
mod saga;
mod token;

pub use aggregate::{Aggregate, DomainEvent, Reservation};
pub use event::{
    DecodeError, EventId, Metadata, NewEvent, Recorded, RecordedEvent, Upcast, newest_version,
    upcast,
};
pub use names::{
    Context, Epoch, InvalidName, Partition, PartitionCount, Position, StreamId, StreamVersion,
};
pub use projection::{Additions, FoldError, Projection, RowProjection, TallyProjection};
pub use reaction::Reaction;
pub use saga::Saga;
pub use token::{LogToken, TokenError};
