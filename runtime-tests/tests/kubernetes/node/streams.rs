//! Streams of Exec, Attach and PortForward as WebSockets: each frame begins with the number of its channel
//! (`v4.channel.k8s.io`). kubectl speaks the same to the API server. Uses tungstenite, serde_json.

use std::net::TcpStream;
use std::time::Duration;
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

/// The channels of a process.
pub const STDIN: u8 = 0;
pub const STDOUT: u8 = 1;
pub const STDERR: u8 = 2;
const OUTCOME: u8 = 3;
const RESIZE: u8 = 4;

/// As long as a slow machine may be silent.
const PATIENCE: Duration = Duration::from_secs(60);

/// A stream.
pub struct Stream {
    socket: WebSocket<TcpStream>,
    /// What came, by channel.
    came: [Vec<u8>; 4],
    over: bool,
}

impl Stream {
    /// The one that waits there. The thread must be in containerd's network namespace.
    pub fn open(url: &str) -> Stream {
        let url = url.replacen("http://", "ws://", 1);
        let mut request = url.as_str().into_client_request().expect("a URL");
        let protocol = http::HeaderValue::from_static("v4.channel.k8s.io");
        request.headers_mut().insert("sec-websocket-protocol", protocol);
        let address = request.uri().authority().expect("an address").to_string();
        let tcp = TcpStream::connect(&address).unwrap_or_else(|e| panic!("connect to {address}: {e}"));
        tcp.set_read_timeout(Some(PATIENCE)).expect("SO_RCVTIMEO");
        let (socket, answer) = tungstenite::client(request, tcp).expect("a WebSocket");
        assert_eq!(answer.headers().get("sec-websocket-protocol").expect("a protocol"), "v4.channel.k8s.io");
        Stream { socket, came: Default::default(), over: false }
    }

    /// Writes into a channel.
    pub fn write(&mut self, channel: u8, bytes: &[u8]) {
        let frame = [&[channel], bytes].concat();
        self.socket.send(Message::binary(frame)).expect("write into the stream");
    }

    /// The size of the terminal.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        let size = serde_json::json!({"Width": columns, "Height": rows});
        self.write(RESIZE, size.to_string().as_bytes());
    }

    /// Waits until a channel has said `word`; all until and with it, which is then forgotten.
    pub fn until(&mut self, channel: u8, word: &str) -> String {
        loop {
            let text = String::from_utf8_lossy(&self.came[usize::from(channel)]).into_owned();
            if let Some(at) = text.find(word) {
                let end = at + word.len();
                self.came[usize::from(channel)] = text.as_bytes()[end..].to_vec();
                return text[..end].to_string();
            }
            assert!(self.read(), "the stream is over, before {word:?}: {text:?}");
        }
    }

    /// Whether a channel says `word` within a second or two.
    pub fn hears(&mut self, channel: u8, word: &str) -> bool {
        self.socket.get_ref().set_read_timeout(Some(Duration::from_secs(2))).expect("SO_RCVTIMEO");
        let said = |came: &[u8]| String::from_utf8_lossy(came).contains(word);
        while !said(&self.came[usize::from(channel)]) && self.try_read() == Some(true) {}
        self.socket.get_ref().set_read_timeout(Some(PATIENCE)).expect("SO_RCVTIMEO");
        said(&self.came[usize::from(channel)])
    }

    /// What of a channel has not been read, once the stream is over.
    pub fn rest(&mut self, channel: u8) -> String {
        String::from_utf8_lossy(&self.rest_of(channel)).into_owned()
    }

    /// The same, as it came.
    pub fn rest_of(&mut self, channel: u8) -> Vec<u8> {
        while self.read() {}
        std::mem::take(&mut self.came[usize::from(channel)])
    }

    /// The exit code, once the stream is over.
    pub fn exit_code(&mut self) -> i32 {
        let text = self.rest(OUTCOME);
        let outcome: serde_json::Value =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text:?}"));
        match outcome["status"].as_str() {
            Some("Success") => 0,
            _ => {
                assert_eq!(outcome["reason"], "NonZeroExitCode", "{text}");
                let code = outcome["details"]["causes"][0]["message"].as_str().expect("a code");
                code.parse().expect("a number")
            }
        }
    }

    /// Goes, without a farewell of the process's.
    pub fn leave(mut self) {
        let _ = self.socket.close(None);
        while self.read() {}
    }

    fn read(&mut self) -> bool {
        let went_on = self.try_read();
        went_on.unwrap_or_else(|| panic!("nothing comes in the stream; so far {:?}", self.came_as_text()))
    }

    fn came_as_text(&self) -> [String; 4] {
        self.came.each_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// Reads a frame; false where the stream is over, None where nothing came in time.
    fn try_read(&mut self) -> Option<bool> {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset, WouldBlock};
        use tungstenite::Error;
        use tungstenite::error::ProtocolError::{ReceivedAfterClosing, ResetWithoutClosingHandshake};
        if self.over {
            return Some(false);
        }
        match self.socket.read() {
            Ok(Message::Binary(frame)) => {
                if let Some((channel, bytes)) = frame.split_first() {
                    self.came[usize::from(*channel)].extend(bytes);
                }
            }
            Ok(Message::Close(_)) => {}
            Ok(other) => assert!(other.is_ping() || other.is_pong(), "{other:?}"),
            Err(Error::Io(e)) if e.kind() == WouldBlock => return None,
            // The server closes its socket after its last word, with or without a frame that says so.
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => self.over = true,
            Err(Error::Protocol(ResetWithoutClosingHandshake | ReceivedAfterClosing)) => self.over = true,
            Err(Error::Io(e)) if [BrokenPipe, ConnectionReset].contains(&e.kind()) => self.over = true,
            Err(e) => panic!("the stream: {e}; so far {:?}", self.came_as_text()),
        }
        Some(!self.over)
    }
}
