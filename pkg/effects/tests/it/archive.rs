//! An object is created once, whatever happens to requests and to the server.

use std::time::Duration;

use millrace_effects::{Archive, ArchiveKeys, ArchiveOptions, Stored};
use millrace_projecting::EffectError;
use millrace_testkit::{S3_ACCESS_KEY_ID, S3_BUCKET, S3_SECRET_ACCESS_KEY, S3Fault, S3Server, s3};
use tokio::task::JoinSet;

fn options(endpoint: String) -> ArchiveOptions {
    millrace_runtime::install_crypto();
    ArchiveOptions {
        endpoint: Some(endpoint),
        keys: Some(ArchiveKeys {
            id: S3_ACCESS_KEY_ID.to_owned(),
            secret: S3_SECRET_ACCESS_KEY.to_owned(),
        }),
    }
}

fn on_s3(server: &S3Server) -> Archive {
    let place = format!("s3://{S3_BUCKET}/kept");
    Archive::open(&place, &options(server.endpoint())).unwrap()
}

fn on_disk() -> (tempfile::TempDir, Archive) {
    let folder = tempfile::tempdir().unwrap();
    let place = format!("file://{}/kept", folder.path().display());
    let archive = Archive::open(&place, &ArchiveOptions::default()).unwrap();
    (folder, archive)
}

async fn create(
    archive: &Archive,
    path: &str,
    content: &'static str,
) -> Result<Stored, EffectError> {
    let content = bytes::Bytes::from_static(content.as_bytes());
    archive.create(path, "application/json", content).await
}

#[tokio::test]
async fn an_object_is_written_once_and_stays() {
    let server = s3().await;
    let (_folder, disk) = on_disk();
    for archive in [on_s3(&server), disk] {
        assert_eq!(archive.read("a/b.json").await.unwrap(), None);
        assert!(!archive.has("a/b.json").await.unwrap());
        let first = create(&archive, "a/b.json", "one").await.unwrap();
        assert_eq!(first, Stored::Written);
        let second = create(&archive, "a/b.json", "two").await.unwrap();
        assert_eq!(second, Stored::WasThere);
        assert!(archive.has("a/b.json").await.unwrap());
        let content = archive.read("a/b.json").await.unwrap().unwrap();
        assert_eq!(content.as_ref(), b"one");
    }
    let object = &server.objects()["kept/a/b.json"];
    assert_eq!(object.content_type.as_deref(), Some("application/json"));
    assert!(object.checksum_sha256.is_some(), "{object:?}");
}

#[tokio::test]
async fn of_many_that_create_one_object_one_wins() {
    let server = s3().await;
    let (_folder, disk) = on_disk();
    for archive in [on_s3(&server), disk] {
        let mut racers = JoinSet::new();
        for _ in 0..30 {
            let archive = archive.clone();
            racers.spawn(async move { create(&archive, "raced", "x").await.unwrap() });
        }
        let ended = racers.join_all().await;
        let won = ended.iter().filter(|one| **one == Stored::Written).count();
        assert_eq!(won, 1);
    }
}

#[tokio::test]
async fn a_link_works_without_keys_and_only_for_its_object() {
    let server = s3().await;
    let archive = on_s3(&server);
    create(&archive, "a.json", "mine").await.unwrap();
    create(&archive, "b.json", "other").await.unwrap();
    let minute = Duration::from_secs(60);
    let link = archive.link("a.json", minute).await.unwrap().unwrap();
    let got = reqwest::get(&link.url).await.unwrap();
    assert_eq!(got.status(), 200);
    assert_eq!(got.text().await.unwrap(), "mine");
    let other = link.url.replace("a.json", "b.json");
    assert_eq!(reqwest::get(&other).await.unwrap().status(), 403);
    let (_folder, disk) = on_disk();
    assert_eq!(disk.link("a.json", minute).await.unwrap(), None);
}

#[tokio::test]
async fn whatever_s3_suffers_passes_and_nothing_is_refused_for_good() {
    let server = s3().await;
    let archive = on_s3(&server);
    for fault in [
        S3Fault::Status(500),
        S3Fault::Status(503),
        S3Fault::RefuseKeys,
        S3Fault::Slow(Duration::from_secs(30)),
    ] {
        server.hurt(Some(fault));
        let failed = create(&archive, "hurt", "x").await.unwrap_err();
        assert!(
            matches!(failed, EffectError::Unavailable(_)),
            "{fault:?}: {failed:?}"
        );
        let failed = archive.read("hurt").await.unwrap_err();
        assert!(!failed.to_string().contains("127.0.0.1"), "{failed}");
    }
    server.hurt(None);
    server.stop().await;
    let failed = create(&archive, "hurt", "x").await.unwrap_err();
    assert!(matches!(failed, EffectError::Unavailable(_)), "{failed:?}");
    assert!(server.objects().is_empty());
    server.start().await;
    assert_eq!(
        create(&archive, "hurt", "x").await.unwrap(),
        Stored::Written
    );
}

#[tokio::test]
async fn an_object_whose_answer_was_lost_is_there() {
    let server = s3().await;
    let archive = on_s3(&server);
    server.hurt(Some(S3Fault::NoAnswer));
    let failed = create(&archive, "lost", "x").await.unwrap_err();
    assert!(matches!(failed, EffectError::Unavailable(_)), "{failed:?}");
    server.hurt(None);
    assert_eq!(
        create(&archive, "lost", "x").await.unwrap(),
        Stored::WasThere
    );
}

#[tokio::test]
async fn a_bucket_that_is_missing_is_a_matter_of_time() {
    let server = s3().await;
    let archive = Archive::open("s3://nowhere", &options(server.endpoint())).unwrap();
    let failed = create(&archive, "a", "x").await.unwrap_err();
    assert!(matches!(failed, EffectError::Unavailable(_)), "{failed:?}");
}

#[tokio::test]
async fn what_no_archive_takes_is_refused() {
    let (_folder, archive) = on_disk();
    for path in ["../out", "a//b"] {
        let refused = create(&archive, path, "x").await;
        assert!(
            matches!(refused, Err(EffectError::Refused(_))),
            "{path}: {refused:?}"
        );
    }
    let large = vec![0; usize::try_from(millrace_effects::MAX_OBJECT_BYTES).unwrap() + 1];
    let refused = archive.create("large", "text/plain", large.into()).await;
    assert!(matches!(refused, Err(EffectError::Refused(_))));
}
