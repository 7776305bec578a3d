//! A profile that a person gives, in Docker's format or as linux.seccomp itself, to linux.seccomp: what it says of
//! architectures, capabilities and kernels is settled for this container. Pure. Uses: error.

use serde_json::{Map, Value, json};

use crate::error::{Code, Error, Result};

/// Docker's names of this machine's architecture, and the spec's.
const HERE: (&str, &str) = match std::env::consts::ARCH.as_bytes() {
    b"x86_64" => ("amd64", "SCMP_ARCH_X86_64"),
    _ => ("arm64", "SCMP_ARCH_AARCH64"),
};

/// Reads the profile `text` for a container with `capabilities` under a kernel of `release`.
pub fn given(text: &[u8], capabilities: &[&str], release: &str) -> Result<Value> {
    let wrong = |why: String| Error::new(Code::Usage, format!("is no seccomp profile: {why}"));
    let value: Value = serde_json::from_slice(text).map_err(|e| wrong(e.to_string()))?;
    let Value::Object(fields) = value else { return Err(wrong("not a JSON object".into())) };
    let mut profile = Map::new();
    for (name, value) in fields {
        match (name.as_str(), value) {
            (_, Value::Null) => {}
            ("defaultAction" | "defaultErrnoRet" | "architectures" | "flags", value) => {
                profile.insert(name, value);
            }
            ("archMap", value) => {
                if let Some(all) = architectures(&value).map_err(wrong)? {
                    profile.insert("architectures".into(), all);
                }
            }
            ("syscalls", Value::Array(rules)) => {
                let mut kept = Vec::new();
                for (at, rule) in rules.into_iter().enumerate() {
                    let of = |why: String| wrong(format!("/syscalls/{at}{why}"));
                    kept.extend(self::rule(rule, capabilities, release).map_err(of)?);
                }
                profile.insert(name, Value::Array(kept));
            }
            _ => return Err(wrong(format!("/{name} is not known, or not of its type"))),
        }
    }
    if !profile.contains_key("defaultAction") {
        return Err(wrong("/defaultAction is missing".into()));
    }
    Ok(Value::Object(profile))
}

/// The entry of this machine, with those that come with it.
fn architectures(map: &Value) -> std::result::Result<Option<Value>, String> {
    let entries = map.as_array().ok_or("/archMap is no list")?;
    let Some(entry) = entries.iter().find(|entry| entry["architecture"] == HERE.1) else { return Ok(None) };
    let mut all = vec![json!(HERE.1)];
    match &entry["subArchitectures"] {
        Value::Null => {}
        Value::Array(others) => all.extend(others.iter().cloned()),
        _ => return Err("/archMap: subArchitectures is no list".into()),
    }
    Ok(Some(Value::Array(all)))
}

/// One rule, unless it is for others.
fn rule(rule: Value, capabilities: &[&str], release: &str) -> std::result::Result<Option<Value>, String> {
    let Value::Object(fields) = rule else { return Err(" is no object".into()) };
    let mut kept = Map::new();
    let mut holds = true;
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("comment", _) | (_, Value::Null) => {}
            // An older form.
            ("name", Value::String(one)) if one.is_empty() => {}
            ("name", one @ Value::String(_)) => {
                kept.insert("names".into(), json!([one]));
            }
            ("names" | "action" | "errnoRet" | "args", value) => {
                kept.insert(name, value);
            }
            ("includes", value) => {
                let answers = answers(&value, capabilities, release)?;
                holds &= answers.caps.is_none_or(|(all, _)| all);
                holds &= answers.others.iter().all(|answer| *answer);
            }
            ("excludes", value) => {
                let answers = answers(&value, capabilities, release)?;
                holds &= !answers.caps.is_some_and(|(_, any)| any);
                holds &= !answers.others.contains(&true);
            }
            _ => return Err(format!("/{name} is not known, or not of its type")),
        }
    }
    Ok(Some(Value::Object(kept)).filter(|_| holds))
}

/// What a filter of rules finds.
#[derive(Default)]
struct Answers {
    /// Whether the container has all of the capabilities, and any.
    caps: Option<(bool, bool)>,
    /// Whether the machine is one of those, and its kernel new enough.
    others: Vec<bool>,
}

