//! linux.intelRdt: groups of the resctrl file system (Documentation/filesystems/resctrl.rst), which share caches and memory
//! bandwidth. Uses: error, mountinfo.
//!
//! No machine of the project has resctrl: what is done is tested on a folder that stands in for it.

use crate::{Code, Error, Result, mountinfo};
use oci_spec::runtime::LinuxIntelRdt;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const POINTER: &str = "/linux/intelRdt";

/// What a container has of resctrl, as its state remembers it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups {
    /// Folders whose `tasks` its processes are written to.
    pub joined: Vec<PathBuf>,
    /// Folders that were made for it, and go with it.
    pub made: Vec<PathBuf>,
}

/// Where resctrl is mounted.
pub fn mounted() -> Result<PathBuf> {
    mountinfo::first_of_kind(b"resctrl")?.ok_or_else(|| {
        let text = "resctrl is not mounted: `mount -t resctrl resctrl /sys/fs/resctrl` mounts it, where the processor has it";
        Error::new(Code::Host, text)
    })
}

impl Groups {
    /// Which groups of `root` container `id` will have: nothing is made yet, so that what is made can be remembered first.
    pub fn find(root: &Path, id: &str, rdt: &LinuxIntelRdt) -> Result<Groups> {
        let mut groups = Groups::default();
        let given = rdt.clos_id().as_deref().filter(|name| !name.is_empty());
        let group = match given {
            // The group that all processes are in.
            Some("/") => root.to_path_buf(),
            name => root.join(name.unwrap_or(id)),
        };
        match (group.is_dir(), given) {
            (true, _) => {}
            (false, Some(name)) if schemata(rdt).is_empty() => {
                let text = format!(
                    "there is no group {name} in {}: without l3CacheSchema, memBwSchema or schemata it must be there",
                    root.display()
                );
                return Err(Error::config(format!("{POINTER}/closID"), text).with_code(Code::Host));
            }
            (false, _) => groups.made.push(group.clone()),
        }
        groups.joined.push(group.clone());
        if rdt.enable_monitoring().unwrap_or(false) {
            let monitor = group.join("mon_groups").join(id);
            if !monitor.is_dir() {
                groups.made.push(monitor.clone());
            }
            groups.joined.push(monitor);
        }
        Ok(groups)
    }

    /// Makes those that are not there, and sets or compares what the class may use.
    pub fn make(&self, root: &Path, rdt: &LinuxIntelRdt) -> Result<()> {
        for folder in &self.made {
            fs::create_dir(folder).map_err(|error| {
                let hint = match error.raw_os_error() {
                    Some(libc::ENOSPC) => Some("the processor has no class of service or monitor left"),
                    _ => None,
                };
                failed("mkdir", folder, error).hint(hint)
            })?;
        }
        let wanted = schemata(rdt);
        let Some(group) = self.joined.first().filter(|_| !wanted.is_empty()) else { return Ok(()) };
        let file = group.join("schemata");
        if self.made.contains(group) {
            return self.write(root, &wanted);
        }
        let there = fs::read_to_string(&file).map_err(|error| failed("read", &file, error))?;
        match wanted.iter().find(|line| !holds(&there, line)) {
            Some(line) => {
                let text =
                    format!("{line:?} is not what the group that is there already has in {}", file.display());
                Err(Error::config(POINTER, text))
            }
            None => Ok(()),
        }
    }

    /// Writes lines to the class.
    pub fn write(&self, root: &Path, wanted: &[String]) -> Result<()> {
        let Some(group) = self.joined.first() else { return Ok(()) };
        let file = group.join("schemata");
        fs::write(&file, lines(wanted)).map_err(|error| {
            let said = fs::read_to_string(root.join("info/last_cmd_status")).unwrap_or_default();
            failed("write", &file, error).hint(Some(said.trim()).filter(|said| !said.is_empty()))
        })
    }

    /// What the container's own class has now. One that others share is not the container's to change.
    pub fn own_schemata(&self) -> Result<String> {
        let group = self.joined.first().filter(|group| self.made.contains(group)).ok_or_else(|| {
            let text =
                "the container's class was there before it, and others may be in it: change it in resctrl";
            Error::config(format!("{POINTER}/closID"), text)
        })?;
        let file = group.join("schemata");
        fs::read_to_string(&file).map_err(|error| failed("read", &file, error))
    }

    /// Gives the processes of what was made back to the class of all, and removes it.
    pub fn leave_and_remove(&self, root: &Path) -> Result<()> {
        for group in &self.made {
            let tasks = fs::read_to_string(group.join("tasks")).unwrap_or_default();
            for task in tasks.split_whitespace() {
                // It may have ended.
                let _ = fs::write(root.join("tasks"), task);
            }
        }
        self.remove()
    }

    /// Writes a process to them; its children are there too.
    pub fn join(&self, pid: i32) -> Result<()> {
        for group in &self.joined {
            let tasks = group.join("tasks");
            fs::write(&tasks, pid.to_string()).map_err(|error| failed("write", &tasks, error))?;
        }
        Ok(())
    }

