//! An HTTP client of a few lines, so that the tests see what is on the wire.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A response as received.
#[derive(Debug)]
#[allow(dead_code, reason = "not every test binary asks for anything")]
pub(crate) struct Response {
    #[allow(dead_code, reason = "not every test binary looks at the status")]
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    #[allow(dead_code, reason = "not every test binary looks at headers")]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    #[allow(dead_code, reason = "not every test binary reads text")]
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("text")
    }
}

/// One request without a body.
#[allow(dead_code, reason = "not every test binary needs it")]
pub(crate) async fn request(address: SocketAddr, method: &str, path: &str) -> Response {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    request_raw(address, head.as_bytes()).await
}

/// `POST` with a JSON body.
#[allow(dead_code, reason = "not every test binary needs it")]
pub(crate) async fn request_json(address: SocketAddr, path: &str, body: &str) -> Response {
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    request_raw(address, request.as_bytes()).await
}

/// Sends bytes as they are and reads the response to its end.
#[allow(dead_code, reason = "not every test binary needs it")]
pub(crate) async fn request_raw(address: SocketAddr, bytes: &[u8]) -> Response {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    // A server that refuses early may close while we still send.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let head_end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    let head = std::str::from_utf8(&answer[..head_end]).expect("text");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let status = status.parse().expect("a number");
    Response { status, headers, body: answer[head_end..].to_vec() }
}
