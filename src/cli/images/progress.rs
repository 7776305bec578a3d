//! How far a transfer is: one line on the terminal, drawn over itself by whoever carries. Uses: table.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::table::{bytes, cut};

/// A line on the terminal; nothing where standard error is none, or nobody wants it.
#[derive(Debug)]
pub struct Bar {
    what: String,
    /// When it was drawn last.
    drawn: Option<Mutex<Option<Instant>>>,
}

/// It is drawn so often.
const EVERY: Duration = Duration::from_millis(100);
/// Columns of the bar itself, where there is room.
const WIDTH: usize = 30;
/// Columns of a terminal that does not tell.
const COLUMNS: usize = 80;

impl Bar {
    /// For what is called `what`.
    pub fn new(what: String, quiet: bool) -> Bar {
        let seen = !quiet && std::io::stderr().is_terminal();
        Bar { what, drawn: seen.then(|| Mutex::new(None)) }
    }

    /// Shows that `done` of `total` bytes are there, and what else `more` says: ten times a second, and `news` at once.
    pub fn show(&self, done: u64, total: u64, news: bool, more: impl FnOnce() -> String) {
        let Some(drawn) = &self.drawn else { return };
        // Who finds another drawing need not draw.
        let Ok(mut drawn) = drawn.try_lock() else { return };
        let now = Instant::now();
        if !news && drawn.is_some_and(|last| now - last < EVERY) {
            return;
        }
        *drawn = Some(now);
        let columns = rustix::termios::tcgetwinsize(std::io::stderr()).map_or(0, |size| size.ws_col.into());
        let columns = if columns == 0 { COLUMNS } else { columns };
        let line = line(&self.what, done, total, &more(), columns);
        let _ = std::io::stderr().write_all(format!("\r\x1b[K{line}").as_bytes());
    }
}

impl Drop for Bar {
    /// What comes next begins at the begin of its line.
    fn drop(&mut self) {
        let drawn = self.drawn.as_ref().and_then(|drawn| drawn.lock().ok());
        if drawn.is_some_and(|drawn| drawn.is_some()) {
            let _ = std::io::stderr().write_all(b"\r\x1b[K");
        }
    }
}

/// The line, shorter than `columns`: one that wraps could not be drawn over.
fn line(what: &str, done: u64, total: u64, more: &str, columns: usize) -> String {
    let room = columns.saturating_sub(1);
    let amounts = format!("{} of {}{more}", bytes(done.min(total)), bytes(total));
    let what = cut(what, room.saturating_sub(amounts.len() + 1).min(36));
    let left = room.saturating_sub(what.chars().count() + amounts.len() + 4);
    let bar = match left.min(WIDTH) {
        0..5 => String::new(),
        width => {
            let filled = u128::from(done.min(total)) * width as u128;
            let filled = filled.checked_div(u128::from(total)).map_or(width, |filled| filled as usize);
            format!("[{}{}] ", "#".repeat(filled), " ".repeat(width - filled))
        }
    };
    format!("{what} {bar}{amounts}").chars().take(room).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_how_far_it_is() {
        let whole = " ".repeat(30);
        assert_eq!(line("app:1", 0, 1000, "", 80), format!("app:1 [{whole}] 0 B of 1.00 kB"));
        let half = format!("app:1 [{}{}] 500 B of 1.00 kB, 3 B/s", "#".repeat(15), " ".repeat(15));
        assert_eq!(line("app:1", 500, 1000, ", 3 B/s", 80), half);
        assert!(line("app:1", 2000, 1000, "", 80).contains(&"#".repeat(30)));
        assert!(line("x", 0, 0, "", 80).contains(&"#".repeat(30)));
        assert!(line("x", u64::MAX, u64::MAX, "", 80).contains(&"#".repeat(30)));
    }

    #[test]
    fn the_line_never_wraps() {
        for columns in 1..200 {
            let line = line(&"ü".repeat(200), 999_999, 999_999, ", 1.23 MB/s", columns);
            assert!(line.chars().count() < columns, "{columns}: {line:?}");
            assert!(columns < 45 || line.contains("of 1.00 MB, 1.23 MB/s"), "{line}");
            assert!(columns < 80 || line.contains("[###"), "{line}");
        }
    }
}
