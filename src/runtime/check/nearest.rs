//! The word that was probably meant. Pure. Uses: nothing.

/// The one of `known` that is nearest to `word`, if it is near enough to be what was meant.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    // A word of a mebibyte is nobody's slip.
    if word.len() > 64 {
        return None;
    }
    let lower = word.to_lowercase();
    let away = |name: &&&str| distance(&lower, &name.to_lowercase());
    // `net` is network, `noNewPrivs` noNewPrivileges.
    let begins = |name: &&&str| {
        let same = lower.chars().zip(name.to_lowercase().chars()).take_while(|(a, b)| a == b).count();
        same >= 3 && (same * 4 >= lower.len() * 3 || same == name.len())
    };
    let best = known.iter().min_by_key(away)?;
    if away(&best) <= 1 + word.len() / 4 {
        return Some(best);
    }
    known.iter().filter(begins).min_by_key(away).copied().or_else(|| match lower.as_str() {
        // The kernel's words for them.
        "mnt" => known.iter().find(|name| **name == "mount").copied(),
        _ => None,
    })
}

/// How many letters are put in, taken out, changed or exchanged with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = match (i, j) {
                (0, n) | (n, 0) => n,
                _ => {
                    let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    let mut least = changed.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                    if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                        least = least.min(rows[i - 2][j - 2] + 1);
                    }
                    least
                }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_what_was_meant_or_none_is() {
        let fields =
            ["readonly", "path", "args", "env", "capabilities", "noNewPrivileges", "mount", "network", "pid"];
        for (word, meant) in [
            ("readOnly", Some("readonly")),
            ("readnoly", Some("readonly")),
            ("agrs", Some("args")),
            ("arg", Some("args")),
            ("capabilites", Some("capabilities")),
            ("noNewPrivs", Some("noNewPrivileges")),
            ("mnt", Some("mount")),
            ("net", Some("network")),
            ("pids", Some("pid")),
            ("x", None),
            ("comment", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, &fields), meant, "{word:?}");
        }
        assert_eq!(nearest(&"x".repeat(1 << 20), &fields), None);
    }
}
