//! `rcrun info`: what this machine offers containers, for a person to read. What it lacks is `doctor`'s to tell. Uses: output,
//! version.

use std::fs;
use std::path::Path;

use rcrun_runtime::cgroup::Hierarchy;
use rcrun_runtime::compile::CAPABILITIES;
use rcrun_runtime::features::SPEC;
use rcrun_runtime::host::Host;
use rcrun_runtime::{Result, sys};

use crate::{ExitCode, output, version};

/// Namespaces: the word of config.json, and that of /proc/PID/ns and of /proc/sys/user.
const NAMESPACES: [(&str, &str); 8] = [
    ("mount", "mnt"),
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("user", "user"),
    ("cgroup", "cgroup"),
    ("time", "time"),
];

/// Where a line of many words is broken.
const WIDTH: usize = 100;

/// A name and what there is of it; what is below another has blanks before it.
type Row = (String, String);

/// `rcrun info`
#[inline(never)]
pub fn run() -> Result<ExitCode> {
    let mut rows = Vec::new();
    rows.extend(program());
    rows.extend(machine());
    rows.extend(cgroups());
    rows.extend(namespaces());
    rows.extend(confinement());
    output::print(table(&rows))?;
    Ok(ExitCode::SUCCESS)
}

fn row(name: &str, value: impl Into<String>) -> Row {
    (name.to_string(), value.into())
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_string())
}

fn program() -> Vec<Row> {
    vec![row("Version", env!("CARGO_PKG_VERSION")), row("Commit", version::COMMIT), row("Runtime spec", SPEC)]
}

fn machine() -> Vec<Row> {
    let uname = rustix::system::uname();
    let shown = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let files = ["/etc/os-release", "/usr/lib/os-release"];
    let system = files.into_iter().find_map(|file| system(&fs::read_to_string(file).ok()?));
    let processors = read("/sys/devices/system/cpu/online").and_then(|list| counted(&list));
    let memory = read("/proc/meminfo").and_then(|text| memory(&text));
    vec![
        row("Kernel", shown(uname.release())),
        row("Kernel build", shown(uname.version())),
        row("Architecture", shown(uname.machine())),
        row("Operating system", system.unwrap_or_else(unknown)),
        row("Processors", processors.map_or_else(unknown, |number| number.to_string())),
        row("Memory", memory.unwrap_or_else(unknown)),
    ]
}

fn unknown() -> String {
    "unknown".to_string()
}

/// The name in os-release(5), `text`.
fn system(text: &str) -> Option<String> {
    let value = |name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        let bare = found.trim().trim_matches(['"', '\'']);
        (!bare.is_empty()).then(|| output::shown(bare))
    };
    value("PRETTY_NAME").or_else(|| value("NAME"))
}

/// How many numbers a list such as `0-3,8` has.
fn counted(list: &str) -> Option<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        last.checked_sub(first).map(|more| more + 1)
    };
    list.trim().split(',').map(range).sum()
}

/// `MemTotal` of proc_meminfo(5).
fn memory(meminfo: &str) -> Option<String> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(match kib / 1024.0 / 1024.0 {
        gib if gib < 1.0 => format!("{:.0} MiB", kib / 1024.0),
        gib => format!("{gib:.1} GiB"),
    })
}

fn cgroups() -> Vec<Row> {
    let unified = Hierarchy::find().ok();
    let own = read("/proc/self/cgroup").unwrap_or_default();
    let of_v1 = controllers_of_v1(&own);
    let setup = match (&unified, of_v1.is_empty()) {
        (Some(_), true) => "v2",
        (Some(_), false) => "hybrid: v2 beside v1",
        (None, false) => "v1, which rcrun does not use",
        (None, true) => "none is mounted",
    };
    let mut rows = vec![row("Cgroups", setup)];
    if let Some(hierarchy) = &unified {
        let controllers = read(hierarchy.path().join("cgroup.controllers")).unwrap_or_default();
        rows.push(row("  v2 is mounted on", hierarchy.path().display().to_string()));
        rows.push(row("  v2 controllers", or_none(&controllers)));
    }
    if !of_v1.is_empty() {
        rows.push(row("  v1 hierarchies", of_v1.join(" ")));
    }
    rows
}

fn or_none(text: &str) -> String {
    if text.is_empty() { "none" } else { text }.to_string()
}

/// What /proc/PID/cgroup, `text`, has of v1: controllers, and hierarchies with a name and none (cgroups(7)).
fn controllers_of_v1(text: &str) -> Vec<&str> {
    let listed = text.lines().filter_map(|line| line.split(':').nth(1));
    listed.filter(|names| !names.is_empty()).flat_map(|names| names.split(',')).collect()
}

fn namespaces() -> Vec<Row> {
    let mut rows = vec![row("Namespaces", "")];
    for (word, short) in NAMESPACES {
        let there = Path::new("/proc/self/ns").join(short).exists();
        let most = read(format!("/proc/sys/user/max_{short}_namespaces"));
        // Debian's and Ubuntu's own, where the kernel has it.
        let root_only =
            word == "user" && read("/proc/sys/kernel/unprivileged_userns_clone").is_some_and(|on| on == "0");
        rows.push(row(&format!("  {word}"), state(there, most.as_deref(), root_only)));
    }
    rows
}

