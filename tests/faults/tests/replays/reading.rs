//! A reader to whom the past must not come back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use millrace_faults::Client;

/// Between two reads, in milliseconds.
const PAUSE_MS: u64 = 20;

/// Reads the newest order and how much of the log is in, again and again, and gives how many reads
/// were answered. What was seen once is seen ever after, whichever generation answers; only a crash of
/// the read database itself may lose the newest transactions, which do not wait for the disk.
pub async fn read_on(query: String, crashes: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> u64 {
    let client = Client::new();
    let url = format!("{query}/orders?include_deleted=true&limit=1");
    let (mut newest, mut reads) = (String::new(), 0);
    let mut crashed = 0;
    while !stop.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(PAUSE_MS)).await;
        let before = crashes.load(Ordering::SeqCst);
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
        // It may have crashed since the read before this one began.
        let went_on = crashed == crashes.load(Ordering::SeqCst);
        assert!(
            !went_on || newest.as_str() <= created,
            "{newest} was there, and then {created} was the newest"
        );
        crashed = before;
        created.clone_into(&mut newest);
        reads += 1;
    }
    reads
}
