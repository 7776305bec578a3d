//! What a restored container has mounted, held against config.json: images bring whatever mounts they like.

use super::external::{External, Inside, Sources};
use super::same::{CAP_SYS_ADMIN, may, more};
use crate::compile::{self, in_root};
use crate::error::CallContext;
use crate::mountinfo::{Mount, unescape};
use crate::spec::mount::MountOptions;
use crate::spec::{Namespace, Spec};
use crate::{Result, sys};
use oci_spec::runtime::LinuxNamespaceType;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Words that take something away.
const BITS: [(u64, &str); 4] = [
    (libc::MOUNT_ATTR_RDONLY, "ro"),
    (libc::MOUNT_ATTR_NOSUID, "nosuid"),
    (libc::MOUNT_ATTR_NODEV, "nodev"),
    (libc::MOUNT_ATTR_NOEXEC, "noexec"),
];

/// Fails where the mounts in `inside` are more, or less closed, than config.json says.
pub(super) fn held(inside: &Inside, sources: &Sources<'_>, rootfs: &Path) -> Result<()> {
    let spec = sources.spec;
    options(inside, spec)?;
    hidden(inside, spec)?;
    if may(spec, CAP_SYS_ADMIN) {
        return Ok(());
    }
    let text = std::fs::read("/proc/self/mountinfo").call("read /proc/self/mountinfo")?;
    let machine: Vec<Line> = text.split(|byte| *byte == b'\n').filter_map(Mount::of).map(Line::of).collect();
    let lines: Vec<Line> = inside.lines().map(Line::of).collect();
    known(&lines, &wanted(inside, sources, rootfs, &machine), &machine)
}

/// Of what config.json closes, each is.
fn options(inside: &Inside, spec: &Spec) -> Result<()> {
    let read_only = spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false);
    if read_only && !inside.options("/").is_some_and(|options| options.iter().any(|o| o == "ro")) {
        return Err(more("its root can be written, against /root/readonly"));
    }
    let entries: Vec<_> = spec.mounts().iter().flatten().filter(|entry| !compile::is_change(entry)).collect();
    for (i, entry) in entries.iter().enumerate() {
        let name = in_root(entry.destination()).0.0;
        // What a later one lies on is not what this one says.
        if entries[i + 1..].iter().any(|later| in_root(later.destination()).0.0 == name) {
            continue;
        }
        let options = MountOptions::of(entry);
        let wanted = BITS.iter().filter(|(bit, _)| (options.attr_set | options.rec_attr_set) & bit != 0);
        let its = inside.options(&format!("/{name}")).unwrap_or_default();
        for (_, word) in wanted {
            if !its.iter().any(|o| o == word) {
                return Err(more(format!("its mount on /{name} is not {word}, against /mounts")));
            }
        }
    }
    Ok(())
}

/// What is to be masked or read-only is.
fn hidden(inside: &Inside, spec: &Spec) -> Result<()> {
    let Some(linux) = spec.linux() else { return Ok(()) };
    for path in linux.masked_paths().iter().flatten() {
        let name = format!("/{}", in_root(Path::new(path)).0.0);
        if inside.exists(&name) && inside.mounted_at(&name).is_none() {
            return Err(more(format!("{name} is not masked, against /linux/maskedPaths")));
        }
    }
    for path in linux.readonly_paths().iter().flatten() {
        let name = format!("/{}", in_root(Path::new(path)).0.0);
        if inside.options(&name).is_some_and(|options| !options.iter().any(|o| o == "ro")) {
            return Err(more(format!("{name} can be written, against /linux/readonlyPaths")));
        }
    }
    Ok(())
}

/// A line of mountinfo, as far as it counts here.
#[derive(Clone, Debug)]
struct Line {
    id: u64,
    device: String,
    root: PathBuf,
    point: PathBuf,
    options: Vec<String>,
    kind: String,
}

impl Line {
    fn of(mount: Mount<'_>) -> Line {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(&unescape(bytes)));
        Line {
            id: text(mount.id).parse().unwrap_or_default(),
            device: text(mount.device),
            root: path(mount.root),
            point: path(mount.point),
            options: text(mount.options).split(',').map(str::to_string).collect(),
            kind: text(mount.kind),
        }
    }

    /// What `path`, which lies in this mount, is: the same wherever it is mounted.
    fn place(&self, path: &Path) -> Place {
        let below = path.strip_prefix(&self.point).unwrap_or(Path::new(""));
        Place { device: self.device.clone(), root: joined(&self.root, below) }
    }

    fn is_at(&self, place: &Place) -> bool {
        self.device == place.device && self.root == place.root
    }
}

