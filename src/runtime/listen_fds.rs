//! What a container inherits beyond stdio: LISTEN_FDS of socket activation first, then `--preserve-fds`.
//! They keep their numbers, 3 and up. Reads no environment itself.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Code, Error, Result};
use crate::sys::inherited;

/// The first descriptor after stdio: sd_listen_fds(3).
const FIRST: RawFd = 3;

/// More than a process can have open (fs.nr_open's ceiling): the bound of both counts.
const MOST: u32 = 1 << 20;

/// Variables of the engine's environment: the protocol of sd_listen_fds(3).
#[derive(Clone, Copy, Debug, Default)]
pub struct Activation<'a> {
    /// LISTEN_FDS.
    pub fds: Option<&'a str>,
    /// LISTEN_PID.
    pub pid: Option<&'a str>,
    /// LISTEN_FDNAMES.
    pub names: Option<&'a str>,
}

impl Activation<'_> {
    /// How many descriptors are meant for process `own_pid`: none unless LISTEN_PID is that process.
    fn count(&self, own_pid: u32) -> u32 {
        if self.pid.and_then(|pid| pid.parse().ok()) != Some(own_pid) {
            return 0;
        }
        self.fds.and_then(|fds| fds.parse().ok()).unwrap_or(0)
    }
}

/// What the container gets.
#[derive(Debug, Default)]
pub struct Passed {
    /// To be placed at 3, 4, and so on, in this order. Duplicates, close-on-exec.
    pub fds: Vec<OwnedFd>,
    /// To be added to the process's environment.
    pub env: Vec<String>,
}

/// How many descriptors from 3 on this process was started with, without a gap. What is open after them is its own:
/// the log, a lock, the duplicates made here.
static INHERITED: AtomicU32 = AtomicU32::new(0);

/// Collects the descriptors: those of `activation` when they are meant for `own_pid`, then `preserve` more. Only those
/// that `seal_inherited` has found.
pub fn collect(activation: Activation<'_>, own_pid: u32, preserve: u32) -> Result<Passed> {
    collect_from(FIRST, INHERITED.load(Ordering::Relaxed), activation, own_pid, preserve)
}

fn collect_from(
    first: RawFd,
    present: u32,
    activation: Activation<'_>,
    own_pid: u32,
    preserve: u32,
) -> Result<Passed> {
    let listen = activation.count(own_pid);
    for (count, name) in [(listen, "LISTEN_FDS"), (preserve, "--preserve-fds")] {
        if count > MOST {
            return Err(Error::new(
                Code::Usage,
                format!("{name} {count}: more than a process can have open"),
            ));
        }
    }
    let mut passed = Passed::default();
    for index in 0..listen + preserve {
        let number = first + index as RawFd;
        let missing = || io::Error::from_raw_os_error(libc::EBADF);
        let duplicate = if index < present { inherited::duplicate(number) } else { Err(missing()) };
        let fd = duplicate.map_err(|error| {
            let what = match index.checked_sub(listen) {
                Some(nth) => format!("please check that preserved-fd {nth} (of {preserve}) is present"),
                None => format!("please check that LISTEN_FDS {index} (of {listen}) is present"),
            };
            Error::call(format!("dup {number}"), error).context(what)
        })?;
        passed.fds.push(fd);
    }
    if listen > 0 {
        passed.env.push(format!("LISTEN_FDS={listen}"));
        // The container's process is the first one in its pid namespace, as runc assumes.
        passed.env.push("LISTEN_PID=1".to_string());
        passed.env.extend(activation.names.map(|names| format!("LISTEN_FDNAMES={names}")));
    }
    Ok(passed)
}

