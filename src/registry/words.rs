//! What a registry or the network answers, in words: bounded, and without what a terminal would obey. Uses: std.

use serde::Deserialize;

/// At most `max` characters of `text`, control characters among them replaced.
pub(crate) fn shown(text: &str, max: usize) -> String {
    text.chars().take(max).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[derive(Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<Told>,
}

#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// What a registry says of its refusal: the first error of the spec's JSON, else nothing.
pub(crate) fn told(body: &[u8]) -> String {
    let Ok(errors) = serde_json::from_slice::<Errors>(body) else { return String::new() };
    match errors.errors.first() {
        Some(Told { code, message }) => format!(" ({}: {})", shown(code, 60), shown(message, 200)),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_cannot_write_on_the_terminal() {
        let body = b"{\"errors\":[{\"code\":\"A\",\"message\":\"\\u001b[2Jgone\\nnext\",\"detail\":{}}]}";
        assert_eq!(told(body), " (A: ?[2Jgone?next)");
        assert_eq!(told(b"<html>"), "");
        assert_eq!(told(b"{\"errors\":[]}"), "");
        assert_eq!(shown(&"x".repeat(1000), 10).len(), 10);
    }
}
