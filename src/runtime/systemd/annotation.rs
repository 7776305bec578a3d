//! `org.systemd.property.NAME` annotations: a property of the container's unit, as a text of GVariant's. Pure.
//!
//! Of that notation what properties of scopes need: booleans, numbers, texts, and lists of texts. runc and crun take more;
//! what is not read here is refused by name.

use super::value::{Property, Value};
use crate::{Error, Result};

const KEY: &str = "org.systemd.property.";

/// What rcrun itself says of the unit: another process in it, another place for it, or a cgroup that systemd shares with
/// nobody, and the container is not in its cgroup.
const OURS: [&str; 5] = ["PIDs", "PIDFDs", "Slice", "Delegate", "DefaultDependencies"];

/// The property that annotation `key` stands for; None where it is another annotation.
pub fn property(key: &str, value: &str) -> Result<Option<Property>> {
    let Some(name) = key.strip_prefix(KEY) else { return Ok(None) };
    let pointer = format!("/annotations/{}", key.replace('~', "~0").replace('/', "~1"));
    if name.len() < 3
        || !name.starts_with(|c: char| c.is_ascii_uppercase())
        || !name.bytes().all(|byte| byte.is_ascii_alphanumeric())
    {
        return Err(Error::config(pointer, format!("{name:?} is no name of a property of a unit")));
    }
    if OURS.contains(&name) && !(name == "DefaultDependencies" && matches!(value, "true" | "false")) {
        return Err(Error::unsupported(pointer, format!("{name} is what rcrun itself sets")));
    }
    let parsed = parse(value).ok_or_else(|| {
        Error::unsupported(
            &pointer,
            format!(
                "{value:?} is none of the values that rcrun reads: true, 15, uint64 5000000, 'text', ['a', 'b']"
            ),
        )
    })?;
    // As with runc: systemd's files have seconds (TimeoutStopSec=), its bus has microseconds (TimeoutStopUSec).
    if let Some(stem) = name.strip_suffix("Sec").filter(|s| s.ends_with(|c: char| c.is_ascii_lowercase())) {
        let value = microseconds(&parsed)
            .ok_or_else(|| Error::config(pointer, format!("{value:?} is no number of seconds")))?;
        return Ok(Some(Property::new(format!("{stem}USec"), Value::Uint64(value))));
    }
    Ok(Some(Property::new(name, parsed)))
}

fn microseconds(value: &Value) -> Option<u64> {
    const MICRO: u64 = 1_000_000;
    match value {
        Value::Byte(seconds) => Some(u64::from(*seconds) * MICRO),
        Value::Int32(seconds) => u64::try_from(*seconds).ok()?.checked_mul(MICRO),
        Value::Int64(seconds) => u64::try_from(*seconds).ok()?.checked_mul(MICRO),
        Value::Uint32(seconds) => Some(u64::from(*seconds) * MICRO),
        // systemd's "infinity" is all ones.
        Value::Uint64(u64::MAX) => Some(u64::MAX),
        Value::Uint64(seconds) => seconds.checked_mul(MICRO),
        // Below 2^53 exact, and no property is a time of 285 years.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Value::Double(seconds) if (0.0..9e9).contains(seconds) => Some((seconds * 1e6) as u64),
        _ => None,
    }
}

/// One whole value.
fn parse(text: &str) -> Option<Value> {
    let text = text.trim();
    if let Some(list) =
        text.strip_prefix("@as").map(str::trim_start).or(Some(text)).filter(|t| t.starts_with('['))
    {
        return texts(list);
    }
    if text.starts_with(['\'', '"']) {
        let (text, rest) = quoted(text)?;
        return rest.is_empty().then(|| Value::text(text));
    }
    match text.split_once(char::is_whitespace).map(|(kind, rest)| (kind, rest.trim_start())) {
        Some((kind, value)) => typed(kind, value),
        None => match text {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            // A number without a type is an int32, and one with a point a double (g_variant_parse).
            text => typed("int32", text)
                .or_else(|| text.contains(['.', 'e']).then(|| typed("double", text)).flatten()),
        },
    }
}

fn typed(kind: &str, value: &str) -> Option<Value> {
    match kind {
        "boolean" | "@b" => match value {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            _ => None,
        },
        "byte" | "@y" => integer(value).map(Value::Byte),
        "int32" | "@i" => integer(value).map(Value::Int32),
        "uint32" | "@u" => integer(value).map(Value::Uint32),
        "int64" | "@x" => integer(value).map(Value::Int64),
        "uint64" | "@t" => integer(value).map(Value::Uint64),
        "double" | "@d" => value.parse().ok().filter(|number: &f64| number.is_finite()).map(Value::Double),
        "string" | "@s" => quoted(value).filter(|(_, rest)| rest.is_empty()).map(|(t, _)| Value::text(t)),
        _ => None,
    }
}