/// A file or folder of a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    device: String,
    root: PathBuf,
}

/// What may be mounted at a point.
#[derive(Clone, Debug)]
enum What {
    /// A new file system of one of these types.
    FileSystem(Vec<String>),
    /// This of the machine's.
    Bind(Place),
    /// Nothing that can be read.
    Mask(Option<Place>),
    /// What lies there, once more.
    ReadOnly,
}

/// All that config.json makes.
#[derive(Debug)]
struct Wanted {
    points: BTreeMap<PathBuf, Vec<What>>,
    /// Where what is mounted below a path of the machine comes along: the point, the path, what each must be.
    recursive: Vec<(PathBuf, PathBuf, Vec<&'static str>)>,
}

fn joined(path: &Path, below: &Path) -> PathBuf {
    // join("") would end it with a slash.
    if below.as_os_str().is_empty() { path.to_path_buf() } else { path.join(below) }
}

/// Where a path of the machine lies.
fn place(path: &Path, machine: &[Line]) -> Option<(PathBuf, Place)> {
    let real = sys::path::real(path).ok()?;
    let number = super::external::mount_number(&real)?;
    let place = machine.iter().find(|line| line.id == number)?.place(&real);
    Some((real, place))
}

fn wanted(inside: &Inside, sources: &Sources<'_>, rootfs: &Path, machine: &[Line]) -> Wanted {
    let spec = sources.spec;
    let (mut points, mut along) = (BTreeMap::<PathBuf, Vec<What>>::new(), Vec::new());
    let mut bind = |point: PathBuf, source: &Path, recursive: Option<Vec<&'static str>>| {
        if let Some((real, place)) = place(source, machine) {
            points.entry(point.clone()).or_default().push(What::Bind(place));
            along.extend(recursive.map(|words| (point, real, words)));
        }
    };
    bind(PathBuf::from("/"), rootfs, Some(Vec::new()));
    let point = |name: &str| inside.mounted_at(name).map(Path::to_path_buf);
    let entries = || spec.mounts().iter().flatten().filter(|entry| !compile::is_change(entry));
    let name = |path: &Path| format!("/{}", in_root(path).0.0);
    let closed = |options: &MountOptions| -> Vec<&'static str> {
        BITS.iter().filter(|(bit, _)| options.rec_attr_set & bit != 0).map(|(_, word)| *word).collect()
    };
    let masks: Vec<String> = spec
        .linux()
        .iter()
        .flat_map(|linux| linux.masked_paths().iter().flatten())
        .map(|path| name(Path::new(path)))
        .collect();
    let externals: Vec<External> =
        sources.all().into_iter().filter(|external| !masks.contains(&external.name)).collect();
    let named = |at: &str| externals.iter().any(|external| external.name == at);
    for External { name: at, source, recursive } in &externals {
        let words = || entries().rev().find(|entry| name(entry.destination()) == *at);
        let words = || words().map(|entry| closed(&MountOptions::of(entry))).unwrap_or_default();
        if let Some(point) = point(at) {
            bind(point, source, recursive.then(words));
        }
    }
    let mut own = Vec::new();
    for (i, entry) in entries().enumerate() {
        let (options, at) = (MountOptions::of(entry), name(entry.destination()));
        let Some(point) = point(&at) else { continue };
        let last = !entries().skip(i + 1).any(|later| name(later.destination()) == at);
        if options.bind.is_some() && !(last && named(&at)) {
            // Another lies over it.
            let source = sources.bundle.join(entry.source().as_deref().unwrap_or(Path::new("")));
            bind(point, &source, None);
        } else if entry.typ().as_deref() == Some("sysfs")
            && spec.namespace(LinuxNamespaceType::Network) != Namespace::New
            && let Ok(real) = sys::path::real(Path::new("/sys"))
        {
            // The machine's own is bound, with all that lies below.
            own.push((point, real, closed(&options)));
        }
    }
    let mut add = |name: &str, what: What| {
        if let Some(point) = point(name) {
            points.entry(point).or_default().push(what);
        }
    };
    for entry in entries().filter(|entry| MountOptions::of(entry).bind.is_none()) {
        let kind = entry.typ().as_deref().unwrap_or_default();
        // Without a cgroup of the container's own there is an empty folder.
        let kinds = match kind {
            "cgroup" | "cgroup2" => vec!["cgroup2".to_string(), "tmpfs".to_string()],
            kind => vec![kind.to_string()],
        };
        if kind.starts_with("cgroup") && named(&name(entry.destination())) {
            continue;
        }
        add(&name(entry.destination()), What::FileSystem(kinds));
    }
    if spec.process().as_ref().is_some_and(|process| process.terminal().unwrap_or(false)) {
        add("/dev/console", What::FileSystem(vec!["devpts".to_string()]));
    }
    for path in spec.linux().iter().flat_map(|linux| linux.readonly_paths().iter().flatten()) {
        add(&name(Path::new(path)), What::ReadOnly);
    }
    let null = place(Path::new("/dev/null"), machine).map(|(_, null)| null);
    for path in &masks {
        add(path, What::Mask(null.clone()));
    }
    along.extend(own);
    Wanted { points, recursive: along }
}

