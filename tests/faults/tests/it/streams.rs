//! What befalls the stream: it is emptied, or somebody else writes into it.

use async_nats::HeaderMap;
use millrace_faults::{Cluster, ClusterOptions};

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

/// The headers of the stream's last message; none while the stream is being made anew.
async fn last_headers(cluster: &Cluster) -> Option<HeaderMap> {
    let stream = format!("{}-ordering", cluster.namespace);
    let stream = cluster.jetstream.get_stream(stream).await.ok()?;
    let last = stream.get_info().await.ok()?.state.last_sequence;
    Some(stream.get_raw_message(last).await.ok()?.headers)
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
                None
            } else {
                last_headers(cluster).await
            };
            let mut copied = HeaderMap::new();
            for (name, values) in headers.iter().flat_map(HeaderMap::iter) {
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
