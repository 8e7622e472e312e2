//! A client of a service over HTTP, on a real port.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header::CONTENT_TYPE, request::Builder};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

use crate::OrFail;

/// A client of one service.
#[derive(Debug, Clone)]
pub struct HttpClient {
    address: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl HttpClient {
    /// A client of the service at an address.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// Where the service is.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// A request to a path, to be filled and sent.
    #[must_use]
    pub fn request(&self, method: Method, path: &str) -> Request<'_> {
        let uri = format!("http://{}{path}", self.address);
        Request {
            client: &self.client,
            builder: http::Request::builder().method(method).uri(uri),
            body: Bytes::new(),
        }
    }

    /// Sends a GET.
    pub async fn get(&self, path: &str) -> Reply {
        self.request(Method::GET, path).send().await
    }

    /// Sends a POST with a JSON body.
    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.request(Method::POST, path).json(&body).send().await
    }

    /// Sends a PUT with a JSON body.
    pub async fn put(&self, path: &str, body: Value) -> Reply {
        self.request(Method::PUT, path).json(&body).send().await
    }

    /// Sends a DELETE.
    pub async fn delete(&self, path: &str) -> Reply {
        self.request(Method::DELETE, path).send().await
    }

    /// Reads once the read model is at a position, `<context>/<position>`, for which it waits the
    /// longest that a reader may. What is read may not exist there yet.
    pub async fn try_get_at(&self, path: &str, position: &str) -> Reply {
        let joint = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{joint}at_least={position}");
        let request = self.request(Method::GET, &path).header("prefer", "wait=30");
        request.send().await
    }

    /// As [`HttpClient::try_get_at`]; the answer has to be a 200.
    pub async fn get_at(&self, path: &str, position: &str) -> Reply {
        let reply = self.try_get_at(path, position).await;
        reply.expect(StatusCode::OK)
    }

    /// Reads what a write must be in; see [`HttpClient::get_at`].
    pub async fn get_after(&self, path: &str, write: &Reply) -> Reply {
        self.get_at(path, write.position()).await
    }

    /// One field of all items of a list, page by page, and how many pages there were.
    pub async fn walk(&self, path: &str, field: &str, limit: usize) -> (Vec<String>, usize) {
        let joint = if path.contains('?') { '&' } else { '?' };
        let (mut found, mut pages, mut cursor) = (Vec::new(), 0, String::new());
        loop {
            let page = format!("{path}{joint}limit={limit}{cursor}");
            let reply = self.get(&page).await.expect(StatusCode::OK);
            found.extend(reply.listed(field).into_iter().map(str::to_owned));
            pages += 1;
            match reply.body["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return (found, pages),
            }
        }
    }
}

/// A request to be sent.
#[derive(Debug)]
pub struct Request<'a> {
    client: &'a Client<HttpConnector, Full<Bytes>>,
    builder: Builder,
    body: Bytes,
}

impl Request<'_> {
    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.builder = self.builder.header(name, value);
        self
    }

    /// With a JSON body.
    #[must_use]
    pub fn json(mut self, body: &Value) -> Self {
        self.body = body.to_string().into();
        self.builder = self.builder.header(CONTENT_TYPE, "application/json");
        self
    }

    /// With a body as it is.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends it and reads the answer whole.
    pub async fn send(self) -> Reply {
        let request = self.builder.body(Full::new(self.body)).or_fail("a request");
        let (parts, body) = self
            .client
            .request(request)
            .await
            .or_fail("no answer")
            .into_parts();
        let bytes = body.collect().await.or_fail("no whole answer").to_bytes();
        Reply {
            status: parts.status,
            headers: parts.headers,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            bytes,
        }
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, byte for byte.
    pub bytes: Bytes,
    /// Its body as JSON; null where there is none.
    pub body: Value,
}

impl Reply {
    /// The reply, which has to have this status.
    #[track_caller]
    pub fn expect(self, status: StatusCode) -> Self {
        assert_eq!(self.status, status, "{:#}", self.body);
        self
    }

    /// A problem's name and the pointers of its errors.
    #[track_caller]
    pub fn problem(&self, status: u16) -> (&str, Vec<&str>) {
        assert_eq!(self.status, status, "{:#}", self.body);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let name = self.body["type"].as_str().unwrap_or_default();
        let errors = self.body["errors"].as_array();
        let pointers = errors
            .into_iter()
            .flatten()
            .map(|error| error["pointer"].as_str().unwrap_or_default())
            .collect();
        (name.strip_prefix("/problems/").unwrap_or(name), pointers)
    }

    /// A header, which has to be there.
    #[must_use]
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .unwrap_or_else(|| panic!("no {name}: {:?}", self.headers))
            .to_str()
            .or_fail(name)
    }

    /// `Log-Position`.
    #[must_use]
    #[track_caller]
    pub fn position(&self) -> &str {
        self.header("log-position")
    }

    /// One field of the items of a list.
    #[must_use]
    #[track_caller]
    pub fn listed(&self, field: &str) -> Vec<&str> {
        let items = self.body["items"].as_array().expect("a list");
        items
            .iter()
            .map(|item| item[field].as_str().unwrap_or_default())
            .collect()
    }

    /// The ids of a list.
    #[must_use]
    #[track_caller]
    pub fn ids(&self) -> Vec<&str> {
        self.listed("id")
    }
}
