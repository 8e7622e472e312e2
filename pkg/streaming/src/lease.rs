//! Who works on what. Leases only spread the work: whoever holds one too long is stopped by the
//! fence of its own work (the expected last sequence, the checkpoint's compare-and-set), so two
//! holders for a moment do no harm.
//!
//! A lease is a value in a key-value bucket that its holder keeps changing. Nobody compares
//! clocks: an observer that has seen the same revision for the whole time to live, on its own
//! monotonic clock, takes the lease with a compare-and-set on that revision.

mod bucket;
mod claim;
mod group;
mod partitions;

use std::{fmt, sync::Arc, time::Duration};

pub use claim::{Claim, Standing};
pub use partitions::{LeaseEvent, Ownership, PartitionLeases};

use crate::{error::NatsError, names::InvalidToken, topology::Topology};
use bucket::Bucket;

/// How long a lease lives without being renewed, in milliseconds.
pub const LEASE_TTL_MS: u64 = 4_000;
/// How often a holder renews, and an observer looks, in milliseconds.
pub const LEASE_RENEW_MS: u64 = 1_000;
/// How long a member that gives a partition up may take to finish its work, in milliseconds.
pub const HANDOVER_MS: u64 = 10_000;

/// How long leases live; the defaults are the named constants of this module.
#[derive(Debug, Clone, Copy)]
pub struct LeaseOptions {
    /// How long a lease lives without being renewed. Default [`LEASE_TTL_MS`].
    pub ttl: Duration,
    /// How often a holder renews; well below a third of `ttl`. Default [`LEASE_RENEW_MS`].
    pub renew_every: Duration,
    /// How long a member that gives a partition up may finish its work. Default [`HANDOVER_MS`].
    pub handover: Duration,
}

impl Default for LeaseOptions {
    fn default() -> Self {
        Self {
            ttl: Duration::from_millis(LEASE_TTL_MS),
            renew_every: Duration::from_millis(LEASE_RENEW_MS),
            handover: Duration::from_millis(HANDOVER_MS),
        }
    }
}

/// Names one run of one process among those that share work.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberId(Arc<str>);

impl MemberId {
    /// Takes a name; it must differ between processes and between runs of one, for instance the
    /// pod's name and a random suffix.
    ///
    /// # Errors
    /// When it is not 1 to 64 of `A-Z a-z 0-9 _ -`.
    pub fn new(text: &str) -> Result<Self, InvalidToken> {
        crate::names::token("member id", text).map(|text| Self(text.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The leases of one namespace as one process takes part in them.
#[derive(Debug, Clone)]
pub struct Leases {
    topology: Topology,
    member: MemberId,
    options: LeaseOptions,
}

impl Leases {
    /// Takes part in a namespace's leases under a name. The bucket is made when it is first
    /// needed, and again whenever it is gone.
    #[must_use]
    pub const fn new(topology: Topology, member: MemberId, options: LeaseOptions) -> Self {
        Self {
            topology,
            member,
            options,
        }
    }

    /// This process's name among the members.
    #[must_use]
    pub const fn member(&self) -> &MemberId {
        &self.member
    }

    /// The times in use.
    #[must_use]
    pub const fn options(&self) -> LeaseOptions {
        self.options
    }

    /// Begins to want one lease; nothing is asked of the server yet.
    ///
    /// # Errors
    /// When the name cannot be a key.
    pub fn claim(&self, name: &str) -> Result<Claim, InvalidToken> {
        let name = crate::names::token("lease", name)?;
        Ok(Claim::new(
            Bucket::new(
                self.topology.clone(),
                format!("lease.{name}"),
                self.options.ttl,
            ),
            self.member.clone(),
            self.options,
        ))
    }

    pub(crate) fn group_bucket(&self, group: &str) -> Result<Bucket, InvalidToken> {
        let group = crate::names::token("lease group", group)?;
        Ok(Bucket::new(
            self.topology.clone(),
            group_key(group),
            self.options.ttl,
        ))
    }

    /// Removes a group's record, when nobody is to share its work any more. A member that is still
    /// there writes it again.
    ///
    /// # Errors
    /// [`NatsError`] when the server does not answer.
    pub async fn forget_group(topology: &Topology, group: &str) -> Result<(), NatsError> {
        topology.purge_lease(&group_key(group)).await
    }

    /// The names of all groups that have a record.
    ///
    /// # Errors
    /// [`NatsError`] when the server does not answer.
    pub async fn groups(topology: &Topology) -> Result<Vec<String>, NatsError> {
        let prefix = group_key("");
        let keys = topology.lease_keys(&format!("{prefix}*")).await?;
        let names = keys.iter().filter_map(|key| key.strip_prefix(&prefix));
        Ok(names.map(str::to_owned).collect())
    }

    pub(crate) const fn topology(&self) -> &Topology {
        &self.topology
    }
}

fn group_key(group: &str) -> String {
    format!("group.{group}")
}
