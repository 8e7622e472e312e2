//! Ports and the little HTTP that asks a server whether it is ready.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Mutex;
use std::time::Duration;

use rand::RngExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Ports are picked below the range from which Linux takes the local ports of outgoing
/// connections (32768 and up), so that a server that was killed finds its port free again.
const PORTS: std::ops::Range<u16> = 18_000..32_000;
const MAX_PORT_TRIES: usize = 200;
const MAX_ANSWER_BYTES: u64 = 1 << 20;

/// The claims of this process on the ports that [`free_port`] gave it. A claim is the UDP port of
/// the same number, which none of our servers uses: it keeps every other process that asks for a
/// free port away, also while the server on it is killed and not back yet, and the operating system
/// ends it with the process.
static CLAIMS: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());

/// A port on 127.0.0.1 that nobody listens on, and that no other call gives out as long as this
/// process lives. A process that does not ask here may still take it before the caller does, so
/// callers try again with another.
#[must_use]
pub fn free_port() -> u16 {
    let mut random = rand::rng();
    for _ in 0..MAX_PORT_TRIES {
        let port = random.random_range(PORTS);
        if let Some(claim) = claim(port) {
            // A poisoned lock means that a thread panicked between two pushes: the list is whole.
            CLAIMS
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .push(claim);
            return port;
        }
    }
    // Everything tried is taken: let the operating system choose, 0 if even that fails.
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_or(0, |address| address.port())
}

/// Claims a port that nobody listens on and nobody claimed.
fn claim(port: u16) -> Option<UdpSocket> {
    let claim = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
    port_is_free(port).then_some(claim)
}

/// Whether nobody listens on the port of 127.0.0.1.
#[must_use]
pub fn port_is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Asks `GET path` of a server on 127.0.0.1 and gives status and body, at most 1 MiB.
///
/// # Errors
/// When the server does not answer within `bound`, or not in HTTP.
pub async fn http_get(port: u16, path: &str, bound: Duration) -> std::io::Result<(u16, String)> {
    let ask = async {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        let request =
            format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream
            .take(MAX_ANSWER_BYTES)
            .read_to_end(&mut answer)
            .await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = tokio::time::timeout(bound, ask)
        .await
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
    let status = answer
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidData))?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_was_given_is_not_given_again_though_nobody_listens_on_it() {
        let port = free_port();
        assert!(port_is_free(port));
        assert!(claim(port).is_none());
    }
}
