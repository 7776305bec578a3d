//! What a run of a suite gave, as lines that a document is written from later: of runs in several places. Pure but for
//! what keeps it and `read_all`.
//!
//! ```text
//! place <TAB> uml <TAB> rcrun <TAB> rcrun version 0.1.0 <TAB> runc <TAB> runc version 1.1.15
//! ran <TAB> 2026-11-22
//! row <TAB> NAME OF THE TEST <TAB> pass <TAB> fail
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use super::Runtime;

/// A whole run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Where it was.
    pub place: String,
    /// Labels and versions.
    pub runtimes: Vec<(String, String)>,
    /// On which days it was run, where whoever kept it for long has said so.
    pub days: BTreeSet<String>,
    /// Of each test: a word for each runtime.
    pub rows: BTreeMap<String, Vec<String>>,
}

impl Record {
    /// An empty one.
    pub fn new(place: &str, runtimes: &[&Runtime]) -> Record {
        let runtimes = runtimes.iter().map(|r| (r.label.clone(), r.version.clone())).collect();
        Record { place: place.into(), runtimes, ..Record::default() }
    }

    fn head(&self) -> String {
        let mut text = format!("place\t{}", self.place);
        for (label, version) in &self.runtimes {
            text += &format!("\t{label}\t{version}");
        }
        text += "\n";
        text.extend(self.days.iter().map(|day| format!("ran\t{day}\n")));
        text
    }

    fn lines(&self) -> String {
        self.rows.iter().map(|(name, words)| format!("row\t{name}\t{}\n", words.join("\t"))).collect()
    }

    /// Writes it to the end of a file; `-` is standard output.
    pub fn keep(&self, file: &Path) -> Result<(), String> {
        write(file, &(self.head() + &self.lines()))
    }

    /// Writes more rows of the record that was kept last.
    pub fn keep_rows(&self, file: &Path) -> Result<(), String> {
        write(file, &self.lines())
    }

    /// The records among the lines of an output.
    pub fn read(text: &str) -> Result<Vec<Record>, String> {
        let mut records: Vec<Record> = Vec::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split('\t').collect();
            match (words.as_slice(), records.last_mut()) {
                (["place", place, runtimes @ ..], _) => {
                    let pairs = runtimes.chunks_exact(2).map(|pair| (pair[0].into(), pair[1].into()));
                    let (place, runtimes) = (place.to_string(), pairs.collect());
                    records.push(Record { place, runtimes, ..Record::default() });
                }
                (["ran", day], Some(record)) => {
                    record.days.insert(day.to_string());
                }
                (["row", name, verdicts @ ..], Some(record)) => {
                    if verdicts.len() != record.runtimes.len() {
                        return Err(format!(
                            "{} verdicts of {} runtimes: {line}",
                            verdicts.len(),
                            record.runtimes.len()
                        ));
                    }
                    let verdicts = verdicts.iter().map(|word| word.to_string()).collect();
                    record.rows.insert(name.to_string(), verdicts);
                }
                _ => {}
            }
        }
        Ok(records)
    }

    /// The records in several files, in order.
    pub fn read_all(files: &[impl AsRef<Path>]) -> Result<Vec<Record>, String> {
        let mut all = Vec::new();
        for file in files.iter().map(AsRef::as_ref) {
            let text = std::fs::read_to_string(file).map_err(|e| format!("read {}: {e}", file.display()))?;
            let records = Record::read(&text).map_err(|e| format!("{}: {e}", file.display()))?;
            if records.is_empty() {
                return Err(format!("{} holds no record of a run", file.display()));
            }
            all.extend(records);
        }
        Ok(all)
    }

    /// The names of the tests that ended so on the runtime of this number.
    pub fn names(&self, runtime: usize, word: &str) -> Vec<String> {
        let ended = self.rows.iter().filter(|(_, words)| words[runtime] == word);
        ended.map(|(name, _)| name.clone()).collect()
    }

    /// How many tests ended so on the runtime of this number.
    pub fn count(&self, runtime: usize, word: &str) -> usize {
        self.rows.values().filter(|words| words[runtime] == word).count()
    }
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    if file == Path::new("-") {
        print!("{text}");
        return Ok(());
    }
    let opened = OpenOptions::new().create(true).append(true).open(file);
    let written = opened.and_then(|mut opened| opened.write_all(text.as_bytes()));
    written.map_err(|e| format!("write {}: {e}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_from_among_other_lines() {
        let whole = |record: &Record| record.head() + &record.lines();
        let mut record = Record { place: "uml".into(), ..Record::default() };
        record.runtimes = vec![("one".into(), "one 1".into()), ("two".into(), "two 2".into())];
        record.rows.insert("a.bats: b # c".into(), vec!["pass".into(), "fail".into()]);
        let mut other = Record { place: "qemu".into(), ..record.clone() };
        other.days.insert("2026-11-22".into());
        let text =
            format!("row\tbefore\tany\nbooting\n{}not ok\n{}row of houses\n", whole(&record), whole(&other));
        assert_eq!(Record::read(&text).unwrap(), [record.clone(), other]);
        assert_eq!((record.count(0, "pass"), record.count(1, "pass")), (1, 0));
    }

    #[test]
    fn a_row_with_another_number_of_verdicts_is_refused() {
        assert!(Record::read("place\tuml\tone\t1\nrow\tname\tpass\tfail\n").is_err());
    }
}
