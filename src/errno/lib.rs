//! Errnos in words, the same for containers and images, whatever libc rcrun is linked with. Uses: std.

use std::io;

/// `permission denied` and the like: the words of strerror(3) in lower case, which Docker, podman
/// and containerd look for in a runtime's error.
pub fn errno_text(errno: i32) -> String {
    if let Some(text) = other_in_musl(errno) {
        return text.to_string();
    }
    let text = io::Error::from_raw_os_error(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        // "RFS specific error", "I/O error": initials stay.
        Some(first) if chars.clone().next().is_some_and(|c| c.is_lowercase() || c == ' ') => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_string(),
    }
}

/// Those for which musl has other words than glibc and Go, which engines and people know.
fn other_in_musl(errno: i32) -> Option<&'static str> {
    Some(match errno {
        libc::EADDRINUSE => "address already in use",
        libc::EBUSY => "device or resource busy",
        libc::ECHILD => "no child processes",
        libc::EDEADLK => "resource deadlock avoided",
        libc::EDQUOT => "disk quota exceeded",
        libc::EIO => "input/output error",
        libc::ELOOP => "too many levels of symbolic links",
        libc::EMFILE => "too many open files",
        libc::ENAMETOOLONG => "file name too long",
        libc::ENOMEM => "cannot allocate memory",
        libc::ENOTCONN => "transport endpoint is not connected",
        libc::ENOTTY => "inappropriate ioctl for device",
        libc::EOPNOTSUPP => "operation not supported",
        libc::EOVERFLOW => "value too large for defined data type",
        libc::ERANGE => "numerical result out of range",
        libc::ESPIPE => "illegal seek",
        libc::ETIMEDOUT => "connection timed out",
        libc::EUCLEAN => "structure needs cleaning",
        libc::EUSERS => "too many users",
        libc::EXDEV => "invalid cross-device link",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_env = "gnu")]
    fn words_that_musl_has_not_are_glibcs() {
        let told = (1..134).filter_map(|errno| Some((errno, other_in_musl(errno)?)));
        let by_glibc = |errno| io::Error::from_raw_os_error(errno).to_string().to_lowercase();
        let told: Vec<_> =
            told.filter(|(errno, text)| by_glibc(*errno) != format!("{text} (os error {errno})")).collect();
        assert!(told.is_empty(), "{told:?}");
    }

    #[test]
    fn errnos_read_as_engines_expect_them() {
        for (errno, text) in [
            (libc::EACCES, "permission denied"),
            (libc::EPERM, "operation not permitted"),
            (libc::ENOENT, "no such file or directory"),
            (libc::EIO, "input/output error"),
            (libc::ESRCH, "no such process"),
            (libc::ELOOP, "too many levels of symbolic links"),
            (libc::ERFKILL, "operation not possible due to RF-kill"),
        ] {
            assert_eq!(errno_text(errno), text);
        }
    }
}
