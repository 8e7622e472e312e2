//! What an operator sees of receipts and messages while S3 and SNS suffer, and that both come back by
//! themselves.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, response::IntoResponse};
use http::{HeaderMap, Method, StatusCode};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use millrace_effects::{Archive, Topic};
use millrace_es::Metadata;
use millrace_eventlog::{Answer, Execute, Repository, RepositoryOptions};
use millrace_kernel::{EntityId, Timestamp};
use millrace_ordering::{
    order::{CreateOrder, Order, OrderCommand, OrderId, Total, UserId},
    order_notifications, order_receipts,
};
use millrace_testkit::{LogLines, S3Fault, S3Server, eventually, s3};
use millrace_teststage::{Stores, Streams, Tasks};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    reacting::{Sns, archive_at},
    system::Store,
};

/// How long the test waits for what has to come: an endpoint that is slow is told of when the whole
/// time of an effect has passed, and that more than once.
const PATIENCE: Duration = Duration::from_secs(120);

/// Longer than any client waits for an answer.
const SLOW: Duration = Duration::from_secs(30);

/// What both endpoints suffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Suffering {
    Away,
    Slow,
    Answers(u16),
    RefusesCredentials,
}

/// An SNS endpoint that can be hurt, in front of the real one.
struct Gate {
    port: u16,
    shared: Shared,
    tasks: JoinSet<()>,
}

#[derive(Clone)]
struct Shared {
    behind: String,
    http: reqwest::Client,
    suffers: Arc<Mutex<Option<Suffering>>>,
}

impl Gate {
    async fn before(behind: &str) -> Self {
        let shared = Shared {
            behind: behind.to_owned(),
            http: reqwest::Client::new(),
            suffers: Arc::default(),
        };
        let mut gate = Self {
            port: millrace_testkit::free_port(),
            shared,
            tasks: JoinSet::new(),
        };
        gate.open().await;
        gate
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    async fn open(&mut self) {
        let listener = eventually("the port of SNS to be free", PATIENCE, || async {
            TcpListener::bind(("127.0.0.1", self.port)).await.ok()
        });
        let router = Router::new().fallback(pass).with_state(self.shared.clone());
        let listener = listener.await;
        self.tasks
            .spawn(async move { axum::serve(listener, router).await.unwrap() });
    }

    async fn hurt(&mut self, suffering: Suffering) {
        *self.shared.suffers.lock().unwrap() = Some(suffering);
        if suffering == Suffering::Away {
            self.tasks.shutdown().await;
        }
    }

    async fn heal(&mut self) {
        let suffered = self.shared.suffers.lock().unwrap().take();
        if suffered == Some(Suffering::Away) {
            self.open().await;
        }
    }
}

async fn pass(
    State(shared): State<Shared>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse {
    let failure = |status: u16, code: &str| {
        let status = StatusCode::from_u16(status).unwrap();
        let text = format!(
            "<ErrorResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><Error>\
             <Type>Sender</Type><Code>{code}</Code><Message>no</Message></Error></ErrorResponse>"
        );
        (status, text)
    };
    let suffers = *shared.suffers.lock().unwrap();
    match suffers {
        // Connections that were open live on when nobody listens any more.
        Some(Suffering::Away) => return failure(503, "Away"),
        Some(Suffering::Slow) => tokio::time::sleep(SLOW).await,
        Some(Suffering::Answers(status)) => return failure(status, "InternalFailure"),
        Some(Suffering::RefusesCredentials) => return failure(403, "InvalidClientTokenId"),
        None => {}
    }
    let request = shared.http.request(method, &shared.behind);
    let answer = request.headers(headers).body(body).send().await.unwrap();
    let status = answer.status();
    (status, answer.text().await.unwrap())
}

/// A log with its relay, both endpoints, and the reactions on them.
struct Effects {
    streams: Streams,
    _relay: Tasks,
    store: Store,
    archive: Archive,
    topic: Arc<Topic>,
    server: S3Server,
    sns: Sns,
    gate: Gate,
    orders: usize,
}

impl Effects {
    async fn start() -> Self {
        let (store, server, sns) = tokio::join!(Store::start(), s3(), Sns::start());
        let gate = Gate::before(&sns.url).await;
        let streams = Streams::of(vec![store.log.clone()]).await;
        let mut relay = Tasks::default();
        streams.relay(&mut relay);
        Self {
            archive: archive_at(&server),
            topic: Sns::topic_of(&gate.url()).await,
            streams,
            _relay: relay,
            store,
            server,
            sns,
            gate,
            orders: 0,
        }
    }

    /// A process that performs both reactions, until it is told to stop.
    async fn perform(&self, stop: &CancellationToken) -> JoinSet<()> {
        let reactions = vec![
            order_receipts(self.archive.clone()),
            order_notifications(self.topic.clone(), "millrace"),
        ];
        let stores = Stores::in_postgres(&self.store.database).await;
        let runner = self.streams.projector("projector", reactions, &stores);
        let mut tasks = JoinSet::new();
        tasks.spawn(runner.run(stop.clone()));
        tasks
    }

    async fn order(&mut self) {
        let orders = Repository::<Order>::new(self.store.log.clone(), RepositoryOptions::default());
        let id = EntityId::new(format!("o-{}", self.orders)).unwrap();
        let create = OrderCommand::Create(Box::new(CreateOrder {
            order_id: OrderId::new(id.clone()),
            user_id: UserId::new(EntityId::new("ada").unwrap()),
            total: Total::of_amount("4.50".parse().unwrap()).unwrap(),
            shipping_address: None,
            notes: None,
            payment_account_id: None,
            description: None,
            purchase_dt: None,
            at: Timestamp::now(),
        }));
        let request = Execute {
            id: &id,
            command: create,
            if_match: None,
            metadata: Metadata::default(),
            key: None,
            new: true,
        };
        let nobody = |_: millrace_eventlog::Outcome<'_, Order>| Answer {
            status: 201,
            headers: Vec::new(),
            body: Bytes::new(),
        };
        orders.execute(request, nobody).await.unwrap();
        self.orders += 1;
    }

    async fn hurt(&mut self, suffering: Suffering) {
        match suffering {
            Suffering::Away => self.server.stop().await,
            Suffering::Slow => self.server.hurt(Some(S3Fault::Slow(SLOW))),
            Suffering::Answers(status) => self.server.hurt(Some(S3Fault::Status(status))),
            Suffering::RefusesCredentials => self.server.hurt(Some(S3Fault::RefuseKeys)),
        }
        self.gate.hurt(suffering).await;
    }

    async fn heal(&mut self, suffering: Suffering) {
        self.server.hurt(None);
        if suffering == Suffering::Away {
            self.server.start().await;
        }
        self.gate.heal().await;
    }

    /// One JSON and one HTML of every order, and one message.
    async fn performed(&self) {
        let (receipts, messages) = (2 * self.orders, self.orders);
        eventually("every effect to be performed", PATIENCE, || async {
            let sent = self.sns.messages().await.len();
            (self.server.objects().len() == receipts && sent == messages).then_some(())
        })
        .await;
    }
}

const REACTIONS: [&str; 2] = ["order-receipts", "order-notifications"];

/// The figures, as an operator's tools collect them.
struct Figures(PrometheusHandle);

impl Figures {
    fn of(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.0.render();
        let lines = text
            .lines()
            .filter(|line| line.starts_with(&format!("{name}{{")));
        let lines = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    fn of_reactions(&self, name: &str, label: &str, more: &[&str]) -> BTreeMap<&'static str, f64> {
        let each = |reaction: &'static str| {
            let label = format!("{label}=\"{reaction}\"");
            let mut labels = vec![label.as_str()];
            labels.extend(more);
            (reaction, self.of(name, &labels))
        };
        REACTIONS.into_iter().map(each).collect()
    }
}

