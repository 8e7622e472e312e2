//! The calls to DynamoDB, and what their errors mean.

use aws_sdk_dynamodb::{
    error::{ProvideErrorMetadata, SdkError},
    types::StreamViewType,
};
use aws_sdk_dynamodbstreams::types::{Record, ShardIteratorType};

use super::shards::{Described, Place};

/// How many shards are described at once, and in how many pages at most: far more than any table
/// has.
const SHARD_PAGE: i32 = 100;
const MAX_SHARD_PAGES: usize = 1_000;

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    /// The iterator is older than a quarter of an hour.
    #[error("the shard iterator expired")]
    Expired,
    /// The records are older than a day.
    #[error("the shard no longer has these records")]
    Trimmed,
    /// There is no such shard or stream.
    #[error("DynamoDB does not have {0} any more")]
    Gone(String),
    /// The call can never be answered.
    #[error("DynamoDB refused to {doing}")]
    Refused {
        doing: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It was throttled, or failed in some way that may pass.
    #[error("DynamoDB could not {doing}")]
    Failed {
        doing: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The table has no stream, or one without the items.
    #[error("table {0} has no stream of new images: enable it with the view type NEW_IMAGE")]
    NoStream(String),
    /// There are more shards than are looked at.
    #[error("the stream has more than {MAX_SHARD_PAGES} pages of shards")]
    TooManyShards,
}

impl SourceError {
    fn of<E, R>(error: SdkError<E, R>, doing: &'static str, what: &str) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
        R: std::fmt::Debug + Send + Sync + 'static,
    {
        match error.code() {
            Some("ExpiredIteratorException") => Self::Expired,
            Some("TrimmedDataAccessException") => Self::Trimmed,
            Some("ResourceNotFoundException") => Self::Gone(what.to_owned()),
            Some("ValidationException") => Self::Refused {
                doing,
                source: Box::new(error),
            },
            _ => Self::Failed {
                doing,
                source: Box::new(error),
            },
        }
    }
}

/// One page of a shard.
pub(super) struct Page {
    pub(super) records: Vec<Record>,
    /// Where it goes on; nothing at the end of a closed shard.
    pub(super) next: Option<String>,
}

fn has_new_images(view: &StreamViewType) -> bool {
    matches!(
        view,
        StreamViewType::NewImage | StreamViewType::NewAndOldImages
    )
}

/// The stream of one table.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) tables: aws_sdk_dynamodb::Client,
    pub(super) streams: aws_sdk_dynamodbstreams::Client,
    pub(super) table: String,
}

impl Source {
    /// The name of the table's present stream.
    pub(super) async fn stream(&self) -> Result<String, SourceError> {
        let described = self
            .tables
            .describe_table()
            .table_name(&self.table)
            .send()
            .await
            .map_err(|error| SourceError::of(error, "describe the table", &self.table))?;
        described
            .table
            .filter(|table| {
                table.stream_specification.as_ref().is_some_and(|stream| {
                    let view = stream.stream_view_type.as_ref();
                    stream.stream_enabled && view.is_some_and(has_new_images)
                })
            })
            .and_then(|table| table.latest_stream_arn)
            .ok_or_else(|| SourceError::NoStream(self.table.clone()))
    }

    /// All shards of a stream.
    pub(super) async fn shards(&self, stream: &str) -> Result<Vec<Described>, SourceError> {
        let mut shards = Vec::new();
        let mut from = None;
        for _ in 0..MAX_SHARD_PAGES {
            let page = self
                .streams
                .describe_stream()
                .stream_arn(stream)
                .limit(SHARD_PAGE)
                .set_exclusive_start_shard_id(from)
                .send()
                .await
                .map_err(|error| SourceError::of(error, "describe the stream", stream))?
                .stream_description;
            let Some(page) = page else {
                return Err(SourceError::Gone(stream.to_owned()));
            };
            let named = page.shards.unwrap_or_default().into_iter();
            shards.extend(named.filter_map(|shard| {
                Some(Described {
                    id: shard.shard_id?,
                    parent: shard.parent_shard_id,
                })
            }));
            from = page.last_evaluated_shard_id;
            if from.is_none() {
                return Ok(shards);
            }
        }
        Err(SourceError::TooManyShards)
    }

    /// An iterator for a shard. It lives for a quarter of an hour.
    pub(super) async fn iterator(
        &self,
        stream: &str,
        shard: &str,
        place: &Place,
    ) -> Result<String, SourceError> {
        let (kind, after) = match place {
            Place::Latest => (ShardIteratorType::Latest, None),
            Place::Horizon => (ShardIteratorType::TrimHorizon, None),
            Place::After(sequence) => {
                let kind = ShardIteratorType::AfterSequenceNumber;
                (kind, Some(sequence.clone()))
            }
        };
        let given = self
            .streams
            .get_shard_iterator()
            .stream_arn(stream)
            .shard_id(shard)
            .shard_iterator_type(kind)
            .set_sequence_number(after)
            .send()
            .await
            .map_err(|error| SourceError::of(error, "give a shard iterator", shard))?;
        let none = || SourceError::Gone(shard.to_owned());
        given.shard_iterator.ok_or_else(none)
    }

    /// The records at an iterator, at most 1,000 or a megabyte of them.
    pub(super) async fn records(&self, iterator: &str, shard: &str) -> Result<Page, SourceError> {
        let given = self
            .streams
            .get_records()
            .shard_iterator(iterator)
            .send()
            .await
            .map_err(|error| SourceError::of(error, "give records", shard))?;
        Ok(Page {
            records: given.records.unwrap_or_default(),
            next: given.next_shard_iterator,
        })
    }
}
