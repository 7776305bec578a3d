//! What `--timings` tells: a table on standard error, or with `--log-format json` one line of JSON. Uses: output.

use std::io::Write;

use rcrun_runtime::timings::{Report, Row, report};

use crate::{Global, output};

/// Tells where the time went, if somebody asked. That standard error is closed is nobody's business.
pub fn tell(global: &Global) {
    let Some(report) = report() else { return };
    let text = match global.log.is_json() {
        // A struct of strings and numbers cannot fail to be written as JSON.
        true => {
            format!(
                "{}\n",
                serde_json::to_string(&serde_json::json!({ "timings": report })).unwrap_or_default()
            )
        }
        false => table(&report),
    };
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Microseconds, the share of the whole, who, where in config.json, what.
fn table(report: &Report) -> String {
    let places = report.steps.iter().map(|row| row.pointer.chars().count());
    let wide = places.max().unwrap_or(0);
    let micro = |nanoseconds: u64| nanoseconds.div_ceil(1000);
    let line = |row: &Row, share: String| {
        let Row { who, pointer, what, nanoseconds } = row;
        let (pointer, what) = (output::shown(pointer), output::shown(what));
        let shown: String = what.chars().take(MOST).collect();
        let more = if shown.len() < what.len() { "..." } else { "" };
        format!("{:>9}  {share:>4}  {who:<5}  {pointer:<wide$}  {shown}{more}\n", micro(*nanoseconds))
    };
    let mut text = format!("{:>9}  {:>4}  {:<5}  {:<wide$}  what\n", "us", "%", "who", "");
    for row in &report.steps {
        let share = (row.nanoseconds * 100 + report.nanoseconds / 2) / report.nanoseconds.max(1);
        text += &line(row, share.to_string());
    }
    text += &format!("{:>9}  {:>4}  total\n", micro(report.nanoseconds), 100);
    if !report.meanwhile.is_empty() {
        text += "while init worked or waited for it:\n";
    }
    for row in &report.meanwhile {
        text += &line(row, String::new());
    }
    text
}

/// Of an argument of a mebibyte the beginning is enough.
const MOST: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other_and_the_total_comes_last() {
        let row = |who, pointer: &str, what: &str, nanoseconds| Row {
            who,
            pointer: pointer.into(),
            what: what.into(),
            nanoseconds,
        };
        let report = Report {
            nanoseconds: 4_000_000,
            steps: vec![
                row("rcrun", "", "read and check config.json", 999_500),
                row("init", "/mounts/0", "mount proc on /proc", 3_000_500),
            ],
            meanwhile: vec![row("rcrun", "", "write the state", 1_000)],
        };
        let text = table(&report);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "       us     %  who               what",
                "     1000    25  rcrun             read and check config.json",
                "     3001    75  init   /mounts/0  mount proc on /proc",
                "     4000   100  total",
                "while init worked or waited for it:",
                "        1        rcrun             write the state",
            ]
        );
    }
}
