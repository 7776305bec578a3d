//! What bats prints: kept in a file, and read, to see when it has told of all tests.
//!
//! bats then waits for all that hold its output open. A test of theirs that fails before it kills its own `recvtty` leaves
//! such a one for ever, and the file of tests would cost all the time that it may take.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};

use crate::tap;

/// How long it may be silent after its last test: there may be a function that cleans up after the file.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Copies it to a file until nobody can write any more, and kills a bats that is silent so long after its last test.
pub fn keep(
    mut output: impl Read + AsFd,
    file: &mut File,
    bats: &OwnedFd,
    patience: Duration,
) -> Result<(), String> {
    let (mut told, mut piece) = (Vec::new(), [0; 4096]);
    let mut patience = Some(Timespec::try_from(patience).map_err(|e| e.to_string())?);
    loop {
        let whole = tap::read(&String::from_utf8_lossy(&told)).is_ok();
        let limit = patience.as_ref().filter(|_| whole);
        let mut fds = [PollFd::new(&output, PollFlags::IN)];
        match poll(&mut fds, limit) {
            Ok(0) => {
                patience = None;
                // ESRCH: it has ended by itself.
                let _ = pidfd_send_signal(bats, Signal::KILL);
                continue;
            }
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(e) => return Err(format!("poll the output of bats: {e}")),
        }
        match output.read(&mut piece).map_err(|e| format!("read the output of bats: {e}"))? {
            0 => return Ok(()),
            n => {
                told.extend_from_slice(&piece[..n]);
                file.write_all(&piece[..n]).map_err(|e| format!("keep the output of bats: {e}"))?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    use std::io::pipe;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    #[test]
    fn what_waits_after_its_last_test_is_killed_and_what_it_said_is_kept() {
        for (script, signal) in [
            ("echo 1..1; echo ok 1 a; exec sleep 1000", Some(9)),
            ("echo 1..1; echo ok 1 a; echo '# more'", None),
        ] {
            let (reader, writer) = pipe().unwrap();
            let mut child = Command::new("sh").args(["-c", script]).stdout(writer).spawn().unwrap();
            let bats = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
            let kept = std::env::temp_dir().join(format!("runc-tests-{}", std::process::id()));
            let mut file = File::create(&kept).unwrap();
            keep(reader, &mut file, &bats, Duration::from_millis(200)).unwrap();
            assert_eq!(child.wait().unwrap().signal(), signal, "{script}");
            assert!(std::fs::read_to_string(&kept).unwrap().starts_with("1..1\nok 1 a\n"));
            std::fs::remove_file(kept).unwrap();
        }
    }
}
