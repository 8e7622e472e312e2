//! What `up` says when everything runs.

use std::path::{Path, PathBuf};

use millrace_es::Position;
use millrace_kernel::EntityId;
use millrace_runtime::secret::without_password;

use super::parts::Program;
use super::ports::Ports;
use crate::endpoints::Endpoints;
use crate::output::Table;

/// Whose order the lines to paste are about.
const USER: &str = "ada";

/// Where everything is.
#[derive(Debug)]
pub struct Banner {
    data_dir: PathBuf,
    ports: Ports,
    rows: Vec<[String; 4]>,
    /// Where the stores are, once they are there.
    pub endpoints: Option<Endpoints>,
}

impl Banner {
    pub fn new(data_dir: &Path, ports: &Ports) -> Self {
        let ports = ports.clone();
        Self {
            data_dir: data_dir.to_owned(),
            ports,
            rows: Vec::new(),
            endpoints: None,
        }
    }

    /// A store that was not started here.
    pub fn given(&mut self, name: &str, url: &str) {
        self.rows.push([
            name.to_owned(),
            "given".to_owned(),
            without_password(url),
            String::new(),
        ]);
    }

    /// A store that was started here.
    pub fn store(&mut self, name: &str, id: u32, url: &str, log: &Path) {
        let log = log.display().to_string();
        self.rows
            .push([name.to_owned(), id.to_string(), without_password(url), log]);
    }

    /// A role.
    pub fn process(&mut self, program: &Program) {
        let ports = &self.ports;
        let places = match program.label() {
            "command" => format!(
                "http://127.0.0.1:{} admin :{} internal :{}",
                ports.command, ports.command_admin, ports.internal
            ),
            "query" => format!(
                "http://127.0.0.1:{} admin :{}",
                ports.public, ports.query_admin
            ),
            _ => format!("admin http://127.0.0.1:{}", ports.projector_admin),
        };
        let log = program.log().display().to_string();
        self.rows.push([
            program.label().to_owned(),
            program.id().to_string(),
            places,
            log,
        ]);
    }

    /// Where users go.
    pub fn public_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.public)
    }

    /// All of it, with three lines to paste.
    pub async fn text(&self) -> String {
        let url = self.public_url();
        let mut table = Table::new(&["process", "id", "where", "log"]);
        for row in &self.rows {
            table.row(row.clone());
        }
        // An id of this run's own, so that the lines work in every run; the key makes pasting
        // them twice harmless.
        let id = EntityId::generate();
        // The projector may still be taking its partitions, on a slow machine for longer than a
        // reader waits unless he says so.
        let at_least = format!("ordering/{}", self.log_head().await.next());
        format!(
            "\nMillrace is running. Ctrl-C ends it; the data stays in {data}.\n\n\
             {url}        everything, reads and writes\n\
             {url}/docs   the OpenAPI page\n\
             http://127.0.0.1:{admin}/readyz   the admin port (also /metrics)\n\n\
             {table}\n\
             Try, line by line: an order, and what both read models say of it\n\n\
             curl -i -X POST {url}/orders -H 'Content-Type: application/json' -H 'Idempotency-Key: first-{id}' -d '{{\"id\":\"{id}\",\"user_id\":\"{USER}\",\"items\":[{{\"description\":\"Tea\",\"quantity\":2,\"unit_price\":\"4.50\"}}]}}'\n\
             curl -i -H 'Prefer: wait=10' '{url}/api/orders/{USER}?at_least={at_least}'\n\
             curl -i -H 'Prefer: wait=10' '{url}/orders/{id}?at_least={at_least}'\n",
            data = self.data_dir.display(),
            admin = self.ports.projector_admin,
        )
    }

    /// The end of the ordering log; its beginning when it cannot be read, which makes the lines to
    /// paste wait for less.
    async fn log_head(&self) -> Position {
        let Some(endpoints) = &self.endpoints else {
            return Position::default();
        };
        crate::migrate::ordering_head(endpoints)
            .await
            .unwrap_or_default()
    }
}
