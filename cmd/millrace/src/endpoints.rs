//! Where the servers are: given, or as a running `millrace up` wrote it down.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use clap::Args;
use millrace_roles::LogStore;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// The file in the data folder in which `up` says where everything is while it runs.
const FILE: &str = "endpoints.json";

/// Where `up` keeps its data when nothing else is said.
pub const DEFAULT_DATA_DIR: &str = ".millrace";

/// Where everything is. `up` writes it when all is running and removes it when it ends; the other
/// commands read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoints {
    /// The database of the event logs.
    pub database_url: String,
    /// The database that projectors write to.
    pub read_database_url: String,
    /// The databases of contexts that have their own: of their event logs, or of billing's read
    /// models, which has no log.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub own_databases: BTreeMap<String, String>,
    /// The NATS server.
    pub nats_url: String,
    /// The file with the credentials that it asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nats_creds: Option<PathBuf>,
    /// The DynamoDB endpoint; `None` is Amazon's.
    pub dynamodb_endpoint: Option<String>,
    /// What every name in NATS and DynamoDB begins with.
    pub namespace: String,
    /// Where the event log of banking is kept.
    pub banking_log: LogStore,
    /// The public HTTP address; `None` when nothing is known to serve.
    pub public_url: Option<String>,
    /// The admin HTTP address of `up`; `None` when nothing is known to serve.
    pub admin_url: Option<String>,
}

