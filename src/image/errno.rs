//! Failed calls in words, as all of rcrun tells them. Uses: rcrun-errno.

use std::io;

/// `no such file or directory` and the like, without the number; what is no errno, as it tells itself.
pub(crate) fn words(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), rcrun_errno::errno_text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_is_told_in_words_without_its_number() {
        assert_eq!(words(&io::Error::from_raw_os_error(libc::ENOENT)), "no such file or directory");
        assert_eq!(words(&io::Error::other("Connection lost")), "Connection lost");
    }
}
