use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// Asks until `check` gives something, every 5 to 100 ms, and panics naming `what` after `bound`.
pub async fn eventually<T, F, Fut>(what: &str, bound: Duration, check: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let found = eventually_or_not(bound, check).await;
    found.unwrap_or_else(|| panic!("waited {bound:?} in vain for: {what}"))
}

/// As [`eventually`], for who has more to say when it was in vain.
pub(crate) async fn eventually_or_not<T, F, Fut>(bound: Duration, mut check: F) -> Option<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + bound;
    let mut pause = FIRST_PAUSE;
    loop {
        // A check that hangs counts as one that said no.
        let left = deadline.saturating_duration_since(Instant::now());
        if let Ok(Some(found)) = tokio::time::timeout(left.max(FIRST_PAUSE), check()).await {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}
