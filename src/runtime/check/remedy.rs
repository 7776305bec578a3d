//! What to do about a refusal whose sentence does not say it: by its words, and by its place in config.json. Pure.
//! Uses: nearest.

use super::nearest::nearest;

/// Words of a sentence, and what helps. The first that is found counts.
const BY_WORDS: [(&str, &str); 45] = [
    ("as the kernel wants it (capset)", "add it there, or take it out here"),
    ("not valid JSON", "mend the text at that place: `python3 -m json.tool config.json` shows it too"),
    (
        "not found in",
        "`rcrun spec` writes a config.json to start from; the bundle is the folder that holds it",
    ),
    ("no such file or directory", "make it, or mend the path"),
    ("is there twice", "take one of the two out"),
    ("NUL character", "take the \\u0000 out: the kernel's strings end there"),
    ("is required", "add the field"),
    (
        "must be specified",
        "add {\"path\": \"rootfs\"}: the folder, below the bundle, that becomes / of the container",
    ),
    ("nothing to start", "add a process with args, cwd and user; `create` alone works without"),
    ("expected a string", "write it in double quotes"),
    ("expected path string", "write it in double quotes"),
    ("expected a boolean", "write true or false, without quotes"),
    ("expected a sequence", "write a list: [ ... ]"),
    ("expected a map", "write an object: { ... }"),
    ("expected struct", "write an object: { ... }"),
    ("expected i", "write a whole number, without quotes or a unit"),
    ("expected u", "write a whole number of 0 or more, without quotes or a unit"),
    ("expected f", "write a number, without quotes or a unit"),
    ("must be an absolute path", "begin it with /"),
    ("no absolute path", "begin it with /"),
    ("may not be empty", "fill it in, or take it out"),
    ("must not be empty", "fill it in: at least one entry"),
    ("is empty", "fill it in, or take it out"),
    ("is no name of", "use another name: short, without / : % and spaces"),
    ("private UTS namespace", "add {\"type\": \"uts\"} to /linux/namespaces, or take the field out"),
    ("private MNT namespace", "add {\"type\": \"mount\"} to /linux/namespaces, or take the list out"),
    ("needs a mount namespace", "add {\"type\": \"mount\"} to /linux/namespaces"),
    ("needs a network namespace", "add {\"type\": \"network\"} to /linux/namespaces"),
    ("hosts ipc namespace", "add {\"type\": \"ipc\"} to /linux/namespaces, or take it out"),
    ("host network namespace", "add {\"type\": \"network\"} to /linux/namespaces, or take it out"),
    ("no new time namespace", "add {\"type\": \"time\"} to /linux/namespaces, or take the offsets out"),
    (
        "USER namespace isn't enabled",
        "add {\"type\": \"user\"} to /linux/namespaces, or take the mappings out",
    ),
    ("mappings found", "add one such as {\"containerID\": 0, \"hostID\": 100000, \"size\": 65536}"),
    ("is not mapped", "map it, or choose an id that is mapped"),
    ("overlaps", "let each id stand in one mapping only"),
    ("Linux containers only", "take it out, or run the bundle on the system it was made for"),
    ("field of Windows containers", "take it out"),
    ("is a limit of cgroup v1", "take it out: cgroup v2 has no such limit"),
    ("not available: ", "take the limit out, or give this machine the controller (`rcrun doctor` tells how)"),
    ("too long", "make it shorter"),
    ("bytes long", "make it shorter"),
    ("are allowed", "use fewer of them"),
    ("cannot be granted", "take it out, or run rcrun with it"),
    ("of whoever calls rcrun stay", "take the groups out, or the annotation"),
    ("names no file", "name one, or take it out"),
];

