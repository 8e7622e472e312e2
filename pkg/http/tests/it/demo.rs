//! A service of made-up things, kept in memory, and its server.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{extract::State, response::Response};
use http::StatusCode;
use millrace_es::{Context, Epoch, LogToken, Metadata, Partition, Position, StreamVersion};
use millrace_eventlog::{Answer, AnswerKey, LogError};
use millrace_http::{
    AnswerBuilder, Api, ApiOptions, ChangeHeaders, Consistency, CursorKey, FieldErrors, List,
    ListParams, NoBody, NoQuery, Page, PathId, PathIds, Problem, ProblemType, Read, ReadParams,
    ServerLimits, StrongRead, StrongReadParams, Write, WriteHeaders, respond, serve,
};
use millrace_kernel::{EntityId, Money};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub static SEALED: ProblemType = ProblemType::new("sealed", "The thing is sealed", 409);

#[derive(Clone)]
pub struct Demo(pub Arc<Inner>);

pub struct Inner {
    pub things: Mutex<BTreeMap<String, Thing>>,
    answers: Mutex<HashMap<[u8; 32], (AnswerKey, Answer)>>,
    pub metadata: Mutex<Vec<Metadata>>,
    /// A request to `/things/slow` waits for a permit and keeps it.
    pub slow: Semaphore,
    /// How many requests have reached `/things/slow`.
    pub arrived: Semaphore,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Thing {
    pub id: String,
    pub owner: String,
    pub price: String,
    pub version: u64,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewThing {
    #[schema(value_type = Option<String>)]
    id: Option<EntityId>,
    #[schema(value_type = String)]
    owner: EntityId,
    #[schema(value_type = Option<String>)]
    price: Option<Money>,
    note: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
struct NewStatus {
    status: Status,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
enum Status {
    Open,
    Sealed,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Filters {
    #[serde(default)]
    expensive: bool,
    prefix: Option<String>,
}

pub fn token(position: u64) -> LogToken {
    LogToken {
        context: Context::new("things").unwrap(),
        position: Position::new(position),
        epoch: Some(Epoch::new(1)),
        partitions: vec![(Partition::new(3), Position::new(position))],
    }
}

#[utoipa::path(post, path = "/things", request_body = NewThing, params(WriteHeaders),
    responses((status = 201, body = Thing)))]
async fn create(State(demo): State<Demo>, write: Write<NewThing>) -> Result<Response, Problem> {
    let mut errors = FieldErrors::new();
    let new = &write.body;
    if let Some(id) = &new.id {
        write.context.refuse_reserved(&mut errors, "/id", id);
    }
    errors.at_most_chars("/note", new.note.as_deref().unwrap_or_default(), 10);
    errors.finish()?;
    let thing = Thing {
        id: new
            .id
            .clone()
            .unwrap_or_else(EntityId::generate)
            .to_string(),
        owner: new.owner.to_string(),
        price: new.price.unwrap_or_default().to_string(),
        version: 1,
    };
    demo.0.metadata.lock().unwrap().push(write.metadata.clone());
    demo.once(write.key, || {
        demo.0
            .things
            .lock()
            .unwrap()
            .insert(thing.id.clone(), thing.clone());
        AnswerBuilder::json(StatusCode::CREATED, &thing)
            .version(StreamVersion::new(1))
            .location(format!("/things/{}", thing.id))
            .build()
    })
}

#[utoipa::path(put, path = "/things/{id}/status", request_body = NewStatus,
    params(("id" = String, Path), ChangeHeaders), responses((status = 200, body = Thing)))]
async fn change(
    State(demo): State<Demo>,
    PathId(id): PathId,
    write: Write<NewStatus>,
) -> Result<Response, Problem> {
    let found = demo.0.things.lock().unwrap().get(id.as_str()).cloned();
    let mut thing = found.ok_or_else(|| Problem::not_found(format_args!("thing {id}")))?;
    let actual = StreamVersion::new(thing.version);
    if write.if_match.is_some_and(|expected| expected != actual) {
        return Err(Problem::precondition_failed(Some(actual)));
    }
    demo.once(write.key, || {
        if write.body.status == Status::Sealed {
            return Problem::new(&SEALED, "Sealed things do not change")
                .with("status_now", "SEALED")
                .into_answer();
        }
        thing.version += 1;
        demo.0
            .things
            .lock()
            .unwrap()
            .insert(thing.id.clone(), thing.clone());
        AnswerBuilder::json(StatusCode::OK, &thing)
            .version(StreamVersion::new(thing.version))
            .build()
    })
}

#[utoipa::path(delete, path = "/things/{id}", params(("id" = String, Path), ChangeHeaders),
    responses((status = 204)))]
