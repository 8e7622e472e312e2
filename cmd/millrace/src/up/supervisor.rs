//! Keeps the children of `up` alive, and ends them in order.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use millrace_parts::{Guarded, Nats, PartsError, Postgres};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::output;

/// How often a child is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// The shortest and the longest pause before a child is started again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// A child that ran this long is started again after the shortest pause.
const STEADY_AFTER: Duration = Duration::from_secs(30);

/// A child that can be started again.
#[async_trait]
pub trait Part: Send {
    fn name(&self) -> &'static str;
    fn process(&mut self) -> &mut Guarded;
    async fn restart(&mut self) -> Result<(), PartsError>;
}

#[async_trait]
impl Part for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn process(&mut self) -> &mut Guarded {
        Self::process(self)
    }

    async fn restart(&mut self) -> Result<(), PartsError> {
        Self::restart(self).await
    }
}

#[async_trait]
impl Part for Nats {
    fn name(&self) -> &'static str {
        "nats-server"
    }

    fn process(&mut self) -> &mut Guarded {
        Self::process(self)
    }

    async fn restart(&mut self) -> Result<(), PartsError> {
        Self::restart(self).await
    }
}

/// When a child ends: roles before the stores they use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Stores,
    Roles,
}

/// The children, each with a task that watches it.
#[derive(Debug, Default)]
pub struct Supervisor {
    roles: Watched,
    stores: Watched,
}

#[derive(Debug, Default)]
struct Watched {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Supervisor {
    /// Watches a running child from now on.
    pub fn add(&mut self, part: Box<dyn Part>, stage: Stage) {
        let watched = match stage {
            Stage::Roles => &mut self.roles,
            Stage::Stores => &mut self.stores,
        };
        let stop = watched.stop.clone();
        watched.tasks.spawn(watch(part, stop));
    }

    /// Ends all children politely, by force after 10 s, and waits until they are gone.
    pub async fn stop(&mut self) {
        for watched in [&mut self.roles, &mut self.stores] {
            watched.stop.cancel();
            while watched.tasks.join_next().await.is_some() {}
        }
    }
}

async fn watch(mut part: Box<dyn Part>, stop: CancellationToken) {
    let mut pause = FIRST_PAUSE;
    let mut since = Instant::now();
    while stop
        .run_until_cancelled(tokio::time::sleep(LOOK_INTERVAL))
        .await
        .is_some()
    {
        let status = match part.process().try_wait() {
            Ok(None) => continue,
            Ok(Some(status)) => status,
            Err(error) => {
                say(&format!("{}: {error}", part.name()));
                continue;
            }
        };
        say(&format!(
            "{} {}; starting it again",
            part.name(),
            how(status)
        ));
        if since.elapsed() > STEADY_AFTER {
            pause = FIRST_PAUSE;
        }
        let restarted = stop
            .run_until_cancelled(restart(part.as_mut(), &mut pause))
            .await;
        if restarted.is_none() {
            break;
        }
        since = Instant::now();
        say(&format!(
            "{} runs again (process {})",
            part.name(),
            part.process().id()
        ));
    }
    if let Err(error) = part.process().stop().await {
        say(&format!("{} could not be ended: {error}", part.name()));
    }
}

async fn restart(part: &mut dyn Part, pause: &mut Duration) {
    loop {
        tokio::time::sleep(*pause).await;
        *pause = (*pause * 2).min(MAX_PAUSE);
        match part.restart().await {
            Ok(()) => return,
            Err(error) => say(&format!("{error}\ntrying again in {pause:?}")),
        }
    }
}

fn how(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was ended by signal {signal}"),
        (None, Some(code)) => format!("ended with exit code {code}"),
        (None, None) => "ended".to_owned(),
    }
}

/// Whoever reads our lines may be gone; the children are kept all the same.
fn say(text: &str) {
    let _ = output::say(&format!("millrace: {text}"));
}
