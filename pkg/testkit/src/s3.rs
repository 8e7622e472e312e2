//! An S3 server on loopback, in memory, that can be hurt.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Request, Response, StatusCode, header};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
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
use tokio::{net::TcpListener, task::JoinSet};

use crate::OrFail as _;

/// The keys that the server knows.
pub const S3_ACCESS_KEY_ID: &str = "testkit";
/// The secret that goes with it.
pub const S3_SECRET_ACCESS_KEY: &str = "testkit-secret";
/// The bucket that is there.
pub const S3_BUCKET: &str = "receipts";

/// What an S3 server does to requests, besides serving them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum S3Fault {
    /// Answers with this status, as S3 does: 500, or 503 `SlowDown`.
    Status(u16),
    /// Answers nothing for this long, and then as if nothing was.
    Slow(Duration),
    /// Performs the request and closes the connection without an answer.
    NoAnswer,
    /// Takes no key for the right one.
    RefuseKeys,
}

/// An object as the server keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Object {
    /// What it holds.
    pub content: Bytes,
    /// Its media type.
    pub content_type: Option<String>,
    /// The checksum that came with it and was right.
    pub checksum_sha256: Option<String>,
}

#[derive(Default)]
struct Inner {
    objects: BTreeMap<String, S3Object>,
    fault: Option<S3Fault>,
    requests: u64,
}

/// An S3 server of one test. It ends when dropped.
pub struct S3Server {
    port: u16,
    shared: Shared,
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Inner>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts an S3 server with one empty bucket.
pub async fn s3() -> S3Server {
    let shared = Shared::default();
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .or_fail("a port for S3");
    let port = listener.local_addr().or_fail("the port of S3").port();
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(listener, shared.clone()));
    S3Server {
        port,
        shared,
        tasks: Mutex::new(tasks),
    }
}

impl S3Server {
    /// How clients reach it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Hurts it until the next call; none heals it.
    pub fn hurt(&self, fault: Option<S3Fault>) {
        self.shared.lock().fault = fault;
    }

    /// Takes it away: nothing listens any more, and open connections end.
    pub async fn stop(&self) {
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }

    /// Puts it back, on the same port and with the same objects.
    pub async fn start(&self) {
        let listener = crate::eventually(
            "the port of S3 to be free",
            Duration::from_secs(10),
            || async { TcpListener::bind(("127.0.0.1", self.port)).await.ok() },
        )
        .await;
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.spawn(serve(listener, self.shared.clone()));
    }

    /// Its objects, by key.
    #[must_use]
    pub fn objects(&self) -> BTreeMap<String, S3Object> {
        self.shared.lock().objects.clone()
    }

    /// How many requests came.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.lock().requests
    }
}

async fn serve(listener: TcpListener, shared: Shared) {
    let service = |keys: SimpleAuth| {
        let mut builder = S3ServiceBuilder::new(Bucket(shared.clone()));
        builder.set_auth(keys);
        builder.build()
    };
    let known = service(SimpleAuth::from_single(
        S3_ACCESS_KEY_ID,
        S3_SECRET_ACCESS_KEY,
    ));
    let nobody = service(SimpleAuth::from_single("nobody", "nothing"));
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let (shared, known, nobody) = (shared.clone(), known.clone(), nobody.clone());
        let service = tower::service_fn(move |request| {
            answer(shared.clone(), known.clone(), nobody.clone(), request)
        });
        connections.spawn(async move {
            let builder = Builder::new(TokioExecutor::new());
            let service = TowerToHyperService::new(service);
            // A client that goes away is no matter of the server's.
            let _ = builder
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    shared: Shared,
    known: S3Service,
    nobody: S3Service,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Body>, Infallible> {
    let fault = {
        let mut inner = shared.lock();
        inner.requests += 1;
        inner.fault
    };
    let service = match fault {
        Some(S3Fault::Status(status)) => return Ok(failure(status)),
        Some(S3Fault::Slow(time)) => {
            tokio::time::sleep(time).await;
            known
        }
        Some(S3Fault::RefuseKeys) => nobody,
        Some(S3Fault::NoAnswer) | None => known,
    };
    let answered = service.call(request.map(Body::from)).await;
    if fault == Some(S3Fault::NoAnswer) {
        std::future::pending::<()>().await;
    }
    Ok(answered.unwrap_or_else(|_| failure(500)))
}

fn failure(status: u16) -> Response<Body> {
    let code = if status == 503 {
        "SlowDown"
    } else {
        "InternalError"
    };
    let text = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>hurt by the test</Message></Error>"
    );
    let mut response = Response::new(Body::from(Bytes::from(text)));
    *response.status_mut() = StatusCode::from_u16(status).or_fail("an HTTP status");
    let xml = http::HeaderValue::from_static("application/xml");
    response.headers_mut().insert(header::CONTENT_TYPE, xml);
    response
}

/// The bucket. What `s3s-fs` gets wrong is right here: of two that create one object one wins, and
/// an object whose checksum is wrong is not kept.
struct Bucket(Shared);

impl Bucket {
    fn object(&self, bucket: &str, key: &str) -> S3Result<S3Object> {
        if bucket != S3_BUCKET {
            return Err(s3_error!(NoSuchBucket));
        }
        let inner = self.0.lock();
        let found = inner.objects.get(key).cloned();
        found.ok_or_else(|| s3_error!(NoSuchKey))
    }
}

fn tag(object: &S3Object) -> ETag {
    ETag::Strong(format!("{:x}", crc(&object.content)))
}

fn crc(content: &[u8]) -> u64 {
    content
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

fn length(object: &S3Object) -> Option<i64> {
    i64::try_from(object.content.len()).ok()
}

#[async_trait::async_trait]
impl S3 for Bucket {
    async fn put_object(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        if input.bucket != S3_BUCKET {
            return Err(s3_error!(NoSuchBucket));
        }
        let mut content = Vec::new();
        if let Some(mut body) = input.body {
            while let Some(piece) = body.next().await {
                content.extend_from_slice(&piece.map_err(|_| s3_error!(IncompleteBody))?);
            }
        }
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
        let mut inner = self.0.lock();
        if input.if_none_match.is_some() && inner.objects.contains_key(&input.key) {
            return Err(s3_error!(PreconditionFailed));
        }
        let output = PutObjectOutput {
            e_tag: Some(tag(&object)),
            ..PutObjectOutput::default()
        };
        inner.objects.insert(input.key, object);
        Ok(S3Response::new(output))
    }

    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let object = self.object(&request.input.bucket, &request.input.key)?;
        let content = object.content.clone();
        let output = GetObjectOutput {
            content_length: length(&object),
            e_tag: Some(tag(&object)),
            content_type: object.content_type,
            last_modified: Some(std::time::SystemTime::UNIX_EPOCH.into()),
            body: Some(StreamingBlob::from(Body::from(content))),
            ..GetObjectOutput::default()
        };
        Ok(S3Response::new(output))
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let object = self.object(&request.input.bucket, &request.input.key)?;
        let output = HeadObjectOutput {
            content_length: length(&object),
            e_tag: Some(tag(&object)),
            content_type: object.content_type,
            last_modified: Some(std::time::SystemTime::UNIX_EPOCH.into()),
            ..HeadObjectOutput::default()
        };
        Ok(S3Response::new(output))
    }
}
