//! What init and its parent say to each other: fixed-size records on a SOCK_SEQPACKET socket.
//!
//! ```text
//!   parent (create, run, exec)                  init                              start
//!       | clone3, exec of init  ----------------> |
//!       |                                         | steps ...
//!       | <------------- Report::Barrier(maps) -- |   (new user namespace only)
//!       | -- Answer::GoOn ----------------------> |
//!       | <------------- Report::Barrier(hooks) - |   (only where there are such hooks)
//!       | -- Answer::GoOn ----------------------> |
//!       | <------------- Report::Trees --------- |   (bind mounts, on Linux 6.8 and later)
//!       | -- Answer::GoOn + fd, each tree -----> |
//!       | <------------- Report::Terminal + fd -- |   (process.terminal only)
//!       |                                         | steps ...
//!       | <------------- Report::Ready ---------- |
//!       | writes state.json, pid file             |
//!       | -- Answer::GoOn + HOME ---------------> |   end of file instead: init exits, nothing is left
//!       |                                         |
//!       | <------------- Report::Forked --------- |   (exec into a pid namespace: the sibling goes on)
//!       |                                         |
//!       |  run, exec: the same socket goes on     |  create: closes it, accepts on start.sock
//!       |                                         | <--------------- connect, Answer::GoOn -- |
//!       | <------------- Report::Executing ------ | -------------- Report::Executing -------> |
//!       | <------------- Report::Listener ------- | -------------- Report::Listener --------> |
//!       | -- Answer::GoOn ----------------------> | <---------------------- Answer::GoOn ---- |
//!       |                                         |   (only a filter with SCMP_ACT_NOTIFY)    |
//!       |                                         | execve                                    |
//!       | <------------- end of file ------------ | -------------- end of file -------------> |
//! ```
//!
//! At any point init may send `Report::Failed` and exit. End of file without `Executing` means that init died. Where
//! there is a seccomp filter, `Executing` is said before it, because the filter may forbid to say anything after it.

/// Bytes of a report.
pub const REPORT_SIZE: usize = 24;
/// Most bytes that an answer carries (HOME: a path).
pub const ANSWER_MAX: usize = 4096;

/// What a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// A step failed; init exits.
    Failed = 1,
    /// Init waits at a barrier; `call` holds which.
    Barrier = 2,
    /// The terminal's master comes with this record as SCM_RIGHTS.
    Terminal = 3,
    /// Everything is set up.
    Ready = 4,
    /// execve is next.
    Executing = 5,
    /// It wants the trees of `call` slots from slot `detail` on: one answer with an fd for each.
    Trees = 6,
    /// Its sibling with pid `detail` goes on; it exits.
    Forked = 7,
    /// The filter is loaded, and fd `detail` of init's is its listener: to be taken (pidfd_getfd(2)) before the answer. It
    /// is said with write(2) and the answer is got with read(2), which the filter may hand to the agent, but for write.
    Listener = 8,
    /// The mount that was just attached has the id `detail`.
    Mounted = 9,
}

/// One record from init.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// What it is about.
    pub kind: Kind,
    /// The number of the system call that failed (of the architecture), or of the barrier.
    pub call: u16,
    /// Index of the step.
    pub step: u32,
    /// The errno, positive.
    pub errno: i32,
    /// What the step adds: documented where it is set.
    pub detail: u64,
}

impl Report {
    /// As it goes over the socket.
    pub fn encode(&self) -> [u8; REPORT_SIZE] {
        let mut out = [0; REPORT_SIZE];
        out[0..2].copy_from_slice(&(self.kind as u16).to_le_bytes());
        out[2..4].copy_from_slice(&self.call.to_le_bytes());
        out[4..8].copy_from_slice(&self.step.to_le_bytes());
        out[8..12].copy_from_slice(&self.errno.to_le_bytes());
        out[16..24].copy_from_slice(&self.detail.to_le_bytes());
        out
    }

    /// None for anything that init does not send.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; REPORT_SIZE] = bytes.try_into().ok()?;
        let kind = match u16::from_le_bytes([bytes[0], bytes[1]]) {
            1 => Kind::Failed,
            2 => Kind::Barrier,
            3 => Kind::Terminal,
            4 => Kind::Ready,
            5 => Kind::Executing,
            6 => Kind::Trees,
            7 => Kind::Forked,
            8 => Kind::Listener,
            9 => Kind::Mounted,
            _ => return None,
        };
        let mut detail = [0; 8];
        detail.copy_from_slice(&bytes[16..24]);
        Some(Report {
            kind,
            call: u16::from_le_bytes([bytes[2], bytes[3]]),
            step: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            errno: i32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]),
            detail: u64::from_le_bytes(detail),
        })
    }
}

/// The first byte of an answer; bytes after it are HOME (without NUL), or nothing.
pub const GO_ON: u8 = b'g';

/// `call` of a failure that no system call reported: what init itself found.
pub const FOUND_BY_INIT: u16 = u16::MAX;
