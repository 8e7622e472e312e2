//! Load over HTTP, closed and open loop, on a thread of its own.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use tokio::task::JoinSet;

use super::{
    Latencies,
    http::{Answered, Client},
};

/// A load on one HTTP server.
#[derive(Debug, Clone)]
pub struct HttpLoad {
    /// The server.
    pub address: SocketAddr,
    /// Connections, each with one request at a time.
    pub connections: usize,
    /// How long it counts.
    pub duration: Duration,
    /// How long it runs before it counts.
    pub warm_up: Duration,
    /// What is sent, in turn and from the beginning again.
    pub requests: Arc<[Vec<u8>]>,
    /// Requests per second; `None` sends the next one when the one before is answered. With a
    /// rate, a latency is counted from the moment the request was due, not from when a connection
    /// was free to send it: a stall costs all requests that were due in it.
    pub rate: Option<f64>,
}

/// What a load saw.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Answers per second that had the wanted status, after the warm-up.
    pub per_second: f64,
    /// Their latencies.
    pub latencies: Latencies,
    /// Answers of any other status, by status; warm-up included.
    pub others: BTreeMap<u16, u64>,
}

impl Seen {
    /// Refuses a measurement in which more than one in a thousand was not answered as wanted.
    ///
    /// # Errors
    /// When it was so.
    pub fn mostly_well(self, what: &str) -> anyhow::Result<Self> {
        let others: u64 = self.others.values().sum();
        if others * 1_000 > self.latencies.count() {
            bail!(
                "{what}: {others} of {} requests were answered otherwise, by status: {:?}",
                others + self.latencies.count(),
                self.others
            );
        }
        Ok(self)
    }
}

impl HttpLoad {
    /// Runs the load; answers count when they have `status`.
    ///
    /// The clients share one thread: that costs the machine the least.
    ///
    /// # Errors
    /// When a connection cannot be made or breaks.
    pub async fn run(self, status: u16) -> anyhow::Result<Seen> {
        tokio::task::spawn_blocking(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(self.drive(status))
        })
        .await?
    }

    async fn drive(self, status: u16) -> anyhow::Result<Seen> {
        let mut connections = Vec::with_capacity(self.connections);
        for _ in 0..self.connections {
            let client = Client::connect(self.address).await;
            connections.push(client.with_context(|| format!("connect to {}", self.address))?);
        }
        let began = Instant::now();
        let course = Arc::new(Course {
            counts_from: began + self.warm_up,
            ends: began + self.warm_up + self.duration,
            began,
            next: AtomicUsize::new(0),
            rate: self.rate,
            requests: self.requests,
            status,
        });
        let mut clients = JoinSet::new();
        for client in connections {
            let course = Arc::clone(&course);
            clients.spawn(async move { course.run(client).await });
        }
        let mut seen = Seen::default();
        while let Some(client) = clients.join_next().await {
            let one = client??;
            seen.latencies.merge(&one.latencies);
            for (status, count) in one.others {
                *seen.others.entry(status).or_default() += count;
            }
        }
        let answered = f64::from(u32::try_from(seen.latencies.count())?);
        seen.per_second = answered / self.duration.as_secs_f64();
        Ok(seen)
    }
}

/// Sends requests, in turn and from the beginning again until so many are sent, over a number of
/// connections; gives what is made of each answer, in no order.
///
/// # Errors
/// When a connection breaks, or an answer is not taken.
pub async fn send_each<T: Send + 'static>(
    address: SocketAddr,
    requests: Arc<[Vec<u8>]>,
    count: usize,
    connections: usize,
    take: impl Fn(&Answered<'_>) -> anyhow::Result<T> + Clone + Send + 'static,
) -> anyhow::Result<Vec<T>> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        let mut client = Client::connect(address).await?;
        let (requests, next, take) = (Arc::clone(&requests), Arc::clone(&next), take.clone());
        clients.spawn(async move {
            let mut taken = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return anyhow::Ok(taken);
                }
                let answered = client.send(&requests[number % requests.len()]).await?;
                taken.push(take(&answered)?);
            }
        });
    }
    let mut all = Vec::new();
    while let Some(client) = clients.join_next().await {
        all.extend(client??);
    }
    Ok(all)
}

/// What the clients of one load share.
#[derive(Debug)]
struct Course {
    began: Instant,
    counts_from: Instant,
    ends: Instant,
    next: AtomicUsize,
    rate: Option<f64>,
    requests: Arc<[Vec<u8>]>,
    status: u16,
}

impl Course {
    async fn run(&self, mut client: Client) -> anyhow::Result<Seen> {
        let mut seen = Seen::default();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let due = match self.rate {
                Some(rate) => self.due(number, rate).await,
                None => Instant::now(),
            };
            if due >= self.ends {
                return Ok(seen);
            }
            let request = &self.requests[number % self.requests.len()];
            let answered = client
                .send(request)
                .await
                .context("the server hung up")?
                .status;
            let now = Instant::now();
            if answered != self.status {
                *seen.others.entry(answered).or_default() += 1;
            } else if due >= self.counts_from && (self.rate.is_some() || now < self.ends) {
                seen.latencies.record(now - due);
            }
        }
    }

    async fn due(&self, number: usize, rate: f64) -> Instant {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53 requests")]
        let due = self.began + Duration::from_secs_f64(number as f64 / rate);
        if due < self.ends {
            tokio::time::sleep_until(due.into()).await;
        }
        due
    }
}
