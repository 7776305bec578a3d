//! What an error looks like whatever made it: one line, of bounded length, that cannot write on a terminal.
//! Knows no other module.

/// What an error says of a read-only file system.
pub const OUTSIDE: &str = "Read-only file system";

/// Panics unless `error` is a sentence.
pub fn is_one(error: &dyn std::error::Error) {
    is_text(&error.to_string());
}

/// Panics unless `text` is one that can be shown.
pub fn is_text(text: &str) {
    assert!(!text.is_empty() && text.len() < 4000, "an error of {} bytes: {text:.300}", text.len());
    assert!(!text.chars().any(char::is_control), "an error with control characters: {text:?}");
    // make fuzz makes all but the scratch folder read-only: who is told of that was on the way out of it.
    assert!(!text.contains(OUTSIDE), "something outside was to be written: {text}");
}
