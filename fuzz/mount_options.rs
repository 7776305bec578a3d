//! Words as the options of a mount: the first line of the input is the type, each other line an option. Uses:
//! rcrun_runtime's spec and compile, rcrun_plan, sentence.
//!
//! What holds: no attribute is set and cleared at once, but for the access time, whose modes are cleared before one is
//! set; attributes are those of mount_setattr(2); the last of `ro` and `rw` counts; what rcrun knows no word for goes to
//! the file system, in order, and nothing else does; a mount with these options compiles, or is refused by a sentence that
//! names it.

use std::path::Path;

use rcrun_plan::{Step, text::Text};
use rcrun_runtime::compile::{self, Request};
use rcrun_runtime::host::{Arch, Caller, Host};
use rcrun_runtime::spec;
use rcrun_runtime::spec::mount::{self, MountOptions};
use serde_json::json;

use crate::sentence;

/// MOUNT_ATTR_RDONLY.
const READ_ONLY: u64 = 0x1;
/// MOUNT_ATTR__ATIME.
const ACCESS_TIME: u64 = 0x70;
/// RDONLY NOSUID NODEV NOEXEC, the access time, NODIRATIME, NOSYMFOLLOW.
const ATTRIBUTES: u64 = 0xf | ACCESS_TIME | 0x80 | 0x0020_0000;

const HOST: Host = Host {
    kernel: (6, 8),
    last_cap: 40,
    bounding: (1 << 41) - 1,
    arch: Arch::X86_64,
    apparmor: false,
    selinux: false,
    caller: Caller::ROOT,
};

/// Panics if the property does not hold for `input`.
pub fn holds(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut lines = text.split('\n');
    let kind = lines.next().unwrap_or_default();
    let words: Vec<String> = lines.map(str::to_string).collect();
    let options = MountOptions::parse(kind, &words);
    for (set, clear) in
        [(options.attr_set, options.attr_clear), (options.rec_attr_set, options.rec_attr_clear)]
    {
        assert_eq!(set & clear & !ACCESS_TIME, 0, "{words:?}: {options:?}");
        assert_eq!((set | clear) & !ATTRIBUTES, 0, "{words:?}: {options:?}");
        assert!(set & ACCESS_TIME == 0 || clear & ACCESS_TIME == ACCESS_TIME, "{words:?}: {options:?}");
    }
    let is = |name: &'static str| move |word: &&String| **word == name;
    if let Some(last) = words.iter().rfind(|word| is("ro")(word) || is("rw")(word)) {
        assert_eq!(options.attr_set & READ_ONLY != 0, last == "ro", "{words:?}: {options:?}");
    }
    assert_eq!(options.remount, words.iter().any(|word| word == "remount"), "{words:?}");
    let known: Vec<&str> = mount::names().collect();
    // ext4's own name for what `iversion` and `noiversion` say: the last of the three counts.
    let versions = |word: &str| kind == "ext4" && word == "i_version";
    // What is nobody's word, as one text: mount(2) would hand it over like that.
    let left: String =
        words.iter().map(String::as_str).filter(|word| !known.contains(word) && !versions(word)).collect();
    let handed: String = options
        .superblock
        .iter()
        .filter(|(key, value)| value.is_some() || !known.contains(&key.as_str()) && !versions(key))
        .map(|(key, value)| format!("{key}{}", value.as_deref().unwrap_or_default()))
        .collect();
    // Commas and quotes are mount(2)'s; a `=` stands between key and value.
    let letters = |text: &str| text.chars().filter(|c| !matches!(c, ',' | '=' | '"')).collect::<String>();
    let words_in_words = words.iter().any(|word| word.contains(',') && !known.contains(&word.as_str()));
    if !words_in_words {
        assert_eq!(letters(&handed), letters(&left), "{words:?}: {options:?}");
        let version = |word: &&String| matches!(word.as_str(), "iversion" | "noiversion") || versions(word);
        if let Some(last) = words.iter().rfind(version) {
            let counted = options.superblock.iter().any(|(key, value)| versions(key) && value.is_none());
            assert_eq!(counted, kind == "ext4" && last != "noiversion", "{words:?}: {options:?}");
        }
    }
    compiles(kind, &words);
}

fn compiles(kind: &str, words: &[String]) {
    let config = json!({
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "process": {"cwd": "/", "args": ["x"], "user": {"uid": 0, "gid": 0}},
        "mounts": [{"destination": "/m", "type": kind, "source": "/s", "options": words}],
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]},
    });
    let spec = match spec::parse(config.to_string().as_bytes()) {
        Ok(spec) => spec,
        Err(error) => return of_the_mount(&error),
    };
    let plan = match compile::start(&spec, &HOST, &Request::create("web", Path::new("/bundle"))) {
        Ok(plan) => plan,
        Err(error) => return of_the_mount(&error),
    };
    for planned in &plan.steps {
        match &planned.step {
            Step::FsString { key: Text(key), value: Text(value) } => {
                let fits = |text: &str| text.len() < 256 && !text.contains('\0');
                assert!(fits(key) && fits(value), "{:?} of {words:?}", planned.step);
            }
            Step::Attributes { set, clear, .. } => {
                let both = set & clear & !ACCESS_TIME;
                assert_eq!(both | ((set | clear) & !ATTRIBUTES), 0, "{:?} of {words:?}", planned.step);
            }
            _ => {}
        }
    }
}

fn of_the_mount(error: &rcrun_runtime::Error) {
    sentence::is_one(error);
    assert!(error.pointer().is_some_and(|pointer| pointer.starts_with("/mounts/0")), "{error}");
}
