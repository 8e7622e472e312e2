//! A lean HTTP/1.1 client. It shares the machine with what it measures, so it writes requests that
//! were built before and reads of the answers only what a measurement needs.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// The longest answer a client takes, in bytes.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// What a client's buffer begins with, in bytes.
const BUFFER_BYTES: usize = 8 * 1024;

/// A connection that is kept alive, with one request at a time.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What was answered.
#[derive(Debug, Clone, Copy)]
pub struct Answered<'a> {
    /// HTTP status.
    pub status: u16,
    head: &'a [u8],
    /// The body.
    pub body: &'a [u8],
}

impl Answered<'_> {
    /// A header's value; the name is asked for in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(header(self.head, name)?).ok()
    }
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When nothing listens there.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            address,
            stream,
            buffer: Vec::with_capacity(BUFFER_BYTES),
        })
    }

    /// Sends a request as [`get`] or [`post`] made it and reads the answer.
    ///
    /// # Errors
    /// When the connection breaks or the answer is none that this client reads (its length has to
    /// be said by `content-length`).
    pub async fn send(&mut self, request: &[u8]) -> io::Result<Answered<'_>> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let mut looked = 0_usize;
        let head_end = loop {
            self.read_more().await?;
            let from = looked.saturating_sub(3);
            if let Some(at) = find(&self.buffer[from..], b"\r\n\r\n") {
                break from + at;
            }
            looked = self.buffer.len();
        };
        let (status, length) = parse_head(&self.buffer[..head_end])?;
        let end = head_end + 4 + length;
        while self.buffer.len() < end {
            self.read_more().await?;
        }
        let closes = header(&self.buffer[..head_end], "connection")
            .is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
        if closes {
            // Servers close connections of a certain age; that is theirs to decide.
            self.stream = TcpStream::connect(self.address).await?;
            self.stream.set_nodelay(true)?;
        }
        Ok(Answered {
            status,
            head: &self.buffer[..head_end],
            body: &self.buffer[head_end + 4..end],
        })
    }

    async fn read_more(&mut self) -> io::Result<()> {
        if self.buffer.len() > MAX_ANSWER_BYTES {
            return Err(io::Error::other("the answer is too long for a benchmark"));
        }
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

fn parse_head(head: &[u8]) -> io::Result<(u16, usize)> {
    let bad = || io::Error::other("the answer is no HTTP/1.1 answer with a content-length");
    let status = head.get(9..12).and_then(number).ok_or_else(bad)?;
    let status = u16::try_from(status).map_err(|_| bad())?;
    let length = match header(head, "content-length") {
        Some(value) => number(value).ok_or_else(bad)?,
        None if matches!(status, 204 | 304) => 0,
        None => return Err(bad()),
    };
    Ok((status, length))
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').skip(1).find_map(|line| {
        let (found, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        found
            .eq_ignore_ascii_case(name.as_bytes())
            .then(|| value.trim_ascii())
    })
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|at| at == pattern)
}

/// A GET, ready to be sent.
pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: bench\r\naccept: application/json\r\n\r\n").into_bytes()
}

/// A GET that waits for a position as long as it may.
pub fn get_patiently(path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nhost: bench\r\naccept: application/json\r\n\
         prefer: wait=30\r\n\r\n"
    )
    .into_bytes()
}

/// A POST of JSON, ready to be sent.
pub fn post(path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_are_read_whole_however_they_are_cut() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut request = [0; 1024];
            for _ in 0..2 {
                assert!(stream.read(&mut request).await.unwrap() > 0);
                let answer = b"HTTP/1.1 201 Created\r\nLog-Position: ordering/7~1\r\n\
                               Content-Length: 5\r\n\r\nhello";
                for part in answer.chunks(7) {
                    stream.write_all(part).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
            assert!(stream.read(&mut request).await.unwrap() > 0);
            let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        };
        let ask = async {
            let mut client = Client::connect(address).await.unwrap();
            for _ in 0..2 {
                let answered = client.send(&post("/orders", "{}")).await.unwrap();
                assert_eq!((answered.status, answered.body), (201, &b"hello"[..]));
                assert_eq!(answered.header("log-position"), Some("ordering/7~1"));
                assert_eq!(answered.header("log"), None);
            }
            assert_eq!(client.send(&get("/orders")).await.unwrap().status, 204);
        };
        tokio::join!(serve, ask);
    }
}
