use async_nats::jetstream::kv::{Store, UpdateErrorKind};
use bytes::Bytes;

use crate::{error::NatsError, topology::Topology};

/// One key of the lease bucket, read and written by compare-and-set. A bucket that is gone is
/// made again.
#[derive(Debug)]
pub(crate) struct Bucket {
    topology: Topology,
    key: String,
    store: Option<Store>,
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
    pub(crate) const fn new(topology: Topology, key: String) -> Self {
        Self {
            topology,
            key,
            store: None,
        }
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// The value and its revision; an empty value at [`Revision::NONE`] when there is none.
    pub(crate) async fn read(&mut self) -> Result<(Revision, Bytes), NatsError> {
        let store = self.store().await?;
        match store.entry(self.key.as_str()).await {
            Ok(Some(entry)) => Ok((Revision(entry.revision), entry.value)),
            Ok(None) => Ok((Revision::NONE, Bytes::new())),
            Err(error) => {
                let failed = NatsError::new(format_args!("read the lease {}", self.key), error);
                // Whatever it was: the bucket may be gone, so look for it again next time.
                self.store = None;
                Err(failed)
            }
        }
    }

    /// Writes the value if its revision is still the one that was read.
    pub(crate) async fn write(
        &mut self,
        expected: Revision,
        value: Bytes,
    ) -> Result<Written, NatsError> {
        let store = self.store().await?;
        match store.update(&self.key, value, expected.0).await {
            Ok(revision) => Ok(Written::Done(Revision(revision))),
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {
                Ok(Written::Conflict)
            }
            Err(error) => {
                let failed = NatsError::new(format_args!("write the lease {}", self.key), error);
                self.store = None;
                Err(failed)
            }
        }
    }

    async fn store(&mut self) -> Result<Store, NatsError> {
        if let Some(store) = &self.store {
            return Ok(store.clone());
        }
        let store = self.topology.ensure_leases().await?;
        self.store = Some(store.clone());
        Ok(store)
    }
}
