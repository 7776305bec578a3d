//! Tables of a page below docs/ that name tests, and whether these are there. Uses: source.

use crate::source;
use std::path::Path;

/// The text of docs/NAME.
pub fn text(name: &str) -> String {
    let path = source::top().join("docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The rows of its tables that begin with a name in backticks: the cells of each.
pub fn rows(page: &str, cells: usize) -> Vec<Vec<String>> {
    page.lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            line.trim_start_matches("| ").trim_end_matches(" |").split(" | ").map(String::from).collect()
        })
        .filter(|row: &Vec<String>| row.len() == cells)
        .collect()
}

/// What stands between backticks.
pub fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Each pair of a file and a test that these cells name is there. How many there are.
pub fn tests_are_there<'a>(cells: impl Iterator<Item = &'a str>) -> usize {
    let files = source::files();
    let mut seen = 0;
    for cell in cells {
        let names: Vec<&str> = quoted(cell).collect();
        assert!(names.len() >= 2 && names.len().is_multiple_of(2), "{cell}");
        for pair in names.chunks(2) {
            let (file, test) = (pair[0], pair[1]);
            let there = files.iter().any(|path| {
                let text = || std::fs::read_to_string(source::top().join(path)).unwrap_or_default();
                path.ends_with(Path::new(file)) && text().contains(&format!("fn {test}()"))
            });
            assert!(there, "there is no test {test} in {file}");
            seen += 1;
        }
    }
    seen
}
