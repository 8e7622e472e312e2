//! An S3 endpoint with one bucket: the part of S3 that Millrace speaks, in memory or in a folder.
//!
//! It is for trying things out and for tests. What `s3s-fs` gets wrong is right here: of two that
//! create one object one wins, and an object whose checksum is wrong is not kept.

mod objects;

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Request, Response, StatusCode};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use s3s::{
    Body, S3, S3Request, S3Response, S3Result,
    auth::SimpleAuth,
    dto::{
        ETag, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput, PutObjectInput,
        PutObjectOutput, StreamingBlob,
    },
    s3_error,
    service::{S3Service, S3ServiceBuilder},
};
use tokio::task::JoinSet;

use objects::{Kept, Put};
pub use objects::{S3Object, S3Objects};

use crate::PartsError;

/// The largest object, in bytes.
const MAX_OBJECT_BYTES: usize = 64 * 1024 * 1024;

/// The most connections at once; others wait to be accepted.
const MAX_CONNECTIONS: usize = 1_024;

/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long open requests are waited for in the end.
const MAX_DRAIN: Duration = Duration::from_secs(5);

/// The pause after a connection could not be accepted, as when no file can be opened.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Keys that a client signs its requests with.
#[derive(Clone)]
pub struct S3Keys {
    /// The access key's id.
    pub id: String,
    /// Its secret.
    pub secret: String,
}

/// A bucket behind its keys: answers requests.
#[derive(Clone)]
pub struct S3Bucket(S3Service);

impl S3Bucket {
    /// A bucket of this name with these objects, for whoever signs with `keys`.
    #[must_use]
    pub fn new(name: &str, objects: Arc<S3Objects>, keys: &S3Keys) -> Self {
        let mut builder = S3ServiceBuilder::new(Bucket {
            name: name.to_owned(),
            objects,
        });
        builder.set_auth(SimpleAuth::from_single(
            keys.id.clone(),
            keys.secret.as_str(),
        ));
        Self(builder.build())
    }

    /// Answers one request.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let answered = self.0.call(request.map(Body::from)).await;
        answered.unwrap_or_else(|_| s3_failure(StatusCode::INTERNAL_SERVER_ERROR, "it failed"))
    }
}

/// A failure as S3 says it.
#[must_use]
pub fn s3_failure(status: StatusCode, message: &'static str) -> Response<Body> {
    let code = if status == StatusCode::SERVICE_UNAVAILABLE {
        "SlowDown"
    } else {
        "InternalError"
    };
    let text = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    );
    let mut response = Response::new(Body::from(Bytes::from(text)));
    *response.status_mut() = status;
    let xml = http::HeaderValue::from_static("application/xml");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, xml);
    response
}

/// Serves S3 on `listener` until `shutdown` resolves; `answer` is asked for every request, most
/// simply [`S3Bucket::answer`]. Requests that are open then are answered, within five seconds.
pub async fn serve_s3<A, F>(
    listener: tokio::net::TcpListener,
    answer: A,
    shutdown: impl Future<Output = ()> + Send,
) where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let mut shutdown = std::pin::pin!(shutdown);
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let answer = answer.clone();
        let service = service_fn(move |request| {
            let answered = answer(request);
            async move { Ok::<_, Infallible>(answered.await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        let served = graceful.watch(connection);
        connections.spawn(async move {
            // A client that goes away is no matter of the server's.
            let _ = served.await;
        });
    }
    drop(listener);
    // What is not answered by then ends with its connection.
    let _ = tokio::time::timeout(MAX_DRAIN, graceful.shutdown()).await;
}

/// One bucket, as s3s asks for it.
struct Bucket {
    name: String,
    objects: Arc<S3Objects>,
}

impl Bucket {
    fn require(&self, bucket: &str) -> S3Result<()> {
        if bucket == self.name {
            return Ok(());
        }
        Err(s3_error!(NoSuchBucket))
    }

    async fn object(&self, bucket: &str, key: String) -> S3Result<Kept> {
        self.require(bucket)?;
        let found = Arc::clone(&self.objects).get(key).await;
        found.map_err(not_kept)?.ok_or_else(|| s3_error!(NoSuchKey))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "stands in `map_err`")]
fn not_kept(error: PartsError) -> s3s::S3Error {
    tracing::error!(%error, "the S3 endpoint cannot reach its objects");
    s3_error!(InternalError)
}

fn tag(object: &S3Object) -> ETag {
    let hash = object
        .content
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    ETag::Strong(format!("{hash:x}"))
}

fn length(object: &S3Object) -> Option<i64> {
    i64::try_from(object.content.len()).ok()
}

/// Reads a body whole, within the bound.
async fn content(body: Option<StreamingBlob>) -> S3Result<Vec<u8>> {
    let mut content = Vec::new();
    let Some(mut body) = body else {
        return Ok(content);
    };
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|_| s3_error!(IncompleteBody))?;
        if content.len() + piece.len() > MAX_OBJECT_BYTES {
            return Err(s3_error!(EntityTooLarge));
        }
        content.extend_from_slice(&piece);
    }
    Ok(content)
}

#[async_trait::async_trait]
impl S3 for Bucket {
    async fn put_object(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        self.require(&input.bucket)?;
        let content = content(input.body).await?;
        if let Some(claimed) = &input.checksum_sha256 {
            let mut hasher = s3s::checksum::ChecksumHasher {
                sha256: Some(s3s::crypto::Checksum::new()),
                ..s3s::checksum::ChecksumHasher::default()
            };
            hasher.update(&content);
            if hasher.finalize().checksum_sha256.as_ref() != Some(claimed) {
                return Err(s3_error!(BadDigest));
            }
        }
        let object = S3Object {
            content: content.into(),
            content_type: input.content_type,
            checksum_sha256: input.checksum_sha256,
        };
        let output = PutObjectOutput {
            e_tag: Some(tag(&object)),
            ..PutObjectOutput::default()
        };
        let only_new = input.if_none_match.is_some();
        let objects = Arc::clone(&self.objects);
        let put = objects.put(input.key, object, only_new).await;
        match put.map_err(not_kept)? {
            Put::Kept => Ok(S3Response::new(output)),
            Put::WasThere => Err(s3_error!(PreconditionFailed)),
        }
    }

    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let kept = self
            .object(&request.input.bucket, request.input.key)
            .await?;
        let object = kept.object;
        let content = object.content.clone();
        let output = GetObjectOutput {
            content_length: length(&object),
            e_tag: Some(tag(&object)),
            content_type: object.content_type,
            last_modified: Some(kept.modified.into()),
            body: Some(StreamingBlob::from(Body::from(content))),
            ..GetObjectOutput::default()
        };
        Ok(S3Response::new(output))
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let kept = self
            .object(&request.input.bucket, request.input.key)
            .await?;
        let object = kept.object;
        let output = HeadObjectOutput {
            content_length: length(&object),
            e_tag: Some(tag(&object)),
            content_type: object.content_type,
            last_modified: Some(kept.modified.into()),
            ..HeadObjectOutput::default()
        };
        Ok(S3Response::new(output))
    }
}
