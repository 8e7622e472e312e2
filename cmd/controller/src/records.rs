//! Replays as the API server has them.

use async_trait::async_trait;
use kube::api::{
    Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions,
};
use kube::core::DeserializeGuard;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Client, Resource as _};
use millrace_replay::status::ReplayStatus;
use millrace_replay::{Notice, OutsideError, Owner, Record, Records, Replay};
use serde_json::json;

use crate::calls::{is_status, unavailable};

/// Keeps a Replay from vanishing before what it made is dropped.
pub const FINALIZER: &str = "millrace.dev/replay";
/// Replays of a namespace are read in pages of this many.
const PAGE: u32 = 500;
/// More pages than this are not read.
const MAX_PAGES: usize = 20;
/// What is said where there are more.
const TOO_MANY: &str = "there are more than 10000 Replays, which are not all looked at: delete old \
                        ones, or set ttlSecondsAfterFinished";
/// What the API server takes as the text of an event.
const MAX_NOTE_BYTES: usize = 1_000;

/// The Replays of a namespace.
#[derive(Clone)]
pub struct Replays {
    guarded: Api<DeserializeGuard<Replay>>,
    replays: Api<Replay>,
    recorder: Recorder,
    namespace: String,
}

impl std::fmt::Debug for Replays {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replays")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl Replays {
    pub(crate) fn new(client: &Client, namespace: &str, recorder: Recorder) -> Self {
        Self {
            guarded: Api::namespaced(client.clone(), namespace),
            replays: Api::namespaced(client.clone(), namespace),
            recorder,
            namespace: namespace.to_owned(),
        }
    }

    /// One of them, as it is now.
    pub(crate) async fn get(
        &self,
        name: &str,
    ) -> Result<Option<DeserializeGuard<Replay>>, OutsideError> {
        self.guarded
            .get_opt(name)
            .await
            .map_err(|error| unavailable(&format!("reading the Replay {name}"), error))
    }

    /// The metadata of the one that was read, if it is still there.
    async fn metadata(&self, record: &Record) -> Result<ObjectMeta, OutsideError> {
        let read = self.replays.get_metadata_opt(&record.name).await;
        read.map_err(|error| unavailable(&format!("reading the Replay {}", record.name), error))?
            .map(|found| found.metadata)
            .filter(|metadata| metadata.uid.as_ref() == Some(&record.owner.0))
            .ok_or_else(|| OutsideError::Changed(record.name.clone()))
    }

    /// Reads the Replays page by page; `false` when there are more than are read.
    async fn each(
        &self,
        mut take: impl FnMut(&DeserializeGuard<Replay>),
    ) -> Result<bool, OutsideError> {
        let mut params = ListParams::default().limit(PAGE);
        for _ in 0..MAX_PAGES {
            let page = self
                .guarded
                .list(&params)
                .await
                .map_err(|error| unavailable("listing Replays", error))?;
            page.items.iter().for_each(&mut take);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(true),
            }
        }
        Ok(false)
    }

    async fn set_finalizers(
        &self,
        record: &Record,
        change: impl FnOnce(&mut Vec<String>),
    ) -> Result<(), OutsideError> {
        let metadata = self.metadata(record).await?;
        let mut finalizers = metadata.finalizers.unwrap_or_default();
        change(&mut finalizers);
        let patch = Patch::Merge(json!({"metadata": {
            "resourceVersion": metadata.resource_version,
            "finalizers": finalizers,
        }}));
        let params = PatchParams::default();
        let patched = self
            .replays
            .patch_metadata(&record.name, &params, &patch)
            .await;
        patched
            .map(drop)
            .map_err(|error| refused(record, "changing the finalizers of", error))
    }
}

/// A Replay as the driver reads it; `None` for one that did not come from the API server.
pub(crate) fn record(replay: &Replay) -> Option<Record> {
    let metadata = &replay.metadata;
    let finalizers = metadata.finalizers.as_deref().unwrap_or_default();
    Some(Record {
        name: metadata.name.clone()?,
        owner: Owner(metadata.uid.clone()?),
        generation: metadata.generation.unwrap_or(0),
        created: metadata.creation_timestamp.as_ref()?.0,
        deleting: metadata.deletion_timestamp.is_some(),
        held: finalizers.iter().any(|name| name == FINALIZER),
        spec: replay.spec.clone(),
        status: replay.status.clone().unwrap_or_default(),
        revision: metadata.resource_version.clone()?,
    })
}

