//! A client of the CRI: one call at a time, gRPC over a Unix socket. Uses h2, http, prost, tokio.
//!
//! ```text
//! POST /runtime.v1.RuntimeService/METHOD     a frame: 0, length (4 bytes, big end first), message
//!      <- 200, a frame, grpc-status and grpc-message in the trailers; without an answer they stand in the header
//! ```

use bytes::Bytes;
use h2::client::SendRequest;
use http::HeaderMap;
use prost::Message;
use std::path::Path;
use std::time::Duration;
use tokio::runtime::Runtime;

/// As long as a slow machine may take for one call.
const PATIENCE: Duration = Duration::from_secs(120);

/// A connection.
pub struct Client {
    runtime: Runtime,
    calls: SendRequest<Bytes>,
}

/// A status other than OK, and what was said to it.
#[derive(Debug)]
pub struct Refusal {
    pub code: u32,
    pub text: String,
}

impl Client {
    /// To the server that listens there.
    pub fn at(socket: &Path) -> Client {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio");
        let calls = runtime.block_on(async {
            let stream = tokio::net::UnixStream::connect(socket).await.expect("connect to containerd");
            let (calls, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
            // Ends with the server; who waits for an answer then hears of it.
            tokio::spawn(async move {
                let _ = connection.await;
            });
            calls
        });
        Client { runtime, calls }
    }

    /// A call of the service RuntimeService.
    pub fn try_call<A: Message + Default>(&self, method: &str, request: &impl Message) -> Result<A, Refusal> {
        let path = format!("/runtime.v1.RuntimeService/{method}");
        let answer = self.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, unary(self.calls.clone(), &path, request)).await
        });
        let frame = answer
            .unwrap_or_else(|_| panic!("{method} does not answer"))
            .unwrap_or_else(|e| panic!("{method}: {e}"))?;
        assert!(frame.len() >= 5 && frame[0] == 0, "{method}: a frame, and not compressed: {frame:?}");
        Ok(A::decode(&frame[5..]).unwrap_or_else(|e| panic!("{method}: {e}")))
    }
}

async fn unary(
    calls: SendRequest<Bytes>,
    path: &str,
    request: &impl Message,
) -> Result<Result<Vec<u8>, Refusal>, h2::Error> {
    let message = request.encode_to_vec();
    let mut frame = vec![0];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    let to = http::Uri::builder().scheme("http").authority("localhost").path_and_query(path);
    let header = http::Request::post(to.build().expect("a URI"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a request");
    let (answer, mut body) = calls.ready().await?.send_request(header, false)?;
    body.send_data(frame.into(), true)?;
    let answer = answer.await?;
    assert_eq!(answer.status(), 200, "{path}");
    if let Some(refusal) = refusal(answer.headers()) {
        return Ok(Err(refusal));
    }
    let mut body = answer.into_body();
    let mut whole = Vec::new();
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len())?;
        whole.extend(part);
    }
    let trailers = body.trailers().await?.expect("trailers with a status");
    Ok(refusal(&trailers).map_or(Ok(whole), Err))
}

fn refusal(header: &HeaderMap) -> Option<Refusal> {
    let word = |name| header.get(name).and_then(|value| value.to_str().ok());
    let code = word("grpc-status")?.parse().expect("a number");
    (code != 0).then(|| Refusal { code, text: word("grpc-message").unwrap_or_default().to_string() })
}
