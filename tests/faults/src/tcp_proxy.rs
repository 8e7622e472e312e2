//! A TCP proxy between a client and a server that cuts connections where it hurts.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::Seed;

const BUFFER_BYTES: usize = 16 * 1024;

/// Passes bytes on, and loses requests and answers as often as it is told. Ends when dropped.
#[derive(Debug)]
pub struct TcpProxy {
    port: u16,
    cuts: Arc<Cuts>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Cuts {
    requests_percent: AtomicU64,
    answers_percent: AtomicU64,
    lost_answers: AtomicU64,
    seed: Seed,
}

impl TcpProxy {
    /// Starts a proxy in front of a port of 127.0.0.1.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start(target: u16, seed: Seed) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let cuts = Arc::new(Cuts {
            requests_percent: AtomicU64::new(0),
            answers_percent: AtomicU64::new(0),
            lost_answers: AtomicU64::new(0),
            seed,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, target, Arc::clone(&cuts)));
        Self {
            port,
            cuts,
            _tasks: tasks,
        }
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on cuts the connection instead of passing on so many in a hundred requests, and
    /// so many in a hundred answers: what the server did then, the client does not know.
    pub fn cut(&self, requests_percent: u64, answers_percent: u64) {
        let cuts = &self.cuts;
        cuts.requests_percent
            .store(requests_percent, Ordering::Relaxed);
        cuts.answers_percent
            .store(answers_percent, Ordering::Relaxed);
    }

    /// How many answers it lost.
    #[must_use]
    pub fn lost_answers(&self) -> u64 {
        self.cuts.lost_answers.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, target: u16, cuts: Arc<Cuts>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        connections.spawn(connection(client, target, Arc::clone(&cuts)));
    }
}

/// Returning closes both sides.
async fn connection(mut client: TcpStream, target: u16, cuts: Arc<Cuts>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", target)).await else {
        return;
    };
    let (mut from_client, mut from_server) = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(length @ 1..) = read else { return };
                let percent = cuts.requests_percent.load(Ordering::Relaxed);
                if cuts.seed.below(100) < percent {
                    return;
                }
                if server.write_all(&from_client[..length]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(length @ 1..) = read else { return };
                let percent = cuts.answers_percent.load(Ordering::Relaxed);
                if cuts.seed.below(100) < percent {
                    cuts.lost_answers.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                if client.write_all(&from_server[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}