/// What a refused write means.
fn refused(record: &Record, doing: &str, error: kube::Error) -> OutsideError {
    if is_status(&error, 409) || is_status(&error, 404) {
        OutsideError::Changed(record.name.clone())
    } else {
        unavailable(&format!("{doing} the Replay {}", record.name), error)
    }
}

#[async_trait]
impl Records for Replays {
    async fn all(&self) -> Result<Vec<Record>, OutsideError> {
        let mut records = Vec::new();
        let whole = self
            .each(|replay| {
                let read = replay.0.as_ref().ok().and_then(record);
                records.extend(read.filter(|record| !record.status.ended()));
            })
            .await?;
        if !whole {
            tracing::warn!("{TOO_MANY}");
        }
        Ok(records)
    }

    async fn owners(&self) -> Result<Vec<Owner>, OutsideError> {
        let mut owners = Vec::new();
        let whole = self
            .each(|replay| owners.extend(replay.meta().uid.clone().map(Owner)))
            .await?;
        if whole {
            return Ok(owners);
        }
        Err(OutsideError::Unavailable {
            what: "listing all Replays".to_owned(),
            source: TOO_MANY.into(),
        })
    }

    async fn write(&self, record: &Record, status: &ReplayStatus) -> Result<Record, OutsideError> {
        let mut replay = Replay::new(&record.name, record.spec.clone());
        replay.metadata.namespace = Some(self.namespace.clone());
        replay.metadata.uid = Some(record.owner.0.clone());
        replay.metadata.resource_version = Some(record.revision.clone());
        replay.status = Some(status.clone());
        let params = PostParams::default();
        let written = self
            .replays
            .replace_status(&record.name, &params, &replay)
            .await;
        let written = written.map_err(|error| refused(record, "writing the status of", error))?;
        self::record(&written).ok_or_else(|| OutsideError::Changed(record.name.clone()))
    }

    async fn hold(&self, record: &Record) -> Result<(), OutsideError> {
        self.set_finalizers(record, |finalizers| {
            if !finalizers.iter().any(|name| name == FINALIZER) {
                finalizers.push(FINALIZER.to_owned());
            }
        })
        .await
    }

    async fn release(&self, record: &Record) -> Result<(), OutsideError> {
        if !record.held {
            return Ok(());
        }
        self.set_finalizers(record, |finalizers| {
            finalizers.retain(|name| name != FINALIZER)
        })
        .await
    }

    async fn remove(&self, record: &Record) -> Result<(), OutsideError> {
        let params = DeleteParams::background().preconditions(Preconditions {
            uid: Some(record.owner.0.clone()),
            resource_version: Some(record.revision.clone()),
        });
        match self.replays.delete(&record.name, &params).await {
            Ok(_) => Ok(()),
            Err(error) if is_status(&error, 404) => Ok(()),
            Err(error) => Err(refused(record, "deleting", error)),
        }
    }

    async fn tell(&self, record: &Record, notice: Notice) {
        let mut reference = Replay::new(&record.name, record.spec.clone()).object_ref(&());
        reference.namespace = Some(self.namespace.clone());
        reference.uid = Some(record.owner.0.clone());
        tracing::info!(
            replay = record.name,
            reason = notice.reason,
            message = notice.message,
            "a replay went on"
        );
        publish(&self.recorder, &reference, notice).await;
    }
}

/// Records an event; one that cannot be is logged and lost.
pub(crate) async fn publish(
    recorder: &Recorder,
    reference: &k8s_openapi::api::core::v1::ObjectReference,
    notice: Notice,
) {
    let mut note = notice.message;
    note.truncate(note.floor_char_boundary(MAX_NOTE_BYTES));
    let event = Event {
        type_: if notice.warning {
            EventType::Warning
        } else {
            EventType::Normal
        },
        action: notice.reason.clone(),
        reason: notice.reason,
        note: Some(note),
        secondary: None,
    };
    if let Err(error) = recorder.publish(&event, reference).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            reason = event.reason,
            "an event was not recorded"
        );
    }
}
