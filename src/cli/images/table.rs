//! Tables and amounts for people. Uses: output.

use crate::output::shown;

/// Rows below a head: a column is as wide as its widest cell and three blanks; columns in `right` end flush.
pub fn table(head: &[&str], right: &[usize], rows: &[Vec<String>]) -> String {
    let mut all = vec![head.iter().map(|cell| cell.to_string()).collect::<Vec<_>>()];
    all.extend(rows.iter().map(|row| row.iter().map(|cell| shown(cell)).collect()));
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for row in &all {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            line += &match right.contains(&column) {
                true => format!("{cell:>width$}   "),
                false => format!("{cell:<width$}   "),
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// `12.3 MB`: by 1000, as Docker and disks have it.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut amount = bytes as f64;
    let mut unit = 0;
    while amount >= 999.5 && unit + 1 < UNITS.len() {
        amount /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ if amount < 9.995 => format!("{amount:.2} {}", UNITS[unit]),
        _ if amount < 99.95 => format!("{amount:.1} {}", UNITS[unit]),
        _ => format!("{amount:.0} {}", UNITS[unit]),
    }
}

/// The first `length` characters, and `...` where there are more.
pub fn cut(text: &str, length: usize) -> String {
    match text.chars().count() > length {
        true => text.chars().take(length.saturating_sub(3)).chain("...".chars()).collect(),
        false => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_three_digits() {
        for (amount, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (9_994, "9.99 kB"),
            (12_345, "12.3 kB"),
            (99_960, "100 kB"),
            (999_499, "999 kB"),
            (999_500, "1.00 MB"),
            (4_567_890_123, "4.57 GB"),
            (u64::MAX, "18447 PB"),
        ] {
            assert_eq!(bytes(amount), text);
        }
    }

    #[test]
    fn columns_are_aligned_and_rows_are_not_forged() {
        let rows = [
            vec!["a".into(), "1 B".into(), "x".into()],
            vec!["long\nname".into(), "12 kB".into(), "".into()],
        ];
        assert_eq!(
            table(&["NAME", "SIZE", "REST"], &[1], &rows),
            "NAME          SIZE   REST\na              1 B   x\nlong\\nname   12 kB\n"
        );
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abc...");
    }
}
