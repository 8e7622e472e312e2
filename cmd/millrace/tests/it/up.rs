//! `millrace up` as a new user meets it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use millrace_testkit::{eventually, free_port, http_get};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::run::{millrace, run};

/// From nothing, on a loaded machine, with an unoptimised binary.
const START_BOUND: Duration = Duration::from_secs(180);
const RECOVERY_BOUND: Duration = Duration::from_secs(90);
const END_BOUND: Duration = Duration::from_secs(30);

/// A running `up`.
struct Up {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// What it said, up to the lines to paste.
    said: Vec<String>,
    port: u16,
}

fn command(data_dir: &Path, port: u16, more: &[&str]) -> Command {
    let mut command = millrace(["up", "--data-dir"]);
    command
        .arg(data_dir)
        .arg("--port")
        .arg(port.to_string())
        .args(more);
    for flag in [
        "--admin-port",
        "--command-port",
        "--command-admin-port",
        "--internal-port",
        "--query-admin-port",
        "--postgres-port",
        "--nats-port",
        "--dynamodb-port",
        "--sns-port",
    ] {
        // The usual ports may be those of somebody's own `up`.
        command.arg(flag).arg(free_port().to_string());
    }
    command
}

impl Up {
    async fn start(data_dir: &Path, more: &[&str]) -> Self {
        let port = free_port();
        let mut child = command(data_dir, port, more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut up = Self {
            child,
            lines,
            said: Vec::new(),
            port,
        };
        let read = async {
            while up.to_paste().len() < 3 {
                let line = up.lines.next_line().await.unwrap();
                up.said.push(line.expect("`up` ended before it was up"));
            }
        };
        tokio::time::timeout(START_BOUND, read)
            .await
            .expect("`up` is up in time");
        up
    }

    fn to_paste(&self) -> Vec<&String> {
        self.said
            .iter()
            .filter(|line| line.starts_with("curl "))
            .collect()
    }

    /// The children as the table says: name → process id.
    fn children(&self) -> BTreeMap<String, u32> {
        let rows = self.said.iter().filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
        });
        rows.collect()
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    async fn signal(&self, signal: &str) {
        kill(signal, self.child.id().unwrap()).await;
    }

    /// Waits for its end and gives its exit code; `None` when a signal ended it.
    async fn ended(&mut self) -> Option<i32> {
        let status = tokio::time::timeout(END_BOUND, self.child.wait()).await;
        status.expect("`up` ends in time").unwrap().code()
    }
}

async fn kill(signal: &str, id: u32) {
    let sent = Command::new("kill")
        .arg(format!("-{signal}"))
        .arg(id.to_string())
        .status()
        .await;
    assert!(sent.unwrap().success(), "kill -{signal} {id}");
}

/// All living descendants of a process.
fn descendants(id: u32) -> Vec<u32> {
    // The kernel keeps children by the thread that started them.
    let threads = std::fs::read_dir(format!("/proc/{id}/task"))
        .into_iter()
        .flatten();
    let children: Vec<u32> = threads
        .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("children")).ok())
        .flat_map(|children| {
            let ids = children
                .split_ascii_whitespace()
                .map(|word| word.parse().unwrap());
            ids.collect::<Vec<u32>>()
        })
        .collect();
    let below = children.iter().flat_map(|child| descendants(*child));
    children.iter().copied().chain(below).collect()
}

fn gone(id: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{id}/stat")).map_or(true, |stat| {
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim_start().starts_with('Z'))
    })
}

async fn all_gone(ids: &[u32]) {
    eventually("every process to be gone", END_BOUND, || async {
        ids.iter().all(|id| gone(*id)).then_some(())
    })
    .await;
}

