use std::time::Duration;

use async_nats::jetstream::kv::{Store, UpdateErrorKind};
use bytes::Bytes;

use crate::{
    error::{NatsError, Source},
    topology::Topology,
};

/// One key of the lease bucket, read and written by compare-and-set. A bucket that is gone is
/// made again.
#[derive(Debug)]
pub(crate) struct Bucket {
    topology: Topology,
    key: String,
    store: Option<Store>,
    /// How long one request may take: a lease must not expire behind an answer that was lost with
    /// its connection.
    patience: Duration,
}

/// The revision of a key; 0 before it was first written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Revision(u64);

impl Revision {
    pub(crate) const NONE: Self = Self(0);
}

/// What a conditional write became.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// The value stands, at this revision.
    Done(Revision),
    /// Somebody else wrote in between.
    Conflict,
}

impl Bucket {
    pub(crate) fn new(topology: Topology, key: String, ttl: Duration) -> Self {
        Self {
            topology,
            key,
            store: None,
            patience: ttl / 4,
        }
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// The value and its revision; an empty value at [`Revision::NONE`] when there is none.
    pub(crate) async fn read(&mut self) -> Result<(Revision, Bytes), NatsError> {
        let store = self.store().await?;
        let read = tokio::time::timeout(self.patience, store.entry(self.key.as_str())).await;
        match read {
            Ok(Ok(Some(entry))) => Ok((Revision(entry.revision), entry.value)),
            Ok(Ok(None)) => Ok((Revision::NONE, Bytes::new())),
            Ok(Err(error)) => Err(self.failed("read", error)),
            Err(elapsed) => Err(self.failed("read", elapsed)),
        }
    }

    /// Writes the value if its revision is still the one that was read.
    pub(crate) async fn write(
        &mut self,
        expected: Revision,
        value: Bytes,
    ) -> Result<Written, NatsError> {
        let store = self.store().await?;
        let written =
            tokio::time::timeout(self.patience, store.update(&self.key, value, expected.0)).await;
        match written {
            Ok(Ok(revision)) => Ok(Written::Done(Revision(revision))),
            Ok(Err(error)) if error.kind() == UpdateErrorKind::WrongLastRevision => {
                Ok(Written::Conflict)
            }
            Ok(Err(error)) => Err(self.failed("write", error)),
            Err(elapsed) => Err(self.failed("write", elapsed)),
        }
    }

    /// Whatever it was: the bucket may be gone, so it is looked for again next time.
    fn failed(&mut self, what: &str, error: impl Into<Source>) -> NatsError {
        self.store = None;
        NatsError::new(format_args!("{what} the lease {}", self.key), error)
    }

    async fn store(&mut self) -> Result<Store, NatsError> {
        if let Some(store) = &self.store {
            return Ok(store.clone());
        }
        let made = tokio::time::timeout(self.patience, self.topology.ensure_leases()).await;
        let store = made.map_err(|elapsed| self.failed("find", elapsed))??;
        self.store = Some(store.clone());
        Ok(store)
    }
}
