use std::time::Duration;

use async_nats::jetstream::{
    self, ErrorCode,
    context::{CreateStreamErrorKind, GetStreamErrorKind},
    stream::{Compression, Config, Info, StorageType},
};
use futures::TryStreamExt as _;
use millrace_es::{Context, Epoch, Position};

use crate::{
    error::{NatsError, Source},
    names::Names,
};

/// The window in which the server remembers message ids, in milliseconds: the smallest it allows.
/// No message carries an id; the expected last sequence keeps doubles out.
const DUPLICATE_WINDOW_MS: u64 = 100;
/// The most published copies of dead letters that are kept.
const MAX_DEAD_LETTER_COPIES: i64 = 1_000_000;
/// The most advisories that are kept.
const MAX_ADVISORIES: i64 = 10_000;
/// How long advisories are kept, in hours.
const MAX_ADVISORY_AGE_HOURS: u64 = 7 * 24;
/// The largest value in the lease bucket, in bytes: a group of 256 partitions with long owner
/// names is about a tenth of it.
const MAX_LEASE_VALUE_BYTES: i32 = 256 * 1024;

/// Where a stream's configuration says which life of the log it was made from.
const EPOCH_LABEL: &str = "millrace-epoch";
/// Where a stream's configuration says which version of this file made it.
const TOPOLOGY_LABEL: &str = "millrace-topology";
/// Rises when the streams' settings below change; an older release leaves a newer one's alone.
const TOPOLOGY_VERSION: u32 = 1;

/// How streams and buckets are kept.
#[derive(Debug, Clone, Copy)]
pub struct TopologyOptions {
    /// Copies of every stream and bucket in the JetStream cluster: 1 on a laptop, 3 in a cluster.
    pub replicas: usize,
}

impl Default for TopologyOptions {
    fn default() -> Self {
        Self { replicas: 1 }
    }
}

/// Tells one life of a stream from the next: a stream that was deleted and made anew, or came up
/// empty, has another one, and consumers that were opened before have to be opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamIdentity(i128);

/// A context's stream at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamState {
    /// Which life of the stream this is.
    pub identity: StreamIdentity,
    /// The position of the first event in it, or of the next one while it is empty. What lies
    /// before is read from the log.
    pub first: Position,
    /// The position of the last event ever in it; one below `first` while it is new.
    pub last: Position,
    /// How many events it holds.
    pub events: u64,
    /// The life of the log it was made from, where it says so.
    pub epoch: Option<Epoch>,
}

impl StreamState {
    fn of(info: &Info) -> Self {
        let state = &info.state;
        Self {
            identity: StreamIdentity(info.created.unix_timestamp_nanos()),
            first: Position::new(state.first_sequence.max(1)),
            last: Position::new(state.last_sequence),
            events: state.messages,
            epoch: info
                .config
                .metadata
                .get(EPOCH_LABEL)
                .and_then(|text| text.parse().ok()),
        }
    }
}

/// The streams and buckets of one namespace, and how they are made.
#[derive(Debug, Clone)]
pub struct Topology {
    jetstream: jetstream::Context,
    names: Names,
    options: TopologyOptions,
}

impl Topology {
    /// The topology of a namespace.
    #[must_use]
    pub const fn new(
        jetstream: jetstream::Context,
        names: Names,
        options: TopologyOptions,
    ) -> Self {
        Self {
            jetstream,
            names,
            options,
        }
    }

    /// The names it goes by.
    #[must_use]
    pub const fn names(&self) -> &Names {
        &self.names
    }