    /// Removes what was made.
    pub fn remove(&self) -> Result<()> {
        for folder in self.made.iter().rev() {
            // Others may have come into a class that closID names: rmdir would put them into the default one.
            if fs::read_to_string(folder.join("tasks")).is_ok_and(|tasks| !tasks.trim().is_empty()) {
                continue;
            }
            match fs::remove_dir(folder) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(failed("rmdir", folder, error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn failed(call: &str, path: &Path, error: std::io::Error) -> Error {
    Error::call(format!("{POINTER}: {call} {}", path.display()), error).at(POINTER)
}

/// The lines for `schemata`, in the order in which they are written: of several for one resource the last counts.
pub fn schemata(rdt: &LinuxIntelRdt) -> Vec<String> {
    let l3 = rdt.l3_cache_schema().as_deref().unwrap_or_default();
    let bandwidth = rdt.mem_bw_schema().as_deref().unwrap_or_default();
    // memBwSchema replaces what l3CacheSchema says of memory bandwidth.
    let kept = |line: &&str| bandwidth.is_empty() || !line.trim_start().starts_with("MB:");
    let more = rdt.schemata().iter().flatten().flat_map(|text| text.lines());
    l3.lines()
        .filter(kept)
        .chain(bandwidth.lines())
        .chain(more)
        .map(|line| line.trim().to_string())
        .filter(|line| !line.is_empty())
        .collect()
}

fn lines(wanted: &[String]) -> String {
    wanted.iter().map(|line| format!("{line}\n")).collect()
}

/// Whether `there`, as resctrl prints it, says what `line` asks for: each of its domains with the same value. The kernel
/// fills up with blanks and zeros.
fn holds(there: &str, line: &str) -> bool {
    let Some((resource, wanted)) = line.split_once(':') else { return false };
    let Some((_, have)) = there
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == resource.trim())
    else {
        return false;
    };
    let plain = |value: &str| {
        let value = value.trim().to_ascii_lowercase();
        let stripped = value.trim_start_matches("0x").trim_start_matches('0');
        if stripped.is_empty() { "0".to_string() } else { stripped.to_string() }
    };
    let pairs = |text: &str| -> Vec<(String, String)> {
        text.split(';')
            .filter_map(|pair| pair.split_once('='))
            .map(|(id, value)| (plain(id), plain(value)))
            .collect()
    };
    let have = pairs(have);
    pairs(wanted).iter().all(|pair| have.contains(pair))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Folder;

    fn rdt(json: serde_json::Value) -> LinuxIntelRdt {
        serde_json::from_value(json).expect("intelRdt")
    }

    /// A folder as resctrl is after a boot, with one group.
    fn stand_in() -> Folder {
        let folder = Folder::new("resctrl");
        fs::create_dir_all(folder.path().join("shared/mon_groups")).expect("mkdir");
        fs::create_dir(folder.path().join("mon_groups")).expect("mkdir");
        fs::create_dir(folder.path().join("info")).expect("mkdir");
        fs::write(folder.path().join("shared/schemata"), "    L3:0=7f0;1=01f\n    MB:0= 20;1= 70\n")
            .expect("write");
        folder
    }

    #[test]
    fn the_schemata_are_written_in_the_order_of_the_spec() {
        for (fields, expected) in [
            (serde_json::json!({}), ""),
            (serde_json::json!({"l3CacheSchema": "L3:0=f"}), "L3:0=f\n"),
            (serde_json::json!({"memBwSchema": "MB:0=20"}), "MB:0=20\n"),
            (
                serde_json::json!({"l3CacheSchema": "L3:0=f\nMB:0=10", "memBwSchema": "MB:0=20"}),
                "L3:0=f\nMB:0=20\n",
            ),
            (serde_json::json!({"l3CacheSchema": "L3:0=f\nMB:0=10"}), "L3:0=f\nMB:0=10\n"),
            (
                serde_json::json!({"schemata": ["L2:0=f", "MB:0=5"], "memBwSchema": "MB:0=20"}),
                "MB:0=20\nL2:0=f\nMB:0=5\n",
            ),
        ] {
            assert_eq!(lines(&schemata(&rdt(fields.clone()))), expected, "{fields}");
        }
    }

    #[test]
    fn a_value_is_compared_without_the_kernels_padding() {
        let there = "    L3:0=7f0;1=01f\n    MB:0= 20;1=100\n";
        for (line, expected) in [
            ("L3:0=7f0;1=1f", true),
            ("L3:1=1F", true),
            ("L3:0=0x7f0", true),
            ("MB:0=20", true),
            ("MB:1=10", false),
            ("L3:2=1", false),
            ("L2:0=f", false),
            ("nonsense", false),
        ] {
            assert_eq!(holds(there, line), expected, "{line}");
        }
    }

    #[test]
    fn a_group_is_made_joined_and_removed_or_found_and_left() {
        // (fields, the group, made, what is in its schemata)
        for (fields, group, made, content) in [
            (serde_json::json!({}), "web", vec!["web"], None),
            (serde_json::json!({"closID": ""}), "web", vec!["web"], None),
            (serde_json::json!({"closID": "/"}), "", vec![], None),
            (
                serde_json::json!({"closID": "new", "l3CacheSchema": "L3:0=f"}),
                "new",
                vec!["new"],
                Some("L3:0=f\n"),
            ),
            (
                serde_json::json!({"closID": "shared"}),
                "shared",
                vec![],
                Some("    L3:0=7f0;1=01f\n    MB:0= 20;1= 70\n"),
            ),
            (
                serde_json::json!({"closID": "shared", "memBwSchema": "MB:0=20", "enableMonitoring": true}),
                "shared",
                vec!["shared/mon_groups/web"],
                Some("    L3:0=7f0;1=01f\n    MB:0= 20;1= 70\n"),
            ),
            (serde_json::json!({"closID": "/", "enableMonitoring": true}), "", vec!["mon_groups/web"], None),
        ] {
            let folder = stand_in();
            let root = folder.path();
            let rdt = rdt(fields.clone());
            let groups = Groups::find(root, "web", &rdt).unwrap_or_else(|e| panic!("{fields}: {e}"));
            assert!(groups.made.iter().all(|path| !path.exists()), "{fields}");
            groups.make(root, &rdt).unwrap_or_else(|e| panic!("{fields}: {e}"));
            let paths: Vec<PathBuf> = made.iter().map(|name| root.join(name)).collect();
            assert_eq!(groups.made, paths, "{fields}");
            groups.join(42).expect("join");
            for joined in &groups.joined {
                assert_eq!(fs::read_to_string(joined.join("tasks")).expect("tasks"), "42", "{fields}");
                fs::remove_file(joined.join("tasks")).expect("rm");
            }
            let schemata = root.join(group).join("schemata");
            assert_eq!(fs::read_to_string(&schemata).ok().as_deref(), content, "{fields}");
            // resctrl's own files go with a group; those of the stand-in do not.
            if groups.made.contains(&root.join(group)) {
                let _ = fs::remove_file(schemata);
            }
            if let Some(made) = paths.first() {
                // Somebody else's container is in it by now.
                fs::write(made.join("tasks"), "7\n").expect("tasks");
                groups.remove().expect("remove");
                assert!(made.exists(), "{fields}");
                fs::remove_file(made.join("tasks")).expect("rm");
            }
            groups.remove().expect("remove");
            assert!(paths.iter().all(|path| !path.exists()), "{fields}");
            assert!(root.join("shared/schemata").exists());
            groups.remove().expect("once more");
        }
    }

    #[test]
    fn a_class_of_the_containers_own_changes_and_one_that_was_there_does_not() {
        let folder = stand_in();
        let root = folder.path();
        let first = rdt(serde_json::json!({"l3CacheSchema": "L3:0=f"}));
        let own = Groups::find(root, "web", &first).expect("find");
        own.make(root, &first).expect("make");
        assert_eq!(own.own_schemata().expect("read"), "L3:0=f\n");
        let second = rdt(serde_json::json!({"l3CacheSchema": "L3:0=3", "memBwSchema": "MB:0=20"}));
        own.write(root, &schemata(&second)).expect("write");
        assert_eq!(own.own_schemata().expect("read"), "L3:0=3\nMB:0=20\n");
        fs::write(root.join("web/tasks"), "7\n8\n").expect("tasks");
        // The kernel empties `tasks` when they have gone, and removes the files with the folder; a stand-in does not.
        assert!(own.leave_and_remove(root).is_ok());
        assert_eq!(fs::read_to_string(root.join("tasks")).expect("tasks"), "8");

        let shared =
            Groups::find(root, "other", &rdt(serde_json::json!({"closID": "shared"}))).expect("find");
        let error = shared.own_schemata().expect_err("it is refused");
        assert!(error.to_string().contains("others may be in it"), "{error}");
    }

    #[test]
    fn a_group_that_is_not_there_or_has_other_values_is_refused_and_nothing_is_left() {
        for (fields, pointer) in [
            (serde_json::json!({"closID": "absent"}), "/linux/intelRdt/closID"),
            (serde_json::json!({"closID": "absent", "enableMonitoring": true}), "/linux/intelRdt/closID"),
            (serde_json::json!({"closID": "shared", "l3CacheSchema": "L3:0=f"}), "/linux/intelRdt"),
            (serde_json::json!({"closID": "shared", "schemata": ["MB:1=60"]}), "/linux/intelRdt"),
        ] {
            let folder = stand_in();
            let rdt = rdt(fields.clone());
            let found = Groups::find(folder.path(), "web", &rdt);
            let error = found.and_then(|groups| groups.make(folder.path(), &rdt)).expect_err("it is refused");
            assert_eq!(error.pointer(), Some(pointer), "{fields}: {error}");
            assert!(!folder.path().join("absent").exists() && !folder.path().join("web").exists());
        }
    }
}
