//! What befalls the stream: it is emptied, or somebody else writes into it.

use async_nats::HeaderMap;
use millrace_faults::ClusterOptions;

use crate::{FEW_COMMANDS, RECOVERY_BOUND, SOME_COMMANDS, options, survive};

#[tokio::test]
async fn the_data_of_nats_is_emptied() {
    let options = ClusterOptions {
        own_nats: true,
        ..options()
    };
    survive("emptied", options, async |cluster, seed, load| {
        for _ in 0..2 {
            tokio::time::sleep(seed.millis(100, 1_000)).await;
            cluster.servers.nats.as_mut().unwrap().wipe().await;
            load.wait_for(SOME_COMMANDS, RECOVERY_BOUND).await;
        }
    })
    .await;
}

#[tokio::test]
async fn somebody_publishes_into_the_stream() {
    survive("foreign", options(), async |cluster, seed, load| {
        for round in 0..6 {
            tokio::time::sleep(seed.millis(50, 600)).await;
            let subject = format!(
                "{}.ordering.{}.order-created",
                cluster.namespace,
                seed.below(16)
            );
            // Nonsense, or the copy of an event that was there.
            let headers = if round % 2 == 0 {
                HeaderMap::new()
            } else {
                let stream = format!("{}-ordering", cluster.namespace);
                let stream = cluster.jetstream.get_stream(stream).await.unwrap();
                let last = stream.get_info().await.unwrap().state.last_sequence;
                match stream.get_raw_message(last).await {
                    Ok(message) => message.headers,
                    Err(_) => HeaderMap::new(),
                }
            };
            let mut copied = HeaderMap::new();
            for (name, values) in headers.iter() {
                let name: &str = name.as_ref();
                if name.starts_with("ce-") || name == "content-type" {
                    copied.insert(name, values[0].clone());
                }
            }
            let _ = cluster
                .jetstream
                .publish_with_headers(subject, copied, "{\"not\": \"yours\"}".into())
                .await;
            load.wait_for(FEW_COMMANDS, RECOVERY_BOUND).await;
        }
    })
    .await;
}