/// Fails where a line is not one that is wanted.
fn known(lines: &[Line], wanted: &Wanted, machine: &[Line]) -> Result<()> {
    let mut seen: BTreeMap<&Path, usize> = BTreeMap::new();
    for line in lines {
        let point = line.point.display();
        let along = wanted.recursive.iter().any(|(at, real, words)| along(line, at, real, words, machine));
        let Some(whats) = wanted.points.get(&line.point) else {
            if along {
                continue;
            }
            return Err(more(format!("a {} is mounted on {point}, against /mounts", line.kind)));
        };
        if !along && !whats.iter().any(|what| what.allows(line, lines)) {
            return Err(more(format!(
                "what is mounted on {point} is another {}, against /mounts",
                line.kind
            )));
        }
        let count = seen.entry(&line.point).or_default();
        *count += 1;
        // A read-only path is mounted once more, with all that lies below it.
        let repeated = |(at, whats): (&PathBuf, &Vec<What>)| {
            at != &line.point
                && line.point.starts_with(at)
                && whats.iter().any(|what| matches!(what, What::ReadOnly))
        };
        let most = whats.len() * (1 + wanted.points.iter().filter(|point| repeated(*point)).count());
        if *count > most {
            return Err(more(format!("{count} mounts lie on {point}, against /mounts")));
        }
    }
    let masks = wanted.points.iter().filter_map(|(at, whats)| {
        let last = whats.last().filter(|what| matches!(what, What::Mask(_)))?;
        Some((at, last, lines.iter().rfind(|line| line.point == *at)?))
    });
    for (at, mask, top) in masks {
        if !mask.allows(top, lines) {
            return Err(more(format!("{} is not masked, against /linux/maskedPaths", at.display())));
        }
    }
    Ok(())
}

/// `line` came with what is bound at `at`: the machine has the same mounted below `real`, no more closed than here.
fn along(line: &Line, at: &Path, real: &Path, words: &[&str], machine: &[Line]) -> bool {
    let Some(below) = line.point.strip_prefix(at).ok().filter(|below| !below.as_os_str().is_empty()) else {
        return false;
    };
    let point = joined(real, below);
    let has = |word: &str| line.options.iter().any(|its| its == word);
    words.iter().all(|word| has(word))
        && machine.iter().filter(|its| its.point == point).any(|its| {
            let closed = BITS.iter().all(|(_, word)| has(word) || !its.options.iter().any(|o| o == word));
            closed && line.device == its.device && line.root == its.root
        })
}

