use std::sync::Arc;

use millrace_es::Context;
use millrace_eventlog::EventLog;
use millrace_projecting::{Runner, RunnerParts, View};
use millrace_streaming::{
    DeadLetterPublisher, LeaseOptions, Leases, MemberId, Names, Relay, RelayOptions, Signals,
    Topology, TopologyOptions,
};
use millrace_testkit::Nats;

use crate::{Stores, Tasks};

/// The streams of some logs, under a namespace of the test's own on the shared nats-server.
pub struct Streams {
    logs: Vec<Arc<dyn EventLog>>,
    nats: Nats,
    topology: Topology,
    signals: Signals,
}

impl Streams {
    /// Makes the streams of these logs' contexts.
    pub async fn of(logs: Vec<Arc<dyn EventLog>>) -> Self {
        let nats = millrace_testkit::nats().await;
        let names = Names::new(&nats.namespace).expect("a namespace");
        let options = TopologyOptions::default();
        let topology = Topology::new(nats.jetstream.clone(), names.clone(), options);
        let contexts: Vec<Context> = logs.iter().map(|log| log.context().clone()).collect();
        let made = topology.ensure(&contexts).await;
        made.expect("the streams are made");
        Self {
            logs,
            signals: Signals::new(nats.client.clone(), names),
            nats,
            topology,
        }
    }

    /// What appends and progress are signalled by.
    #[must_use]
    pub const fn signals(&self) -> &Signals {
        &self.signals
    }

    /// Runs the relay of each log.
    pub fn relay(&self, tasks: &mut Tasks) {
        let leases = self.leases("relay");
        for log in &self.logs {
            let (log, leases, options) = (log.clone(), leases.clone(), RelayOptions::default());
            let relay = Relay::new(log, self.topology.clone(), leases, options);
            tasks.spawn(async move |stop| relay.run(stop).await.expect("the relay goes on"));
        }
    }

    /// A projector of these views, to be run. Projectors of different names share the partitions.
    #[must_use]
    pub fn projector(&self, name: &str, views: Vec<View>, stores: &Stores) -> Runner {
        let names = self.topology.names().clone();
        let parts = RunnerParts {
            logs: self.logs.clone(),
            topology: self.topology.clone(),
            leases: self.leases(name),
            signals: self.signals.clone(),
            letters: DeadLetterPublisher::new(self.nats.jetstream.clone(), names),
            postgres: Some(stores.postgres.clone()),
            dynamodb: stores.dynamodb.clone(),
            link: None,
        };
        Runner::new(views, parts).expect("every view has its store and its logs")
    }

    fn leases(&self, member: &str) -> Leases {
        let member = MemberId::new(member).expect("the name of a member");
        Leases::new(self.topology.clone(), member, LeaseOptions::default())
    }
}
