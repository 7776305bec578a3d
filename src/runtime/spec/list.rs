//! Lists of CPUs and memory nodes: `0-3,7`. Pure. Uses: nothing.

/// NR_CPUS of a kernel is at most this.
pub const MOST_CPUS: usize = 8192;

/// The list as bits, 64 in a word; numbers are less than `most`. Spaces and empty entries mean nothing, as for runc.
pub fn bits(text: &str, most: usize) -> Result<Vec<u64>, String> {
    let mut words = Vec::new();
    for range in text.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let number = |digits: &str| -> Result<usize, String> {
            let digits = digits.trim();
            let number = match digits.bytes().all(|b| b.is_ascii_digit()) {
                true => digits.parse::<usize>().ok(),
                false => None,
            };
            number.ok_or_else(|| format!("{range:?} is no number and no range such as 0-3"))
        };
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(range)?, number(range)?),
        };
        if last < first {
            return Err(format!("the range {range:?} ends before it begins"));
        }
        if last >= most {
            return Err(format!("{last} is too large, at most {} is possible", most - 1));
        }
        words.resize(words.len().max(last / 64 + 1), 0u64);
        (first..=last).for_each(|n| words[n / 64] |= 1 << (n % 64));
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_numbers_and_ranges_and_nothing_else() {
        for (text, expected) in [
            ("", Ok(vec![])),
            (" , ,", Ok(vec![])),
            ("0", Ok(vec![1])),
            ("0-3,7", Ok(vec![0x8f])),
            (" 1 - 2 , 64", Ok(vec![6, 1])),
            ("63-64", Ok(vec![1 << 63, 1])),
            ("127", Ok(vec![0, 1 << 63])),
            ("128", Err("128 is too large, at most 127 is possible")),
            ("3-1", Err("the range \"3-1\" ends before it begins")),
            ("a", Err("\"a\" is no number and no range such as 0-3")),
            ("1-", Err("\"1-\" is no number and no range such as 0-3")),
            ("+1", Err("\"+1\" is no number and no range such as 0-3")),
            ("1-2-3", Err("\"1-2-3\" is no number and no range such as 0-3")),
            ("99999999999999999999", Err("\"99999999999999999999\" is no number and no range such as 0-3")),
        ] {
            assert_eq!(bits(text, 128), expected.map_err(str::to_string), "{text:?}");
        }
    }
}
