//! Terminals: the container's pty handed to an engine, its modes and size, and the host's terminal in raw
//! mode, put back on every way out. The bytes between the two are console's.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, Once, PoisonError};

use rustix::io::retry_on_intr;
use rustix::termios::{
    OptionalActions, OutputModes, Termios, Winsize, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use crate::error::{CallContext, Code, Context, Error, Result};
use crate::unix_socket;

/// Whether a terminal has somebody to take its master: with `detached` a console socket must be given, else none may.
pub fn check_console(terminal: bool, console_socket: bool, detached: bool) -> Result<()> {
    let wrong = match (terminal && detached, console_socket) {
        (true, false) => "cannot allocate tty if runc will detach without setting console socket",
        (false, true) => "cannot use console socket if runc will not detach or allocate tty",
        _ => return Ok(()),
    };
    let hint = match console_socket {
        false => "--console-socket PATH names a socket of who takes it",
        true => "--console-socket goes with process.terminal: true, and with create or --detach",
    };
    Err(Error::new(Code::Usage, wrong).hint(Some(hint)).context("/process/terminal").at("/process/terminal"))
}

/// Sends the pty's `master` to the engine that listens at `path` (`--console-socket`), with the name of its
/// slave as text: one message, one descriptor.
pub fn send_console(path: &Path, master: BorrowedFd<'_>, name: &str) -> Result<()> {
    send(path, master, name).context("--console-socket")
}

/// Which process's pidfd goes to `--pidfd-socket`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PidfdOf {
    /// The container's init, of create and run.
    Init,
    /// A process of exec.
    Exec,
}

/// Sends `pidfd` to who listens at `path` (`--pidfd-socket`). The text is runc's name for the way the
/// process came to be.
pub fn send_pidfd(path: &Path, pidfd: BorrowedFd<'_>, of: PidfdOf) -> Result<()> {
    let text = match of {
        PidfdOf::Init => "standard",
        PidfdOf::Exec => "setns",
    };
    send(path, pidfd, text).context("--pidfd-socket")
}

fn send(path: &Path, fd: BorrowedFd<'_>, text: &str) -> Result<()> {
    let socket = unix_socket::stream_to(path)?;
    unix_socket::send_with_fd(socket.as_fd(), text.as_bytes(), fd)
        .call(format!("sendmsg to {}", path.display()))
}

/// Ends the translation of `\n` to `\r\n` on the container's pty, given by either end. The host's terminal
/// does it already, and where the output is a file or a pipe nobody expects the `\r`.
pub fn clear_onlcr(pty: BorrowedFd<'_>) -> Result<()> {
    let mut modes = tcgetattr(pty).call("tcgetattr of the container's terminal")?;
    modes.output_modes.remove(OutputModes::ONLCR);
    retry_on_intr(|| tcsetattr(pty, OptionalActions::Now, &modes))
        .call("tcsetattr of the container's terminal")
}

/// Sets the size of the container's pty, given by either end (consoleSize).
pub fn set_size(pty: BorrowedFd<'_>, rows: u16, columns: u16) -> Result<()> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(pty, size).call("TIOCSWINSZ on the container's terminal")
}

/// Gives `pty` the size of the host's terminal.
pub fn copy_size(host: BorrowedFd<'_>, pty: BorrowedFd<'_>) -> Result<()> {
    let size = tcgetwinsize(host).call("TIOCGWINSZ on the host's terminal")?;
    tcsetwinsize(pty, size).call("TIOCSWINSZ on the container's terminal")
}

/// Gives `pty` the size of the terminal among stdin, stdout and stderr, if one of them is: before the container's
/// process can ask for it.
pub fn copy_own_size(pty: BorrowedFd<'_>) -> Result<()> {
    let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    match first_terminal(&[input.as_fd(), output.as_fd(), error.as_fd()]) {
        Some(host) => copy_size(host, pty),
        None => Ok(()),
    }
}

