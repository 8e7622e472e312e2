//! Following a replay to its end.

use std::{io::IsTerminal as _, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use millrace_replay::{
    Record,
    conditions::{READY, SUCCEEDED},
    status::ReplayStatus,
};
use millrace_replaying::ReplayTable;

use super::{Shown, phase, show};
use crate::{
    failure::Failure,
    output::{self, Format},
};

/// How often the replay is looked at, in milliseconds.
const LOOK_MS: u64 = 500;

/// How long nothing at all may happen to a new replay before people are told that nobody drives it,
/// in looks.
const UNSEEN_LOOKS: u32 = 20;

/// Follows a replay until it has ended: a bar on a terminal, a line for each change elsewhere, and
/// a JSON document for each as JSON.
///
/// # Errors
/// [`Failure::Failed`] when it ended without what was asked for; else see [`Failure`].
pub async fn follow(table: &ReplayTable, name: &str, format: Format) -> Result<(), Failure> {
    let bar = bar(format);
    let mut last = String::new();
    let mut looks = 0_u32;
    loop {
        let record = table.get(name).await?;
        draw(&bar, &record.status);
        let line = line(&record);
        if line != last {
            match format {
                Format::Json => output::json_line(&Shown::of(&record))?,
                Format::Table if bar.is_hidden() => output::say(&line)?,
                Format::Table => bar.set_message(line.clone()),
            }
            last = line;
        }
        if record.status.ended() {
            bar.finish_and_clear();
            return judge(&record, format);
        }
        looks += 1;
        if looks == UNSEEN_LOOKS && record.status.observed_generation < 0 {
            output::say(
                "nobody drives it yet: a projector has to run (`millrace up`, millrace-projector)",
            )?;
        }
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
    }
}

fn bar(format: Format) -> ProgressBar {
    let bar = ProgressBar::new(100);
    if format == Format::Json || !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
        return bar;
    }
    let style = ProgressStyle::with_template("{bar:30} {percent:>3}% {prefix} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

fn draw(bar: &ProgressBar, status: &ReplayStatus) {
    let Some(progress) = &status.progress else {
        return;
    };
    bar.set_length(progress.events_total.max(1));
    bar.set_position(progress.events_processed);
    let mut prefix = format!("{} events/s", progress.events_per_second);
    if let Some(lag) = progress.lag {
        prefix = format!("lag {lag}");
    } else if let Some(at) = &progress.estimated_completion_time {
        prefix = format!("{prefix}, done at {}", at.0.strftime("%H:%M:%S"));
    }
    bar.set_prefix(prefix);
}

/// Where it stands, in a line.
fn line(record: &Record) -> String {
    let status = &record.status;
    let said = status.condition(READY).map_or("", |ready| &ready.message);
    format!("{}: {} {said}", record.name, phase(status))
        .trim_end()
        .to_owned()
}

fn judge(record: &Record, format: Format) -> Result<(), Failure> {
    if format == Format::Table {
        show(record, format)?;
    }
    if record.status.is_true(SUCCEEDED) {
        return Ok(());
    }
    let why = record.status.condition(SUCCEEDED);
    Err(Failure::Failed(anyhow::anyhow!(
        "replay {} ended as {}: {}",
        record.name,
        phase(&record.status),
        why.map_or("no reason was given", |why| &why.message)
    )))
}
