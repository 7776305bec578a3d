//! Standard output: texts and JSON. Uses: nothing of rcrun.

use std::io::{self, Write};

use rcrun_runtime::{Error, Result};
use serde::Serialize;

/// Prints `text` as it is. That the reader has gone (`rcrun list | head -1`) is no failure.
pub fn print(text: impl AsRef<[u8]>) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_ref()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::call("write to standard output", error))
        }
        _ => Ok(()),
    }
}

/// Prints `value` as one line of JSON.
pub fn line(value: &impl Serialize) -> Result<()> {
    print(format!("{}\n", encoded(serde_json::to_string(value))?))
}

/// Prints `value` as JSON for people, two spaces a level.
pub fn pretty(value: &impl Serialize) -> Result<()> {
    print(format!("{}\n", encoded(serde_json::to_string_pretty(value))?))
}

fn encoded(text: serde_json::Result<String>) -> Result<String> {
    let text = text.map_err(|error| Error::call("write JSON", io::Error::from(error)))?;
    // JSON demands it below U+0020 only; U+009B begins an order as well. Outside of strings there is nothing but newlines.
    let order = |c: char| c != '\n' && is_order(c);
    if !text.contains(order) {
        return Ok(text);
    }
    let mut out = String::with_capacity(text.len() + 64);
    for c in text.chars() {
        if order(c) { out += &format!("\\u{:04x}", u32::from(c)) } else { out.push(c) }
    }
    Ok(out)
}

/// Whether a terminal takes `c` for an order, or writes what follows in another place than it stands (Unicode, UAX 9).
pub fn is_order(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text`, which may come from an image, on one line and without orders to a terminal.
pub fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_order(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_holds_no_order_to_a_terminal_and_means_the_same() {
        let said = "a\n\u{1b}[31m\u{9b}2J\u{7f}\u{202e}\u{2066}\u{fc}\u{1f600}";
        for text in [encoded(serde_json::to_string(said)), encoded(serde_json::to_string_pretty(&[said]))] {
            let text = text.unwrap();
            assert!(!text.replace('\n', "").contains(is_order), "{text}");
            assert!(text.contains("\\u009b") && text.contains('\u{fc}'), "{text}");
            let back: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(back.get(0).unwrap_or(&back), said);
        }
    }

    #[test]
    fn text_of_an_image_stays_on_its_line_and_in_its_direction() {
        assert_eq!(shown("a\nb\u{1b}[2J\u{9b}\u{fc}\u{202e}x"), "a\\nb\\u{1b}[2J\\u{9b}\u{fc}\\u{202e}x");
    }
}
