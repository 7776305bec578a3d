//! A device policy as properties of a unit. Pure.
//!
//! systemd has a device program of its own on the unit's cgroup, and puts it there again with each daemon-reload. Both it
//! and rcrun's must allow an access. So systemd is told what may be allowed at most, which it can always say, and rcrun's
//! program, which stays, says the rest: what is denied of an allowed range, and what needs a pattern that systemd has not.

use super::value::{Property, Value};
use crate::cgroup::Policy;
use crate::cgroup::device::{Allowed, Kind};

/// The list comes before the policy: with a strict policy alone nothing would be allowed for a moment.
pub fn properties(policy: &Policy) -> Vec<Property> {
    let list = |entries: Vec<Value>| Property::new("DeviceAllow", Value::Array("(ss)".to_string(), entries));
    // An empty list takes away what is there.
    let mut properties = vec![list(Vec::new())];
    let word = match policy.allowed() {
        None => "auto",
        Some(allowed) => {
            // Of two entries for one device systemd would take the second for a correction of the first.
            let mut merged: Vec<(String, String)> = Vec::new();
            for (device, access) in allowed.iter().flat_map(entries) {
                match merged.iter_mut().find(|(known, _)| *known == device) {
                    Some((_, all)) => {
                        all.extend(access.chars().filter(|c| !all.contains(*c)).collect::<Vec<_>>())
                    }
                    None => merged.push((device, access)),
                }
            }
            let entry = |(device, access)| Value::Struct(vec![Value::Text(device), Value::Text(access)]);
            properties.push(list(merged.into_iter().map(entry).collect()));
            "strict"
        }
    };
    properties.push(Property::new("DevicePolicy", Value::text(word)));
    properties
}

fn entries(allowed: &Allowed) -> Vec<(String, String)> {
    let kinds: &[Kind] = match allowed.kind {
        None => &[Kind::Block, Kind::Char],
        Some(Kind::Block) => &[Kind::Block],
        Some(Kind::Char) => &[Kind::Char],
    };
    let entry = |kind: &Kind| {
        let kind = if *kind == Kind::Block { "block" } else { "char" };
        let device = match (allowed.major, allowed.minor) {
            // Needs no node of that name (systemd 240).
            (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
            (Some(major), None) => format!("{kind}-{major}"),
            (None, _) => format!("{kind}-*"),
        };
        (device, allowed.access.clone())
    };
    kinds.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(rules: &str) -> (String, String) {
        let policy = Policy::new(&serde_json::from_str::<Vec<_>>(rules).unwrap(), &[]).unwrap();
        let properties = properties(&policy);
        let word = match &properties.last().unwrap().value {
            Value::Text(word) => word.clone(),
            other => panic!("{other:?}"),
        };
        let text = |value: &Value| match value {
            Value::Struct(fields) => match fields.as_slice() {
                [Value::Text(device), Value::Text(access)] => format!("{device} {access}"),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        let entries = properties.iter().filter_map(|property| match &property.value {
            Value::Array(_, entries) => Some(entries.iter().map(text).collect::<Vec<_>>()),
            _ => None,
        });
        (word, entries.flatten().collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn systemd_hears_what_may_be_allowed_at_most() {
        let defaults = "char-* m, block-* m, /dev/char/1:3 rwm, /dev/char/1:8 rwm, /dev/char/1:7 rwm, /dev/char/5:0 rwm, /dev/char/1:5 rwm, /dev/char/1:9 rwm, char-136 rwm, /dev/char/5:2 rwm";
        for (rules, word, first) in [
            ("[]", "strict", ""),
            (r#"[{"allow":false,"access":"rwm"}]"#, "strict", ""),
            (
                r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":195,"minor":0,"access":"rw"}]"#,
                "strict",
                "/dev/char/195:0 rw, ",
            ),
            (r#"[{"allow":true,"type":"b","major":8,"access":"r"}]"#, "strict", "block-8 r, "),
            // A device taken out of an allowed range: systemd cannot say it. Nor, below, one minor of every major.
            (
                r#"[{"allow":true,"type":"c","major":200,"access":"rw"},{"allow":false,"type":"c","major":200,"minor":1,"access":"w"}]"#,
                "strict",
                "char-200 rw, ",
            ),
            (r#"[{"allow":true,"major":9,"access":"r"}]"#, "strict", "block-9 r, char-9 r, "),
        ] {
            assert_eq!(told(rules), (word.to_string(), format!("{first}{defaults}")), "{rules}");
        }
        assert_eq!(
            told(r#"[{"allow":true,"type":"c","minor":7,"access":"r"}]"#),
            ("strict".to_string(), defaults.replace("char-* m", "char-* rm"))
        );
        for all in [
            r#"[{"allow":true,"access":"rwm"}]"#,
            r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"b","major":8,"access":"rwm"}]"#,
        ] {
            assert_eq!(told(all), ("auto".to_string(), String::new()), "{all}");
        }
    }
}
