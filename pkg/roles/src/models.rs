//! The read models that the query service answers from, opened by name.

use std::sync::{Arc, Mutex, PoisonError};

use millrace_effects::Archive;
use millrace_eventlog::EventLog;
use millrace_projecting::{
    DynamoReadModel, DynamoStore, PgReadModel, PgReadOptions, StoreError, View,
};
use millrace_streaming::Signals;

/// Opens read models, and keeps those that it opened for the question whether they can be read.
pub struct ReadModels {
    /// All views there are.
    pub views: Vec<View>,
    /// The event logs of this process.
    pub logs: Vec<Arc<dyn EventLog>>,
    /// How waiting readers are woken.
    pub signals: Signals,
    /// PostgreSQL that queries are answered from.
    pub url: String,
    /// That of views which are not there, by name.
    pub own_urls: Vec<(&'static str, String)>,
    /// How it is read.
    pub options: PgReadOptions,
    /// The views in DynamoDB.
    pub store: DynamoStore,
    /// Where receipts are archived, if they are.
    pub receipts: Option<Archive>,
    /// What was opened.
    pub opened: Opened,
}

/// The read models that were opened.
#[derive(Clone, Default)]
pub struct Opened(Arc<Mutex<OpenedModels>>);

#[derive(Default)]
struct OpenedModels {
    postgres: Vec<PgReadModel>,
    dynamodb: Vec<DynamoReadModel>,
}

impl ReadModels {
    fn view(&self, name: &str) -> Result<&View, StoreError> {
        self.views
            .iter()
            .find(|view| view.name() == name)
            .ok_or_else(|| StoreError::Invalid(format!("there is no projection {name}")))
    }

    /// A view in PostgreSQL.
    ///
    /// # Errors
    /// When there is no such view, or it is not kept there.
    pub fn postgres(&self, name: &str) -> Result<PgReadModel, StoreError> {
        let own = self.own_urls.iter().find(|(view, _)| *view == name);
        let model = PgReadModel::open(
            own.map_or(&self.url, |(_, url)| url),
            self.view(name)?,
            self.logs.clone(),
            Some(self.signals.clone()),
            self.options,
        )?;
        self.opened
            .lock(|opened| opened.postgres.push(model.clone()));
        Ok(model)
    }

    /// A view in DynamoDB.
    ///
    /// # Errors
    /// When there is no such view, or it is not kept there.
    pub fn dynamodb(&self, name: &str) -> Result<DynamoReadModel, StoreError> {
        let model = DynamoReadModel::open(
            self.store.clone(),
            self.view(name)?,
            self.logs.clone(),
            Some(self.signals.clone()),
        )?;
        self.opened
            .lock(|opened| opened.dynamodb.push(model.clone()));
        Ok(model)
    }
}

impl Opened {
    fn lock<T>(&self, work: impl FnOnce(&mut OpenedModels) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether every read model in PostgreSQL can be read.
    ///
    /// # Errors
    /// A sentence for `/readyz`.
    pub async fn check_postgres(&self) -> Result<(), String> {
        for model in self.lock(|opened| opened.postgres.clone()) {
            model.check().await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Whether every read model in DynamoDB can be read.
    ///
    /// # Errors
    /// A sentence for `/readyz`.
    pub async fn check_dynamodb(&self) -> Result<(), String> {
        for model in self.lock(|opened| opened.dynamodb.clone()) {
            model.check().await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}
