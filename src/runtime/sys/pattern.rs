//! Extended regular expressions, as regcomp(3) of the C library has them: no table and no code for those who use none.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;

/// A compiled expression.
pub struct Pattern(Box<libc::regex_t>);

impl Pattern {
    /// What is wrong with an expression is told in the C library's words.
    pub fn new(text: &str) -> Result<Pattern, String> {
        let text = CString::new(text).map_err(|_| "a NUL is in it".to_string())?;
        let mut compiled: Box<MaybeUninit<libc::regex_t>> = Box::new(MaybeUninit::zeroed());
        // SAFETY: the text ends with NUL, and what is compiled lies in a box, so that it never moves.
        let outcome = unsafe {
            libc::regcomp(compiled.as_mut_ptr(), text.as_ptr(), libc::REG_EXTENDED | libc::REG_NOSUB)
        };
        if outcome != 0 {
            let mut words = [0 as libc::c_char; 256];
            // SAFETY: the buffer is writable for its length, and regerror ends it with NUL.
            let words = unsafe {
                libc::regerror(outcome, compiled.as_ptr(), words.as_mut_ptr(), words.len());
                CStr::from_ptr(words.as_ptr())
            };
            return Err(words.to_string_lossy().to_lowercase());
        }
        // SAFETY: regcomp has filled it in.
        Ok(Pattern(unsafe { compiled.assume_init() }))
    }

    /// Whether it is found anywhere in `text`.
    pub fn matches(&self, text: &str) -> bool {
        let Ok(text) = CString::new(text) else { return false };
        // SAFETY: the expression was compiled, the text ends with NUL, and no match is asked for.
        unsafe { libc::regexec(&raw const *self.0, text.as_ptr(), 0, std::ptr::null_mut(), 0) == 0 }
    }
}

impl Drop for Pattern {
    fn drop(&mut self) {
        // SAFETY: it was compiled, and is freed once.
        unsafe { libc::regfree(&raw mut *self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_extended_ones_and_found_anywhere() {
        for (pattern, text, matches) in [
            ("web", "my-web-1", true),
            ("^web-[0-9]+$", "web-12", true),
            ("^web-[0-9]+$", "web-", false),
            ("a|b", "b", true),
            ("", "anything", true),
        ] {
            let found = Pattern::new(pattern).expect("it is one").matches(text);
            assert_eq!(found, matches, "{pattern} in {text}");
        }
        assert!(Pattern::new("(").is_err_and(|why| !why.is_empty()));
        assert!(Pattern::new("\0").is_err());
    }
}
