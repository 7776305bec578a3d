//! Amounts as Docker writes them: `--memory 512m`, `--cpus 1.5`. Pure. Uses: error.

use crate::error::{Code, Error, Result};

/// The time within which a quota of [`Cpus`] is used, in microseconds.
const PERIOD: u64 = 100_000;

/// Nanoseconds of CPU time a second: the precision of `--cpus`.
const NANO: u64 = 1_000_000_000;

/// Bytes: a number, with a fraction or not, and b, k, m, g, t or p in either case, as `kb` or `kib` too; always by 1024.
/// Zero is no limit.
pub fn memory(text: &str) -> Result<u64> {
    bytes("--memory", text)
}

/// The same of another option.
pub fn bytes(option: &str, text: &str) -> Result<u64> {
    let usage = |why: &str| Error::new(Code::Usage, format!("{option} {text:?}: {why}"));
    let not = || usage("not an amount of memory such as 512m or 1.5g");
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return Err(not()),
    };
    let (whole, fraction) = decimal(digits).ok_or_else(not)?;
    let scale = 1_u128 << (10 * power);
    let bytes = u128::from(whole) * scale + u128::from(fraction) * scale / u128::from(NANO);
    // cgroups count in an i64.
    u64::try_from(bytes)
        .ok()
        .filter(|n| i64::try_from(*n).is_ok())
        .ok_or_else(|| usage("more than there can be"))
}

/// `12.5` as whole and billionths. More digits than that are cut off.
fn decimal(text: &str) -> Option<(u64, u64)> {
    if text.is_empty() {
        return None;
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // Go, and with it Docker, takes `.5`.
    let whole = if whole.is_empty() { "0" } else { whole };
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let nine: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    Some((whole.parse().ok()?, nine.parse().ok()?))
}

/// A share of the machine's processors: `--cpus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpus {
    /// Microseconds of CPU time in each period.
    pub quota: u64,
    /// The length of a period in microseconds.
    pub period: u64,
}

impl Cpus {
    /// `1.5`, of at least a hundredth. Zero is no limit.
    pub fn parse(text: &str) -> Result<Option<Cpus>> {
        let usage = |why: &str| Error::new(Code::Usage, format!("--cpus {text:?}: {why}"));
        let (whole, fraction) =
            decimal(text).ok_or_else(|| usage("not a number of processors such as 2 or 0.5"))?;
        if text.split_once('.').is_some_and(|(_, fraction)| fraction.len() > 9) {
            return Err(usage("more exact than a billionth"));
        }
        let nano = whole
            .checked_mul(NANO)
            .and_then(|n| n.checked_add(fraction))
            .filter(|n| *n <= i64::MAX as u64)
            .ok_or_else(|| usage("more than there can be"))?;
        if nano == 0 {
            return Ok(None);
        }
        // The kernel takes no quota below a millisecond.
        if nano < NANO / 100 {
            return Err(usage("less than 0.01, the least that the kernel can grant"));
        }
        let quota = (u128::from(nano) * u128::from(PERIOD) / u128::from(NANO)) as u64;
        Ok(Some(Cpus { quota, period: PERIOD }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_docker_reads_it() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("100b", 100),
            ("512k", 512 << 10),
            ("512K", 512 << 10),
            ("64m", 64 << 20),
            ("64M", 64 << 20),
            ("64mb", 64 << 20),
            ("64MiB", 64 << 20),
            ("64 MB", 64 << 20),
            ("1.5g", 3 << 29),
            ("0.5k", 512),
            (".5k", 512),
            ("2t", 2 << 40),
            ("1p", 1 << 50),
            ("9223372036854775807", i64::MAX as u64),
        ] {
            assert_eq!(memory(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "m", "-1", "+1", "1x", "1mm", "1m ", " 1m", "1..5m", "1.m", "0x10", "1e3", "1  m"] {
            let error = memory(text).unwrap_err().to_string();
            assert!(error.ends_with("not an amount of memory such as 512m or 1.5g"), "{error}");
        }
        for text in ["9223372036854775808", "18446744073709551615", "999999999p"] {
            assert!(memory(text).unwrap_err().to_string().ends_with("more than there can be"), "{text}");
        }
    }

    #[test]
    fn cpus_become_a_quota_of_a_tenth_of_a_second() {
        for (text, quota) in [
            ("1", 100_000),
            ("1.5", 150_000),
            ("0.01", 1_000),
            (".5", 50_000),
            ("0.333333333", 33_333),
            ("128", 12_800_000),
        ] {
            assert_eq!(Cpus::parse(text).unwrap(), Some(Cpus { quota, period: 100_000 }), "{text}");
        }
        assert_eq!(Cpus::parse("0").unwrap(), None);
        for (text, why) in [
            ("", "not a number"),
            ("-1", "not a number"),
            ("1,5", "not a number"),
            ("two", "not a number"),
            ("0.009", "less than 0.01"),
            ("0.0000000001", "more exact"),
            ("99999999999", "more than there can be"),
            ("99999999999999999999", "not a number"),
        ] {
            let error = Cpus::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
