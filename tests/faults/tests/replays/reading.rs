//! A reader to whom the past must not come back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use millrace_faults::Client;

/// Between two reads, in milliseconds.
const PAUSE_MS: u64 = 20;

/// Reads the newest order and how much of the log is in, again and again, and gives how many reads
/// were answered. What was seen once is seen ever after, whichever generation answers.
pub async fn read_on(query: String, stop: Arc<AtomicBool>) -> u64 {
    let client = Client::new();
    let url = format!("{query}/orders?include_deleted=true&limit=1");
    let (mut newest, mut reads) = (String::new(), 0);
    while !stop.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(PAUSE_MS)).await;
        let Ok(reply) = client.get(&url, &[]).await else {
            continue;
        };
        // The read database may be down; anything else is no answer to this question.
        if reply.status == 503 {
            continue;
        }
        assert_eq!(reply.status, 200, "{}", reply.body);
        let json = reply.json();
        let created = json["items"][0]["created_at"].as_str().unwrap();
        assert!(
            newest.as_str() <= created,
            "{newest} was there, and then {created} was the newest"
        );
        created.clone_into(&mut newest);
        reads += 1;
    }
    reads
}
