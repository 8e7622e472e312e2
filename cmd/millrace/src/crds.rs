//! `millrace crds`: the definitions of the custom resources, made from their types.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use millrace_replay::replay_crd;

use crate::{failure::Failure, output};

/// Print the definitions of the custom resources: `millrace crds | kubectl apply -f -`
#[derive(Debug, Args)]
pub struct Crds {
    /// Compare with this file instead of printing, and fail when it says something else
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

impl Crds {
    pub fn run(&self) -> Result<(), Failure> {
        let definition = replay_crd().map_err(anyhow::Error::from)?;
        let text = serde_saphyr::to_string(&definition)
            .context("the definition of the Replay resource has no YAML form")?;
        let Some(file) = &self.check else {
            output::text(&text)?;
            return Ok(());
        };
        let kept = std::fs::read_to_string(file)
            .with_context(|| format!("{} cannot be read", file.display()))?;
        if kept.trim_end() == text.trim_end() {
            return Ok(());
        }
        Err(Failure::Failed(anyhow::anyhow!(
            "{} is not what the code says: run `millrace crds > {0}`",
            file.display()
        )))
    }
}