impl What {
    fn allows(&self, line: &Line, lines: &[Line]) -> bool {
        match self {
            What::FileSystem(kinds) => kinds.iter().any(|kind| {
                let sub = line.kind.strip_prefix(kind.as_str());
                let part = matches!(kind.as_str(), "proc" | "sysfs") && line.root != Path::new("/");
                !part && sub.is_some_and(|sub| sub.is_empty() || sub.starts_with('.'))
            }),
            What::Bind(place) => line.is_at(place),
            What::Mask(null) => {
                line.kind == "tmpfs" && null.as_ref().is_none_or(|null| null.device != line.device)
                    || null.as_ref().is_some_and(|null| line.is_at(null))
            }
            What::ReadOnly => {
                let above = lines
                    .iter()
                    .filter(|other| other.point != line.point && line.point.starts_with(&other.point));
                let depth = |line: &&Line| line.point.components().count();
                let deepest = above.clone().map(|line| depth(&line)).max();
                above
                    .filter(|other| Some(depth(other)) == deepest)
                    .any(|other| line.is_at(&other.place(&line.point)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<Line> {
        text.lines().filter_map(|line| Mount::of(line.trim().as_bytes())).map(Line::of).collect()
    }

    const MACHINE: &str = "1 0 8:1 / / rw - ext4 /dev/vda rw
        2 1 0:5 / /dev rw - devtmpfs dev rw
        3 1 8:2 / /srv/below ro,nosuid - ext4 /dev/vdb rw";

    const GOOD: [&str; 9] = [
        "10 9 8:1 /bundle/rootfs / rw - ext4 /dev/vda rw",
        "11 10 0:40 / /proc rw - proc proc rw",
        "12 10 0:41 / /tmp rw - tmpfs tmpfs rw",
        "13 11 0:40 /sys /proc/sys ro - proc proc rw",
        "14 11 0:5 /null /proc/kcore rw - devtmpfs dev rw",
        "15 11 0:42 / /proc/acpi ro - tmpfs tmpfs rw",
        "16 10 8:1 /srv /data ro - ext4 /dev/vda rw",
        "17 16 8:2 / /data/below ro,nosuid - ext4 /dev/vdb rw",
        "18 10 8:1 /plain /plain rw - ext4 /dev/vda rw",
    ];

    fn wanted() -> Wanted {
        let bind = |device: &str, root: &str| Place { device: device.into(), root: root.into() };
        let null = || What::Mask(Some(bind("0:5", "/null")));
        let points = [
            ("/", What::Bind(bind("8:1", "/bundle/rootfs"))),
            ("/proc", What::FileSystem(vec!["proc".into()])),
            ("/tmp", What::FileSystem(vec!["tmpfs".into()])),
            ("/proc/sys", What::ReadOnly),
            ("/proc/kcore", null()),
            ("/proc/acpi", null()),
            ("/data", What::Bind(bind("8:1", "/srv"))),
            ("/plain", What::Bind(bind("8:1", "/plain"))),
        ];
        Wanted {
            points: points.into_iter().map(|(at, what)| (at.into(), vec![what])).collect(),
            recursive: vec![("/data".into(), "/srv".into(), vec!["ro"])],
        }
    }

    fn refused(text: &str) -> Option<String> {
        known(&lines(text), &wanted(), &lines(MACHINE)).err().map(|error| error.to_string())
    }

    #[test]
    fn the_mounts_of_the_config_are_known() {
        assert_eq!(refused(&GOOD.join("\n")), None);
    }

    #[test]
    fn every_mount_that_the_config_does_not_make_is_refused() {
        let cases = [
            ("a second procfs", "30 10 0:50 / /tmp/p rw - proc proc rw", "/tmp/p"),
            ("one over another", "30 12 0:50 / /tmp rw - proc proc rw", "/tmp"),
            ("a second of the same", "30 12 0:51 / /tmp rw - tmpfs tmpfs rw", "2 mounts lie on /tmp"),
            ("a second procfs at its place", "30 11 0:50 / /proc rw - proc proc rw", "2 mounts lie on /proc"),
            ("below a mask", "30 15 0:40 / /proc/acpi/p rw - proc proc rw", "/proc/acpi/p"),
            ("over a mask", "30 14 0:40 /kcore /proc/kcore rw - proc proc rw", "/proc/kcore"),
            ("over a read-only path", "30 13 0:40 / /proc/sys ro - proc proc rw", "/proc/sys"),
            ("below a read-only path", "30 13 0:40 /sys/kernel /proc/sys/kernel rw - proc proc rw", "kernel"),
            ("a bind elsewhere", "30 10 8:1 /srv /tmp/s rw - ext4 /dev/vda rw", "/tmp/s"),
            ("a bind at another's place", "30 10 8:1 /srv /plain rw - ext4 /dev/vda rw", "/plain"),
            ("procfs below a recursive bind", "30 17 0:50 / /data/below rw - proc proc rw", "/data/below"),
            ("more open than the machine's", "30 17 8:2 / /data/below rw - ext4 /dev/vdb rw", "/data/below"),
            ("the machine's below a plain bind", "30 18 8:2 / /plain/below ro,nosuid - ext4 x rw", "below"),
        ];
        for (what, line, word) in cases {
            let said = refused(&format!("{}\n{line}", GOOD.join("\n"))).unwrap_or_else(|| panic!("{what}"));
            assert!(said.contains("the images give more") && said.contains(word), "{what}: {said}");
        }
    }

    #[test]
    fn a_mount_in_the_place_of_another_is_refused() {
        let cases = [
            (1, "11 10 0:40 /sys /proc rw - proc proc rw"),
            (2, "12 10 0:50 / /tmp rw - proc proc rw"),
            (3, "13 11 0:40 / /proc/sys ro - proc proc rw"),
            (4, "14 11 0:40 /kcore /proc/kcore rw - proc proc rw"),
            (5, "15 11 0:40 / /proc/acpi ro - proc proc rw"),
            (6, "16 10 8:1 / /data ro - ext4 /dev/vda rw"),
        ];
        for (number, line) in cases {
            let mut all = GOOD;
            all[number] = line;
            assert!(refused(&all.join("\n")).is_some(), "{line}");
        }
    }
}
