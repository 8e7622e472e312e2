use millrace_projecting::{ContextHead, DynamoStore, Folder, PgStore, StoreKind, View};
use millrace_testkit::{Database, Dynamo};

/// Where the rows of views are kept.
#[derive(Clone)]
pub struct Stores {
    /// The read database.
    pub postgres: PgStore,
    /// DynamoDB, where a view needs it.
    pub dynamodb: Option<DynamoStore>,
    /// How queries reach the read database.
    pub(crate) url: String,
}

impl Stores {
    /// Opens the read database, with the tables that it needs.
    pub async fn in_postgres(database: &Database) -> Self {
        let postgres = PgStore::open(&database.url).expect("the URL of the read database");
        let made = postgres.migrate().await;
        made.expect("the tables of the read database are made");
        Self {
            postgres,
            dynamodb: None,
            url: database.url.clone(),
        }
    }

    /// Adds DynamoDB, with the table that it needs.
    pub async fn and_in(self, dynamo: &Dynamo) -> Self {
        let dynamodb = DynamoStore::new(dynamo.client.clone(), dynamo.prefix.clone());
        let made = dynamodb.migrate().await;
        made.expect("the table in DynamoDB is made");
        Self {
            dynamodb: Some(dynamodb),
            ..self
        }
    }

    /// DynamoDB, which has to be there.
    #[track_caller]
    pub(crate) fn dynamodb(&self) -> &DynamoStore {
        self.dynamodb.as_ref().expect("stores with DynamoDB")
    }

    /// A folder into the generation of a view that answers, which is made where there is none.
    pub(crate) async fn folder(&self, view: &View, heads: &[ContextHead]) -> Folder {
        let folder = match view.store() {
            StoreKind::Postgres => {
                let generation = self.postgres.ensure_generation(view, heads).await;
                let generation = generation.expect("the view has a generation");
                self.postgres.folder(&generation, view).await
            }
            StoreKind::DynamoDb => {
                let generation = self.dynamodb().ensure_generation(view, heads).await;
                let generation = generation.expect("the view has a generation");
                self.dynamodb().folder(&generation, view).await
            }
        };
        folder.expect("the generation has checkpoints")
    }
}
