//! Sagas on an event log: a pump that asks what is next and does it, and a timer that pumps what is
//! unfinished.
//!
//! A saga ([`millrace_es::Saga`]) is pure. [`Pump`] reads its state, looks at the world, asks for the
//! next step, has it performed through a [`Port`], and has what came of it appended with the version
//! that the state was read at; and so on until nothing is next. There is nothing to recover: a pump
//! that died is followed by another one, which reads the state that is there. Two pumps at once are
//! settled by the log, which takes one append of a version; the other reads again. Steps are
//! performed at least once, under names that make the second time change nothing.
//!
//! [`Timer`] takes what is due from a [`Schedule`] in bounded pages and pumps it. A claim there is a
//! courtesy that spreads work over processes; it guards nothing.

mod port;
mod pump;
#[cfg(feature = "testing")]
pub mod testing;
mod timer;

pub use port::{NoAnswer, Port, RecordError, Recorded};
pub use pump::{Leftover, MAX_STEPS_PER_PUMP, Pump, PumpError, Pumped};
pub use timer::{
    Claimed, MAX_PAUSE, PAGE_SAGAS, Schedule, ScheduleError, Standing, Timer, TimerOptions,
};
