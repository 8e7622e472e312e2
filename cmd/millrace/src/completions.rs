use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::{Cli, failure::Failure, output};

/// Print a shell's completions: `millrace completions bash > /etc/bash_completion.d/millrace`
#[derive(Debug, Args)]
pub struct Completions {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub fn run(&self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "millrace", &mut script);
        output::text(&String::from_utf8_lossy(&script))?;
        Ok(())
    }
}