    /// The JetStream context it works with.
    #[must_use]
    pub const fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }

    /// Makes what is missing and brings what is there up to date: a stream for each context, the
    /// dead letters' and the advisories' streams, the bucket of the leases. May run any number of
    /// times, at once, and beside releases before and after this one: limits that an operator set
    /// stay, and what a newer release made is left alone.
    ///
    /// # Errors
    /// [`NatsError`] when the server does not answer, or refuses a stream.
    pub async fn ensure(&self, contexts: &[Context]) -> Result<(), NatsError> {
        for context in contexts {
            self.ensure_stream(self.event_stream(context)).await?;
        }
        self.ensure_stream(self.dead_letter_stream()).await?;
        self.ensure_stream(self.advisory_stream(contexts)).await?;
        self.ensure_leases().await?;
        Ok(())
    }

    /// Makes the lease bucket if it is missing.
    pub(crate) async fn ensure_leases(&self) -> Result<jetstream::kv::Store, NatsError> {
        let bucket = self.names.lease_bucket();
        let doing = format!("make the bucket {bucket}");
        self.jetstream
            .create_or_update_key_value(jetstream::kv::Config {
                bucket,
                description: "Who works on what, in Millrace".to_owned(),
                history: 1,
                max_value_size: MAX_LEASE_VALUE_BYTES,
                storage: StorageType::File,
                num_replicas: self.options.replicas,
                ..Default::default()
            })
            .await
            .map_err(|error| NatsError::new(doing, error))
    }

    /// Removes a key of the lease bucket without a trace; one that is not there is fine.
    pub(crate) async fn purge_lease(&self, key: &str) -> Result<(), NatsError> {
        let bucket = self.names.lease_bucket();
        let doing = format!("remove {key} from the bucket {bucket}");
        let stream = match self.jetstream.get_stream(format!("KV_{bucket}")).await {
            Ok(stream) => stream,
            Err(error) if is_stream_not_found(&error.kind()) => return Ok(()),
            Err(error) => return Err(NatsError::new(doing, error)),
        };
        // A deletion through the bucket would leave a marker in its place.
        stream
            .purge()
            .filter(format!("$KV.{bucket}.{key}"))
            .await
            .map_err(|error| NatsError::new(doing, error))?;
        Ok(())
    }

    /// The keys in the bucket of leases that a filter finds.
    pub(crate) async fn lease_keys(&self, filter: &str) -> Result<Vec<String>, NatsError> {
        let bucket = self.names.lease_bucket();
        let failed =
            |error: Source| NatsError::new(format_args!("list the bucket {bucket}"), error);
        let stream = match self.jetstream.get_stream(format!("KV_{bucket}")).await {
            Ok(stream) => stream,
            Err(error) if is_stream_not_found(&error.kind()) => return Ok(Vec::new()),
            Err(error) => return Err(failed(error.into())),
        };
        let prefix = format!("$KV.{bucket}.");
        let found = stream.info_with_subjects(format!("{prefix}{filter}")).await;
        let subjects: Vec<(String, usize)> = found
            .map_err(|error| failed(error.into()))?
            .try_collect()
            .await
            .map_err(|error| failed(error.into()))?;
        let keys = subjects
            .iter()
            .filter_map(|(subject, _)| subject.strip_prefix(&prefix));
        Ok(keys.map(str::to_owned).collect())
    }

    /// The state of a context's stream, from its leader; `None` when there is none.
    ///
    /// # Errors
    /// [`NatsError`] when the server does not answer.
    pub async fn state(&self, context: &Context) -> Result<Option<StreamState>, NatsError> {
        let stream = self.names.stream(context);
        match self.jetstream.get_stream(&stream).await {
            Ok(found) => Ok(Some(StreamState::of(found.cached_info()))),
            Err(error) if is_stream_not_found(&error.kind()) => Ok(None),
            Err(error) => Err(NatsError::new(
                format_args!("say how the stream {stream} is"),
                error,
            )),
        }
    }

    /// Makes a context's stream so that its first message gets a position's number.
    pub(crate) async fn create(
        &self,
        context: &Context,
        first: Position,
        epoch: Epoch,
    ) -> Result<StreamState, NatsError> {
        let mut config = self.event_stream(context);
        config.first_sequence = (first > Position::new(1)).then_some(first.get());
        config
            .metadata
            .insert(EPOCH_LABEL.to_owned(), epoch.to_string());
        let doing = format!("make the stream {}", config.name);
        let made = self
            .jetstream
            .create_stream(config)
            .await
            .map_err(|error| NatsError::new(doing, error))?;
        Ok(StreamState::of(made.cached_info()))
    }

    /// Deletes a context's stream, if it is there.
    pub(crate) async fn delete(&self, context: &Context) -> Result<(), NatsError> {
        let stream = self.names.stream(context);
        match self.jetstream.delete_stream(&stream).await {
            Ok(_) => Ok(()),
            Err(error)
                if matches!(error.kind(), GetStreamErrorKind::JetStream(ref e)
                    if e.error_code() == ErrorCode::STREAM_NOT_FOUND) =>
            {
                Ok(())
            }
            Err(error) => Err(NatsError::new(
                format_args!("delete the stream {stream}"),
                error,
            )),
        }
    }

    /// Writes on a context's stream which life of the log it holds.
    pub(crate) async fn label(&self, context: &Context, epoch: Epoch) -> Result<(), NatsError> {
        let stream = self.names.stream(context);
        let doing = format!("label the stream {stream}");
        let found = self
            .jetstream
            .get_stream(&stream)
            .await
            .map_err(|error| NatsError::new(&doing, error))?;
        let mut config = found.cached_info().config.clone();
        config
            .metadata
            .insert(EPOCH_LABEL.to_owned(), epoch.to_string());
        self.jetstream
            .update_stream(config)
            .await
            .map_err(|error| NatsError::new(&doing, error))?;
        Ok(())
    }

    async fn ensure_stream(&self, wanted: Config) -> Result<(), NatsError> {
        let name = wanted.name.clone();
        let doing = format!("bring the stream {name} up to date");
        match self.jetstream.get_stream(&name).await {
            Ok(found) => {
                let present = &found.cached_info().config;
                let Some(config) = upgraded(present, &wanted) else {
                    return Ok(());
                };
                self.jetstream
                    .update_stream(config)
                    .await
                    .map_err(|error| NatsError::new(doing, error))?;
                Ok(())
            }
            Err(error) if is_stream_not_found(&error.kind()) => {
                match self.jetstream.create_stream(wanted).await {
                    Ok(_) => Ok(()),
                    // Another process was faster, with settings of its own release.
                    Err(error) if is_name_taken(&error.kind()) => Ok(()),
                    Err(error) => Err(NatsError::new(
                        format_args!("make the stream {name}"),
                        error,
                    )),
                }
            }
            Err(error) => Err(NatsError::new(doing, error)),
        }
    }

    fn event_stream(&self, context: &Context) -> Config {
        Config {
            subjects: vec![self.names.subjects(context)],
            description: Some(format!("The events of {context}: sequence n is position n")),
            // A single event cannot be taken out; purging whole heads stays possible, and whoever
            // is behind then reads the log.
            deny_delete: true,
            ..self.stream(self.names.stream(context))
        }
    }

    fn dead_letter_stream(&self) -> Config {
        Config {
            subjects: vec![self.names.dead_letter_subjects()],
            description: Some("Copies of the events that a projection gave up on".to_owned()),
            max_messages: MAX_DEAD_LETTER_COPIES,
            ..self.stream(self.names.dead_letter_stream())
        }
    }

    fn advisory_stream(&self, contexts: &[Context]) -> Config {
        Config {
            subjects: contexts
                .iter()
                .flat_map(|context| self.names.advisory_subjects(context))
                .collect(),
            description: Some("Deliveries that the server or a consumer gave up".to_owned()),
            max_messages: MAX_ADVISORIES,
            max_age: Duration::from_hours(MAX_ADVISORY_AGE_HOURS),
            ..self.stream(self.names.advisory_stream())
        }
    }

    /// What all streams have in common.
    fn stream(&self, name: String) -> Config {
        Config {
            name,
            storage: StorageType::File,
            num_replicas: self.options.replicas,
            compression: Some(Compression::S2),
            duplicate_window: Duration::from_millis(DUPLICATE_WINDOW_MS),
            allow_direct: true,
            max_messages: -1,
            max_bytes: -1,
            metadata: [(TOPOLOGY_LABEL.to_owned(), TOPOLOGY_VERSION.to_string())].into(),
            ..Config::default()
        }
    }
}