async fn remove(
    State(demo): State<Demo>,
    PathId(id): PathId,
    write: Write<NoBody>,
) -> Result<Response, Problem> {
    demo.once(write.key, || {
        demo.0.things.lock().unwrap().remove(id.as_str());
        AnswerBuilder::no_content()
            .version(StreamVersion::new(9))
            .build()
    })
}

#[utoipa::path(get, path = "/things/{id}", params(("id" = String, Path), StrongReadParams),
    responses((status = 200, body = Thing)))]
async fn show(
    State(demo): State<Demo>,
    PathId(id): PathId,
    read: StrongRead<NoQuery>,
) -> Result<Response, Problem> {
    demo.reach(&read.consistency)?;
    let found = demo.0.things.lock().unwrap().get(id.as_str()).cloned();
    let thing = found.ok_or_else(|| Problem::not_found(format_args!("thing {id}")))?;
    read.reading
        .entity(&thing, StreamVersion::new(thing.version), Some(&token(7)))
}

#[utoipa::path(get, path = "/things", params(Filters, ListParams),
    responses((status = 200, body = Page<Thing>)))]
async fn list(State(demo): State<Demo>, list: List<Filters>) -> Result<Response, Problem> {
    demo.reach(&list.consistency)?;
    let after: Option<String> = list.page.after()?;
    let things = demo.0.things.lock().unwrap();
    let found = things.values().filter(|thing| {
        after.as_ref().is_none_or(|after| thing.id > *after)
            && (!list.query.expensive || thing.price.len() > 5)
            && list
                .query
                .prefix
                .as_ref()
                .is_none_or(|prefix| thing.id.starts_with(prefix))
    });
    let items = found.take(list.page.limit + 1).cloned().collect();
    let page = list.page.page(items, |thing: &Thing| thing.id.clone())?;
    list.reading.page(&page, Some(&token(7)))
}

#[utoipa::path(get, path = "/things/owner/{owner}/of/{id}",
    params(("owner" = String, Path), ("id" = String, Path), ListParams),
    responses((status = 200, body = Vec<Thing>)))]
async fn owned(ids: PathIds<2>, list: List<NoQuery>) -> Result<Response, Problem> {
    let PathIds([owner, id]) = ids;
    let thing = Thing {
        id: id.to_string(),
        owner: owner.to_string(),
        price: "0.00".into(),
        version: 1,
    };
    let page = list
        .page
        .page(vec![thing.clone(), thing], |thing| thing.id.clone())?;
    list.reading.array(&page, None)
}

#[utoipa::path(get, path = "/things/statistics", params(ReadParams),
    responses((status = 200, body = Value)))]
async fn statistics(State(demo): State<Demo>, read: Read<NoQuery>) -> Result<Response, Problem> {
    let count = demo.0.things.lock().unwrap().len();
    read.reading
        .json(&serde_json::json!({"count": count}), Some(&token(7)))
}

#[utoipa::path(get, path = "/things/panic", params(ReadParams), responses((status = 200)))]
async fn panics() -> Result<Response, Problem> {
    panic!("a secret of the code")
}

#[utoipa::path(get, path = "/things/down", params(ReadParams), responses((status = 200)))]
async fn down() -> Result<Response, Problem> {
    Err(LogError::Unreachable("SELECT * FROM secrets on db.internal:5432".into()).into())
}

#[utoipa::path(get, path = "/things/slow", params(ReadParams), responses((status = 200)))]
async fn slow(State(demo): State<Demo>, read: Read<NoQuery>) -> Result<Response, Problem> {
    demo.0.arrived.add_permits(1);
    let _permit = demo.0.slow.acquire().await.map_err(Problem::internal)?;
    read.reading.json(&"done", None)
}