/// Places, with `*` for any one token, and what helps there.
const BY_PLACE: [(&str, &str); 32] = [
    ("/ociVersion", "write \"1.3.0\", or the 1.x that the config was made for"),
    ("/root/*", "name a folder below the bundle, such as \"rootfs\""),
    ("/process/env/*", "write it as NAME=value"),
    ("/process/args/0", "begin with the program: a path, or a name that PATH finds"),
    ("/process/rlimits/*/*", "name each limit once, and let soft be at most hard"),
    ("/process/oomScoreAdj", "take a number from -1000 (never killed) to 1000 (killed first)"),
    ("/process/user/*", "take a number that is mapped and is not 4294967295"),
    ("/process/user/additionalGids/*", "take a group number other than 4294967295"),
    ("/process/capabilities/*", "mend its name (capabilities(7) lists them), or take it out"),
    ("/process/capabilities", "take it out, or run rcrun with it"),
    ("/process/scheduler/*", "see sched(7) for what the policy takes"),
    ("/process/ioPriority/*", "take a level from 0 (first) to 7 (last)"),
    ("/process/execCPUAffinity/*", "write a list such as 0-3,7"),
    ("/process/consoleSize/*", "take a number of lines or columns up to 65535"),
    ("/mounts", "add {\"type\": \"mount\"} to /linux/namespaces, or take the mounts out"),
    ("/mounts/*/type", "write the type of a file system, or \"bind\" for a folder of the machine"),
    ("/mounts/*/source", "name the file or folder of the machine"),
    ("/mounts/*/destination", "mount elsewhere: below /proc only a few files may be covered"),
    ("/mounts/*/options/*", "see mount(8) for the options, or take it out"),
    ("/mounts/*/options", "give the option to the mount that makes the file system"),
    ("/mounts/*/uidMappings", "give both uidMappings and gidMappings, or neither"),
    ("/mounts/*/gidMappings", "give both uidMappings and gidMappings, or neither"),
    ("/hooks/*/*/timeout", "give it a number of seconds from 1 on, or take it out: then there is no limit"),
    (
        "/linux/namespaces/*/type",
        "one of pid, network, mount, ipc, uts, user, cgroup, time, each at most once",
    ),
    ("/linux/sysctl/*", "take it out: only what belongs to the container's own namespaces can be set"),
    ("/linux/timeOffsets/*", "give offsets to \"monotonic\" or \"boottime\""),
    (
        "/linux/rootfsPropagation",
        "one of shared, slave, private, unbindable, or the same with an r before it",
    ),
    ("/linux/cgroupsPath", "write a path such as /containers/web, or with systemd SLICE:PREFIX:NAME"),
    ("/linux/memoryPolicy/nodes", "write a list of nodes such as 0-1, where the mode takes some"),
    ("/linux/memoryPolicy/flags", "keep one of the two"),
    ("/linux/personality/flags/*", "take the flags out"),
    ("/annotations/*", "mend the value: see docs/spec-conformance.md"),
];

/// What helps where nothing better is known, by the beginning of the place.
const BY_PART: [(&str, &str); 6] = [
    ("/linux/resources/devices", "see /linux/resources/devices in config-linux.md of the runtime spec"),
    ("/linux/devices", "see mknod(1) for types and numbers; `ls -l /dev` shows those of the machine"),
    ("/linux/resources", "mend the number, or take the limit out"),
    ("/linux/seccomp", "mend the rule, or take it out"),
    ("/linux/intelRdt", "see resctrl in the kernel's documentation for what a schema looks like"),
    ("/linux", "mend the value, or take it out"),
];

/// What to do about the refusal `message` of what stands at `pointer`.
pub(super) fn of(pointer: &str, message: &str) -> Option<String> {
    if let Some(remedy) = variant(message) {
        return Some(remedy);
    }
    let words = BY_WORDS.iter().find(|(words, _)| message.contains(words));
    let place = || BY_PLACE.iter().find(|(place, _)| is_at(place, pointer));
    let part = || BY_PART.iter().find(|(part, _)| pointer.starts_with(part));
    words.or_else(place).or_else(part).map(|(_, remedy)| remedy.to_string())
}

fn is_at(place: &str, pointer: &str) -> bool {
    let (mut tokens, mut names) = (place.split('/'), pointer.split('/'));
    loop {
        match (tokens.next(), names.next()) {
            (None, None) => return true,
            (Some(token), Some(name)) if token == "*" || token == name => {}
            _ => return false,
        }
    }
}

/// serde's "unknown variant `x`, expected one of `a`, `b`": the one that was meant.
fn variant(message: &str) -> Option<String> {
    let rest = message.strip_prefix("unknown variant `")?;
    let (word, rest) = rest.split_once('`')?;
    let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    Some(match nearest(word, &known) {
        Some(meant) => format!("did you mean {meant:?}?"),
        None => format!("write one of {}", known.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_is_found_by_words_then_by_place() {
        for (pointer, message, expected) in [
            (
                "/linux/namespaces/0/type",
                "unknown variant `pids`, expected one of `mount`, `pid`",
                "did you mean \"pid\"?",
            ),
            ("/linux/x", "unknown variant `q`, expected `abc` or `def`", "write one of abc, def"),
            ("/hostname", "unable to set hostname without a private UTS namespace", "{\"type\": \"uts\"}"),
            (
                "/process/user/additionalGids",
                "no effect: by the annotation x the groups of whoever calls rcrun stay",
                "or the annotation",
            ),
            ("/annotations/run.oci.hooks.stdout", "names no file", "name one"),
            ("/process/env/3", "invalid environment variable: missing '='", "NAME=value"),
            ("/linux/seccomp/syscalls/0/args/1/index", "9 is more than 5", "mend the rule"),
        ] {
            let remedy = of(pointer, message).unwrap_or_default();
            assert!(remedy.contains(expected), "{pointer}: {remedy}");
        }
        assert_eq!(of("/nowhere", "says nothing"), None);
    }
}
