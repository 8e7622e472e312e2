//! A client that sends any bytes it is told to.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(20);

pub struct Raw(TcpStream);

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Sends bytes; a server that has heard enough may have closed.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = timeout(PATIENCE, self.0.write_all(bytes.as_ref()))
            .await
            .unwrap();
    }

    /// Sends bytes, all of which the server takes.
    pub async fn send_all(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = timeout(PATIENCE, self.0.write_all(bytes.as_ref())).await;
        sent.unwrap().expect("the server listens");
    }

    /// Reads until the server closes the connection.
    pub async fn rest(mut self) -> String {
        let mut all = Vec::new();
        // A reset after the answer ends the reading too.
        let _ = timeout(PATIENCE, self.0.read_to_end(&mut all))
            .await
            .expect("the server closes");
        String::from_utf8_lossy(&all).into_owned()
    }

    /// Reads until a text has come.
    pub async fn until(&mut self, text: &str) -> String {
        let mut all = Vec::new();
        let mut chunk = [0; 4096];
        while !String::from_utf8_lossy(&all).contains(text) {
            let read = timeout(PATIENCE, self.0.read(&mut chunk)).await;
            let count = read
                .unwrap_or_else(|_| panic!("{text:?} did not come: {all:?}"))
                .unwrap();
            assert_ne!(
                count,
                0,
                "closed before {text:?}: {:?}",
                String::from_utf8_lossy(&all)
            );
            all.extend_from_slice(&chunk[..count]);
        }
        String::from_utf8_lossy(&all).into_owned()
    }

    /// Ends this side, so that the server reads an end.
    pub async fn finish(&mut self) {
        self.0.shutdown().await.unwrap();
    }
}

/// Sends a whole request and reads all that comes.
pub async fn exchange(address: SocketAddr, request: impl AsRef<[u8]>) -> String {
    let mut raw = Raw::connect(address).await;
    raw.send(request).await;
    raw.rest().await
}
