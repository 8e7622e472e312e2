use std::collections::HashMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::task::JoinSet;

use crate::engine::{EngineError, Owner};
use crate::world::{Task, TaskEnd, TaskView};

/// What runs beside the steps, at most one task for each replay. All of it ends with this value.
#[derive(Debug, Default)]
pub(crate) struct Tasks(Mutex<HashMap<Owner, Entry>>);

#[derive(Debug)]
struct Entry {
    task: Task,
    running: JoinSet<Result<TaskEnd, EngineError>>,
    ended: Option<TaskEnd>,
}

impl Tasks {
    fn entries(&self) -> MutexGuard<'_, HashMap<Owner, Entry>> {
        // Nothing panics between two changes: the map is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the owner's task stands.
    pub(crate) fn view(&self, owner: &Owner) -> TaskView {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(owner) else {
            return TaskView::Idle;
        };
        if entry.ended.is_none() {
            entry.ended = entry.running.try_join_next().map(|joined| match joined {
                Ok(Ok(end)) => end,
                Ok(Err(error)) => failed(error),
                Err(error) => TaskEnd::Failed(error.to_string()),
            });
        }
        match &entry.ended {
            Some(end) => TaskView::Ended(entry.task, end.clone()),
            None => TaskView::Running(entry.task),
        }
    }

    /// Begins a task unless the owner has one.
    pub(crate) fn run<F>(&self, owner: &Owner, task: Task, work: F)
    where
        F: Future<Output = Result<TaskEnd, EngineError>> + Send + 'static,
    {
        self.entries().entry(owner.clone()).or_insert_with(|| {
            let mut running = JoinSet::new();
            running.spawn(work);
            Entry {
                task,
                running,
                ended: None,
            }
        });
    }

    /// Gives up the owner's task, or forgets how it ended.
    pub(crate) fn stop(&self, owner: &Owner) {
        self.entries().remove(owner);
    }
}

fn failed(error: EngineError) -> TaskEnd {
    match error {
        EngineError::Unavailable(message) | EngineError::NotYet(message) => {
            TaskEnd::Unavailable(message)
        }
        EngineError::Refused { reason, message } => TaskEnd::Refused { reason, message },
        error @ (EngineError::Active(_) | EngineError::Failed(_)) => {
            TaskEnd::Failed(error.to_string())
        }
    }
}
