use std::sync::Arc;

use millrace_eventlog::EventLog;
use millrace_http::Api;
use millrace_projecting::{ContextHead, DynamoReadModel, Folder, PgReadModel, PgReadOptions, View};
use millrace_streaming::Signals;
use millrace_testkit::{HttpClient, eventually};

use crate::{PATIENCE, Stores, Streams, Tasks};

/// Of one read model. A test asks little at once, and many tests share the server.
const MAX_READ_CONNECTIONS: u32 = 4;

/// Views over the logs that they read, with or without what moves them, and a place to serve routes.
pub struct Stage {
    tasks: Tasks,
    views: Vec<View>,
    logs: Vec<Arc<dyn EventLog>>,
    stores: Stores,
    streams: Option<Streams>,
    read_models: Vec<ReadModel>,
}

impl Stage {
    /// Sets up the stage. So many projectors share the work; with none, nothing moves by itself, and
    /// there is no NATS.
    pub async fn set(
        views: Vec<View>,
        logs: Vec<Arc<dyn EventLog>>,
        stores: Stores,
        projectors: usize,
    ) -> Self {
        let mut tasks = Tasks::default();
        let streams = if projectors == 0 {
            None
        } else {
            let streams = Streams::of(logs.clone()).await;
            streams.relay(&mut tasks);
            for nth in 1..=projectors {
                let name = format!("projector-{nth}");
                let projector = streams.projector(&name, views.clone(), &stores);
                tasks.spawn(|stop| projector.run(stop));
            }
            Some(streams)
        };
        Self {
            tasks,
            views,
            logs,
            stores,
            streams,
            read_models: Vec::new(),
        }
    }

    /// Where the rows are.
    #[must_use]
    pub const fn stores(&self) -> &Stores {
        &self.stores
    }

    /// What is signalled, where anything moves.
    #[must_use]
    pub fn signals(&self) -> Option<&Signals> {
        self.streams.as_ref().map(Streams::signals)
    }

    /// The query side of a view in PostgreSQL.
    pub fn in_postgres(&mut self, view: &str) -> PgReadModel {
        let view = self.view(view);
        let options = PgReadOptions {
            max_connections: MAX_READ_CONNECTIONS,
            ..PgReadOptions::default()
        };
        let (logs, signals) = (self.logs_of(view), self.signals().cloned());
        let opened = PgReadModel::open(&self.stores.url, view, logs, signals, options);
        let opened = opened.expect("a view in PostgreSQL");
        self.read_models.push(ReadModel::Postgres(opened.clone()));
        opened
    }

    /// The query side of a view in DynamoDB.
    pub fn in_dynamodb(&mut self, view: &str) -> DynamoReadModel {
        let (view, store) = (self.view(view), self.stores.dynamodb().clone());
        let (logs, signals) = (self.logs_of(view), self.signals().cloned());
        let opened = DynamoReadModel::open(store, view, logs, signals);
        let opened = opened.expect("a view in DynamoDB");
        self.read_models.push(ReadModel::DynamoDb(opened.clone()));
        opened
    }

    /// Serves these services on a free port, once the read models that were opened here answer. Where
    /// nothing moves by itself, every view gets its first generation here, empty.
    pub async fn serve(&mut self, services: Api) -> HttpClient {
        let client = self.tasks.listen(services.finish()).await;
        self.ready().await;
        client
    }

    /// Folds by hand into the generation of a view that answers, from its checkpoints on.
    pub async fn folder(&self, view: &str) -> Folder {
        let view = self.view(view);
        let mut heads = Vec::new();
        for log in self.logs_of(view) {
            let head = log.head().await.expect("the log has a head");
            heads.push(ContextHead {
                context: log.context().clone(),
                epoch: head.epoch,
                partition_positions: head.partition_positions,
            });
        }
        self.stores.folder(view, &heads).await
    }

    async fn ready(&self) {
        if self.streams.is_none() {
            for view in &self.views {
                self.folder(view.name()).await;
            }
            return;
        }
        eventually("every read model answers", PATIENCE, || async {
            for read_model in &self.read_models {
                if !read_model.answers().await {
                    return None;
                }
            }
            Some(())
        })
        .await;
    }

    fn view(&self, name: &str) -> &View {
        let mut all = self.views.iter();
        all.find(|view| view.name() == name)
            .unwrap_or_else(|| panic!("there is no view {name}"))
    }

    /// The logs that a view reads.
    fn logs_of(&self, view: &View) -> Vec<Arc<dyn EventLog>> {
        let all = self.logs.iter();
        all.filter(|log| view.contexts().contains(log.context()))
            .cloned()
            .collect()
    }
}

/// The query side of a view in either store.
enum ReadModel {
    Postgres(PgReadModel),
    DynamoDb(DynamoReadModel),
}

impl ReadModel {
    async fn answers(&self) -> bool {
        match self {
            Self::Postgres(read_model) => read_model.check().await.is_ok(),
            Self::DynamoDb(read_model) => read_model.check().await.is_ok(),
        }
    }
}
