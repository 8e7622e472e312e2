//! A share of a rebuild's bulk work: what a pod of its Job does.

use clap::Args;
use millrace_projecting::{GenerationStatus, LoadEnd, Rebuilds, Share};
use tokio_util::sync::CancellationToken;

/// What a Job's pod is told. Set by the controller; without them the process is a projector.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Share of a rebuild (set by the controller)")]
pub struct RebuildSettings {
    /// Load a share of this projection's new generation, and end
    #[arg(
        long,
        env = "MILLRACE_REBUILD_PROJECTION",
        requires = "rebuild_generation",
        value_name = "NAME"
    )]
    pub rebuild_projection: Option<String>,

    /// The generation to load, such as g12
    #[arg(
        long,
        env = "MILLRACE_REBUILD_GENERATION",
        requires = "rebuild_projection",
        value_name = "GENERATION"
    )]
    pub rebuild_generation: Option<String>,

    /// How many workers share the partitions
    #[arg(
        long,
        env = "MILLRACE_REBUILD_WORKERS",
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..),
        value_name = "COUNT"
    )]
    pub rebuild_workers: u16,

    /// Which of them this one is, from 0
    #[arg(
        long,
        env = "JOB_COMPLETION_INDEX",
        default_value_t = 0,
        value_name = "INDEX"
    )]
    pub rebuild_index: u16,
}

impl RebuildSettings {
    /// The projection and the generation, when this process is to load a share.
    pub fn asked(&self) -> Option<(&str, &str)> {
        Some((
            self.rebuild_projection.as_deref()?,
            self.rebuild_generation.as_deref()?,
        ))
    }
}

/// Loads the share to its end. A generation that is loaded or gone already needs nothing.
///
/// # Errors
/// When a store stayed away, the generation can never be loaded, or the process was told to stop:
/// then the Job has to begin another one.
pub async fn load_share(
    rebuilds: &Rebuilds,
    settings: &RebuildSettings,
    (projection, name): (&str, &str),
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let known = rebuilds.generations(projection).await?;
    let found = known.into_iter().find(|one| one.id.to_string() == name);
    let Some(generation) = found.filter(|one| one.status == GenerationStatus::Loading) else {
        tracing::info!(projection, generation = name, "nothing is left to load");
        return Ok(());
    };
    let share = Share {
        index: settings.rebuild_index,
        of: settings.rebuild_workers,
    };
    tracing::info!(
        projection,
        generation = name,
        index = share.index,
        of = share.of,
        "loading"
    );
    match rebuilds.load(&generation, share, stop).await? {
        LoadEnd::Done => tracing::info!(projection, generation = name, "the share is loaded"),
        LoadEnd::Gone => {
            tracing::info!(projection, generation = name, "the generation was dropped")
        }
        LoadEnd::Stopped => {
            anyhow::bail!("told to stop before the share was loaded; what is loaded stays")
        }
    }
    Ok(())
}
