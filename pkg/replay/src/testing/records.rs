use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::engine::{Notice, OutsideError, Owner, Record, Records};
use crate::status::ReplayStatus;

/// Replays in memory, written by comparison as everywhere.
#[derive(Debug, Default)]
pub struct MemoryRecords {
    records: Mutex<BTreeMap<String, Record>>,
    told: Mutex<Vec<String>>,
    writes: Mutex<u64>,
}

impl MemoryRecords {
    fn records(&self) -> MutexGuard<'_, BTreeMap<String, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a replay there, or changes the one of that name as a person would.
    pub fn put(&self, record: Record) {
        self.records().insert(record.name.clone(), record);
    }

    /// Changes a replay as a person would.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Record)) {
        if let Some(record) = self.records().get_mut(name) {
            change(record);
            record.generation += 1;
            record.revision.push('+');
        }
    }

    /// A replay as it is; `None` when it is gone.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Record> {
        self.records().get(name).cloned()
    }

    /// What people were told, as reasons.
    #[must_use]
    pub fn told(&self) -> Vec<String> {
        self.told
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How often a status was written.
    #[must_use]
    pub fn writes(&self) -> u64 {
        *self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Records for MemoryRecords {
    async fn all(&self) -> Result<Vec<Record>, OutsideError> {
        let active = |record: &&Record| !record.status.ended();
        let found = self.records().values().filter(active).cloned().collect();
        // Others act between a look and what is made of it.
        tokio::task::yield_now().await;
        Ok(found)
    }

    async fn owners(&self) -> Result<Vec<Owner>, OutsideError> {
        let all = self.records();
        Ok(all.values().map(|record| record.owner.clone()).collect())
    }

    async fn write(&self, record: &Record, status: &ReplayStatus) -> Result<Record, OutsideError> {
        let mut records = self.records();
        let found = records
            .get_mut(&record.name)
            .filter(|found| found.revision == record.revision && found.owner == record.owner)
            .ok_or_else(|| OutsideError::Changed(record.name.clone()))?;
        found.status = status.clone();
        found.revision.push('*');
        *self.writes.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Ok(found.clone())
    }

    async fn hold(&self, record: &Record) -> Result<(), OutsideError> {
        if let Some(found) = self.records().get_mut(&record.name) {
            found.held = true;
        }
        Ok(())
    }

    async fn release(&self, record: &Record) -> Result<(), OutsideError> {
        self.records().remove(&record.name);
        Ok(())
    }

    async fn remove(&self, record: &Record) -> Result<(), OutsideError> {
        if let Some(found) = self.records().get_mut(&record.name) {
            found.deleting = true;
        }
        Ok(())
    }

    async fn tell(&self, _: &Record, notice: Notice) {
        self.told
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(notice.reason);
    }
}
