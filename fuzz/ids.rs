//! Names, numbers and paths that people and configs say: ids of containers, users, cgroups, units, sysctls, lists of CPUs,
//! Landlock's annotation. Uses: rcrun_runtime, sentence.
//!
//! What holds: an id is one plain part of a path; a user is the number that was typed, and never -1; a cgroup lies where its
//! path says, below the hierarchy and not it itself; a sysctl is a file below its folder; a list has the numbers that
//! it names; an error is a sentence.

use std::path::Path;

use rcrun_runtime::cgroup::CgroupPath;
use rcrun_runtime::spec::id::{ContainerId, UserIds};
use rcrun_runtime::spec::{landlock, list, sysctl};
use rcrun_runtime::systemd;

use crate::sentence;

/// Panics if the property does not hold for `input`.
pub fn holds(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match text.parse::<ContainerId>() {
        Err(error) => sentence::is_one(&error),
        Ok(id) => {
            assert_eq!(id.as_str(), text);
            assert!(text.len() <= 255 && !text.starts_with('.'));
            assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+-.".contains(&b)), "{text:?}");
        }
    }
    match text.parse::<UserIds>() {
        Err(error) => sentence::is_one(&error),
        Ok(ids) => {
            let said: Vec<Option<u64>> = text.split(':').map(|number| number.parse().ok()).collect();
            assert_eq!(said[0], Some(u64::from(ids.uid)), "{text:?}: {ids:?}");
            assert_eq!(said.get(1).copied().flatten(), ids.gid.map(u64::from), "{text:?}: {ids:?}");
            assert!(said.len() <= 2 && ids.uid != u32::MAX && ids.gid != Some(u32::MAX), "{text:?}: {ids:?}");
        }
    }
    is_a_cgroup(CgroupPath::parse(text));
    // The input as rcrun's own cgroup, too: it is read from a file of the kernel's, and may have any name.
    is_a_cgroup(CgroupPath::for_container(Some(Path::new(text)), "web", || Ok("/user.slice/x".to_string())));
    is_a_cgroup(CgroupPath::for_container(Some(Path::new("web")), "web", || Ok(text.to_string())));
    for user in [false, true] {
        is_a_unit(systemd::Name::of(Some(Path::new(text)), "web", user));
        is_a_unit(systemd::Name::of(None, text, user));
    }
    match sysctl::file(text) {
        Err(refused) => sentence::is_text(&refused.to_string()),
        Ok(file) => {
            assert!(file.split('/').all(|part| !matches!(part, "" | "." | "..")), "{text:?}: {file:?}")
        }
    }
    if let Ok(file) =
        sysctl::allowed(text, sysctl::Own { ipc: true, network: true, ..sysctl::Own::default() })
    {
        let of_a_namespace = ["net/", "kernel/", "fs/mqueue/"].iter().any(|tree| file.starts_with(tree));
        assert!(of_a_namespace, "{text:?}: {file:?}");
    }
    if let Ok(words) = list::bits(text, list::MOST_CPUS) {
        let named = |number: usize| words.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 == 1);
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let mut in_all = 0;
        for entry in entries {
            let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
            let number = |digits: &str| digits.trim().parse::<usize>().expect("an accepted list has numbers");
            let (first, last) = (number(first), number(last));
            assert!(named(first) && named(last) && first <= last, "{text:?}: {words:?}");
            in_all += last - first + 1;
        }
        let set: u32 = words.iter().map(|word| word.count_ones()).sum();
        assert!(set as usize <= in_all && words.len() <= list::MOST_CPUS / 64, "{text:?}: {words:?}");
    }
    if let Ok(rules) = landlock::Rules::parse(text) {
        let paths = [&rules.read, &rules.execute, &rules.write];
        assert!(
            paths.into_iter().flatten().flatten().all(|path| path.starts_with('/') && !path.contains('\0'))
        );
    }
}

fn is_a_cgroup(found: rcrun_runtime::Result<CgroupPath>) {
    match found {
        Err(error) => sentence::is_one(&error),
        Ok(path) => {
            let plain = |name: &str| {
                !matches!(name, "" | "." | "..") && name.len() <= 255 && !name.contains(['/', '\0', '\n'])
            };
            assert!(path.as_str().starts_with('/') && path.names().all(plain), "{path:?}");
            let again = CgroupPath::parse(path.as_str()).expect("a path that was accepted is accepted again");
            assert_eq!(again, path);
        }
    }
}

fn is_a_unit(found: rcrun_runtime::Result<systemd::Name>) {
    match found {
        Err(error) => sentence::is_one(&error),
        Ok(name) => {
            let letters =
                |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b));
            assert!(letters(&name.scope) && letters(&name.slice), "{name:?}");
            assert!(name.scope.ends_with(".scope") && name.slice.ends_with(".slice"), "{name:?}");
            is_a_cgroup(name.cgroup());
        }
    }
}