/// What is told of one kind of namespace; `most` is the sysctl with its limit.
fn state(there: bool, most: Option<&str>, root_only: bool) -> String {
    match (there, most) {
        (false, _) => "not in this kernel".to_string(),
        (true, Some("0")) => "disabled: the sysctl allows none".to_string(),
        (true, Some(_)) if root_only => "for root only".to_string(),
        (true, Some(most)) => format!("enabled, at most {most}"),
        (true, None) => "enabled".to_string(),
    }
}

fn confinement() -> Vec<Row> {
    let seccomp = read("/proc/sys/kernel/seccomp/actions_avail");
    let landlock = match sys::probe::landlock() {
        Ok(version) => format!("version {version}"),
        Err(_) => "not in this kernel, or not enabled".to_string(),
    };
    let mut rows = vec![
        row("Capabilities", Host::read().map_or_else(|e| e.to_string(), |host| capabilities(&host))),
        row("Seccomp actions", seccomp.unwrap_or_else(|| "not in this kernel".to_string())),
        row("Landlock", landlock),
    ];
    if let Some(modules) = read("/sys/kernel/security/lsm").filter(|text| !text.is_empty()) {
        rows.push(row("Security modules", modules.replace(',', " ")));
    }
    rows
}

/// What can be given to a container here: the bounding set of rcrun itself.
fn capabilities(host: &Host) -> String {
    let known = (0u32..).zip(CAPABILITIES).take_while(|(number, _)| *number <= host.last_cap);
    let (there, not): (Vec<_>, Vec<_>) = known.partition(|(number, _)| host.bounding & 1 << number != 0);
    let all = there.len() + not.len();
    let names = |list: &[(u32, oci_spec::runtime::Capability)]| {
        list.iter().map(|(_, capability)| format!("CAP_{capability}")).collect::<Vec<_>>().join(" ")
    };
    match (there.len(), not.len()) {
        (_, 0) => format!("all {all}"),
        (0, _) => format!("none of {all}"),
        (some, few) if few <= some => format!("{some} of {all}, without {}", names(&not)),
        (some, _) => format!("{some} of {all}: {}", names(&there)),
    }
}

/// Names, and behind them, all at one column, what there is.
fn table(rows: &[Row]) -> String {
    let column = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    let mut text = String::new();
    for (name, value) in rows {
        let mut line = format!("{name:<column$}");
        let mut begun = false;
        for word in value.split_whitespace() {
            if begun && line.len() + 1 + word.len() > WIDTH {
                text += &format!("{}\n", line.trim_end());
                line = " ".repeat(column);
                begun = false;
            }
            if begun {
                line.push(' ');
            }
            line += word;
            begun = true;
        }
        text += &format!("{}\n", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_values_begin_at_one_column_and_long_ones_go_on_there() {
        let long = ["word"; 30].join(" ");
        let text = table(&[row("Name", "one"), row("  longer", long), row("Nothing", "")]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "Name      one");
        assert!(lines[1].starts_with("  longer  word word"), "{text}");
        assert!(lines[2].starts_with("          word"), "{text}");
        assert_eq!(lines.last(), Some(&"Nothing"));
        assert!(lines.iter().all(|line| line.len() <= WIDTH && *line == line.trim_end()), "{text}");
        assert_eq!(text.matches("word").count(), 30);
    }

    #[test]
    fn figures_are_read_as_the_kernel_writes_them() {
        for (list, expected) in
            [("0", Some(1)), ("0-3", Some(4)), ("0-3,8,10-11\n", Some(7)), ("", None), ("3-1", None)]
        {
            assert_eq!(counted(list), expected, "{list:?}");
        }
        for (text, expected) in [
            ("MemTotal:       24689764 kB\nMemFree: 1 kB\n", Some("23.5 GiB")),
            ("MemTotal: 524288 kB\n", Some("512 MiB")),
            ("MemFree: 1 kB\n", None),
        ] {
            assert_eq!(memory(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn the_operating_system_has_the_name_that_it_gives_itself() {
        for (text, expected) in [
            ("NAME=\"Debian GNU/Linux\"\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n", Some("Debian GNU/Linux 12")),
            ("NAME=Alpine\nID=alpine\n", Some("Alpine")),
            ("PRETTY_NAME=\"\"\nID=x\n", None),
            ("PRETTY_NAME='a\u{1b}[2J'\n", Some("a\\u{1b}[2J")),
        ] {
            assert_eq!(system(text).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn controllers_of_v1_are_those_in_hierarchies_with_a_number() {
        assert_eq!(
            controllers_of_v1("4:cpu,cpuacct:/a\n2:name=systemd:/\n0::/b\n"),
            ["cpu", "cpuacct", "name=systemd"]
        );
        assert!(controllers_of_v1("0::/\n").is_empty());
    }

    #[test]
    fn a_namespace_is_there_forbidden_or_missing() {
        for (there, most, root_only, expected) in [
            (true, Some("31000"), false, "enabled, at most 31000"),
            (true, Some("31000"), true, "for root only"),
            (true, Some("0"), false, "disabled: the sysctl allows none"),
            (true, None, false, "enabled"),
            (false, None, false, "not in this kernel"),
        ] {
            assert_eq!(state(there, most, root_only), expected);
        }
    }

    #[test]
    fn of_capabilities_the_shorter_list_is_told() {
        let host = Host::read().unwrap();
        let with = |bounding| capabilities(&Host { last_cap: 2, bounding, ..host.clone() });
        assert_eq!(with(0b111), "all 3");
        assert_eq!(with(0), "none of 3");
        assert_eq!(with(0b110), "2 of 3, without CAP_CHOWN");
        assert_eq!(with(0b001), "1 of 3: CAP_CHOWN");
    }
}
