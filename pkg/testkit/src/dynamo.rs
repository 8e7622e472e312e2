use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region, retry::RetryConfig};
use millrace_parts::{Guarded, StopSignal, free_port, http_get, log_tail};
use tokio::sync::OnceCell;

use crate::{OrFail as _, eventually, given, namespace};

const READY_BOUND: Duration = Duration::from_secs(30);
/// Tells a copy of the test binary to be the endpoint: `<port> <file>`.
const ROLE_VARIABLE: &str = "MILLRACE_TESTKIT_DYNAMODB";
/// The name of the test that [`dynamodb_process!`] defines.
const ROLE_TEST: &str = "serves_dynamodb_when_asked";

/// A DynamoDB endpoint that this test binary shares.
#[derive(Debug, Clone)]
pub struct Dynamo {
    /// How a process of the test reaches it.
    pub endpoint: String,
    /// A client of the test.
    pub client: aws_sdk_dynamodb::Client,
    /// The prefix of every table of the test.
    pub prefix: String,
}

struct Shared {
    /// Kept until the process ends.
    _server: Option<millrace_parts::DynamoDb>,
    endpoint: String,
}

static SHARED: OnceCell<Shared> = OnceCell::const_new();

/// Connects to the shared endpoint, in memory unless `DYNAMODB_ENDPOINT` names another.
pub async fn dynamodb() -> Dynamo {
    let shared = SHARED
        .get_or_init(|| async {
            match given("DYNAMODB_ENDPOINT") {
                Some(endpoint) => Shared {
                    _server: None,
                    endpoint,
                },
                None => {
                    let server =
                        millrace_parts::DynamoDb::in_memory().or_fail("the embedded DynamoDB");
                    let endpoint = server.endpoint();
                    Shared {
                        _server: Some(server),
                        endpoint,
                    }
                }
            }
        })
        .await;
    connect(shared.endpoint.clone())
}

fn connect(endpoint: String) -> Dynamo {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("local", "local", None, None, "testkit"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .retry_config(RetryConfig::standard().with_max_attempts(3))
        .endpoint_url(&endpoint)
        .build();
    let client = aws_sdk_dynamodb::Client::from_conf(config);
    Dynamo {
        endpoint,
        client,
        prefix: namespace(),
    }
}

/// A DynamoDB endpoint of one test, to be hurt: a process of its own on a file. Port and data stay
/// over kills and restarts.
#[derive(Debug)]
pub struct DynamoServer {
    process: Guarded,
    port: u16,
    folder: PathBuf,
}

/// Starts a DynamoDB endpoint of the test's own. The process is a copy of the test binary, so
/// `tests/it/main.rs` has to say `millrace_testkit::dynamodb_process!();`.
pub async fn own_dynamodb() -> DynamoServer {
    let folder = millrace_parts::temporary_folder().or_fail("a folder for DynamoDB");
    let port = free_port();
    let process = launch(port, &folder).await;
    DynamoServer {
        process,
        port,
        folder,
    }
}

async fn launch(port: u16, folder: &Path) -> Guarded {
    let mut command = Command::new(std::env::current_exe().or_fail("the test binary's own path"));
    command
        .args([ROLE_TEST, "--nocapture", "--test-threads=1"])
        .env(
            ROLE_VARIABLE,
            format!("{port} {}", folder.join("dynamodb.sqlite").display()),
        );
    let log = folder.join("dynamodb.log");
    let process = Guarded::spawn(command, &log, StopSignal::Terminate, Some(folder));
    let process = std::cell::RefCell::new(process.or_fail("starting the DynamoDB endpoint"));
    eventually("the DynamoDB endpoint to answer", READY_BOUND, || async {
        if let Ok(Some(status)) = process.borrow_mut().try_wait() {
            panic!(
                "the DynamoDB endpoint ended with {status}; does tests/it/main.rs say \
                 `millrace_testkit::dynamodb_process!();`?\n{}",
                log_tail(&log)
            );
        }
        http_get(port, "/", Duration::from_secs(1))
            .await
            .is_ok_and(|(s, _)| s == 200)
            .then_some(())
    })
    .await;
    process.into_inner()
}

impl DynamoServer {
    /// How clients reach it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A new client and table prefix.
    #[must_use]
    pub fn connect(&self) -> Dynamo {
        connect(self.endpoint())
    }

    /// A new client.
    #[must_use]
    pub fn client(&self) -> aws_sdk_dynamodb::Client {
        self.connect().client
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        self.process
            .kill()
            .await
            .or_fail("killing the DynamoDB endpoint");
    }

    /// Starts it again on the same port and data.
    pub async fn restart(&mut self) {
        self.kill().await;
        self.process = launch(self.port, &self.folder).await;
    }

    /// SIGSTOP.
    pub fn pause(&mut self) {
        self.process
            .pause()
            .or_fail("pausing the DynamoDB endpoint");
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.process
            .resume()
            .or_fail("resuming the DynamoDB endpoint");
    }
}

impl Drop for DynamoServer {
    fn drop(&mut self) {
        // The process first: it would go on writing into a folder that is gone.
        let _ = self.process.ask_to_stop();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Defines the test under which a copy of this test binary is the endpoint of [`own_dynamodb`]; in
/// an ordinary run it passes at once. Stands in `tests/it/main.rs`.
#[macro_export]
macro_rules! dynamodb_process {
    () => {
        #[test]
        fn serves_dynamodb_when_asked() {
            $crate::serve_dynamodb_if_asked();
        }
    };
}

/// Serves until the process is ended, if this process was started to do so.
pub fn serve_dynamodb_if_asked() {
    let Some(role) = given(ROLE_VARIABLE) else {
        return;
    };
    let (port, file) = role.split_once(' ').expect("`<port> <file>`");
    let port: u16 = port.parse().or_fail("the endpoint's port");
    let runtime = tokio::runtime::Runtime::new().or_fail("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port))
            .await
            .or_fail("listening on the endpoint's port");
        millrace_parts::serve_dynamodb(listener, Some(Path::new(file)), std::future::pending())
            .await
            .or_fail("serving DynamoDB");
    });
}
