//! JSON to oci-spec's types: straight, and a second time with more care when that fails, so that the
//! error names the field. Uses: fault.

use oci_spec::runtime as oci;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use super::fault::{Fault, Quoted, Token};

const CAPABILITY_SETS: [&str; 5] = ["bounding", "effective", "inheritable", "permitted", "ambient"];

/// JSON is UTF-8: found once, so that no string is looked at again.
pub(super) fn utf8(text: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(text).map_err(|error| match serde_json::from_slice::<Value>(text) {
        // It tells the line.
        Err(at) => syntax(&at),
        Ok(_) => Fault::new("", format_args!("is not valid JSON: {error}")),
    })
}

/// Reads `text` as a `T`. Capabilities that oci-spec does not know lie below the keys `capabilities`;
/// they become warnings, as runtime-spec 1.1 asks, where oci-spec makes them errors.
pub(super) fn read<T: DeserializeOwned>(
    text: &str,
    capabilities: &[&str],
    warnings: &mut Vec<String>,
) -> Result<T, Fault> {
    refuse_nul(text)?;
    if let Ok(found) = serde_json::from_str(text) {
        return Ok(found);
    }
    let mut tree: Value = serde_json::from_str(text).map_err(|error| syntax(&error))?;
    let mut changed = drop_unknown_capabilities(&mut tree, capabilities, warnings);
    if let Some((_, process)) = capabilities.split_last() {
        changed |= respell(&mut tree, process);
    }
    if changed {
        return serde_path_to_error::deserialize(tree).map_err(|error| typed(&error));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let found: T = serde_path_to_error::deserialize(&mut reader).map_err(|error| typed(&error))?;
    reader.end().map_err(|error| syntax(&error))?;
    Ok(found)
}

/// The text of a process with the user that it has not: root, as runc takes it. None where it has one.
pub(super) fn with_user(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Who {
        user: Option<serde::de::IgnoredAny>,
    }
    match serde_json::from_str(text) {
        Ok(Who { user: None }) => {}
        _ => return None,
    }
    let mut tree: Value = serde_json::from_str(text).ok()?;
    tree.as_object_mut()?.insert("user".into(), serde_json::json!({"uid": 0, "gid": 0}));
    Some(tree.to_string())
}

/// Fields of the spec whose value oci-spec 0.10 loses. Looked for by text first: a parse of its own
/// for each would cost more than the rest of the checks.
pub(super) fn dropped_fields(text: &str, spec: &mut oci::Spec) -> Result<(), Fault> {
    // runtime-spec 1.3 has a platform that oci-spec has not.
    if text.contains("\"freebsd\"") {
        #[derive(Deserialize)]
        struct Platform {
            freebsd: Option<serde::de::IgnoredAny>,
        }
        let platform: Result<Platform, _> = serde_json::from_str(text);
        if platform.is_ok_and(|p| p.freebsd.is_some()) {
            return Err(Fault::unsupported("/freebsd", "rcrun runs Linux containers only"));
        }
    }
    // Names of before 1.3, which oci-spec spells otherwise.
    if text.contains("\"enableCMT\"") || text.contains("\"enableMBM\"") {
        let tree: Value = serde_json::from_str(text).map_err(|error| syntax(&error))?;
        let asked = |name| tree.pointer(&format!("/linux/intelRdt/{name}")).and_then(Value::as_bool);
        let rdt = spec.linux_mut().as_mut().and_then(|linux| linux.intel_rdt_mut().as_mut());
        if let Some(rdt) =
            rdt.filter(|_| asked("enableCMT") == Some(true) || asked("enableMBM") == Some(true))
        {
            rdt.set_enable_monitoring(Some(true));
        }
    }
    let resources = spec.linux_mut().as_mut().and_then(|linux| linux.resources_mut().as_mut());
    resources.map_or(Ok(()), |resources| dropped_limit(text, "/linux/resources/pids/limit", resources))
}

/// `pids.limit` is optional since 1.3 and 0 is a limit, but oci-spec reads a missing one as 0. `at` is its place in `text`.
pub(super) fn dropped_limit(text: &str, at: &str, resources: &mut oci::LinuxResources) -> Result<(), Fault> {
    if resources.pids().is_some_and(|pids| pids.limit() == 0) {
        let tree: Value = serde_json::from_str(text).map_err(|error| syntax(&error))?;
        if tree.pointer(at).is_none_or(Value::is_null) {
            resources.set_pids(None);
        }
    }
    Ok(())
}

/// No string of a config may hold a NUL: the kernel's strings end there, and what was checked would
/// differ from what is used (CVE-2021-43784). JSON can only spell one as `\u0000`.
fn refuse_nul(text: &str) -> Result<(), Fault> {
    if !text.contains("\\u0000") {
        return Ok(());
    }
    // Text that is no JSON gets its own error later.
    let Ok(tree) = serde_json::from_str::<Value>(text) else { return Ok(()) };
    let mut at = String::new();
    match find_nul(&tree, &mut at) {
        true => Err(Fault::new(at, "a string may not contain a NUL character")),
        false => Ok(()),
    }
}

fn find_nul(tree: &Value, at: &mut String) -> bool {
    let end = at.len();
    match tree {
        Value::String(s) => return s.contains('\0'),
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                at.push_str(&format!("/{i}"));
                if find_nul(item, at) {
                    return true;
                }
                at.truncate(end);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                at.push_str(&format!("/{}", Token(name)));
                if name.contains('\0') || find_nul(value, at) {
                    return true;
                }
                at.truncate(end);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    false
}

/// Words of the spec in the process at `place` that oci-spec 0.10 spells or reads otherwise; says whether there were any.
fn respell(tree: &mut Value, place: &[&str]) -> bool {
    let Some(process) = place.iter().try_fold(tree, |below, key| below.get_mut(*key)) else { return false };
    let mut changed = false;
    let flags = process.pointer_mut("/scheduler/flags").and_then(Value::as_array_mut);
    for flag in flags.into_iter().flatten() {
        let theirs = match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => "SCHED_RESET_ON_FORK",
            Some("SCHED_FLAG_DL_OVERRUN") => "SCHED_FLAG_D_L_OVERRUN",
            _ => continue,
        };
        *flag = theirs.into();
        changed = true;
    }
    // They take no spaces and no empty entries; with none left, the field says as much as if it were not there.
    for field in ["initial", "final"] {
        let Some(cpus) = process.pointer_mut(&format!("/execCPUAffinity/{field}")) else { continue };
        let Some(text) = cpus.as_str() else { continue };
        let tight: String = text.split_whitespace().collect();
        let tight = tight.split(',').filter(|range| !range.is_empty()).collect::<Vec<_>>().join(",");
        if tight.is_empty() || tight != text {
            *cpus = if tight.is_empty() { Value::Null } else { tight.into() };
            changed = true;
        }
    }
    changed
}

/// Takes the capabilities that oci-spec cannot read out of `tree`; says whether there were any.
fn drop_unknown_capabilities(tree: &mut Value, place: &[&str], warnings: &mut Vec<String>) -> bool {
    let mut sets = tree;
    for key in place {
        match sets.get_mut(*key) {
            Some(below) => sets = below,
            None => return false,
        }
    }
    let before = warnings.len();
    for name in CAPABILITY_SETS {
        let Some(Value::Array(set)) = sets.get_mut(name) else { continue };
        set.retain(|entry| {
            // What is no string is left in, to be refused with its type.
            let Value::String(word) = entry else { return true };
            let known = oci::Capability::deserialize(entry).is_ok();
            if !known {
                let at = place.join("/");
                let word = Quoted(word);
                warnings.push(format!("/{at}/{name}: unknown capability {word} is not granted"));
            }
            known
        });
    }
    warnings.len() > before
}

fn syntax(error: &serde_json::Error) -> Fault {
    Fault::new("", format_args!("is not valid JSON: {}", readable(&error.to_string())))
}

fn typed(error: &serde_path_to_error::Error<serde_json::Error>) -> Fault {
    let mut at = String::new();
    for segment in error.path() {
        match segment {
            Segment::Seq { index } => at.push_str(&format!("/{index}")),
            Segment::Map { key } => at.push_str(&format!("/{}", Token(key))),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    let message = error.inner().to_string();
    // serde tells the object of a missing or double field; the pointer is to name the field.
    for (words, sentence) in [("missing field `", "is required"), ("duplicate field `", "is there twice")] {
        if let Some((field, _)) = message.strip_prefix(words).and_then(|rest| rest.split_once('`')) {
            // Where the field's own value failed, the path ends with it already.
            if !at.ends_with(&format!("/{field}")) {
                at.push_str(&format!("/{}", Token(field)));
            }
            return Fault::new(at, sentence);
        }
    }
    Fault::new(at, readable(&message))
}

/// A message of serde as it can be shown: it has the offending value as it is, whatever its size. Both ends are enough, and a
/// terminal is not to obey it.
pub fn readable(message: &str) -> String {
    const ENDS: usize = 120;
    let mut text = String::with_capacity(message.len());
    for c in message.chars() {
        match c.is_control() {
            true => text.extend(c.escape_default()),
            false => text.push(c),
        }
    }
    let count = text.chars().count();
    if count <= 2 * ENDS {
        return text;
    }
    let head: String = text.chars().take(ENDS).collect();
    let tail: String = text.chars().skip(count - ENDS).collect();
    format!("{head}...{tail}")
}
