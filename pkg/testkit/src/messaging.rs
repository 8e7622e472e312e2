use std::time::Duration;

use millrace_parts::NatsOptions;
use tokio::sync::OnceCell;

use crate::{OrFail as _, given, namespace};

/// A stream's acknowledgement under a loaded machine.
const MAX_JETSTREAM_WAIT: Duration = Duration::from_secs(20);

/// A connection to the nats-server that this test binary shares.
#[derive(Debug, Clone)]
pub struct Nats {
    /// How a process of the test reaches the server.
    pub url: String,
    /// A client of the test.
    pub client: async_nats::Client,
    /// JetStream through that client.
    pub jetstream: async_nats::jetstream::Context,
    /// The prefix of everything that the test names there.
    pub namespace: String,
}

struct Shared {
    /// Kept until the process ends; its guard stops it then.
    _server: Option<millrace_parts::Nats>,
    url: String,
}

static SHARED: OnceCell<Shared> = OnceCell::const_new();

/// Connects to the shared nats-server under a namespace of the test's own.
pub async fn nats() -> Nats {
    let shared = SHARED
        .get_or_init(|| async {
            match given("NATS_URL") {
                Some(url) => Shared { _server: None, url },
                None => {
                    let server = start().await;
                    let url = server.url();
                    Shared {
                        _server: Some(server),
                        url,
                    }
                }
            }
        })
        .await;
    connect(shared.url.clone()).await
}

async fn start() -> millrace_parts::Nats {
    start_with(NatsOptions::temporary().or_fail("a folder for nats-server")).await
}

async fn start_with(options: NatsOptions) -> millrace_parts::Nats {
    millrace_parts::Nats::start(options)
        .await
        .or_fail("starting nats-server for tests")
}

async fn connect(url: String) -> Nats {
    let client = async_nats::ConnectOptions::new()
        .retry_on_initial_connect()
        .connect(&url)
        .await
        .or_fail("connecting to NATS");
    let mut jetstream = async_nats::jetstream::new(client.clone());
    jetstream.set_timeout(MAX_JETSTREAM_WAIT);
    Nats {
        url,
        client,
        jetstream,
        namespace: namespace(),
    }
}

/// A nats-server of one test, to be hurt. Port and data stay over kills and restarts.
#[derive(Debug)]
pub struct NatsServer {
    server: millrace_parts::Nats,
}

/// Starts a nats-server of the test's own.
pub async fn own_nats() -> NatsServer {
    NatsServer {
        server: start().await,
    }
}

impl NatsServer {
    #[cfg(feature = "credentials")]
    pub(crate) async fn start(options: NatsOptions) -> Self {
        Self {
            server: start_with(options).await,
        }
    }

    /// How clients reach it.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// A new client.
    pub async fn client(&self) -> async_nats::Client {
        self.connect().await.client
    }

    /// A new client, with JetStream and a namespace.
    pub async fn connect(&self) -> Nats {
        connect(self.url()).await
    }

    /// The folder of its JetStream data, to be copied or replaced while it is stopped.
    #[must_use]
    pub fn data(&self) -> &std::path::Path {
        self.server.data()
    }

    /// SIGTERM, and waits until it is gone, its data written.
    pub async fn stop(&mut self) {
        self.server
            .process()
            .stop()
            .await
            .or_fail("stopping nats-server");
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        self.server
            .process()
            .kill()
            .await
            .or_fail("killing nats-server");
    }

    /// Starts it again on the same port and data.
    pub async fn restart(&mut self) {
        self.server
            .restart()
            .await
            .or_fail("starting nats-server again");
    }

    /// Stops it, empties its data, and starts it again on the same port.
    pub async fn wipe(&mut self) {
        self.server
            .process()
            .stop()
            .await
            .or_fail("stopping nats-server");
        self.server
            .empty_data()
            .or_fail("emptying the data of nats-server");
        self.restart().await;
    }

    /// SIGSTOP.
    pub fn pause(&mut self) {
        self.server.process().pause().or_fail("pausing nats-server");
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.server
            .process()
            .resume()
            .or_fail("resuming nats-server");
    }
}
