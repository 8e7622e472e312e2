//! The roles' settings, from outside.

use std::path::Path;
use std::time::Duration;

use millrace_testkit::{Database, Dynamo, Nats, Process, eventually, free_port, http_get};
use serde_json::Value;

use crate::run::{millrace, run};

const ROLES: [&str; 4] = ["command", "projector", "query", "controller"];

#[tokio::test]
async fn help_explains_every_setting_and_shows_no_secret() {
    for role in ROLES {
        let mut help = millrace(["role", role, "--help"]);
        help.env("DATABASE_URL", "postgres://user:hunter2@host/db");
        let ended = run(help).await;
        assert_eq!(ended.code, 0, "{}", ended.err);
        for part in [
            "[env: DATABASE_URL]",
            "[env: MILLRACE_NAMESPACE]",
            "[default: millrace]",
            "--config",
        ] {
            assert!(ended.out.contains(part), "{role} {part}\n{}", ended.out);
        }
        assert!(!ended.out.contains("hunter2"));
        // Every option says something.
        let bare = ended
            .out
            .lines()
            .zip(ended.out.lines().skip(1))
            .find(|(option, text)| {
                option.trim_start().starts_with("--")
                    && text.trim().is_empty()
                    && !option.contains("  ")
            });
        assert_eq!(bare, None, "{role}");
    }
}

#[tokio::test]
async fn an_unknown_setting_is_an_error_that_names_the_nearest() {
    for role in ROLES {
        let mut wrong = millrace(["role", role]);
        wrong.env("DATABASE_URL", "postgres://user:hunter2@127.0.0.1:1/db");
        wrong.env("MILLRACE_NAMESPAC", "x");
        let ended = run(wrong).await;
        assert_eq!(ended.code, 2);
        assert!(
            ended.err.contains("did you mean `MILLRACE_NAMESPACE`?"),
            "{}",
            ended.err
        );
        assert!(!ended.err.contains("hunter2"));
    }
}

#[tokio::test]
async fn a_wrong_database_url_is_refused_without_being_shown() {
    for role in ROLES {
        let mut wrong = millrace(["role", role, "--admin-listen", "127.0.0.1:0"]);
        wrong.env("DATABASE_URL", "not-a-url-hunter2");
        if ["command", "query"].contains(&role) {
            wrong.env("MILLRACE_LISTEN", "127.0.0.1:0");
        }
        if role == "command" {
            wrong.env("MILLRACE_INTERNAL_LISTEN", "127.0.0.1:0");
        }
        let ended = run(wrong).await;
        assert_eq!(ended.code, 1, "{role} {}", ended.err);
        assert!(!ended.err.contains("hunter2"), "{role} {}", ended.err);
    }
}

const BOUND: Duration = Duration::from_secs(60);

/// A role against servers of the test.
struct Running {
    process: Process,
    port: u16,
    admin_port: u16,
}

impl Running {
    async fn start(role: &str, stores: &Stores, more: &[(&str, String)]) -> Self {
        let (port, admin_port) = (free_port(), free_port());
        let mut settings = vec![
            ("DATABASE_URL", stores.database.url.clone()),
            ("NATS_URL", stores.nats.url.clone()),
            ("DYNAMODB_ENDPOINT", stores.dynamodb.endpoint.clone()),
            ("MILLRACE_NAMESPACE", stores.nats.namespace.clone()),
            ("MILLRACE_ADMIN_LISTEN", format!("127.0.0.1:{admin_port}")),
        ];
        if ["command", "query"].contains(&role) {
            settings.push(("MILLRACE_LISTEN", format!("127.0.0.1:{port}")));
        }
        if role == "command" {
            settings.push(("MILLRACE_INTERNAL_LISTEN", "127.0.0.1:0".to_owned()));
        }
        settings.extend(more.iter().cloned());
        let program = Path::new(env!("CARGO_BIN_EXE_millrace"));
        let mut process = Process::start(program, &["role", role], &settings);
        process.wait_ready(admin_port, "/readyz", BOUND).await;
        Self {
            process,
            port,
            admin_port,
        }
    }

