//! A stage of work in a thread of its own: bytes go from one to the next in chunks, and no more than a few of them
//! wait. Public for who times the stages apart. Uses: fill.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::fill::fill;

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

/// A stage between two others that only looks at what passes.
pub struct Onlooker {
    from: Receiver<Vec<u8>>,
    to: SyncSender<Vec<u8>>,
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

/// The same with an onlooker between the two ends: chunks are handed on, not copied.
pub fn way_past() -> (Sender, Onlooker, Received) {
    let (sender, Received { full: from, empty, .. }) = way();
    let (to, full) = sync_channel(DEPTH);
    (sender, Onlooker { from, to }, Received { full, empty, chunk: Vec::new(), at: 0 })
}

impl Onlooker {
    /// Shows all that passes to `seen`, until the sender ends or nobody receives any more.
    pub fn watch(self, mut seen: impl FnMut(&[u8])) {
        while let Ok(chunk) = self.from.recv() {
            seen(&chunk);
            if self.to.send(chunk).is_err() {
                return;
            }
        }
    }
}

impl Sender {
    /// A buffer to fill: one that was emptied, since fresh memory costs page faults.
    fn buffer(&mut self) -> Option<Vec<u8>> {
        if self.made < DEPTH + 2 {
            self.made += 1;
            return Some(vec![0; CHUNK]);
        }
        // None where the receiver is gone.
        let mut emptied = self.empty.recv().ok()?;
        emptied.resize(CHUNK, 0);
        Some(emptied)
    }

    /// Sends all of `reader`, and shows each chunk to `seen` first. `Ok(false)` when nobody receives any more.
    pub fn send_all(
        &mut self,
        reader: &mut dyn Read,
        mut seen: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<bool> {
        loop {
            let Some(mut buffer) = self.buffer() else { return Ok(false) };
            // Read::read_to_end would write zeros over it first, and begin with small reads each time.
            let size = fill(reader, &mut buffer)?;
            if size == 0 {
                return Ok(true);
            }
            buffer.truncate(size);
            seen(&buffer)?;
            if self.full.send(buffer).is_err() {
                return Ok(false);
            }
        }
    }
}

impl Received {
    /// Lets all pass that still comes.
    pub fn drain(&mut self) {
        while let Ok(chunk) = self.fill_buf()
            && !chunk.is_empty()
        {
            let size = chunk.len();
            self.consume(size);
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
            if !emptied.is_empty() {
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
