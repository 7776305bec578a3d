//! A stage of work in a thread of its own: bytes go from one to the next in chunks, and no more than a few of them
//! wait. Public for who times the stages apart. Uses: std.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Bytes that are handed over at once.
pub const CHUNK: usize = 256 << 10;
/// Chunks that wait between two stages.
const DEPTH: usize = 4;

/// Where a stage puts what it made.
pub struct Sender {
    full: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
    made: usize,
}

/// Where the next stage gets it: end of file comes when the sender is dropped, also when it failed.
pub struct Received {
    full: Receiver<Vec<u8>>,
    empty: SyncSender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
}

/// The two ends of a way from one stage to the next.
pub fn way() -> (Sender, Received) {
    let (full_sender, full) = sync_channel(DEPTH);
    let (empty_sender, empty) = sync_channel(DEPTH + 2);
    (
        Sender { full: full_sender, empty, made: 0 },
        Received { full, empty: empty_sender, chunk: Vec::new(), at: 0 },
    )
}

impl Sender {
    /// A buffer to fill: one that was emptied, since fresh memory costs page faults.
    fn buffer(&mut self) -> Option<Vec<u8>> {
        if self.made < DEPTH + 2 {
            self.made += 1;
            return Some(Vec::with_capacity(CHUNK));
        }
        // None where the receiver is gone.
        self.empty.recv().ok()
    }

    /// Sends all of `reader`, and shows each chunk to `seen` first. `Ok(false)` when nobody receives any more.
    pub fn send_all(
        &mut self,
        reader: &mut dyn Read,
        mut seen: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<bool> {
        loop {
            let Some(mut buffer) = self.buffer() else { return Ok(false) };
            buffer.clear();
            if Read::take(&mut *reader, CHUNK as u64).read_to_end(&mut buffer)? == 0 {
                return Ok(true);
            }
            seen(&buffer)?;
            if self.full.send(buffer).is_err() {
                return Ok(false);
            }
        }
    }
}

impl Read for Received {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let rest = self.fill_buf()?;
        let read = rest.len().min(out.len());
        out[..read].copy_from_slice(&rest[..read]);
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Received {
    /// What is left of the chunk at hand, or the next one.
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.chunk.len() {
            let Ok(next) = self.full.recv() else { return Ok(&[]) };
            let emptied = std::mem::replace(&mut self.chunk, next);
            self.at = 0;
            if emptied.capacity() > 0 {
                // A sender that is done takes none back.
                let _ = self.empty.try_send(emptied);
            }
        }
        Ok(&self.chunk[self.at..])
    }

    fn consume(&mut self, size: usize) {
        self.at += size;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_and_a_receiver_that_leaves_stops_the_sender() {
        let content: Vec<u8> = (0..10 * CHUNK + 17).map(|i| (i % 251) as u8).collect();
        let (mut sender, mut received) = way();
        std::thread::scope(|scope| {
            let mut reader = &content[..];
            scope.spawn(move || assert!(sender.send_all(&mut reader, |_| Ok(())).unwrap()));
            let mut out = Vec::new();
            received.read_to_end(&mut out).unwrap();
            assert_eq!(out, content);
        });
        let (mut sender, mut received) = way();
        std::thread::scope(|scope| {
            let sent = scope.spawn(move || sender.send_all(&mut io::repeat(7), |_| Ok(())));
            received.read_exact(&mut [0; 10]).unwrap();
            drop(received);
            assert!(!sent.join().unwrap().unwrap());
        });
    }
}
