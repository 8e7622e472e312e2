use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use crate::{Database, OrFail as _};

/// How PostgreSQL may plan a prepared query: anew for its arguments, or once for all.
const MODES: [(&str, bool); 2] = [("force_custom_plan", false), ("force_generic_plan", true)];

/// A connection of its own to a test's database, on which plans of queries are looked at.
#[derive(Debug)]
pub struct Plans {
    connection: PgConnection,
}

/// How PostgreSQL would perform a query.
#[derive(Debug)]
pub struct Plan {
    /// Which query, with which arguments and planned how, and its plan: for a failed assertion.
    pub case: String,
    /// Whether it was planned once for all arguments.
    pub generic: bool,
    text: String,
}

impl Plan {
    /// Whether it has a step whose name has this in it, such as `Seq Scan`.
    #[must_use]
    pub fn has(&self, step: &str) -> bool {
        self.text.contains(step)
    }
}

impl Plans {
    /// On tables that these statements make. What is not logged is faster to fill, and planned the
    /// same.
    pub async fn on(database: &Database, tables: &str) -> Self {
        let connection = PgConnection::connect(&database.url)
            .await
            .or_fail("connecting to the test's database");
        let mut plans = Self { connection };
        let unlogged = tables.replace("CREATE TABLE", "CREATE UNLOGGED TABLE");
        plans.run(&unlogged).await;
        plans.run("SET maintenance_work_mem = '512MB'").await;
        plans
    }

    /// Runs statements; none of them may have arguments.
    pub async fn run(&mut self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&mut self.connection)
            .await
            .or_fail(sql);
    }

    /// After the tables were filled: makes the indexes, has PostgreSQL look at the tables, and sets
    /// what the service sets on its connections.
    pub async fn filled(&mut self, indexes: &str, settings: &[(&str, &str)]) {
        self.run(indexes).await;
        self.run("VACUUM ANALYZE").await;
        for (setting, value) in settings {
            self.run(&format!("SET {setting} = {value}")).await;
        }
    }

    /// The plan of a query as it stands here.
    pub async fn of(&mut self, sql: &str) -> Plan {
        let text = self.explain(sql).await;
        Plan {
            case: format!("{sql}:\n{text}"),
            generic: false,
            text,
        }
    }

    /// The plans of a query, given as its name, the types of its parameters and its text: for each
    /// of these arguments planned anew, and planned once for all.
    pub async fn of_query(
        &mut self,
        (name, types, sql): (&str, &str, &str),
        arguments: &[&str],
    ) -> Vec<Plan> {
        self.run(&format!("PREPARE planned_{name} ({types}) AS {sql}"))
            .await;
        let mut plans = Vec::new();
        for (mode, generic) in MODES {
            self.run(&format!("SET plan_cache_mode = {mode}")).await;
            for arguments in arguments {
                let execute = format!("EXECUTE planned_{name}({arguments})");
                let text = self.explain(&execute).await;
                plans.push(Plan {
                    case: format!("{name}({arguments}) under {mode}:\n{text}"),
                    generic,
                    text,
                });
            }
        }
        plans
    }

    async fn explain(&mut self, sql: &str) -> String {
        let rows = sqlx::raw_sql(AssertSqlSafe(format!("EXPLAIN {sql}")))
            .fetch_all(&mut self.connection)
            .await
            .or_fail(sql);
        let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        lines.join("\n")
    }
}
