//! The environment of a container's first process. Pure. Uses: document, error, said.

use std::collections::HashMap;

use super::said::{Said, Surroundings};
use crate::document::Execution;
use crate::error::{Code, Error, Result};

/// Where programs lie when nobody says it.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What Docker sets, then the image, then the person; who comes later replaces. A name without a value is taken from the
/// caller's environment when a person says it, and unset if it is not there; from an image it is refused, or the image
/// would read what it is not given (CVE-2026-57231).
pub(super) fn merge(
    execution: &Execution,
    said: &Said,
    hostname: Option<&str>,
    around: &Surroundings,
) -> Result<Vec<String>> {
    let mut env = Environment::default();
    env.set(PATH.to_string());
    if let Some(name) = hostname {
        env.set(format!("HOSTNAME={name}"));
    }
    if said.terminal {
        env.set("TERM=xterm".into());
    }
    for (i, entry) in execution.env.iter().enumerate() {
        if entry.find('=').is_none_or(|at| at == 0) {
            let shown: String = entry.chars().take(100).collect();
            return Err(Error::invalid(format!("the image's Env[{i}] is {shown:?}, not NAME=value")));
        }
        env.set(entry.clone());
    }
    for entry in &said.env {
        if name_of(entry).is_empty() {
            return Err(Error::new(Code::Usage, format!("--env {entry:?}: has no name")));
        }
        match around.environment.get(entry) {
            _ if entry.contains('=') => env.set(entry.clone()),
            Some(value) => env.set(format!("{entry}={value}")),
            None => env.unset(entry),
        }
    }
    Ok(env.entries.into_iter().flatten().collect())
}

fn name_of(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

/// Entries in their order, and where each name stands: an image may have a million.
#[derive(Default)]
struct Environment {
    entries: Vec<Option<String>>,
    places: HashMap<String, usize>,
}

impl Environment {
    fn set(&mut self, entry: String) {
        match self.places.get(name_of(&entry)) {
            Some(place) => self.entries[*place] = Some(entry),
            None => {
                self.places.insert(name_of(&entry).to_string(), self.entries.len());
                self.entries.push(Some(entry));
            }
        }
    }

    fn unset(&mut self, name: &str) {
        if let Some(place) = self.places.remove(name) {
            self.entries[place] = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn merged(image: &[&str], said: &[&str], terminal: bool) -> Result<Vec<String>> {
        let strings = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        let execution = Execution { env: strings(image), ..Execution::default() };
        let said = Said { env: strings(said), terminal, ..Said::default() };
        let environment = BTreeMap::from([
            ("GIVEN".to_string(), "a=b".to_string()),
            ("SECRET".to_string(), "s".to_string()),
        ]);
        merge(&execution, &said, None, &Surroundings { environment, ..Surroundings::default() })
    }

    #[test]
    fn who_comes_later_replaces_in_place() {
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        type Words<'a> = &'a [&'a str];
        let cases: &[(Words, Words, bool, Words)] = &[
            (&[], &[], false, &[path]),
            (&[], &[], true, &[path, "TERM=xterm"]),
            (&["PATH=/bin", "A=1"], &[], false, &["PATH=/bin", "A=1"]),
            (&["TERM=vt100"], &["TERM=dumb"], true, &[path, "TERM=dumb"]),
            (&["A=1", "B=2", "A=3"], &[], false, &[path, "A=3", "B=2"]),
            (&["A=1", "B=2"], &["A=x=y", "C="], false, &[path, "A=x=y", "B=2", "C="]),
            (&["A="], &["GIVEN"], false, &[path, "A=", "GIVEN=a=b"]),
            (&["GIVEN=old"], &["GIVEN"], false, &[path, "GIVEN=a=b"]),
            (&["ABSENT=old", "B=2"], &["ABSENT"], false, &[path, "B=2"]),
            (&[], &["PATH"], false, &[]),
            (&["A=$SECRET"], &[], false, &[path, "A=$SECRET"]),
        ];
        for (image, said, terminal, expected) in cases {
            assert_eq!(merged(image, said, *terminal).unwrap(), *expected, "{image:?} {said:?}");
        }
    }

    #[test]
    fn an_image_cannot_ask_for_the_environment_of_the_host() {
        for entry in ["SECRET", "*", "", "=x", "="] {
            let error = merged(&["A=1", entry], &[], false).unwrap_err().to_string();
            assert_eq!(error, format!("the image's Env[1] is {entry:?}, not NAME=value"));
        }
        for (entry, why) in [("", "has no name"), ("=x", "has no name")] {
            let error = merged(&[], &[entry], false).unwrap_err().to_string();
            assert_eq!(error, format!("--env {entry:?}: {why}"));
        }
    }
}
