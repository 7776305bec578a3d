//! A config.json from which faults are taken one after the other, so that the checks of `create`, which end at the first,
//! come to the next. What is left remembers where it stood. Uses: nearest, serde_json.

use super::nearest::nearest;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The document as it is by now.
#[derive(Debug)]
pub(super) struct Config {
    tree: Value,
    origin: Origin,
    stood: BTreeSet<String>,
}

/// Where the entries of lists stood before others were taken out.
#[derive(Debug, Default)]
struct Origin {
    entries: Vec<(usize, Origin)>,
    fields: BTreeMap<String, Origin>,
}

/// Without these nothing below would be looked at, or each of them missing would be told as many faults. What stands in is
/// what most configs have.
fn stand_in(pointer: &str) -> Option<Value> {
    let all =
        || json!([{"type": "pid"}, {"type": "network"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}]);
    Some(match pointer {
        "/ociVersion" => json!("1.3.0"),
        "/root" => json!({"path": "rootfs"}),
        "/root/path" => json!("rootfs"),
        "/process/cwd" => json!("/"),
        "/process/user" => json!({"uid": 0, "gid": 0}),
        "/process/user/uid" | "/process/user/gid" => json!(0),
        "/process/args" => json!(["true"]),
        "/process/args/0" => json!("true"),
        "/linux" => json!({ "namespaces": all() }),
        "/linux/namespaces" => all(),
        "/linux/uidMappings" | "/linux/gidMappings" => {
            json!([{"containerID": 0, "hostID": 0, "size": u32::MAX}])
        }
        _ => return None,
    })
}

/// What everything else hangs on: to take it out would be a fault for each.
const KEPT: [&str; 4] = ["", "/root", "/process", "/linux"];

impl Config {
    /// None for what is no JSON object.
    pub fn parse(text: &[u8]) -> Option<Config> {
        let tree: Value = serde_json::from_slice(text).ok()?;
        let origin = Origin::of(&tree);
        tree.is_object().then(|| Config { tree, origin, stood: BTreeSet::new() })
    }

    /// Its text.
    pub fn text(&self) -> String {
        self.tree.to_string()
    }

    /// The document.
    pub fn tree(&self) -> &Value {
        &self.tree
    }

    /// Where the value at `pointer` stood in the text that was read.
    pub fn original(&self, pointer: &str) -> String {
        let mut out = String::new();
        let mut at = Some(&self.origin);
        for token in pointer.split('/').skip(1) {
            let index = token.parse::<usize>().ok();
            let entry = at.zip(index).and_then(|(origin, i)| origin.entries.get(i));
            match entry {
                Some((before, below)) => {
                    out += &format!("/{before}");
                    at = Some(below);
                }
                None => {
                    out += &format!("/{token}");
                    at = at.and_then(|origin| origin.fields.get(&plain(token)));
                }
            }
        }
        out
    }

    /// Nothing is at `pointer`, or an empty list or object.
    pub fn is_empty(&self, pointer: &str) -> bool {
        match self.tree.pointer(pointer) {
            None | Some(Value::Null) => true,
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Object(fields)) => fields.is_empty(),
            Some(_) => false,
        }
    }

    /// Changes what is at `pointer`, or near to it, so that its fault is gone; false where nothing is left to try.
    pub fn mend(&mut self, pointer: &str) -> bool {
        if let Some(value) = self.replacement(pointer)
            && self.stood.insert(pointer.to_string())
        {
            return self.put(pointer, value);
        }
        let mut at = pointer;
        while !KEPT.contains(&at) {
            if self.take(at) {
                return true;
            }
            at = at.rsplit_once('/').map_or("", |(above, _)| above);
        }
        false
    }

    fn replacement(&self, pointer: &str) -> Option<Value> {
        stand_in(pointer).or_else(|| {
            // Other fields need the namespace that was meant.
            let entry = pointer.strip_prefix("/linux/namespaces/")?.strip_suffix("/type")?;
            entry.parse::<usize>().ok()?;
            let word = self.tree.pointer(pointer)?.as_str()?;
            let meant = nearest(word, &["pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"])?;
            let list = self.tree.pointer("/linux/namespaces")?.as_array()?;
            let there = list.iter().any(|entry| entry["type"] == meant);
            (!there).then(|| json!(meant))
        })
    }

    fn put(&mut self, pointer: &str, value: Value) -> bool {
        let Some((above, name)) = pointer.rsplit_once('/') else { return false };
        if self.tree.pointer(above).is_none_or(|above| !above.is_object() && !above.is_array()) {
            self.put(above, json!({}));
        }
        let origin = Origin::of(&value);
        match self.tree.pointer_mut(above) {
            Some(Value::Object(fields)) => {
                fields.insert(plain(name), value);
                if let Some(parent) = self.origin.at(above) {
                    parent.fields.insert(plain(name), origin);
                }
                true
            }
            Some(Value::Array(list)) => {
                let entry = name.parse::<usize>().ok().and_then(|i| list.get_mut(i));
                entry.map(|entry| *entry = value).is_some()
            }
            _ => false,
        }
    }

    fn take(&mut self, pointer: &str) -> bool {
        let Some((above, name)) = pointer.rsplit_once('/') else { return false };
        match self.tree.pointer_mut(above) {
            Some(Value::Object(fields)) => {
                if let Some(parent) = self.origin.at(above) {
                    parent.fields.remove(&plain(name));
                }
                fields.remove(&plain(name)).is_some()
            }
            Some(Value::Array(list)) => {
                let Some(i) = name.parse::<usize>().ok().filter(|i| *i < list.len()) else { return false };
                list.remove(i);
                if let Some(parent) = self.origin.at(above)
                    && i < parent.entries.len()
                {
                    parent.entries.remove(i);
                }
                true
            }
            _ => false,
        }
    }
}