/// Runs a line as a shell does, and gives status and body.
async fn paste(line: &str) -> (u16, Value) {
    let output = Command::new("sh")
        .args(["-c", line])
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{line}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{line}\n{text}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

#[tokio::test]
async fn a_new_user_sees_an_order_in_both_views_and_every_child_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = Up::start(folder.path(), &[]).await;
    let lines: Vec<String> = up.to_paste().into_iter().cloned().collect();
    let (status, order) = paste(&lines[0]).await;
    assert_eq!(status, 201);
    let (status, orders) = paste(&lines[1]).await;
    assert_eq!(status, 200);
    assert_eq!(orders[0]["orderId"], order["id"]);
    let (status, row) = paste(&lines[2]).await;
    assert_eq!((status, &row["id"]), (200, &order["id"]));
    // Pasted again: the same answer, no second order.
    let id = order["id"].as_str().unwrap().to_owned();
    assert_eq!(paste(&lines[0]).await, (201, order));
    seen_in_the_world(&up, &id).await;

    let (status, page) = http_get(up.port, "/docs/", Duration::from_secs(5))
        .await
        .unwrap();
    assert!(status == 200 && page.contains("swagger"), "{status}");

    let children = up.children();
    assert_eq!(children.len(), 7, "{:?}", up.said);
    for (name, id) in &children {
        kill("KILL", *id).await;
        let user = format!("after-{name}");
        written_and_read(&up, &user).await;
    }

    let family = descendants(up.child.id().unwrap());
    assert!(family.len() >= 14, "each child and its guard: {family:?}");
    // As Ctrl-C does in a terminal, to the process itself.
    up.signal("INT").await;
    assert_eq!(up.ended().await, Some(0));
    all_gone(&family).await;
}

/// Waits until an order has its receipt, and its message can be seen where `up` says.
async fn seen_in_the_world(up: &Up, id: &str) {
    let path = format!("/orders/{id}/receipt");
    let receipt = eventually("the receipt", RECOVERY_BOUND, || async {
        let answer = http_get(up.port, &path, Duration::from_secs(5)).await;
        let (status, text) = answer.ok()?;
        (status == 200).then_some(text)
    })
    .await;
    assert!(receipt.contains(id), "{receipt}");
    let row = up.said.iter().find(|line| line.starts_with("sns "));
    let url = row.unwrap().split_ascii_whitespace().nth(2).unwrap();
    let port = url.rsplit(':').next().unwrap().parse().unwrap();
    eventually("the message", RECOVERY_BOUND, || async {
        let answer = http_get(port, "/", Duration::from_secs(5)).await;
        let (_, text) = answer.ok()?;
        text.contains(id).then_some(())
    })
    .await;
}

/// Writes an order of a user and reads it back from both views, within the time of a recovery.
async fn written_and_read(up: &Up, user: &str) {
    let order = |what: &'static str, args: Vec<String>| async move {
        eventually(what, RECOVERY_BOUND, || async {
            let output = Command::new("curl").args(&args).output().await.ok()?;
            serde_json::from_slice::<Value>(&output.stdout)
                .ok()
                .filter(|value| {
                    value
                        .as_array()
                        .map_or(value.get("user_id").is_some(), |list| !list.is_empty())
                })
        })
        .await
    };
    let args = |args: &[&str]| -> Vec<String> {
        ["-s", "-f", "-m", "10"]
            .iter()
            .chain(args)
            .map(ToString::to_string)
            .collect()
    };
    let body = format!(r#"{{"user_id":"{user}","total_amount":"3.50"}}"#);
    let key = format!("Idempotency-Key: {user}");
    let post = [
        "-X",
        "POST",
        &up.url("/orders"),
        "-H",
        "Content-Type: application/json",
        "-H",
        &key,
        "-d",
        &body,
    ];
    let written = order("the order to be taken", args(&post)).await;
    let items = order(
        "the order in DynamoDB",
        args(&[&up.url(&format!("/api/orders/{user}"))]),
    )
    .await;
    assert_eq!(items.as_array().unwrap().len(), 1);
    assert_eq!(items[0]["orderId"], written["id"]);
    let id = written["id"].as_str().unwrap();
    let row = order(
        "the order in PostgreSQL",
        args(&[&up.url(&format!("/orders/{id}"))]),
    )
    .await;
    assert_eq!(row["user_id"], user);
}

