//! A container as `state` and `list` show it: runc's JSON, and runc's table. Uses: container, output.

use std::collections::BTreeMap;
use std::fmt::Write;

use rcrun_runtime::container::End;
use serde::Serialize;

use crate::output;

/// What `state` and `list` tell of a container, in runc's order.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The version of the spec that its config.json follows.
    pub oci_version: String,
    /// The container.
    pub id: String,
    /// Its first process, 0 when it is stopped.
    pub pid: i32,
    /// `creating`, `created`, `running`, `paused`, `stopped`
    pub status: String,
    /// The bundle, an absolute path.
    pub bundle: String,
    /// Its root file system, an absolute path.
    pub rootfs: String,
    /// When it was created, RFC 3339 with nanoseconds.
    pub created: String,
    /// The annotations of its config.json.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Who created it: told by `list`, empty in `state`.
    pub owner: String,
    /// How it has ended: told by `state`. runc has nothing of the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

/// runc's table: a column is as wide as its widest cell and three blanks, and twelve at least.
pub fn table(records: &[Record]) -> String {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from);
    let rows = records.iter().map(|r| {
        [&r.id, &r.pid.to_string(), &r.status, &r.bundle, &r.created, &r.owner]
            .map(|cell| output::shown(cell))
    });
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| {
        let widest = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        (widest + 3).max(12)
    };
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a String cannot fail.
            let _ = write!(text, "{cell:<width$}");
        }
        text.push_str(&row[5]);
        text.push('\n');
    }
    text
}

/// The name of user `uid` in the text of /etc/passwd, or `#uid` as runc writes it. (getpwuid would load
/// shared objects into a static program.)
pub fn owner(uid: u32, passwd: &str) -> String {
    passwd
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_string())
        })
        .unwrap_or_else(|| format!("#{uid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> Record {
        Record {
            oci_version: "1.0.2-dev".into(),
            id: id.into(),
            pid: 4711,
            status: "running".into(),
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: "2026-11-21T04:02:39.123456789Z".into(),
            annotations: BTreeMap::new(),
            owner: "root".into(),
            end: None,
        }
    }

    #[test]
    fn the_table_is_runcs() {
        // Taken from runc 1.1.5's `list` without containers.
        assert_eq!(table(&[]), "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n");
        let mut long = record("a-rather-long-id");
        long.bundle = "/srv/größe".into();
        assert_eq!(
            table(&[record("x"), long]),
            "\
ID                 PID         STATUS      BUNDLE       CREATED                          OWNER
x                  4711        running     /b           2026-11-21T04:02:39.123456789Z   root
a-rather-long-id   4711        running     /srv/größe   2026-11-21T04:02:39.123456789Z   root
"
        );
    }

    #[test]
    fn a_line_break_in_a_path_does_not_forge_a_row() {
        let mut odd = record("x");
        odd.bundle = "/b\nforged\u{1b}".into();
        let text = table(&[odd]);
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains("/b\\nforged\\u{1b}"));
    }

    #[test]
    fn the_state_is_runcs_json() {
        let mut state = record("x");
        state.owner = String::new();
        let text = serde_json::to_string_pretty(&state).unwrap();
        let expected = r#"{
  "ociVersion": "1.0.2-dev",
  "id": "x",
  "pid": 4711,
  "status": "running",
  "bundle": "/b",
  "rootfs": "/b/rootfs",
  "created": "2026-11-21T04:02:39.123456789Z",
  "owner": ""
}"#;
        assert_eq!(text, expected);
        state.annotations.insert("b".into(), "2".into());
        state.annotations.insert("a".into(), "1".into());
        let text = serde_json::to_string(&state).unwrap();
        assert!(text.contains(r#""annotations":{"a":"1","b":"2"},"owner":"""#), "{text}");
    }

    #[test]
    fn owners_are_looked_up_in_passwd() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nuser:x:1000:1000::/home/user:/bin/sh\n";
        for (uid, name) in [(0, "root"), (1000, "user"), (7, "#7")] {
            assert_eq!(owner(uid, passwd), name);
        }
    }
}
