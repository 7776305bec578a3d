//! docs/errors.md: what rcrun, runc and crun say to each case, side by side. Pure.

use super::scene::Outcome;
use super::{Case, PARTS, page};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Cells of rows, by the name of the case.
pub type Column = BTreeMap<String, String>;

/// What a runtime did, in a cell.
pub fn cell(outcome: &Outcome) -> String {
    let mut text = match (outcome.status, outcome.sentence.as_str()) {
        (0, _) => "*takes it*".to_string(),
        (137, "") => "*waits for longer than 20 seconds*".to_string(),
        (status, "") => format!("*exit status {status}, and no word*"),
        (1, sentence) => page::cell(sentence),
        (status, sentence) => format!("{} *(exit status {status})*", page::cell(sentence)),
    };
    if !outcome.left.is_empty() {
        let _ = write!(text, " *leaves {}*", page::cell(&outcome.left.join(", ")));
    }
    text
}

/// The class and the field, in a cell.
pub fn class(outcome: &Outcome) -> String {
    match (outcome.code.as_str(), outcome.field.as_str()) {
        ("", _) => String::new(),
        (code, "") => format!("`{code}`"),
        (code, field) => format!("`{code}` `{field}`"),
    }
}

/// The cells of a document's rows, by the name of the case: what follows the name.
pub fn read(document: &str) -> BTreeMap<String, Vec<String>> {
    let rows = document.lines().filter_map(|line| {
        let mut cells = split(line.strip_prefix("| ")?.strip_suffix(" |")?);
        (cells.len() == 5).then(|| (cells.remove(0), cells))
    });
    rows.collect()
}

/// A row at its bars; one behind a backslash is text.
fn split(row: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut chars = row.chars();
    while let Some(c) = chars.next() {
        match (c, cells.last_mut()) {
            ('|', _) => cells.push(String::new()),
            ('\\', Some(last)) => last.extend([Some(c), chars.next()].into_iter().flatten()),
            (_, Some(last)) => last.push(c),
            (_, None) => {}
        }
    }
    cells.into_iter().map(|cell| cell.trim().to_string()).collect()
}

/// A case's row.
pub fn row(name: &str, cells: [&str; 4]) -> String {
    format!("| {name} | {} |\n", cells.join(" | "))
}

/// The whole document. `codes` is the chapter about codes; `columns` are class, rcrun, runc and crun.
pub fn document(codes: &str, cases: &[Case], columns: &[&Column; 4], names: [&str; 3]) -> String {
    let mut text =
        format!("{HEAD}{codes}\n## What is said\n\n{}", INTRODUCTION.replace("%", &names.join(", ")));
    for (part, opening) in PARTS {
        let mut rows = cases.iter().filter(|case| case.part == part).peekable();
        if rows.peek().is_none() {
            continue;
        }
        let _ = write!(
            text,
            "\n### {part}\n\n{opening}\n\n| what is broken | code, field | rcrun | runc | crun |\n|---|---|---|---|---|\n"
        );
        for case in rows {
            let name = page::cell(case.name);
            let cells = columns.map(|column| column.get(&name).map(String::as_str).unwrap_or_default());
            text += &row(&name, cells);
        }
    }
    text
}

const HEAD: &str = "<!-- Written by `make errors`. Do not edit: the cases are in runtime-tests/errors, the codes in src/runtime/error.rs. -->

# Errors

An error of rcrun is one sentence: the verb and the container, the field of config.json as a JSON pointer, the call that
failed and on what, the errno in words, and in brackets what helps, where that is known. It is written once to standard
error and once to the file of `--log`. With `--log-format json` the line there has the keys `level`, `msg` and `time`, which
engines read, and beside them `code`, `pointer` (where a field is at fault) and `errno` (where a call failed):

```json
{\"level\":\"error\",\"msg\":\"create web: /mounts/7/source: open /mnt/data: no such file or directory\",\"time\":\"2026-11-21T21:00:00Z\",\"code\":\"system\",\"pointer\":\"/mounts/7/source\",\"errno\":2}
```

";

const INTRODUCTION: &str = "Each case is a bundle, a host or a command with one thing broken, in a mount namespace of its own: %. The words are
those of `msg` in the JSON log, with `web` as the container's id; of a long sentence the middle is left out. A test holds
that rcrun says what stands in its column, with that code, field and exit status (1 where no other is told), once, and
leaves no state, cgroup, mount or process. The columns of runc and crun are what they said when this was written.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let outcome = Outcome {
            status: 1,
            sentence: "a | b \\ [c]".into(),
            left: vec!["cgroup x".into()],
            ..Outcome::default()
        };
        let row = format!("| name | `config` | {} | x | *takes it* |", cell(&outcome));
        let read = read(&row);
        assert_eq!(read["name"], ["`config`", &cell(&outcome), "x", "*takes it*"]);
    }
}
