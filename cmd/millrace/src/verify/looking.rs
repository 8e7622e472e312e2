//! Looking at one view, or at one stream, within the deadline.

use std::{collections::BTreeMap, sync::Arc};

use millrace_es::{Context, Position};
use millrace_eventlog::EventLog;
use millrace_internal::{Owners, RemoteLog};
use millrace_projecting::{Check, CheckOptions, Checked, KeptCheck, Rebuilds, View};
use millrace_roles::KnownContext;
use millrace_streaming::{StreamAudit, audit_stream};
use tokio::time::{Instant, timeout_at};

use super::{
    is_kept_of,
    report::{Elsewhere, Outcome, Verdict},
};
use crate::{
    endpoints::Endpoints,
    failure::Failure,
    opened::{self, ReadStores},
};

/// What is looked at, with what, and until when.
pub struct Looking {
    pub endpoints: Endpoints,
    pub stores: ReadStores,
    /// The contexts of this installation.
    pub served: Vec<&'static KnownContext>,
    pub owners: Owners,
    pub options: CheckOptions,
    pub deadline: Instant,
}

/// The logs of contexts, or why one cannot be read.
pub type Logs = BTreeMap<Context, Result<Arc<dyn EventLog>, String>>;

/// A view with the context that it belongs to.
pub type OfContext = (&'static KnownContext, View);

impl Looking {
    /// The views that are asked for.
    ///
    /// # Errors
    /// [`Failure::NotFound`] when one is not there.
    pub fn views(
        &self,
        contexts: &[Context],
        projections: &[String],
    ) -> Result<Vec<OfContext>, Failure> {
        let all: Vec<OfContext> = self
            .served
            .iter()
            .flat_map(|known| (known.views)().into_iter().map(|view| (*known, view)))
            .collect();
        let unknown = |name: &&String| all.iter().all(|(_, view)| view.name() != **name);
        if let Some(name) = projections.iter().find(unknown) {
            let names: Vec<_> = all.iter().map(|(_, view)| view.name()).collect();
            return Err(Failure::NotFound(format!(
                "there is no projection {name:?} with rows; there are {}",
                names.join(", ")
            )));
        }
        let served = |name: &&Context| self.served.iter().all(|known| known.name != name.as_str());
        if let Some(name) = contexts.iter().find(served) {
            return Err(Failure::NotFound(format!(
                "{name} is none of the contexts that are served here"
            )));
        }
        let wanted = |(known, view): &OfContext| {
            (contexts.is_empty() || contexts.iter().any(|one| one.as_str() == known.name))
                && (projections.is_empty() || projections.iter().any(|one| one == view.name()))
        };
        Ok(all.into_iter().filter(wanted).collect())
    }

    /// The contexts whose streams are compared.
    pub fn with_streams(
        &self,
        contexts: &[Context],
    ) -> impl Iterator<Item = &'static KnownContext> {
        let wanted = |known: &KnownContext| {
            contexts.is_empty() || contexts.iter().any(|one| one.as_str() == known.name)
        };
        let served = self.served.iter().copied();
        served.filter(move |known| known.own_log().is_some() && wanted(known))
    }

    /// The logs that views read: this installation's own, and those of others through their owners.
    pub async fn logs(&self, views: &[OfContext]) -> Logs {
        let mut logs = Logs::new();
        for context in views.iter().flat_map(|(_, view)| view.contexts()) {
            if !logs.contains_key(context) {
                let opened = self.log(context).await;
                logs.insert(context.clone(), opened.map_err(|error| error.to_string()));
            }
        }
        logs
    }

    async fn log(&self, context: &Context) -> Result<Arc<dyn EventLog>, Failure> {
        if self
            .served
            .iter()
            .any(|known| known.name == context.as_str())
        {
            return opened::log(&self.endpoints, context).await;
        }
        let owner = self.owners.client(context).map_err(anyhow::Error::from)?;
        let owner = owner.ok_or_else(|| {
            Failure::Usage(format!(
                "nobody is named as the owner of {context}: set MILLRACE_OWNERS={context}=http://<host>:<port>"
            ))
        })?;
        Ok(Arc::new(RemoteLog::new(owner)))
    }

    /// What the runs before came to, as far as it can be read.
    pub async fn kept(&self) -> Vec<KeptCheck> {
        let kept = timeout_at(self.deadline, self.stores.postgres.kept_checks()).await;
        kept.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// Compares a view.
    pub async fn look_at_view(
        &self,
        known: &'static KnownContext,
        view: &View,
        logs: &Logs,
        kept: &[KeptCheck],
    ) -> Outcome {
        let outcome = Outcome::new(known.name, Some(view.name()));
        let mut own = Vec::new();
        for context in view.contexts() {
            match logs.get(context) {
                Some(Ok(log)) => own.push(Arc::clone(log)),
                Some(Err(why)) => return outcome.because(Verdict::Unchecked, why),
                None => {}
            }
        }
        let mut options = self.options.clone();
        if options.keys > 0 {
            options.also.extend(differed(kept, &outcome));
        }
        let rebuilds = Rebuilds::new(
            vec![view.clone()],
            own,
            Some(self.stores.postgres.clone()),
            Some(self.stores.dynamodb.clone()),
            None,
        );
        let check = Box::pin(rebuilds.check(view.name(), &options));
        match timeout_at(self.deadline, check).await {
            Ok(Ok(Check::Done(checked))) => compared(outcome, checked),
            Ok(Ok(Check::Skipped(why))) => outcome.because(Verdict::Skipped, why),
            Ok(Err(error)) => outcome.because(Verdict::Unchecked, Failure::from(error).to_string()),
            Err(_) => outcome.because(Verdict::Unchecked, LATE),
        }
    }

    /// Compares the stream of a context.
    pub async fn look_at_stream(
        &self,
        known: &'static KnownContext,
        kept: &[KeptCheck],
    ) -> Outcome {
        let outcome = Outcome::new(known.name, None);
        let also = differed(kept, &outcome);
        let also = also.filter_map(|text| text.parse().ok()).collect();
        match timeout_at(self.deadline, self.audit(known, also)).await {
            Ok(Ok(audit)) if audit.last.is_none() => {
                let mut outcome = outcome.because(Verdict::Skipped, "there is no stream yet");
                outcome.head = Some(audit.head);
                outcome
            }
            Ok(Ok(audit)) => {
                let mut outcome = outcome.counted(audit.compared, audit.differences);
                (outcome.head, outcome.last) = (Some(audit.head), audit.last);
                let named = audit.named.into_iter();
                let named = named.map(|one| Elsewhere {
                    position: one.position,
                    what: one.what,
                });
                outcome.positions = named.collect();
                outcome
            }
            Ok(Err(error)) => outcome.because(Verdict::Unchecked, error.to_string()),
            Err(_) => outcome.because(Verdict::Unchecked, LATE),
        }
    }

    async fn audit(
        &self,
        known: &KnownContext,
        also: Vec<Position>,
    ) -> Result<StreamAudit, Failure> {
        let log = opened::log(&self.endpoints, &known.context()?).await?;
        let topology = opened::topology(&self.endpoints).await?;
        let (keys, seed) = (self.options.keys, self.options.seed);
        Ok(audit_stream(&*log, &topology, keys, seed, &also).await?)
    }

    /// Keeps what a comparison came to; one that could not be made leaves the last one standing.
    pub async fn keep(&self, outcome: &mut Outcome) {
        if !matches!(outcome.result, Verdict::Equal | Verdict::Different) {
            return;
        }
        let check = KeptCheck {
            context: outcome.context.to_owned(),
            projection: outcome.projection.map(str::to_owned),
            checked: outcome.checked,
            differences: outcome.differences,
            differing: outcome.differing(),
            checked_at: millrace_kernel::Timestamp::now(),
        };
        let store = outcome
            .projection
            .map_or(&self.stores.postgres, |name| self.stores.postgres.of(name));
        if let Err(error) = store.keep_check(&check).await {
            let why = format!(
                "compared, and not kept: {}; has `millrace migrate` run?",
                Failure::from(error)
            );
            outcome.why = Some(why);
            // What differs is said in any case.
            if outcome.result == Verdict::Equal {
                outcome.result = Verdict::Unchecked;
            }
        }
    }
}

/// Why what was not looked at in time was not.
const LATE: &str = "the deadline came first (--deadline)";

/// What differed in the run before.
fn differed<'a>(kept: &'a [KeptCheck], outcome: &'a Outcome) -> impl Iterator<Item = String> + 'a {
    let own = kept.iter().filter(move |kept| is_kept_of(kept, outcome));
    own.flat_map(|kept| kept.differing.iter().cloned())
}

fn compared(outcome: Outcome, checked: Checked) -> Outcome {
    let mut outcome = outcome.counted(checked.keys, checked.differences);
    outcome.generation = Some(checked.generation);
    outcome.rows = Some(checked.rows);
    outcome.parked = Some(checked.parked);
    outcome.parked_keys = checked.parked_keys;
    outcome.left_out = Some(checked.left_out);
    outcome.named = checked.named;
    outcome
}
