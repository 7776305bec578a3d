//! Messages of ttrpc as bytes: a header, then a request or an answer. Pure.

/// Length and stream as big-endian words, type and flags as bytes.
pub const HEADER: usize = 10;

/// containerd's limit for a message.
pub const MESSAGE_MAX: usize = 4 << 20;

/// What a message is. There are streams too, which no shim has.
pub const REQUEST: u8 = 1;
pub const RESPONSE: u8 = 2;

/// What stands before each message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Of what follows.
    pub length: usize,
    /// Which call it belongs to.
    pub stream: u32,
    /// REQUEST or RESPONSE.
    pub kind: u8,
}

impl Header {
    /// From the wire.
    pub fn parse(bytes: &[u8; HEADER]) -> Header {
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Header { length: word(0) as usize, stream: word(4), kind: bytes[8] }
    }
}

/// A message with its header.
pub fn frame(kind: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend((body.len() as u32).to_be_bytes());
    bytes.extend(stream.to_be_bytes());
    bytes.extend([kind, 0]);
    bytes.extend(body);
    bytes
}

/// What has come in whole.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrived {
    /// A request.
    Request {
        /// Its call.
        stream: u32,
        /// What it says.
        body: Vec<u8>,
    },
    /// One that is longer than any may be. What follows it is read as usual.
    TooLong {
        /// Its call.
        stream: u32,
        /// How long.
        length: usize,
    },
}

/// Puts requests together from what is read, in whatever pieces.
#[derive(Debug, Default)]
pub struct Reader {
    held: Vec<u8>,
    /// So much of what is next is of a message that is too long.
    skip: usize,
}

impl Reader {
    /// What is whole with these bytes.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<Arrived> {
        let mut arrived = Vec::new();
        self.held.extend_from_slice(bytes);
        loop {
            let skipped = self.skip.min(self.held.len());
            self.held.drain(..skipped);
            self.skip -= skipped;
            let Some(header) = self.held.first_chunk::<HEADER>() else { break };
            let Header { length, stream, kind } = Header::parse(header);
            if length > MESSAGE_MAX {
                arrived.push(Arrived::TooLong { stream, length });
                self.skip = HEADER + length;
                continue;
            }
            if self.held.len() < HEADER + length {
                break;
            }
            let body = self.held[HEADER..HEADER + length].to_vec();
            self.held.drain(..HEADER + length);
            if kind == REQUEST {
                arrived.push(Arrived::Request { stream, body });
            }
        }
        if self.held.is_empty() {
            // A connection is idle most of its life.
            self.held = Vec::new();
        }
        arrived
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_out_whole_in_whatever_pieces_they_come_in() {
        let sent = [
            frame(REQUEST, 1, b"first"),
            frame(RESPONSE, 1, b"of no use to a server"),
            frame(REQUEST, 3, b""),
            frame(REQUEST, 5, &[7; 9000]),
        ]
        .concat();
        let expected = [
            Arrived::Request { stream: 1, body: b"first".to_vec() },
            Arrived::Request { stream: 3, body: Vec::new() },
            Arrived::Request { stream: 5, body: vec![7; 9000] },
        ];
        for piece in [1, 3, HEADER, 4096, sent.len()] {
            let mut reader = Reader::default();
            let arrived: Vec<Arrived> = sent.chunks(piece).flat_map(|bytes| reader.take(bytes)).collect();
            assert_eq!(arrived, expected, "in pieces of {piece}");
            assert_eq!(reader.held.capacity(), 0, "nothing is kept of what has been taken");
        }
    }

    #[test]
    fn a_message_that_is_too_long_is_told_and_passed_over() {
        let long = MESSAGE_MAX + 1;
        let sent = [frame(REQUEST, 1, &vec![0; long]), frame(REQUEST, 3, b"next")].concat();
        for piece in [8192, sent.len()] {
            let mut reader = Reader::default();
            let arrived: Vec<Arrived> = sent.chunks(piece).flat_map(|bytes| reader.take(bytes)).collect();
            let next = Arrived::Request { stream: 3, body: b"next".to_vec() };
            assert_eq!(arrived, [Arrived::TooLong { stream: 1, length: long }, next]);
        }
        let mut reader = Reader::default();
        reader.take(&frame(REQUEST, 1, &vec![0; long])[..1 << 20]);
        assert_eq!(reader.held.capacity(), 0, "it is not kept until it is whole");
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let bytes = frame(RESPONSE, 0x0102_0304, b"abc");
        let header = Header::parse(bytes.first_chunk().unwrap());
        assert_eq!(header, Header { length: 3, stream: 0x0102_0304, kind: RESPONSE });
    }
}
