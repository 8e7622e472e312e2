//! `millrace openapi`: the document of the whole system, as every service serves it.

use anyhow::Context as _;
use clap::Args;
use millrace_http::{Api, ApiOptions, CursorKey};
use millrace_roles::CONTEXTS;

use crate::{failure::Failure, output};

/// Print the OpenAPI 3.1 document of all services
#[derive(Debug, Args)]
pub struct OpenApi {}

impl OpenApi {
    pub fn run(&self) -> Result<(), Failure> {
        let api = Api::new(ApiOptions::new(CursorKey::of_this_process()));
        let documented = CONTEXTS
            .iter()
            .fold(api, |api, known| (known.document)(api));
        let text = documented
            .openapi()
            .to_pretty_json()
            .context("the document has no JSON form")?;
        output::text(&text)?;
        Ok(())
    }
}