/// A stream's present settings with those that this release decides replaced; `None` when nothing
/// is to do. Limits belong to the operator, and what cannot be changed later (storage, first
/// sequence) stays.
fn upgraded(present: &Config, wanted: &Config) -> Option<Config> {
    let made_by = present
        .metadata
        .get(TOPOLOGY_LABEL)
        .and_then(|text| text.parse::<u32>().ok());
    if made_by > Some(TOPOLOGY_VERSION) {
        return None;
    }
    let mut config = present.clone();
    for subject in &wanted.subjects {
        // Contexts may be ensured by processes that know different ones: subjects only grow.
        if !config.subjects.contains(subject) {
            config.subjects.push(subject.clone());
        }
    }
    config.description.clone_from(&wanted.description);
    config.num_replicas = wanted.num_replicas;
    config.compression.clone_from(&wanted.compression);
    config.duplicate_window = wanted.duplicate_window;
    config.allow_direct = wanted.allow_direct;
    config.deny_delete |= wanted.deny_delete;
    config
        .metadata
        .insert(TOPOLOGY_LABEL.to_owned(), TOPOLOGY_VERSION.to_string());
    (config != *present).then_some(config)
}

pub(crate) fn is_stream_not_found(kind: &GetStreamErrorKind) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(error)
        if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

fn is_name_taken(kind: &CreateStreamErrorKind) -> bool {
    matches!(kind, CreateStreamErrorKind::JetStream(error)
        if error.error_code() == ErrorCode::STREAM_NAME_EXIST)
}