    async fn admin(&self, path: &str) -> (u16, Value) {
        let (status, body) = http_get(self.admin_port, path, BOUND).await.unwrap();
        (status, serde_json::from_str(&body).unwrap())
    }
}

struct Stores {
    database: Database,
    nats: Nats,
    dynamodb: Dynamo,
}

impl Stores {
    async fn start() -> Self {
        let (database, nats, dynamodb) = tokio::join!(
            millrace_testkit::postgres(),
            millrace_testkit::nats(),
            millrace_testkit::dynamodb()
        );
        Self {
            database,
            nats,
            dynamodb,
        }
    }
}

#[tokio::test]
async fn a_command_process_serves_on_while_it_is_lame_and_ends_well() {
    let stores = Stores::start().await;
    let lame = [("MILLRACE_LAME_DUCK_MS", "4000".to_owned())];
    let mut command = Running::start("command", &stores, &lame).await;
    command.process.ask_to_stop();
    eventually("readiness to go off", BOUND, || async {
        let (status, said) = command.admin("/readyz").await;
        (status == 503 && said["stopping"] == true).then_some(())
    })
    .await;
    // What comes in from those who have not noticed yet is still served.
    let (status, _) = http_get(command.port, "/openapi.json", BOUND)
        .await
        .unwrap();
    assert_eq!(status, 200);
    let status = command.process.wait(BOUND).await;
    assert_eq!(status.code(), Some(0), "{}", command.process.output());
    let output = command.process.output();
    // Nothing of ours comes after it; the client of NATS may say once more that it is disconnected.
    let last = output.lines().rev().find_map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        let target = line["target"].as_str().unwrap_or_default();
        let of_nats = target == "millrace_streaming::client" || target.starts_with("async_nats");
        (!of_nats).then_some(line)
    });
    assert_eq!(last.unwrap()["message"], "ended", "{output}");
}

#[tokio::test]
async fn a_second_signal_insists() {
    let stores = Stores::start().await;
    let lame = [("MILLRACE_LAME_DUCK_MS", "600000".to_owned())];
    let mut command = Running::start("command", &stores, &lame).await;
    command.process.ask_to_stop();
    eventually("readiness to go off", BOUND, || async {
        (command.admin("/readyz").await.0 == 503).then_some(())
    })
    .await;
    command.process.ask_to_stop();
    assert_eq!(command.process.wait(BOUND).await.code(), Some(130));
}

#[tokio::test]
async fn projector_and_query_end_well_and_say_what_is_missing() {
    let stores = Stores::start().await;
    let mut command = Running::start("command", &stores, &[]).await;
    let mut projector = Running::start("projector", &stores, &[]).await;
    let mut query = Running::start("query", &stores, &[]).await;
    assert_eq!(
        projector.admin("/dead-letters").await,
        (200, Value::Array(Vec::new()))
    );
    let (status, body) = http_get(query.port, "/orders", BOUND).await.unwrap();
    assert_eq!(status, 200, "{body}");
    for role in [&mut query, &mut projector, &mut command] {
        let status = role.process.terminate().await;
        assert_eq!(
            status.and_then(|s| s.code()),
            Some(0),
            "{}",
            role.process.output()
        );
    }
    // A store that is not there is named, and the password in its URL is not.
    let nowhere = "postgres://user:hunter2@127.0.0.1:1/db".to_owned();
    let admin_port = free_port();
    let settings = [
        ("DATABASE_URL", nowhere),
        ("NATS_URL", stores.nats.url.clone()),
        ("DYNAMODB_ENDPOINT", stores.dynamodb.endpoint.clone()),
        ("MILLRACE_ADMIN_LISTEN", format!("127.0.0.1:{admin_port}")),
    ];
    let program = Path::new(env!("CARGO_BIN_EXE_millrace"));
    let lost = Process::start(program, &["role", "projector"], &settings);
    let said = eventually("the missing database to be named", BOUND, || async {
        let (status, body) = http_get(admin_port, "/readyz", BOUND).await.ok()?;
        (status == 503 && body.contains("read database")).then_some(body)
    })
    .await;
    assert!(!said.contains("hunter2") && !lost.output().contains("hunter2"));
}