/// The terminals in raw mode, each with the modes it had. Kept here and not in `RawMode`, because a panic
/// aborts without running destructors: then the panic hook finds them.
static RAW: Mutex<Vec<(u32, OwnedFd, Termios)>> = Mutex::new(Vec::new());

/// A host terminal in raw mode, until dropped. `process::exit` runs no destructor: drop it before.
#[derive(Debug)]
pub struct RawMode {
    number: u32,
}

impl RawMode {
    /// Puts `terminal` in raw mode. Output processing stays on: the container's pty leaves `\n` alone
    /// (`clear_onlcr`), and so the host's terminal has to make the carriage return.
    pub fn set(terminal: BorrowedFd<'_>) -> Result<RawMode> {
        restore_on_panic();
        let own = terminal.try_clone_to_owned().call("dup of the host's terminal")?;
        let before = tcgetattr(&own).call("tcgetattr of the host's terminal")?;
        let number = {
            let mut all = RAW.lock().unwrap_or_else(PoisonError::into_inner);
            let number = all.iter().map(|entry| entry.0 + 1).max().unwrap_or(0);
            all.push((number, own, before));
            number
        };
        // From here on the guard puts back what a failing call may have half done.
        let raw = RawMode { number };
        raw.set_again()?;
        Ok(raw)
    }

    /// Sets raw mode once more: a shell puts its own modes in place while this process is stopped.
    pub fn set_again(&self) -> Result<()> {
        let all = RAW.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, terminal, before)) = all.iter().find(|entry| entry.0 == self.number) else {
            return Ok(());
        };
        let mut modes = before.clone();
        modes.make_raw();
        if before.output_modes.contains(OutputModes::OPOST) {
            modes.output_modes.insert(OutputModes::OPOST);
        }
        retry_on_intr(|| tcsetattr(terminal, OptionalActions::Now, &modes))
            .call("tcsetattr of the host's terminal")
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let mut all = RAW.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = all.iter().position(|entry| entry.0 == self.number) {
            restore(&all.remove(at));
        }
    }
}

fn restore((_, terminal, before): &(u32, OwnedFd, Termios)) {
    // A terminal that is gone has no modes to put back; nothing is left to do about any other failure.
    let _ = retry_on_intr(|| tcsetattr(terminal, OptionalActions::Now, before));
}

/// The release build aborts on a panic, but calls the hook first.
fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let next = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // try_lock: the panic may have come while this thread held it. Nothing is taken out, in a
            // build that unwinds the guard still does its part.
            if let Ok(all) = RAW.try_lock() {
                all.iter().for_each(restore);
            }
            next(info);
        }));
    });
}

/// The first of `candidates` that is a terminal.
pub fn first_terminal<'a>(candidates: &[BorrowedFd<'a>]) -> Option<BorrowedFd<'a>> {
    candidates.iter().copied().find(|fd| isatty(*fd))
}

