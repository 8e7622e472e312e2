//! A nats-server whose users have credentials, and rights.

use std::{path::Path, time::Duration};

use futures::StreamExt;
use millrace_streaming::connect;
use millrace_testkit::{
    LogLines, Nats, NatsOperator, NatsPermissions, eventually, namespace, nats_rights,
    nats_with_operator,
};

use crate::world::{BOUND, World};

/// A connection to the server as a role makes it.
async fn nats(operator: &NatsOperator, credentials: &Path, namespace: &str) -> Nats {
    let url = operator.server.url();
    let client = connect(&url, Some(credentials), "test").await.unwrap();
    Nats {
        jetstream: async_nats::jetstream::new(client.clone()),
        client,
        url,
        namespace: namespace.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_works_with_the_rights_of_its_context_alone() {
    let operator = nats_with_operator().await;
    let namespace = namespace();
    // The world's context has the name of its namespace.
    let rights = nats_rights("A command process", &namespace, &[&namespace]);
    let own = operator.credentials("owner", &rights);
    let world = World::on(nats(&operator, &own, &namespace).await).await;
    world.log.grow(20);
    let relay = world.relay();
    world.log.grow(20);
    world.assert_stream_is_log().await;
    // A message that is not the log's is found and repaired: the stream is made anew.
    world.publish_foreign().await;
    world.repaired("foreign").await;
    world.log.grow(1);
    world.assert_stream_is_log().await;
    relay.stop().await;

    // Somebody who may do everything hears what the owner may say, and nothing else of him.
    let anybody = operator.credentials("anybody", &NatsPermissions::default());
    let anybody = nats(&operator, &anybody, &namespace).await.client;
    let mut heard = anybody.subscribe(format!("{namespace}.>")).await.unwrap();
    // Its own message comes back once the server has the subscription.
    let ready = format!("{namespace}.ready");
    anybody.publish(ready, "".into()).await.unwrap();
    tokio::time::timeout(BOUND, heard.next()).await.unwrap();
    for subject in [
        "other.0.order-created",
        "dead.other.view.refused",
        "signal.appended.other",
    ] {
        let subject = format!("{namespace}.{subject}");
        world
            .nats
            .client
            .publish(subject, "hello".into())
            .await
            .unwrap();
    }
    let first = tokio::time::timeout(BOUND, heard.next()).await.unwrap();
    let first = first.unwrap().subject;
    assert_eq!(first.as_str(), format!("{namespace}.signal.appended.other"));
}

#[tokio::test]
async fn credentials_that_are_refused_are_said_with_what_to_do() {
    let (lines, _guard) = LogLines::of_this_thread("warn");
    let operator = nats_with_operator().await;
    let url = operator.server.url();
    let foreign = operator.foreign_credentials("foreign");
    for credentials in [Some(foreign.as_path()), None] {
        let before = lines.with(&["NATS_CREDS"]).len();
        // It is tried again for ever: what the server knows may change.
        let client = connect(&url, credentials, "test").await.unwrap();
        eventually("the refusal to be logged", BOUND, || async {
            (lines.with(&["NATS_CREDS"]).len() > before).then_some(())
        })
        .await;
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        // Once, however often it was tried.
        let said = lines.with(&["ERROR", "refuses", "NATS_CREDS", "client=\"test\""]);
        assert_eq!(said.len(), before + 1, "{}", lines.text());
        assert_ne!(
            client.connection_state(),
            async_nats::connection::State::Connected
        );
    }
}
