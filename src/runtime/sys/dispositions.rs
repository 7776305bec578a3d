//! Signal dispositions that survive execve and would change how children are waited for.
#![allow(unsafe_code)]

use std::io;

/// Puts SIGCHLD back to its default. An engine that ignores it hands that down, and then the kernel reaps our
/// children itself: their exit status is lost and waiting for them fails with ECHILD.
pub fn default_sigchld() -> io::Result<()> {
    // SAFETY: SIG_DFL installs no handler, so that no code of ours can run in a signal's context.
    let before = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}
