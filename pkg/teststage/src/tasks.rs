use std::time::Duration;

use axum::Router;
use millrace_http::{ServerLimits, serve};
use millrace_testkit::HttpClient;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// How long a server that is told to stop waits for its requests.
const DRAIN: Duration = Duration::from_secs(1);

/// What runs beside a test: servers, relays, projectors, timers. Once it is dropped, all of it is told
/// to stop, and aborted.
#[derive(Debug, Default)]
pub struct Tasks {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.stop.cancel();
        self.tasks.abort_all();
    }
}

impl Tasks {
    /// Runs a task, which is told by its token to stop.
    pub fn spawn<T>(&mut self, task: impl FnOnce(CancellationToken) -> T)
    where
        T: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task(self.stop.clone()));
    }

    /// Serves routes on a free port.
    pub async fn listen(&mut self, router: Router) -> HttpClient {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a port has an address");
        self.spawn(async move |stop| {
            let limits = ServerLimits::default();
            let served = serve(listener, router, limits, stop, DRAIN).await;
            served.expect("the server takes connections");
        });
        HttpClient::new(address)
    }
}
