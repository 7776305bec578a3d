//! The socket to the process that waits: reports go out, answers come in. The protocol is drawn in rcrun_plan::record.

use crate::sys::{
    Failure, Fd, Result,
    errno::{EINTR, EINVAL},
    file, socket,
};
use rcrun_plan::record::{ANSWER_MAX, GO_ON, Report};

/// The process that waits.
pub struct Parent(Fd);

impl Parent {
    /// On a connected SOCK_SEQPACKET socket.
    pub fn new(socket: Fd) -> Self {
        Parent(socket)
    }

    /// Its fd.
    pub fn raw(&self) -> i32 {
        self.0.raw()
    }

    /// One record.
    pub fn tell(&self, report: Report) -> Result<()> {
        socket::send(self.raw(), &report.encode())
    }

    /// One record with an fd.
    pub fn tell_with_fd(&self, report: Report, fd: &Fd) -> Result<()> {
        socket::send_with_fd(self.raw(), &report.encode(), fd.raw())
    }

    /// One record, with write(2).
    pub fn write(&self, report: Report) -> Result<()> {
        file::write(self.raw(), &report.encode()).map(|_| ())
    }

    /// Waits for the word to go on, with read(2). False: nobody is there any more.
    pub fn read(&self) -> Result<bool> {
        let mut word = [0];
        loop {
            match file::read(self.raw(), &mut word) {
                Ok(length) => return Ok(length == 1 && word[0] == GO_ON),
                Err(Failure { errno: EINTR, .. }) => {}
                Err(_) => return Ok(false),
            }
        }
    }

    /// Waits for an fd. None: nobody is there any more.
    pub fn wait_for_fd(&self) -> Result<Option<Fd>> {
        loop {
            match socket::receive_with_fd(self.raw()) {
                Err(Failure { errno: EINTR, .. }) => {}
                other => return other,
            }
        }
    }

    /// Waits for the word to go on. None: nobody is there any more.
    pub fn wait<'a>(&self, answer: &'a mut Answer) -> Result<Option<&'a [u8]>> {
        loop {
            match socket::receive(self.raw(), &mut answer.0) {
                Ok(0) => return Ok(None),
                Ok(length) if answer.0[0] == GO_ON => return Ok(answer.0.get(1..length)),
                Ok(_) => return Err(Failure::found(EINVAL)),
                Err(Failure { errno: EINTR, .. }) => {}
                // A reset, as from a parent that died with a record unread.
                Err(_) => return Ok(None),
            }
        }
    }
}

/// Room for an answer.
pub struct Answer([u8; 1 + ANSWER_MAX]);

impl Answer {
    /// Empty.
    pub fn new() -> Self {
        Answer([0; 1 + ANSWER_MAX])
    }
}

impl Default for Answer {
    fn default() -> Self {
        Answer::new()
    }
}