/// Decimal, `0x` or, as in C, octal.
fn integer<T: TryFrom<i128>>(text: &str) -> Option<T> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let number = if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        u64::from_str_radix(hex, 16)
    } else if digits.len() > 1 && digits.starts_with('0') {
        u64::from_str_radix(digits, 8)
    } else {
        digits.parse::<u64>()
    };
    // from_str_radix takes a sign of its own.
    if digits.starts_with(['+', '-']) {
        return None;
    }
    T::try_from(sign * i128::from(number.ok()?)).ok()
}

fn texts(list: &str) -> Option<Value> {
    let mut rest = list.strip_prefix('[')?.trim_start();
    let mut texts = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix(']') {
            // Of what an empty list has none can tell without a type.
            return after.is_empty().then(|| Value::Array("s".to_string(), texts));
        }
        if !texts.is_empty() {
            rest = rest.strip_prefix(',')?.trim_start();
        }
        let (text, after) = quoted(rest)?;
        texts.push(Value::text(text));
        rest = after;
    }
}

/// A text in quotes, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let mut plain = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => plain.push(match chars.next()?.1 {
                'n' => '\n',
                't' => '\t',
                c @ ('\\' | '\'' | '"') => c,
                _ => return None,
            }),
            '\0' => return None,
            c if c == quote => return Some((plain, text[at + 1..].trim_start())),
            c => plain.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_become_typed_properties() {
        let list = |texts: &[&str]| Value::Array("s".into(), texts.iter().map(|t| Value::text(*t)).collect());
        for (name, text, expected, value) in [
            ("KillSignal", "15", "KillSignal", Value::Int32(15)),
            ("TimeoutStopUSec", "uint64 10000000", "TimeoutStopUSec", Value::Uint64(10_000_000)),
            ("TimeoutStopSec", "uint64 10", "TimeoutStopUSec", Value::Uint64(10_000_000)),
            ("TimeoutStopSec", "2.5", "TimeoutStopUSec", Value::Uint64(2_500_000)),
            ("TimeoutStopSec", "3", "TimeoutStopUSec", Value::Uint64(3_000_000)),
            ("CollectMode", "'inactive-or-failed'", "CollectMode", Value::text("inactive-or-failed")),
            ("CollectMode", "\"inactive\"", "CollectMode", Value::text("inactive")),
            ("Description", r"'it\'s mine'", "Description", Value::text("it's mine")),
            ("Description", r#"string "a""#, "Description", Value::text("a")),
            ("DefaultDependencies", "true", "DefaultDependencies", Value::Bool(true)),
            ("SendSIGHUP", "boolean true", "SendSIGHUP", Value::Bool(true)),
            ("After", "['crio.service']", "After", list(&["crio.service"])),
            ("After", "[ 'a.service' , \"b.service\" ]", "After", list(&["a.service", "b.service"])),
            ("After", "@as []", "After", list(&[])),
            ("KillSignal", "0x0f", "KillSignal", Value::Int32(15)),
            ("KillSignal", "017", "KillSignal", Value::Int32(15)),
            ("CPUWeight", "@t 200", "CPUWeight", Value::Uint64(200)),
            ("MemoryMaxScale", "uint32 4294967295", "MemoryMaxScale", Value::Uint32(u32::MAX)),
            ("NiceX", "int64 -5", "NiceX", Value::Int64(-5)),
        ] {
            let property = property(&format!("org.systemd.property.{name}"), text);
            assert_eq!(property.unwrap(), Some(Property::new(expected, value)), "{name}={text}");
        }
        assert_eq!(property("io.kubernetes.cri.sandbox-id", "x").unwrap(), None);
    }

    #[test]
    fn what_is_not_read_is_refused_by_name() {
        for (name, text, reason) in [
            ("x", "1", "no name of a property"),
            ("killSignal", "1", "no name of a property"),
            ("Kill/Signal", "1", "no name of a property"),
            ("PIDs", "[1]", "PIDs is what rcrun itself sets"),
            ("Slice", "'a.slice'", "Slice is what rcrun itself sets"),
            ("Delegate", "false", "Delegate is what rcrun itself sets"),
            ("KillSignal", "", "none of the values"),
            ("KillSignal", "SIGTERM", "none of the values"),
            ("KillSignal", "99999999999", "none of the values"),
            ("KillSignal", "--5", "none of the values"),
            ("Description", "'open", "none of the values"),
            ("Description", "'a' b", "none of the values"),
            ("After", "['a', 5]", "none of the values"),
            ("After", "['a' 'b']", "none of the values"),
            ("Environment", "{'a': 'b'}", "none of the values"),
            ("ExecStop", "[('/bin/true', ['a'], false)]", "none of the values"),
            ("TimeoutStopSec", "'soon'", "no number of seconds"),
            ("TimeoutStopSec", "-5", "no number of seconds"),
        ] {
            let error = property(&format!("org.systemd.property.{name}"), text).unwrap_err();
            assert!(error.to_string().contains(reason), "{name}={text}: {error}");
            assert!(error.pointer().unwrap().starts_with("/annotations/org.systemd.property."));
        }
    }
}
