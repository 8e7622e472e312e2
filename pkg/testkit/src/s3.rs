//! An S3 server on loopback, in memory, that can be hurt.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{Request, Response, StatusCode};
use millrace_parts::{S3Bucket, S3Keys, S3Objects, s3_failure, serve_s3};
use tokio::{net::TcpListener, task::JoinSet};

pub use millrace_parts::S3Object;

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

#[derive(Default)]
struct Hurt {
    fault: Option<S3Fault>,
    requests: u64,
}

/// An S3 server of one test. It ends when dropped.
pub struct S3Server {
    port: u16,
    shared: Shared,
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Clone)]
struct Shared {
    hurt: Arc<Mutex<Hurt>>,
    objects: Arc<S3Objects>,
    known: S3Bucket,
    nobody: S3Bucket,
}

impl Shared {
    fn new() -> Self {
        let objects = Arc::new(S3Objects::in_memory());
        let bucket = |id: &str, secret: &str| {
            let keys = S3Keys {
                id: id.to_owned(),
                secret: secret.to_owned(),
            };
            S3Bucket::new(S3_BUCKET, Arc::clone(&objects), &keys)
        };
        Self {
            hurt: Arc::default(),
            known: bucket(S3_ACCESS_KEY_ID, S3_SECRET_ACCESS_KEY),
            nobody: bucket("nobody", "nothing"),
            objects,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Hurt> {
        self.hurt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts an S3 server with one empty bucket.
pub async fn s3() -> S3Server {
    let shared = Shared::new();
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
        self.shared.objects.listed()
    }

    /// How many requests came.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.lock().requests
    }
}

async fn serve(listener: TcpListener, shared: Shared) {
    let hurt = move |request| answer(shared.clone(), request);
    serve_s3(listener, hurt, std::future::pending()).await;
}

async fn answer(shared: Shared, request: Request<hyper::body::Incoming>) -> Response<s3s::Body> {
    let fault = {
        let mut hurt = shared.lock();
        hurt.requests += 1;
        hurt.fault
    };
    let bucket = match fault {
        Some(S3Fault::Status(status)) => {
            let status = StatusCode::from_u16(status).or_fail("an HTTP status");
            return s3_failure(status, "hurt by the test");
        }
        Some(S3Fault::Slow(time)) => {
            tokio::time::sleep(time).await;
            shared.known
        }
        Some(S3Fault::RefuseKeys) => shared.nobody,
        Some(S3Fault::NoAnswer) | None => shared.known,
    };
    let answered = bucket.answer(request).await;
    if fault == Some(S3Fault::NoAnswer) {
        std::future::pending::<()>().await;
    }
    answered
}