impl Demo {
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            things: Mutex::default(),
            answers: Mutex::default(),
            metadata: Mutex::default(),
            slow: Semaphore::new(0),
            arrived: Semaphore::new(0),
        }))
    }

    /// Answers a write, or gives the answer kept under its key.
    fn once(
        &self,
        key: Option<AnswerKey>,
        act: impl FnOnce() -> Answer,
    ) -> Result<Response, Problem> {
        let Some(key) = key else {
            return Ok(respond(act(), &token(7), false));
        };
        let kept = self.0.answers.lock().unwrap().get(&key.key_hash).cloned();
        match kept {
            Some((first, _)) if first.request_hash != key.request_hash => {
                Err(Problem::idempotency_key_reused())
            }
            Some((_, answer)) => Ok(respond(answer, &token(7), true)),
            None => {
                let answer = act();
                let entry = (key, answer.clone());
                self.0.answers.lock().unwrap().insert(key.key_hash, entry);
                Ok(respond(answer, &token(7), false))
            }
        }
    }

    /// The read model stands at 7 and goes nowhere.
    fn reach(&self, consistency: &Consistency) -> Result<(), Problem> {
        match consistency {
            Consistency::AtLeast { token, wait } if token.position > Position::new(7) => Err(
                Problem::not_yet_readable(token, Some(Position::new(7)), *wait),
            ),
            _ => Ok(()),
        }
    }
}

pub fn write_routes() -> OpenApiRouter<Demo> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(change))
        .routes(routes!(remove))
}

pub fn read_routes() -> OpenApiRouter<Demo> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(owned))
        .routes(routes!(statistics))
        .routes(routes!(panics))
        .routes(routes!(down))
        .routes(routes!(slow))
}

pub fn options() -> ApiOptions {
    ApiOptions {
        body_timeout: Duration::from_millis(500),
        ..ApiOptions::new(CursorKey::of_this_process())
    }
}

/// Both halves in one service.
pub fn whole(demo: &Demo) -> Api {
    Api::new(options())
        .serve(write_routes().with_state(demo.clone()))
        .serve(read_routes().with_state(demo.clone()))
}

/// A server of a test's own; it ends with the test.
pub struct Server {
    pub address: SocketAddr,
    pub client: reqwest::Client,
    pub shutdown: CancellationToken,
    task: JoinSet<std::io::Result<()>>,
}

impl Server {
    pub async fn start(router: axum::Router) -> Self {
        Self::with(router, ServerLimits::default(), Duration::from_secs(5)).await
    }

    pub async fn with(router: axum::Router, limits: ServerLimits, drain: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(serve(listener, router, limits, shutdown.clone(), drain));
        // Installed once for the process; later attempts are refused, which is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(20))
            .build()
            .unwrap();
        Self {
            address,
            client,
            shutdown,
            task,
        }
    }

    pub async fn demo() -> (Self, Demo) {
        let demo = Demo::new();
        (Self::start(whole(&demo).finish()).await, demo)
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.get(self.url(path))
    }

    pub fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        let request = self.client.post(self.url(path));
        request
            .header("content-type", "application/json")
            .body(body)
    }

    /// Makes a thing.
    pub async fn make(&self, id: &str) {
        let body = format!(r#"{{"id": "{id}", "owner": "o", "price": 4.5}}"#);
        let answer = self.post("/things", body).send().await.unwrap();
        assert_eq!(answer.status(), 201);
    }

    /// Ends the server and waits for it.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        self.task.join_next().await.unwrap().unwrap().unwrap();
    }
}

/// Asserts that an answer is a problem of a kind, and gives its body.
pub async fn problem(answer: reqwest::Response, status: u16, kind: &str) -> Value {
    let found = answer.status();
    let media = answer.headers().get("content-type").cloned();
    assert!(
        answer.headers().contains_key("x-request-id"),
        "every answer names its request"
    );
    let text = answer.text().await.unwrap();
    assert_eq!(found, status, "{text}");
    assert_eq!(media.unwrap(), "application/problem+json", "{text}");
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(body["type"], format!("/problems/{kind}"), "{text}");
    assert_eq!(body["status"], status);
    assert!(
        body["title"].is_string() && body["detail"].is_string(),
        "{text}"
    );
    body
}

/// The header of an answer, as text.
pub fn header<'a>(answer: &'a reqwest::Response, name: &str) -> &'a str {
    let value = answer.headers().get(name);
    value
        .unwrap_or_else(|| panic!("{name} is missing"))
        .to_str()
        .unwrap()
}