fn answers(filter: &Value, capabilities: &[&str], release: &str) -> std::result::Result<Answers, String> {
    let mut answers = Answers::default();
    for (name, value) in filter.as_object().ok_or(": includes or excludes is no object")? {
        match (name.as_str(), value) {
            (_, Value::Null) => {}
            (_, Value::Array(words)) if words.is_empty() => {}
            ("caps", Value::Array(caps)) => {
                let has = |cap: &Value| cap.as_str().is_some_and(|cap| capabilities.contains(&cap));
                answers.caps = Some((caps.iter().all(has), caps.iter().any(has)));
            }
            ("arches", Value::Array(arches)) => answers.others.push(arches.contains(&json!(HERE.0))),
            ("minKernel", Value::String(least)) => {
                let least = version(least).ok_or_else(|| format!(": minKernel {least:?} is no version"))?;
                answers.others.push(version(release).is_some_and(|here| here >= least));
            }
            _ => return Err(format!(": {name} is not known, or not of its type")),
        }
    }
    Ok(answers)
}

/// `4.8` of `4.8`, `6.1` of `6.1.0-13-amd64`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(profile: Value) -> std::result::Result<Value, String> {
        given(profile.to_string().as_bytes(), &["CAP_SYS_CHROOT", "CAP_KILL"], "6.1.0-13-amd64")
            .map_err(|e| e.to_string())
    }

    #[test]
    fn linux_seccomp_stays_as_it_is() {
        let profile = json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{ "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }] }],
        });
        assert_eq!(read(profile.clone()), Ok(profile));
    }

    #[test]
    fn a_rule_counts_where_its_filters_say_so() {
        let caps = |caps: &[&str]| json!({ "caps": caps });
        for (name, filter, counts) in [
            ("includes", caps(&["CAP_KILL"]), true),
            ("includes", caps(&["CAP_KILL", "CAP_BPF"]), false),
            ("includes", caps(&[]), true),
            ("excludes", caps(&["CAP_BPF"]), true),
            ("excludes", caps(&["CAP_KILL", "CAP_BPF"]), false),
            ("includes", json!({ "minKernel": "4.8" }), true),
            ("includes", json!({ "minKernel": "6.10" }), false),
            ("includes", json!({ "arches": [HERE.0, "s390x"] }), true),
            ("includes", json!({ "arches": ["s390x"], "caps": ["CAP_KILL"] }), false),
            ("excludes", json!({ "arches": [HERE.0] }), false),
            ("excludes", json!({ "arches": ["s390x"], "minKernel": "6.10" }), true),
        ] {
            let mut rule =
                json!({ "name": "read", "action": "SCMP_ACT_ALLOW", "comment": "why", "args": null });
            rule[name] = filter.clone();
            let found = read(json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule] })).unwrap();
            let expected = counts.then(|| json!({ "names": ["read"], "action": "SCMP_ACT_ALLOW" }));
            assert_eq!(found["syscalls"], Value::from_iter(expected), "{name} {filter}");
        }
    }

    #[test]
    fn the_map_of_architectures_gives_this_machines() {
        let map = json!([
            { "architecture": "SCMP_ARCH_S390X", "subArchitectures": ["SCMP_ARCH_S390"] },
            { "architecture": HERE.1, "subArchitectures": ["SCMP_ARCH_X86"] },
        ]);
        let found = read(json!({ "defaultAction": "SCMP_ACT_ALLOW", "archMap": map })).unwrap();
        assert_eq!(found["architectures"], json!([HERE.1, "SCMP_ARCH_X86"]));
    }

    #[test]
    fn what_is_no_profile_is_told_by_its_place() {
        for (profile, why) in [
            (json!([]), "not a JSON object"),
            (json!({}), "/defaultAction is missing"),
            (json!({ "defaultAktion": 1 }), "/defaultAktion is not known, or not of its type"),
            (json!({ "syscalls": [{ "nmaes": [] }] }), "/syscalls/0/nmaes is not known, or not of its type"),
            (
                json!({ "syscalls": [{ "includes": { "cap": ["x"] } }] }),
                "/syscalls/0: cap is not known, or not of its type",
            ),
            (
                json!({ "syscalls": [{ "includes": { "minKernel": "new" } }] }),
                "/syscalls/0: minKernel \"new\" is no version",
            ),
        ] {
            assert_eq!(read(profile), Err(format!("is no seccomp profile: {why}")));
        }
    }
}
