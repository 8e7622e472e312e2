//! Which process leads.
//!
//! Processes that all write would mostly refuse each other: the head takes one transaction at a
//! time, and the others' were for nothing. So one process at a time leads, by the item `lease`. It
//! only spreads the work: what keeps the log right is the condition on the head, whoever thinks to
//! lead.
//!
//! The item has a `holder` and a `record`, a number that rises with every change. The holder makes
//! it rise every [`RENEW_MS`]; whoever has watched one and the same record for [`EXPIRE_MS`] by its
//! own clock takes the lease over, under the condition that the record is still that one. No two
//! clocks are compared. A process that waits leaves the mark `wanted`. The holder looks for it every
//! [`LOOK_MS`] and then frees the lease, and does not ask for it again before the others had time
//! to; which of them gets it is chance. A holder without work frees it by itself after [`IDLE_MS`].

use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::AttributeValue;
use tokio::time::sleep;

use super::{
    calls::{Expression, Table},
    failure::Failure,
    items::{self, HOLDER},
    values::{Item, get_number, get_text, number, text},
};

/// How often the holder looks whether somebody waits.
const LOOK_MS: u64 = 50;
/// How often the holder makes the record rise.
const RENEW_MS: u64 = 500;
/// How long a record has to stand still until its holder counts as gone.
const EXPIRE_MS: u64 = 2_000;
/// How long a holder without work keeps the lease for its next append.
const IDLE_MS: u64 = 1_000;
/// How long a process that freed the lease for others leaves it to them.
const YIELD_MS: u64 = 60;
/// How often a process that waits looks: a random time from the first to the second.
const MIN_POLL_MS: u64 = 8;
const MAX_POLL_MS: u64 = 24;
/// How long freeing the lease may take when the log is closed; it runs out by itself then.
const FREE_MS: u64 = 1_000;

const RECORD: &str = "record";
const WANTED: &str = "wanted";

struct Held {
    renewed: Instant,
    looked: Instant,
    used: Instant,
}

/// This process's part in the lease.
pub(super) struct Lease {
    table: Table,
    me: String,
    held: Option<Held>,
    /// The record that is watched, and since when.
    watched: Option<(u64, Instant)>,
}

impl Lease {
    pub(super) fn new(table: Table, me: String) -> Self {
        Self {
            table,
            me,
            held: None,
            watched: None,
        }
    }

