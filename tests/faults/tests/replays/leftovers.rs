//! What is there once every Replay is gone: what answers queries, and nothing else.

use std::collections::BTreeSet;

use futures::TryStreamExt as _;
use k8s_openapi::api::batch::v1::Job;
use kube::{Api, api::ListParams};
use millrace_faults::Cluster;
use millrace_testkit::Kubernetes;

use crate::PROJECTIONS;

/// The projections in PostgreSQL of a projector in this test, also those that are not replayed.
const IN_POSTGRES: [&str; 3] = ["order-read-models", "order-statistics", "user-profiles"];

/// Compares what there is with what has to be.
///
/// # Errors
/// With what is left.
pub async fn look(cluster: &Cluster, kubernetes: &Kubernetes) -> Result<(), String> {
    let in_postgres = generations(cluster).await?;
    let schemas: Vec<String> =
        sqlx::query_scalar("SELECT nspname::text FROM pg_namespace WHERE nspname ~ '_g[0-9]+$'")
            .fetch_all(&cluster.read_pool)
            .await
            .map_err(|error| error.to_string())?;
    equal("schemas", &schemas.into_iter().collect(), &in_postgres)?;
    let checkpoints: Vec<i64> =
        sqlx::query_scalar("SELECT DISTINCT generation FROM projections.checkpoints")
            .fetch_all(&cluster.read_pool)
            .await
            .map_err(|error| error.to_string())?;
    if checkpoints.len() != in_postgres.len() {
        return Err(format!("checkpoints of {checkpoints:?}"));
    }

    let tables = cluster.dynamodb.list_tables().send().await;
    let tables = tables.map_err(|error| error.to_string())?;
    let prefix = format!("{}_orders-by-user_g", cluster.namespace);
    let tables: Vec<&String> = tables
        .table_names()
        .iter()
        .filter(|name| name.starts_with(&prefix))
        .collect();
    let [table] = tables[..] else {
        return Err(format!("tables {tables:?}"));
    };

    let mut kept: BTreeSet<String> = in_postgres
        .iter()
        .chain([table])
        .flat_map(|place| generation_of(place))
        .collect();
    streams(cluster, &mut kept).await?;

    let jobs: Api<Job> = Api::namespaced(kubernetes.client().await, &kubernetes.namespace);
    let jobs = jobs.list(&ListParams::default()).await;
    let jobs = jobs.map_err(|error| error.to_string())?.items;
    if !jobs.is_empty() {
        return Err(format!("{} Jobs", jobs.len()));
    }
    Ok(())
}

/// The places of the generations in PostgreSQL, one a projection, and each the one that answers.
async fn generations(cluster: &Cluster) -> Result<BTreeSet<String>, String> {
    let known: Vec<(String, String, String)> =
        sqlx::query_as("SELECT projection, status, schema_name FROM projections.generations")
            .fetch_all(&cluster.read_pool)
            .await
            .map_err(|error| error.to_string())?;
    let active = known.iter().all(|(_, status, _)| status == "active");
    let mut projections: Vec<&str> = known.iter().map(|(name, ..)| name.as_str()).collect();
    projections.sort_unstable();
    if !active || projections != IN_POSTGRES {
        return Err(format!("generations {known:?}"));
    }
    Ok(known.into_iter().map(|(.., place)| place).collect())
}

/// How the generation of a place is named in leases and in consumers: `<projection>-g12-` and
/// `<projection>-gg12-`. Places in DynamoDB begin with the namespace.
fn generation_of(place: &str) -> [String; 2] {
    let name = place.replace('_', "-");
    let (name, number) = name.rsplit_once("-g").unwrap();
    let known = PROJECTIONS.iter();
    let begins = known.filter_map(|projection| name.find(projection)).next();
    let projection = &name[begins.unwrap_or_default()..];
    ["g", "gg"].map(|letter| format!("{projection}-{letter}{number}-"))
}

/// Consumers and leases, of the generations that are kept and of no other.
async fn streams(cluster: &Cluster, kept: &mut BTreeSet<String>) -> Result<(), String> {
    let failed = |error: &dyn std::error::Error| error.to_string();
    let names = millrace_streaming::Names::new(&cluster.namespace).map_err(|e| failed(&e))?;
    let context = millrace_es::Context::new("ordering").map_err(|e| failed(&e))?;
    let stream = cluster.jetstream.get_stream(names.stream(&context)).await;
    let stream = stream.map_err(|e| failed(&e))?;
    let consumers: Vec<String> = stream
        .consumer_names()
        .try_collect()
        .await
        .map_err(|e| failed(&e))?;
    let bucket = format!("KV_{}", names.lease_bucket());
    let leases = cluster.jetstream.get_stream(bucket).await;
    let leases = leases.map_err(|e| failed(&e))?;
    let leases = leases.info_with_subjects("$KV.>").await;
    let leases: Vec<(String, usize)> = leases
        .map_err(|e| failed(&e))?
        .try_collect()
        .await
        .map_err(|e| failed(&e))?;
    let of_generations = leases
        .into_iter()
        .map(|(subject, _)| subject)
        .filter(|subject| subject.contains(".group."));
    for name in consumers.into_iter().chain(of_generations) {
        if !kept.iter().any(|one| name.contains(one.as_str())) {
            return Err(format!("{name}, where only {kept:?} are kept"));
        }
    }
    Ok(())
}

fn equal(what: &str, found: &BTreeSet<String>, wanted: &BTreeSet<String>) -> Result<(), String> {
    if found == wanted {
        return Ok(());
    }
    Err(format!("{what} {found:?}, where {wanted:?} are kept"))
}