impl Endpoints {
    /// Reads what an `up` with this data folder wrote; `None` when none is running there.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn read(data_dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = data_dir.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(anyhow::Error::from(error)
                    .context(format!("{} cannot be read", path.display())));
            }
        };
        serde_json::from_str(&text).map(Some).map_err(|error| {
            anyhow::Error::from(error).context(format!(
                "{} is not what this release writes; end the `millrace up` there and start it again",
                path.display()
            ))
        })
    }

    /// Writes the file whole or not at all, readable by its owner only: URLs may have passwords.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, data_dir: &Path) -> anyhow::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(data_dir)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.persist(data_dir.join(FILE))?;
        Ok(())
    }

    /// Removes the file, when `up` ends.
    ///
    /// # Errors
    /// When it is there and cannot be removed.
    pub fn remove(data_dir: &Path) -> io::Result<()> {
        match fs::remove_file(data_dir.join(FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The databases of contexts that have their own.
#[derive(Debug, Clone, Default, Args)]
pub struct OwnDatabases {
    /// PostgreSQL of the event log of customers [default: the event logs' one]
    #[arg(
        long,
        env = "MILLRACE_CUSTOMERS_DATABASE_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub customers_database_url: Option<String>,
    /// PostgreSQL of the event log of ordering [default: the event logs' one]
    #[arg(
        long,
        env = "MILLRACE_ORDERING_DATABASE_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub ordering_database_url: Option<String>,
    /// PostgreSQL of the event log of banking, where it is kept there [default: the event logs'
    /// one]
    #[arg(
        long,
        env = "MILLRACE_BANKING_DATABASE_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub banking_database_url: Option<String>,
    /// PostgreSQL of the read models of billing [default: that of all read models]
    #[arg(
        long,
        env = "MILLRACE_BILLING_DATABASE_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub billing_database_url: Option<String>,
}

impl OwnDatabases {
    /// The contexts that may have one, each with the variable that says it.
    pub const VARIABLES: [(&'static str, &'static str); 4] = [
        ("customers", "MILLRACE_CUSTOMERS_DATABASE_URL"),
        ("ordering", "MILLRACE_ORDERING_DATABASE_URL"),
        ("banking", "MILLRACE_BANKING_DATABASE_URL"),
        ("billing", "MILLRACE_BILLING_DATABASE_URL"),
    ];

    /// Those that are given, by context.
    pub fn given(&self) -> BTreeMap<String, String> {
        [
            ("customers", &self.customers_database_url),
            ("ordering", &self.ordering_database_url),
            ("banking", &self.banking_database_url),
            ("billing", &self.billing_database_url),
        ]
        .into_iter()
        .filter_map(|(context, url)| {
            let url = url.clone().filter(|url| !url.is_empty())?;
            Some((context.to_owned(), url))
        })
        .collect()
    }
}

/// Says which installation a command works on. What is given wins; else a running `up` in the data
/// folder is asked; else the command says what is missing.
#[derive(Debug, Clone, Args)]
pub struct Target {
    /// Folder of a running `millrace up`, which knows where everything is
    #[arg(long, env = "MILLRACE_DATA_DIR", default_value = DEFAULT_DATA_DIR, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// PostgreSQL of the event logs
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// PostgreSQL of the read models [default: the event logs' one]
    #[arg(
        long,
        env = "READ_DATABASE_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub read_database_url: Option<String>,
    #[command(flatten)]
    pub own: OwnDatabases,
    /// NATS
    #[arg(long, env = "NATS_URL", value_name = "URL", hide_env_values = true)]
    pub nats_url: Option<String>,
    /// File with the credentials (JWT and key) that NATS asks for
    #[arg(long, env = "NATS_CREDS", value_name = "FILE")]
    pub nats_creds: Option<PathBuf>,
    /// DynamoDB [default: Amazon's, by the usual AWS settings]
    #[arg(long, env = "DYNAMODB_ENDPOINT", value_name = "URL")]
    pub dynamodb_endpoint: Option<String>,
    /// What every name in NATS and DynamoDB begins with
    #[arg(long, env = "MILLRACE_NAMESPACE", value_name = "NAME")]
    pub namespace: Option<String>,
    /// Where the event log of banking is kept [default: as a running `up` has it, else dynamodb]
    #[arg(long, env = "MILLRACE_BANKING_LOG", value_name = "STORE")]
    pub banking_log: Option<LogStore>,
}

impl Target {
    /// Finds out where everything is.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] when neither settings nor a running `up` say where the event log
    /// is.
    pub fn resolve(&self) -> Result<Endpoints, Failure> {
        let running = Endpoints::read(&self.data_dir)?;
        if let Some(running) = running {
            return Ok(self.over(running));
        }
        // An installation of a context that only listens has no event logs.
        let database_url = self.database_url.clone();
        let database_url = database_url.or_else(|| self.read_database_url.clone());
        let database_url = database_url.or_else(|| self.own.given().into_values().next());
        let Some(database_url) = database_url else {
            return Err(Failure::Unavailable(anyhow::anyhow!(
                "no `millrace up` is running in {} and DATABASE_URL is not set: start one, name \
                 its folder with --data-dir, or set DATABASE_URL, NATS_URL and DYNAMODB_ENDPOINT",
                self.data_dir.display()
            )));
        };
        Ok(self.over(Endpoints {
            read_database_url: database_url.clone(),
            database_url,
            own_databases: BTreeMap::new(),
            nats_url: "nats://127.0.0.1:4222".to_owned(),
            nats_creds: None,
            dynamodb_endpoint: None,
            namespace: "millrace".to_owned(),
            banking_log: LogStore::default(),
            public_url: None,
            admin_url: None,
        }))
    }

    fn over(&self, known: Endpoints) -> Endpoints {
        let read_database_url = match (&self.read_database_url, &self.database_url) {
            (Some(url), _) | (None, Some(url)) => url.clone(),
            (None, None) => known.read_database_url,
        };
        // A given database of all is that of every context that is not given another.
        let mut own_databases = match self.database_url {
            Some(_) => BTreeMap::new(),
            None => known.own_databases.clone(),
        };
        own_databases.extend(self.own.given());
        Endpoints {
            read_database_url,
            own_databases,
            database_url: self.database_url.clone().unwrap_or(known.database_url),
            nats_url: self.nats_url.clone().unwrap_or(known.nats_url),
            nats_creds: self.nats_creds.clone().or(known.nats_creds),
            dynamodb_endpoint: self.dynamodb_endpoint.clone().or(known.dynamodb_endpoint),
            namespace: self.namespace.clone().unwrap_or(known.namespace),
            banking_log: self.banking_log.unwrap_or(known.banking_log),
            ..known
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(data_dir: &Path) -> Target {
        Target {
            data_dir: data_dir.to_owned(),
            database_url: None,
            read_database_url: None,
            own: OwnDatabases::default(),
            nats_url: None,
            nats_creds: None,
            dynamodb_endpoint: None,
            namespace: None,
            banking_log: None,
        }
    }

    #[test]
    fn a_running_up_is_found_and_settings_win_over_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut target = target(folder.path());
        assert!(matches!(target.resolve(), Err(Failure::Unavailable(_))));

        let running = Endpoints {
            database_url: "postgres://a/log".into(),
            read_database_url: "postgres://a/read".into(),
            own_databases: [("billing".to_owned(), "postgres://a/billing".to_owned())].into(),
            nats_url: "nats://a".into(),
            nats_creds: None,
            dynamodb_endpoint: Some("http://a".into()),
            namespace: "millrace".into(),
            banking_log: LogStore::Postgres,
            public_url: Some("http://127.0.0.1:8080".into()),
            admin_url: None,
        };
        running.write(folder.path()).unwrap();
        assert_eq!(target.resolve().unwrap(), running);

        target.database_url = Some("postgres://b/log".into());
        target.own.customers_database_url = Some("postgres://b/customers".into());
        let mixed = target.resolve().unwrap();
        assert_eq!(mixed.read_database_url, "postgres://b/log");
        let own: Vec<(&str, &str)> = mixed
            .own_databases
            .iter()
            .map(|(context, url)| (&**context, &**url))
            .collect();
        assert_eq!(own, [("customers", "postgres://b/customers")]);
        assert_eq!(mixed.nats_url, "nats://a");

        Endpoints::remove(folder.path()).unwrap();
        Endpoints::remove(folder.path()).unwrap();
        assert_eq!(target.resolve().unwrap().namespace, "millrace");
    }
}
