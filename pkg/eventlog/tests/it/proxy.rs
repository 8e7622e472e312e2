//! A network between a log and its store that can be broken at a byte's notice.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
};

use async_trait::async_trait;
use millrace_eventlog::{Faults, LaneStep};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// What happens to the connections that are there. New ones begin with [`Network::Whole`], unless
/// the network is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    Whole = 0,
    /// What the client sends arrives; then the connection breaks before an answer comes back.
    LosesAnswers = 1,
    /// The connection breaks before what the client sends arrives.
    LosesRequests = 2,
    /// The client's connection breaks; what it sent arrives when the server has done other work.
    Delays = 3,
    /// As [`Network::LosesAnswers`], and nobody connects any more.
    GoesDown = 4,
}

impl Network {
    fn of(number: u8) -> Self {
        match number {
            1 => Self::LosesAnswers,
            2 => Self::LosesRequests,
            3 => Self::Delays,
            4 => Self::GoesDown,
            _ => Self::Whole,
        }
    }
}

pub struct Proxy {
    pub port: u16,
    state: Arc<AtomicU8>,
    cuts: watch::Sender<u64>,
    _task: JoinSet<()>,
}

const DELAY: std::time::Duration = std::time::Duration::from_millis(400);
const ARRIVAL: std::time::Duration = std::time::Duration::from_millis(100);

impl Proxy {
    pub async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(AtomicU8::new(0));
        let shared = Arc::clone(&state);
        let cuts = watch::Sender::new(0);
        let cut = cuts.subscribe();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                if Network::of(shared.load(Ordering::Acquire)) == Network::GoesDown {
                    continue;
                }
                let mut cut = cut.clone();
                cut.mark_unchanged();
                let carrying = carry(client, server, Arc::clone(&shared));
                connections.spawn(async move {
                    tokio::select! {
                        () = carrying => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self {
            port,
            state,
            cuts,
            _task: task,
        }
    }

    /// Breaks every connection, whatever is on it, and then the first that is used again: in turns
    /// its request or its answer is lost.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
        let cuts = *self.cuts.borrow();
        self.set(if cuts.is_multiple_of(2) {
            Network::LosesRequests
        } else {
            Network::LosesAnswers
        });
    }

    pub fn set(&self, network: Network) {
        self.state.store(network as u8, Ordering::Release);
    }
}

/// Carries bytes until the network breaks for this connection, which mends it for the next.
async fn carry(mut client: TcpStream, server: SocketAddr, state: Arc<AtomicU8>) {
    let Ok(mut server) = TcpStream::connect(server).await else {
        return;
    };
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(count @ 1..) = read else { return };
                match Network::of(state.load(Ordering::Acquire)) {
                    Network::Whole => {
                        if server.write_all(&up[..count]).await.is_err() { return }
                    }
                    Network::LosesRequests => {
                        state.store(0, Ordering::Release);
                        return;
                    }
                    Network::Delays => {
                        state.store(0, Ordering::Release);
                        drop(client);
                        tokio::time::sleep(DELAY).await;
                        let _ = server.write_all(&up[..count]).await;
                        tokio::time::sleep(DELAY).await;
                        return;
                    }
                    lost @ (Network::LosesAnswers | Network::GoesDown) => {
                        let _ = server.write_all(&up[..count]).await;
                        tokio::time::sleep(ARRIVAL).await;
                        if lost == Network::LosesAnswers {
                            state.store(0, Ordering::Release);
                        }
                        return;
                    }
                }
            }
            read = server.read(&mut down) => {
                let Ok(count @ 1..) = read else { return };
                if client.write_all(&down[..count]).await.is_err() { return }
            }
        }
    }
}

/// Breaks the network the first time the lane is about to commit. Before the second attempt the
/// lane waits until what was under way has arrived.
pub struct BreakAtCommit {
    pub proxy: Proxy,
    pub network: Network,
    pub armed: AtomicBool,
    pub broken: AtomicBool,
}

impl BreakAtCommit {
    pub fn of(proxy: Proxy, network: Network) -> Self {
        Self {
            proxy,
            network,
            armed: AtomicBool::new(false),
            broken: AtomicBool::new(false),
        }
    }
}

#[async_trait]
impl Faults for BreakAtCommit {
    async fn at(&self, step: LaneStep) {
        if step == LaneStep::Committing && self.armed.swap(false, Ordering::AcqRel) {
            self.proxy.set(self.network);
            self.broken.store(true, Ordering::Release);
        }
        if step == LaneStep::Probed && self.broken.swap(false, Ordering::AcqRel) {
            tokio::time::sleep(DELAY + ARRIVAL).await;
        }
    }
}