/// Makes every descriptor after stdio close-on-exec: hooks and the container get only what is placed for them. To be
/// called before anything is opened: it also finds out what there is to be preserved.
pub fn seal_inherited() -> Result<()> {
    let present = (FIRST..).take_while(|number| inherited::is_open(*number)).count();
    INHERITED.store(present as u32, Ordering::Relaxed);
    inherited::close_on_exec_from(FIRST as u32).map_err(|error| Error::call("close_range from 3", error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, read};
    use std::os::fd::AsRawFd;

    fn activation<'a>(fds: &'a str, pid: &'a str) -> Activation<'a> {
        Activation { fds: Some(fds), pid: Some(pid), names: None }
    }

    #[test]
    fn listen_fds_count_only_for_the_process_that_they_are_meant_for() {
        for (fds, pid, count) in [
            (Some("2"), Some("40"), 2),
            (Some("2"), Some("41"), 0),
            (Some("2"), None, 0),
            (None, Some("40"), 0),
            (Some("many"), Some("40"), 0),
            (Some("-1"), Some("40"), 0),
            (Some("2"), Some(""), 0),
        ] {
            assert_eq!(
                Activation { fds, pid, names: None }.count(40),
                count,
                "LISTEN_FDS {fds:?}, LISTEN_PID {pid:?}"
            );
        }
    }

    #[test]
    fn listen_fds_come_first_and_their_names_are_passed_on() {
        // Two pipes' read ends, side by side from 700 on, where no other test opens anything.
        let (one, one_in) = rustix::pipe::pipe().unwrap();
        let (two, two_in) = rustix::pipe::pipe().unwrap();
        let one = fcntl_dupfd_cloexec(one, 700).unwrap();
        let two = fcntl_dupfd_cloexec(two, one.as_raw_fd() + 1).unwrap();
        assert_eq!(two.as_raw_fd(), one.as_raw_fd() + 1);

        let names = Some("http:https");
        let passed =
            collect_from(one.as_raw_fd(), 2, Activation { names, ..activation("1", "40") }, 40, 1).unwrap();
        assert_eq!(passed.env, ["LISTEN_FDS=1", "LISTEN_PID=1", "LISTEN_FDNAMES=http:https"]);
        rustix::io::write(&one_in, b"1").unwrap();
        rustix::io::write(&two_in, b"2").unwrap();
        let mut said = [0; 2];
        for (fd, byte) in passed.fds.iter().zip(&mut said) {
            assert!(fcntl_getfd(fd).unwrap().contains(FdFlags::CLOEXEC));
            read(fd, std::slice::from_mut(byte)).unwrap();
        }
        assert_eq!(&said, b"12");
    }

    #[test]
    fn a_missing_descriptor_is_named_as_runc_names_it() {
        let first = 100_000; // beyond any limit a test runs under
        let error = collect_from(first, 9, Activation::default(), 40, 2).unwrap_err();
        let text = "please check that preserved-fd 0 (of 2) is present: dup 100000: bad file descriptor";
        assert_eq!(error.to_string().to_lowercase(), text);
        let error = collect_from(first, 9, activation("1", "40"), 40, 0).unwrap_err();
        assert!(error.to_string().contains("LISTEN_FDS 0 (of 1)"), "{error}");
    }

    #[test]
    fn a_descriptor_that_this_process_opened_itself_is_not_preserved() {
        let own = rustix::fs::open("/", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        let error = collect_from(own.as_raw_fd(), 0, Activation::default(), 40, 1).unwrap_err();
        assert!(error.to_string().contains("preserved-fd 0 (of 1)"), "{error}");
    }

    #[test]
    fn nothing_asked_for_passes_nothing() {
        let passed = collect(Activation::default(), 40, 0).unwrap();
        assert!(passed.fds.is_empty() && passed.env.is_empty());
    }

    #[test]
    fn absurd_counts_are_refused() {
        assert_eq!(collect(Activation::default(), 40, u32::MAX).unwrap_err().code(), Code::Usage);
        assert_eq!(collect(activation("4294967295", "40"), 40, 0).unwrap_err().code(), Code::Usage);
    }
}
