//! Sentences for a page: the same in every run, and no mark of Markdown's. Pure.

/// A sentence as the page has it at most: somebody's mebibyte is none.
const LONGEST: usize = 420;

/// Numbers of processes and of inodes are no two times the same: `/proc/4711` becomes `/proc/PID`.
pub fn plain(text: &str) -> String {
    let mut out = String::new();
    for line in text.split('\n') {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(line.trim());
    }
    for (before, word) in [
        ("/proc/", "PID"),
        ("pid ", "PID"),
        ("process ", "PID"),
        ("child ", "PID"),
        ("pid=", "PID"),
        (":[", "INODE"),
        ("/fd/", "FD"),
        (".tmp-", "N"),
    ] {
        out = numbers(&out, before, word);
    }
    let letters: Vec<char> = out.trim().chars().collect();
    match letters.len() {
        0..=LONGEST => letters.into_iter().collect(),
        all => letters[..LONGEST - 100].iter().chain(&['…']).chain(&letters[all - 100..]).collect(),
    }
}

fn numbers(text: &str, before: &str, word: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(before) {
        let (head, tail) = rest.split_at(at + before.len());
        out.push_str(head);
        let digits = tail.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 {
            out.push_str(word);
        }
        rest = &tail[digits..];
    }
    out + rest
}

/// A sentence in a cell of a table.
pub fn cell(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' | '~' => out.extend(['\\', c]),
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_run_to_run_is_made_the_same() {
        for (text, expected) in [
            ("open /proc/4711/ns/net: x", "open /proc/PID/ns/net: x"),
            ("/proc/self/fd/7", "/proc/self/fd/FD"),
            ("a net:[4026531840]\n b\n", "a net:[INODE] b"),
            ("/process/args/0", "/process/args/0"),
        ] {
            assert_eq!(plain(text), expected);
        }
        let long = plain(&("ä".repeat(1000) + "the end"));
        assert!(long.contains('…') && long.ends_with("the end"), "{long}");
    }

    #[test]
    fn no_mark_of_a_sentence_is_markdowns() {
        assert_eq!(cell("a|b `c` <d>_*\u{1b}"), "a\\|b \\`c\\` &lt;d>\\_\\*\\u{1b}");
    }
}
