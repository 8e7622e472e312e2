//! Where effects go: an archive of objects (S3 or a folder), and a topic (SNS).
//!
//! Both tell what may pass from what never will ([`millrace_projecting::EffectError`]), and both
//! make a repeat a no-op by the key of the effect: an object is created once under its path, a
//! message has an id of its own.

mod archive;
mod topic;

pub use archive::{
    Archive, ArchiveError, ArchiveKeys, ArchiveOptions, Link, MAX_OBJECT_BYTES, Stored,
};
pub use topic::{Attribute, BadTopic, MAX_ATTRIBUTES, MAX_MESSAGE_BYTES, Notice, Topic, TopicArn};