impl Origin {
    fn of(tree: &Value) -> Origin {
        match tree {
            Value::Array(list) => {
                Origin { entries: list.iter().map(Origin::of).enumerate().collect(), ..Origin::default() }
            }
            Value::Object(fields) => Origin { fields: Origin::of_fields(fields), ..Origin::default() },
            _ => Origin::default(),
        }
    }

    fn of_fields(fields: &Map<String, Value>) -> BTreeMap<String, Origin> {
        fields.iter().map(|(name, value)| (name.clone(), Origin::of(value))).collect()
    }

    fn at(&mut self, pointer: &str) -> Option<&mut Origin> {
        pointer.split('/').skip(1).try_fold(self, |origin, token| {
            match token.parse::<usize>().ok().filter(|i| *i < origin.entries.len()) {
                Some(i) => Some(&mut origin.entries[i].1),
                None => origin.fields.get_mut(&plain(token)),
            }
        })
    }
}

/// A token of a JSON pointer as the name that it stands for.
fn plain(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(value: Value) -> Config {
        Config::parse(value.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn entries_keep_their_numbers_when_others_are_taken_out() {
        let mut config =
            config(json!({"mounts": [{"a": 0}, {"b": [1, 2, 3]}, {"c": 2}], "x": {"m/n": [5, 6]}}));
        assert!(config.mend("/mounts/0/missing"));
        assert!(config.mend("/mounts/0/b/1"));
        assert!(config.mend("/x/m~1n/0"));
        assert_eq!(config.tree(), &json!({"mounts": [{"b": [1, 3]}, {"c": 2}], "x": {"m/n": [6]}}));
        for (now, before) in [
            ("/mounts/0/b/0", "/mounts/1/b/0"),
            ("/mounts/0/b/1", "/mounts/1/b/2"),
            ("/mounts/1/c", "/mounts/2/c"),
            ("/mounts/7/c", "/mounts/7/c"),
            ("/x/m~1n/0", "/x/m~1n/1"),
            ("", ""),
        ] {
            assert_eq!(config.original(now), before, "{now}");
        }
    }

    #[test]
    fn what_the_rest_hangs_on_is_replaced_and_never_taken_out() {
        let mut config = config(json!({"process": {"cwd": 5}, "linux": {"namespaces": [{"type": "mnt"}]}}));
        for pointer in ["/root", "/process/cwd", "/linux/namespaces/0/type"] {
            assert!(config.mend(pointer), "{pointer}");
        }
        assert_eq!(
            config.tree(),
            &json!({"process": {"cwd": "/"}, "root": {"path": "rootfs"}, "linux": {"namespaces": [{"type": "mount"}]}})
        );
        // What stands in does not help: it is taken out, and then nothing is left to try.
        assert!(config.mend("/process/cwd"));
        assert!(!config.mend("/process/cwd"));
        assert!(!config.mend(""));
    }
}