/// `/dev/pts/N`, as the slave is called in the devpts that `master` belongs to: what `send_console` sends.
pub fn slave_name(master: BorrowedFd<'_>) -> Result<String> {
    let name = rustix::pty::ptsname(master, Vec::new()).map_err(|error| Error::call("TIOCGPTN", error))?;
    Ok(name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Folder;
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
    use rustix::termios::LocalModes;
    use std::io::IoSliceMut;
    use std::mem::MaybeUninit;
    use std::os::unix::net::UnixListener;

    fn pty() -> (OwnedFd, OwnedFd) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        unlockpt(&master).unwrap();
        let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
        (master, slave)
    }

    /// What one recvmsg gives: the text, and how many descriptors came, with the first.
    fn receive(listener: &UnixListener) -> (String, usize, Option<OwnedFd>) {
        let (stream, _) = listener.accept().unwrap();
        let mut data = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(&stream, &mut [IoSliceMut::new(&mut data)], &mut control, RecvFlags::CMSG_CLOEXEC)
            .unwrap();
        let mut fds: Vec<OwnedFd> = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        let text = String::from_utf8(data[..got.bytes].to_vec()).unwrap();
        let count = fds.len();
        (text, count, fds.into_iter().next())
    }

    #[test]
    fn a_console_arrives_as_one_descriptor_with_the_slaves_name() {
        for length in [1, 120] {
            let folder = Folder::new("console-socket");
            let deep = folder.path().join("d".repeat(length));
            std::fs::create_dir(&deep).unwrap();
            // The listener binds a short path; the long one is a link to it.
            let listener = UnixListener::bind(folder.path().join("s")).unwrap();
            std::os::unix::fs::symlink("../s", deep.join("console.sock")).unwrap();
            let (master, slave) = pty();
            let name = slave_name(master.as_fd()).unwrap();
            send_console(&deep.join("console.sock"), master.as_fd(), &name).unwrap();
            let (text, count, fd) = receive(&listener);
            assert_eq!((text.as_str(), count), (name.as_str(), 1));
            rustix::io::write(&slave, b"hello\n").unwrap();
            let mut data = [0; 16];
            let read = rustix::io::read(fd.unwrap(), &mut data).unwrap();
            assert_eq!(&data[..read], b"hello\r\n");
        }
    }

    #[test]
    fn a_pidfd_arrives_under_runcs_name() {
        for (of, name) in [(PidfdOf::Init, "standard"), (PidfdOf::Exec, "setns")] {
            let folder = Folder::new("pidfd-socket");
            let path = folder.path().join("s");
            let listener = UnixListener::bind(&path).unwrap();
            let own = rustix::process::getpid();
            let pidfd = rustix::process::pidfd_open(own, rustix::process::PidfdFlags::empty()).unwrap();
            send_pidfd(&path, pidfd.as_fd(), of).unwrap();
            let (text, count, fd) = receive(&listener);
            assert_eq!((text.as_str(), count), (name, 1));
            crate::sys::pidfd::send_signal(fd.unwrap().as_fd(), 0).unwrap();
        }
    }

    #[test]
    fn without_onlcr_a_line_has_no_carriage_return() {
        let (master, slave) = pty();
        clear_onlcr(master.as_fd()).unwrap();
        rustix::io::write(&slave, b"line\n").unwrap();
        let mut data = [0; 16];
        let read = rustix::io::read(&master, &mut data).unwrap();
        assert_eq!(&data[..read], b"line\n");
    }

    #[test]
    fn sizes_are_set_and_copied() {
        let (host, _host_slave) = pty();
        let (master, slave) = pty();
        set_size(host.as_fd(), 33, 101).unwrap();
        copy_size(host.as_fd(), master.as_fd()).unwrap();
        let size = tcgetwinsize(&slave).unwrap();
        assert_eq!((size.ws_row, size.ws_col), (33, 101));
    }

    fn local(terminal: &OwnedFd) -> LocalModes {
        tcgetattr(terminal).unwrap().local_modes
    }

    #[test]
    fn raw_mode_ends_with_its_guard_and_keeps_output_processing() {
        let (_master, terminal) = pty();
        let before = local(&terminal);
        let raw = RawMode::set(terminal.as_fd()).unwrap();
        assert!(!local(&terminal).intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
        assert!(tcgetattr(&terminal).unwrap().output_modes.contains(OutputModes::OPOST | OutputModes::ONLCR));
        drop(raw);
        assert_eq!(local(&terminal), before);
    }

    #[test]
    fn raw_mode_ends_in_the_panic_hook_before_anything_unwinds() {
        let (_master, terminal) = pty();
        let before = local(&terminal);
        // Forgotten: no destructor runs, as in a build that aborts.
        std::mem::forget(RawMode::set(terminal.as_fd()).unwrap());
        assert_ne!(local(&terminal), before);
        std::thread::spawn(|| panic!("on purpose")).join().unwrap_err();
        assert_eq!(local(&terminal), before);
        RAW.lock().unwrap().retain(|(_, fd, _)| tcgetattr(fd).unwrap().local_modes != before);
    }
}
