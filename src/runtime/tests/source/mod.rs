//! Rust source as words, without comments, strings and tests: enough to see what a file names. Uses: std.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of the workspace.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace is there")
}

/// The files of the tree that git knows, below the workspace's folder.
pub fn files() -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(top())
        .output()
        .expect("execute git");
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("names are UTF-8");
    // A file that was removed and not yet committed is listed.
    let files: Vec<PathBuf> =
        names.split_terminator('\0').map(PathBuf::from).filter(|f| top().join(f).is_file()).collect();
    assert!(files.len() > 100, "git lists {} files: this is not the tree", files.len());
    files
}

/// The words of a source: names and single marks, `::` as one.
pub fn words(source: &str) -> Vec<String> {
    let text: Vec<char> = source.chars().collect();
    let at = |i: usize| text.get(i).copied().unwrap_or('\0');
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut words = Vec::new();
    let mut i = 0;
    while i < text.len() {
        match (at(i), at(i + 1)) {
            ('/', '/') => {
                while i < text.len() && at(i) != '\n' {
                    i += 1;
                }
            }
            ('/', '*') => {
                let mut depth = 0;
                loop {
                    match (at(i), at(i + 1)) {
                        ('/', '*') => (depth, i) = (depth + 1, i + 2),
                        ('*', '/') => (depth, i) = (depth - 1, i + 2),
                        _ => i += 1,
                    }
                    if depth == 0 || i >= text.len() {
                        break;
                    }
                }
            }
            ('"', _) => i = after_string(&text, i),
            // A character, and not the lifetime that starts like one.
            ('\'', '\\') => {
                i = (i + 3..text.len()).find(|i| at(*i) == '\'').map_or(text.len(), |end| end + 1)
            }
            ('\'', _) if at(i + 2) == '\'' => i += 3,
            ('r', '"' | '#') | ('b' | 'c', 'r') if raw_string(&text, i).is_some() => {
                i = raw_string(&text, i).unwrap_or(text.len());
            }
            (':', ':') => {
                words.push("::".to_string());
                i += 2;
            }
            (c, _) if is_name(c) => {
                let end = (i..text.len()).find(|i| !is_name(at(*i))).unwrap_or(text.len());
                words.push(text[i..end].iter().collect());
                i = end;
            }
            (c, _) => {
                if !c.is_whitespace() {
                    words.push(c.to_string());
                }
                i += 1;
            }
        }
    }
    words
}

fn after_string(text: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while i < text.len() && text[i] != '"' {
        i += if text[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// Where a raw string that starts here ends; None if none starts.
fn raw_string(text: &[char], start: usize) -> Option<usize> {
    let r = (start..).find(|i| text.get(*i) != Some(&'b') && text.get(*i) != Some(&'c'))?;
    let hashes = text[r + 1..].iter().take_while(|c| **c == '#').count();
    if text.get(r) != Some(&'r') || text.get(r + 1 + hashes) != Some(&'"') {
        return None;
    }
    let closes =
        |i: &usize| text[*i] == '"' && text[i + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
    Some((r + 2 + hashes..text.len()).find(closes).map_or(text.len(), |end| end + 1 + hashes))
}

/// `words` without the items that only tests have.
pub fn without_tests(words: &[String]) -> Vec<String> {
    const TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut left = Vec::new();
    let mut i = 0;
    while i < words.len() {
        if words[i..].iter().map(String::as_str).take(TEST.len()).ne(TEST) {
            left.push(words[i].clone());
            i += 1;
            continue;
        }
        // The item ends with a semicolon, or with the brace that closes its first one.
        let mut depth = 0;
        while i < words.len() {
            match words[i].as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            i += 1;
            if depth == 0 && matches!(words[i - 1].as_str(), ";" | "}") {
                break;
            }
        }
    }
    left
}

/// What follows `from::` wherever it stands: the names one step below, of lists too.
pub fn below(words: &[String], from: &[&str]) -> Vec<String> {
    let mut names = Vec::new();
    for i in 0..words.len() {
        let starts = words[i..].iter().map(String::as_str).take(from.len()).eq(from.iter().copied());
        let goes_on_from_elsewhere = i > 0 && words[i - 1] == "::";
        if !starts || goes_on_from_elsewhere || words.get(i + from.len()).is_none_or(|w| w != "::") {
            continue;
        }
        let rest = &words[i + from.len() + 1..];
        if rest.first().is_none_or(|w| w != "{") {
            names.extend(rest.first().cloned());
            continue;
        }
        let (mut depth, mut first) = (0, false);
        for word in rest {
            match word.as_str() {
                "{" => (depth, first) = (depth + 1, depth == 0),
                "}" => depth -= 1,
                "," => first = depth == 1,
                name if first => {
                    names.push(name.to_string());
                    first = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    names
}

/// `spec/mod.rs` and `spec.rs` are `spec`, `spec/id.rs` is `spec::id`.
pub fn path_of(file: &Path) -> Vec<String> {
    let mut path: Vec<String> =
        file.with_extension("").iter().map(|part| part.to_str().expect("UTF-8").to_string()).collect();
    path.pop_if(|last| last == "mod");
    path
}

/// The modules of its crate that a source names, by `crate::` or from itself upwards.
pub fn modules(words: &[String], path: &[String]) -> Vec<String> {
    let up: Vec<&str> = std::iter::repeat_n(["super", "::"], path.len()).flatten().collect();
    let mut named = below(words, &["crate"]);
    named.extend(below(words, &up[..up.len() - 1]));
    named
}

/// The modules of a table that use each other in a circle: none if the table can be put in an order in which everything
/// uses only what stands before it.
pub fn circle<'a>(uses: &[(&'a str, &[&str])]) -> Vec<&'a str> {
    let mut left = uses.to_vec();
    loop {
        let names: Vec<&str> = left.iter().map(|(name, _)| *name).collect();
        left.retain(|(_, uses)| uses.iter().any(|name| names.contains(name)));
        if left.len() == names.len() {
            return names;
        }
    }
}
