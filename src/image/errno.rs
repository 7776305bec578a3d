//! Errnos in words, as all of rcrun tells them. Uses: std.

use std::io;

/// `no such file or directory` and the like, without the number; what is no errno, as it tells itself.
pub(crate) fn words(error: &io::Error) -> String {
    let text = error.to_string();
    if error.raw_os_error().is_none() {
        return text;
    }
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        // "RFS specific error": initials stay.
        Some(first) if chars.clone().next().is_some_and(|c| c.is_lowercase() || c == ' ') => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_is_told_in_words_without_its_number() {
        for (errno, text) in [
            (libc::ENOENT, "no such file or directory"),
            (libc::EACCES, "permission denied"),
            (libc::ERFKILL, "operation not possible due to RF-kill"),
        ] {
            assert_eq!(words(&io::Error::from_raw_os_error(errno)), text);
        }
        assert_eq!(words(&io::Error::other("Connection lost")), "Connection lost");
    }
}
