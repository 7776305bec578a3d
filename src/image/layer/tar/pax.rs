//! PAX extended headers: records of `length keyword=value\n`.
//! Uses: tar.

use super::super::error::{Error, Result, Shown};
use super::Time;

/// A record and what follows it.
type Split<'a> = (Record<'a>, &'a [u8]);

/// One record.
#[derive(Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What is told.
    pub key: &'a [u8],
    /// The value, byte by byte.
    pub value: &'a [u8],
}

/// Takes the first record off `records`.
pub fn first(records: &[u8]) -> Result<Split<'_>> {
    let broken = || Error::archive(format!("a broken PAX record: \"{}\"", Shown(records)));
    let blank = records.iter().take(20).position(|&b| b == b' ').ok_or_else(broken)?;
    let len = decimal(&records[..blank]).and_then(|n| usize::try_from(n).ok()).ok_or_else(broken)?;
    if len <= blank + 2 || len > records.len() || records[len - 1] != b'\n' {
        return Err(broken());
    }
    let body = &records[blank + 1..len - 1];
    let equals = body.iter().position(|&b| b == b'=').filter(|&at| at > 0).ok_or_else(broken)?;
    Ok((Record { key: &body[..equals], value: &body[equals + 1..] }, &records[len..]))
}

/// A number without a sign.
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |value, &digit| {
        if !digit.is_ascii_digit() {
            return None;
        }
        value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
}

/// A time: seconds, perhaps with a fraction, perhaps negative. Beyond 64 bits it is the last there is.
pub fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|&b| b == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    if !whole.iter().chain(fraction).all(u8::is_ascii_digit) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let seconds = if whole.is_empty() { 0 } else { decimal(whole).unwrap_or(u64::MAX) };
    let seconds = match negative {
        true => 0i64.checked_sub_unsigned(seconds).unwrap_or(i64::MIN),
        false => i64::try_from(seconds).unwrap_or(i64::MAX),
    };
    let nanoseconds =
        (0..9).fold(0u32, |value, i| value * 10 + fraction.get(i).map_or(0, |digit| u32::from(digit - b'0')));
    // Nanoseconds count forward from the second before.
    Some(match (negative, nanoseconds) {
        (false, _) | (true, 0) => Time { seconds, nanoseconds },
        (true, _) => Time { seconds: seconds.saturating_sub(1), nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

/// The name of an extended attribute in a keyword: GNU tar writes `=` and `%` of it as `%3D` and `%25`.
pub fn attribute(name: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&byte, after)) = rest.split_first() {
        if rest.starts_with(b"%3D") {
            plain.push(b'=');
            rest = &rest[3..];
        } else if rest.starts_with(b"%25") {
            plain.push(b'%');
            rest = &rest[3..];
        } else {
            plain.push(byte);
            rest = after;
        }
    }
    plain
}

/// Appends a record; its length counts its own digits.
pub fn append(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + 3;
    let mut len = body + 1;
    while body + digits(len) != len {
        len = body + digits(len);
    }
    records.extend_from_slice(len.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn digits(n: usize) -> usize {
    n.to_string().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_written() {
        let mut all = Vec::new();
        for len in [0, 1, 2, 3, 85, 86, 87, 88, 89, 90, 91, 92, 93, 985, 986, 987, 988, 989, 990, 9984, 9985]
        {
            let value = vec![b'\n'; len];
            let mut one = Vec::new();
            append(&mut one, b"path", &value);
            let (record, rest) = first(&one).unwrap();
            assert_eq!((record.value, rest), (&value[..], &b""[..]));
            all.extend_from_slice(&one);
        }
        assert!(first(&all).unwrap().1.starts_with(b"9 path=\n\n"));
    }

    #[test]
    fn broken_records_are_refused() {
        for text in [
            &b"path=x\n"[..],
            b"9 path=x",
            b"11 path=x\n",
            b"8 path=x\n",
            b"9 pathxx\n",
            b"0 path=x\n",
            b"-9 path=x\n",
            b"18446744073709551625 path=x\n",
            b"4 =x\n",
            b"3 \n",
            b"2 ",
            b"",
            b" path=x\n",
            b"0x9 path=x\n",
        ] {
            assert!(first(text).is_err(), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn times_have_fractions_and_signs() {
        let at = |seconds, nanoseconds| Some(Time { seconds, nanoseconds });
        for (text, time_of) in [
            ("1350244992.023960108", at(1350244992, 23960108)),
            ("1", at(1, 0)),
            ("1.5", at(1, 500_000_000)),
            (".5", at(0, 500_000_000)),
            ("-1.5", at(-2, 500_000_000)),
            ("-1", at(-1, 0)),
            ("1.9999999999", at(1, 999_999_999)),
            ("99999999999999999999", at(i64::MAX, 0)),
            ("-9223372036854775808", at(i64::MIN, 0)),
            ("-99999999999999999999", at(i64::MIN, 0)),
            ("", None),
            ("1e9", None),
            (".", None),
            ("nan", None),
            ("--1", None),
            ("1.5.5", None),
        ] {
            assert_eq!(time(text.as_bytes()), time_of, "{text}");
        }
    }
}