    /// Has the lease, or waits for it, at most until the deadline. `true` when it was taken just
    /// now, so that others may have written since.
    pub(super) async fn hold(&mut self, deadline: Instant) -> Result<bool, Failure> {
        if self.held.is_some() {
            self.look().await?;
            if let Some(held) = &mut self.held {
                held.used = Instant::now();
                return Ok(false);
            }
            sleep(Duration::from_millis(YIELD_MS)).await;
        }
        if self.take(None).await? {
            return Ok(true);
        }
        loop {
            if self.ask().await? {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Err(Failure::passing(
                    "another process leads the log and did not let go of it",
                ));
            }
            let pause = rand::random_range(MIN_POLL_MS..=MAX_POLL_MS);
            sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Looks after the lease while nothing waits, and says when to do so again.
    pub(super) async fn rest(&mut self) -> Option<Duration> {
        let idle = self.held.as_ref()?.used.elapsed() >= Duration::from_millis(IDLE_MS);
        if idle {
            self.free().await;
            return None;
        }
        if let Err(error) = self.look().await {
            // The head's condition stands guard; the next append finds out more.
            tracing::debug!(?error, "the lease could not be looked after");
            self.held = None;
        }
        self.held.is_some().then(|| Duration::from_millis(LOOK_MS))
    }

    /// Frees the lease, if this process has it.
    pub(super) async fn free(&mut self) {
        if self.held.take().is_none() {
            return;
        }
        let freeing = tokio::time::timeout(Duration::from_millis(FREE_MS), self.let_go());
        match freeing.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(?error, "the lease could not be freed; it runs out"),
            Err(_) => tracing::debug!("freeing the lease took too long; it runs out"),
        }
    }

    /// The holder's look: is it still the holder, does somebody wait, is it time to renew.
    async fn look(&mut self) -> Result<(), Failure> {
        let Some(held) = &self.held else {
            return Ok(());
        };
        if held.looked.elapsed() < Duration::from_millis(LOOK_MS) {
            return Ok(());
        }
        let renewed = held.renewed;
        let item = self
            .table
            .get(items::lease_key())
            .await?
            .unwrap_or_default();
        if get_text(&item, HOLDER).ok() != Some(self.me.as_str()) {
            self.held = None;
            return Ok(());
        }
        if item.contains_key(WANTED) {
            self.held = None;
            return self.let_go().await;
        }
        let now = Instant::now();
        let renew = renewed.elapsed() >= Duration::from_millis(RENEW_MS);
        let still = !renew || self.renew().await?;
        self.held = still.then_some(Held {
            renewed: if renew { now } else { renewed },
            looked: now,
            used: self.held.as_ref().map_or(now, |held| held.used),
        });
        Ok(())
    }

    async fn renew(&self) -> Result<bool, Failure> {
        let mut expression = Expression::default();
        let condition = expression.equals(HOLDER, text(self.me.as_str()));
        let change = format!(
            "ADD {} {}",
            expression.name(RECORD),
            expression.value(number(1))
        );
        let item = self.change(change, condition, expression).await?;
        Ok(item.is_some())
    }

    async fn let_go(&self) -> Result<(), Failure> {
        let mut expression = Expression::default();
        let condition = expression.equals(HOLDER, text(self.me.as_str()));
        let change = format!(
            "REMOVE {}, {} ADD {} {}",
            expression.name(HOLDER),
            expression.name(WANTED),
            expression.name(RECORD),
            expression.value(number(1))
        );
        self.change(change, condition, expression).await.map(|_| ())
    }

    /// Takes the lease if it is free, this process's own from before, or one whose record stood
    /// still.
    async fn take(&mut self, gone: Option<u64>) -> Result<bool, Failure> {
        let mut expression = Expression::default();
        let mut condition = format!("attribute_not_exists({}) OR ", expression.name(HOLDER));
        condition.push_str(&expression.equals(HOLDER, text(self.me.as_str())));
        if let Some(record) = gone {
            condition.push_str(" OR ");
            condition.push_str(&expression.equals(RECORD, number(record)));
        }
        let change = format!(
            "SET {} REMOVE {} ADD {} {}",
            expression.equals(HOLDER, text(self.me.as_str())),
            expression.name(WANTED),
            expression.name(RECORD),
            expression.value(number(1))
        );
        if self.change(change, condition, expression).await?.is_none() {
            return Ok(false);
        }
        let now = Instant::now();
        self.held = Some(Held {
            renewed: now,
            looked: now,
            used: now,
        });
        self.watched = None;
        Ok(true)
    }

    /// One look of a process that waits: takes the lease if it can, else says that it waits.
    async fn ask(&mut self) -> Result<bool, Failure> {
        let item = self
            .table
            .get(items::lease_key())
            .await?
            .unwrap_or_default();
        if !item.contains_key(HOLDER) {
            return self.take(None).await;
        }
        let record: u64 = get_number(&item, RECORD)?;
        let since = match self.watched {
            Some((watched, since)) if watched == record => since,
            _ => {
                let now = Instant::now();
                self.watched = Some((record, now));
                now
            }
        };
        if since.elapsed() >= Duration::from_millis(EXPIRE_MS) {
            tracing::warn!(
                table = self.table.name,
                "the process that led the log is gone"
            );
            return self.take(Some(record)).await;
        }
        if !item.contains_key(WANTED) {
            let mut expression = Expression::default();
            let condition = expression.equals(RECORD, number(record));
            let change = format!(
                "SET {}",
                expression.equals(WANTED, AttributeValue::Bool(true))
            );
            self.change(change, condition, expression).await?;
        }
        Ok(false)
    }

    async fn change(
        &self,
        change: String,
        condition: String,
        expression: Expression,
    ) -> Result<Option<Item>, Failure> {
        let update = self
            .table
            .updating(items::lease_key())
            .update_expression(change)
            .condition_expression(condition)
            .set_expression_attribute_names(Some(expression.names))
            .set_expression_attribute_values(Some(expression.values));
        self.table.update(update).await
    }
}