#[tokio::test]
async fn an_operator_sees_both_suffer_and_both_recover_by_themselves() {
    let (lines, _lines) = LogLines::of_this_thread("info");
    let recorder = PrometheusBuilder::new().build_recorder();
    let figures = Figures(recorder.handle());
    // This thread's, and so is everything of this test.
    let _metrics = metrics::set_default_local_recorder(&recorder);
    let mut effects = Box::pin(Effects::start()).await;
    for suffering in [
        Suffering::Away,
        Suffering::Answers(500),
        Suffering::Answers(503),
        Suffering::RefusesCredentials,
        Suffering::Slow,
    ] {
        // A process of its own each time: one says it once in half a minute.
        let stop = CancellationToken::new();
        let running = effects.perform(&stop).await;
        let said = |reaction: &str, what: &str| {
            lines
                .with(&[what, &format!("reaction=\"{reaction}\"")])
                .len()
        };
        const AWAY: &str = "effects cannot be performed";
        const BACK: &str = "effects are performed again";
        let before = REACTIONS.map(|reaction| (said(reaction, AWAY), said(reaction, BACK)));
        let unavailable = "outcome=\"unavailable\"";
        let tried = figures.of_reactions("millrace_effects_total", "reaction", &[unavailable]);

        effects.hurt(suffering).await;
        effects.order().await;
        let what = format!("{suffering:?} to be told and counted of both");
        eventually(&what, PATIENCE, || async {
            let told = REACTIONS.iter().zip(&before);
            let mut told = told.map(|(reaction, (away, _))| said(reaction, AWAY) == away + 1);
            let gauge = figures.of_reactions("millrace_effects_unavailable", "reaction", &[]);
            let now = figures.of_reactions("millrace_effects_total", "reaction", &[unavailable]);
            let lag = figures.of_reactions("millrace_projection_lag_seconds", "projection", &[]);
            let seen = told.all(|told| told)
                && gauge.values().all(|away| *away == 1.0)
                && now.iter().all(|(reaction, count)| *count > tried[reaction])
                && lag.values().all(|seconds| *seconds > 0.0);
            seen.then_some(())
        })
        .await;
        for line in lines.with(&[AWAY]) {
            assert!(line.contains("WARN") && line.contains("error="), "{line}");
        }

        effects.heal(suffering).await;
        effects.performed().await;
        let what = format!("both to be well after {suffering:?}");
        eventually(&what, PATIENCE, || async {
            let told = REACTIONS.iter().zip(&before);
            let mut told = told.map(|(reaction, (_, back))| said(reaction, BACK) == back + 1);
            let gauge = figures.of_reactions("millrace_effects_unavailable", "reaction", &[]);
            let lag = figures.of_reactions("millrace_projection_lag_seconds", "projection", &[]);
            let well = told.all(|told| told)
                && gauge.values().all(|away| *away == 0.0)
                && lag.values().all(|seconds| *seconds == 0.0);
            well.then_some(())
        })
        .await;
        stop.cancel();
        running.join_all().await;
    }
    // Once each, for all that they were tried again.
    effects.performed().await;
    let letters: i64 = sqlx::query_scalar("SELECT count(*) FROM projections.dead_letters")
        .fetch_one(&effects.store.database.pool)
        .await
        .unwrap();
    assert_eq!(letters, 0);
}