/// How many events the example comes to in ordering, once its payments are settled.
const EXAMPLE_EVENTS: u64 = 849;

#[tokio::test]
async fn data_survives_a_kill_and_the_example_is_fed_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = Up::start(folder.path(), &["--example"]).await;
    let count = async |up: &Up| {
        let path = format!("/orders/statistics?at_least=ordering/{EXAMPLE_EVENTS}");
        let (_, body) = http_get(up.port, &path, Duration::from_secs(30))
            .await
            .ok()?;
        serde_json::from_str::<Value>(&body).ok()?["total_orders"].as_u64()
    };
    let first = eventually("statistics", RECOVERY_BOUND, || count(&up)).await;
    assert!(first > 200, "{first}");

    // Somebody else may not use the folder meanwhile.
    let refused = run(command(folder.path(), free_port(), &[])).await;
    assert_eq!(refused.code, 5, "{}", refused.err);
    assert!(
        refused.err.contains("another `millrace up` (process "),
        "{}",
        refused.err
    );
    assert!(refused.err.contains("--data-dir"), "{}", refused.err);

    let family = descendants(up.child.id().unwrap());
    assert!(family.len() >= 12, "each child and its guard: {family:?}");
    up.signal("KILL").await;
    assert_eq!(up.ended().await, None);
    // At once: the servers of the killed one may still be ending.
    let mut again = Up::start(folder.path(), &["--example"]).await;
    all_gone(&family).await;
    let second = eventually("statistics", RECOVERY_BOUND, || count(&again)).await;
    assert_eq!(second, first);
    again.signal("TERM").await;
    assert_eq!(again.ended().await, Some(0));
}

#[tokio::test]
async fn a_port_in_use_is_said_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let started = Instant::now();
    let refused = run(command(folder.path(), port, &[])).await;
    assert_eq!(refused.code, 1);
    assert!(
        refused
            .err
            .contains(&format!("port {port} on 127.0.0.1 is in use")),
        "{}",
        refused.err
    );
    assert!(refused.err.contains("--port <PORT>"), "{}", refused.err);
    assert!(started.elapsed() < Duration::from_secs(20));
    assert!(!folder.path().join("nats").exists());
}

#[tokio::test]
async fn given_servers_are_used_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (database, nats, dynamodb) = tokio::join!(
        millrace_testkit::postgres(),
        millrace_testkit::nats(),
        millrace_testkit::dynamodb()
    );
    let migrate = || {
        let mut migrate = millrace(["migrate"]);
        migrate
            .env("DATABASE_URL", &database.url)
            .env("NATS_URL", &nats.url)
            .env("DYNAMODB_ENDPOINT", &dynamodb.endpoint)
            .env("MILLRACE_NAMESPACE", &nats.namespace);
        run(migrate)
    };
    // Twice at once, and again.
    let (one, two) = tokio::join!(migrate(), migrate());
    for ended in [one, two, migrate().await] {
        assert_eq!(ended.code, 0, "{}", ended.err);
    }
    let mut up = Up::start(
        folder.path(),
        &[
            "--database-url",
            &database.url,
            "--nats-url",
            &nats.url,
            "--dynamodb-endpoint",
            &dynamodb.endpoint,
            "--namespace",
            &nats.namespace,
        ],
    )
    .await;
    // The roles, and SNS, which was not given.
    assert_eq!(up.children().len(), 4, "{:?}", up.said);
    let lines: Vec<String> = up.to_paste().into_iter().cloned().collect();
    assert_eq!(paste(&lines[0]).await.0, 201);
    assert_eq!(paste(&lines[2]).await.0, 200);
    up.signal("INT").await;
    assert_eq!(up.ended().await, Some(0));
    sqlx::query("SELECT 1")
        .execute(&database.pool)
        .await
        .unwrap();
}
