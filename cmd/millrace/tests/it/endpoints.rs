//! The embedded endpoints as processes, as a cluster for development runs them.

use std::{path::Path, time::Duration};

use millrace_effects::{Archive, ArchiveKeys, ArchiveOptions, Stored};
use millrace_testkit::{Process, eventually, free_port};
use tokio::{net::TcpStream, task::JoinSet};

const BOUND: Duration = Duration::from_secs(20);

/// Starts an endpoint on a port of every address and waits until it listens there.
async fn start(arguments: &[&str], environment: &[(&str, String)]) -> (Process, u16) {
    let port = free_port().unwrap();
    let listen = format!("0.0.0.0:{port}");
    let arguments = [arguments, &["--listen", &listen]].concat();
    let program = Path::new(env!("CARGO_BIN_EXE_millrace"));
    let process = Process::start(program, &arguments, environment);
    eventually("the endpoint to listen", BOUND, || async {
        TcpStream::connect(("127.0.0.1", port)).await.ok()
    })
    .await;
    (process, port)
}

fn keys() -> [(&'static str, String); 2] {
    [
        ("S3_ACCESS_KEY_ID", "a-key".to_owned()),
        ("S3_SECRET_ACCESS_KEY", "a-secret".to_owned()),
    ]
}

fn archive(port: u16, secret: &str) -> Archive {
    millrace_runtime::install_crypto();
    let options = ArchiveOptions {
        endpoint: Some(format!("http://127.0.0.1:{port}")),
        keys: Some(ArchiveKeys {
            id: "a-key".to_owned(),
            secret: secret.to_owned(),
        }),
    };
    Archive::open("s3://receipts/kept", &options).unwrap()
}

async fn create(archive: &Archive, path: &str, content: &'static str) -> Stored {
    let content = content.as_bytes().into();
    archive.create(path, "text/plain", content).await.unwrap()
}

#[tokio::test]
async fn an_s3_bucket_keeps_what_was_put_first() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("s3").display().to_string();
    let arguments = ["s3", "--bucket", "receipts", "--data-dir", &place];
    let (mut process, port) = start(&arguments, &keys()).await;
    let first = archive(port, "a-secret");
    assert_eq!(create(&first, "a/b", "one").await, Stored::Written);
    assert_eq!(create(&first, "a/b", "two").await, Stored::WasThere);
    assert_eq!(first.read("a/b").await.unwrap().unwrap().as_ref(), b"one");
    assert!(first.read("a/c").await.unwrap().is_none());
    let stranger = archive(port, "guessed");
    assert!(stranger.read("a/b").await.is_err());

    // Each of many keys is written by one of many racers.
    for round in 0..10 {
        let mut racers = JoinSet::new();
        for _ in 0..16 {
            let archive = first.clone();
            racers.spawn(async move { create(&archive, &format!("raced/{round}"), "x").await });
        }
        let ended = racers.join_all().await;
        let won = ended.iter().filter(|one| **one == Stored::Written).count();
        assert_eq!(won, 1, "round {round}");
    }

    assert_eq!(process.terminate().await.unwrap().code(), Some(0));
    let (_again, port) = start(&arguments, &keys()).await;
    let later = archive(port, "a-secret");
    assert_eq!(later.read("a/b").await.unwrap().unwrap().as_ref(), b"one");
    assert_eq!(create(&later, "a/b", "two").await, Stored::WasThere);
}

#[tokio::test]
async fn dynamodb_and_sns_listen_where_they_are_told_and_end_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data.sqlite").display().to_string();
    let on_file = ["dynamodb", "--file", &file];
    let endpoints: [&[&str]; 3] = [&["dynamodb"], &on_file, &["sns", "--topic", "orders"]];
    for arguments in endpoints {
        let (mut process, port) = start(arguments, &[]).await;
        process.wait_ready(port, "/", BOUND).await;
        // A client that stays connected does not hold it up.
        let _client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        assert_eq!(process.terminate().await.unwrap().code(), Some(0));
    }
    assert!(folder.path().join("data.sqlite").exists());
}
