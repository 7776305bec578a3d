//! Volumes: `-v`, the image's Volumes, and the list of mounts that they and Docker's defaults give. Pure. Uses: document,
//! error, said, defaults.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::defaults;
use super::said::{Said, Surroundings};
use crate::document::Execution;
use crate::error::{Code, Error, Result};

/// Volumes of one image.
const VOLUMES_MAX: usize = 1000;

/// What `-v` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// What is mounted.
    pub source: Source,
    /// Where: absolute, without `.` and `..`.
    pub destination: String,
    /// `ro`.
    pub read_only: bool,
    /// `rprivate` and its like.
    pub propagation: &'static str,
    /// `z` or `Z`: a label of SELinux is asked for.
    pub relabel: bool,
}

/// What `-v` mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file or folder of the host: an absolute path.
    Host(String),
    /// A folder on the container's own layer, as the image's Volumes are.
    Own,
    /// A tmpfs with these options: `--tmpfs`.
    Tmpfs(Vec<String>),
}

/// What a sentence shows of a text that may be long.
fn short(text: &str) -> &str {
    text.char_indices().nth(150).map_or(text, |(end, _)| &text[..end])
}

impl Volume {
    /// `host:container[:options]` or `container`, as Docker reads it. `folder` is where the caller is: a host path that
    /// begins with a dot is below it.
    pub fn parse(text: &str, folder: &Path) -> Result<Volume> {
        let usage = |why: String| Error::new(Code::Usage, format!("--volume {:?}: {why}", short(text)));
        if text.contains('\0') {
            return Err(usage("contains a NUL byte".into()));
        }
        let parts: Vec<&str> = text.split(':').collect();
        let (source, destination, options) = match parts[..] {
            [destination] => ("", destination, ""),
            // Docker takes `/data:ro` for a path and its options.
            [destination, options] if !options.starts_with('/') && known(options) => {
                ("", destination, options)
            }
            ["", ..] => return Err(usage("the part before the colon is empty".into())),
            [source, destination] => (source, destination, ""),
            [source, destination, options] => (source, destination, options),
            _ => return Err(usage("not host:container[:options]".into())),
        };
        let destination =
            clean(destination).map_err(|why| usage(format!("the path in the container {why}")))?;
        let mut volume = Volume {
            source: Source::Own,
            destination,
            read_only: false,
            propagation: "rprivate",
            relabel: false,
        };
        let mut seen = BTreeSet::new();
        for word in options.split(',').filter(|_| !options.is_empty()) {
            let class = OPTIONS.iter().find(|(words, _)| words.contains(&word)).map(|(_, class)| *class);
            let class = class.ok_or_else(|| usage(format!("{:?} is no option of a volume", short(word))))?;
            if !seen.insert(class) {
                return Err(usage(format!("{:?} comes beside another of its kind", short(word))));
            }
            match class {
                Class::Access => volume.read_only = word == "ro",
                Class::Label => volume.relabel = true,
                Class::Propagation => {
                    volume.propagation = PROPAGATIONS.iter().find(|p| **p == word).unwrap_or(&"rprivate");
                }
                // Docker Desktop's file sharing has such: elsewhere they mean nothing to Docker either.
                Class::Consistency => {}
                Class::NoCopy => {
                    let why = "\"nocopy\" is for named volumes, which rcrun does not keep";
                    return Err(usage(why.into()));
                }
            }
        }
        volume.source = match source {
            "" => Source::Own,
            path if path.starts_with('/') => Source::Host(path.into()),
            path if path == "." || path == ".." || path.starts_with("./") || path.starts_with("../") => {
                let folder =
                    folder.to_str().ok_or_else(|| usage("the working folder is not UTF-8".into()))?;
                Source::Host(format!("{}/{path}", folder.trim_end_matches('/')))
            }
            name => {
                let why = format!(
                    "rcrun keeps no named volumes; write ./{} for a folder of that name",
                    short(name).escape_debug()
                );
                return Err(usage(why));
            }
        };
        if volume.source == Source::Own && (volume.read_only || volume.propagation != "rprivate") {
            let why = "a folder of the container's own is neither read-only nor shared; name one of the host";
            return Err(usage(why.into()));
        }
        Ok(volume)
    }

    /// `container[:options]` of `--tmpfs`. As in Docker nothing in it is executed, is set-uid or a device, if the options,
    /// which are those of a mount, say no other.
    pub fn tmpfs(text: &str) -> Result<Volume> {
        let usage = |why: String| Error::new(Code::Usage, format!("--tmpfs {text:?}: {why}"));
        if text.contains('\0') {
            return Err(usage("contains a NUL byte".into()));
        }
        let (destination, words) = text.split_once(':').unwrap_or((text, ""));
        let destination = clean(destination).map_err(|why| usage(format!("the path {why}")))?;
        let words: Vec<&str> = words.split(',').filter(|word| !word.is_empty()).collect();
        let mut options: Vec<String> = [("noexec", "exec"), ("nosuid", "suid"), ("nodev", "dev")]
            .into_iter()
            .filter(|(_, other)| !words.contains(other))
            .map(|(option, _)| option.into())
            .collect();
        for word in words {
            if options.iter().all(|option| option != word) {
                options.push(word.into());
            }
        }
        let source = Source::Tmpfs(options);
        Ok(Volume { source, destination, read_only: false, propagation: "rprivate", relabel: false })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Access,
    Label,
    Propagation,
    Consistency,
    NoCopy,
}

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

const OPTIONS: [(&[&str], Class); 5] = [
    (&["ro", "rw"], Class::Access),
    (&["z", "Z"], Class::Label),
    (&PROPAGATIONS, Class::Propagation),
    (&["consistent", "cached", "delegated"], Class::Consistency),
    (&["nocopy"], Class::NoCopy),
];

/// Whether all of `options` are such.
fn known(options: &str) -> bool {
    options.split(',').all(|word| OPTIONS.iter().any(|(words, _)| words.contains(&word)))
}

/// `path` absolute and without `.`, `..` and doubled slashes; or what is wrong with it.
fn clean(path: &str) -> std::result::Result<String, &'static str> {
    if !path.starts_with('/') {
        return Err("is not absolute");
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        return Err("is the root itself");
    }
    Ok(format!("/{}", parts.join("/")))
}

/// Where the container has folders of its own, each list in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Own {
    /// On its layer.
    pub(super) on_layer: Vec<String>,
    /// Below a mount of `-v`, where its layer is not seen.
    pub(super) nested: Vec<String>,
}

/// The image's Volumes, and `-v` with one path. Where a folder of the host is mounted an image is overruled. Below a
/// default such as /dev there are none: an image is overruled there too, a person hears of it.
pub(super) fn of_image(execution: &Execution, said: &[Volume]) -> Result<Own> {
    if execution.volumes.len() > VOLUMES_MAX {
        let count = execution.volumes.len();
        let message = format!("the image has {count} Volumes, more than {VOLUMES_MAX}");
        return Err(Error::new(Code::Limit, message));
    }
    let mut taken = BTreeSet::new();
    for volume in said {
        if !taken.insert(&volume.destination) {
            let message = format!("--volume: two are to be mounted on {}", volume.destination);
            return Err(Error::new(Code::Usage, message));
        }
    }
    let hosts = || said.iter().filter(|volume| volume.source != Source::Own).map(|v| v.destination.as_str());
    let default = |path: &str| defaults::MOUNTS.iter().map(|(at, ..)| *at).find(|at| is_below(path, at));
    let mut found = BTreeSet::new();
    for path in execution.volumes.keys() {
        let shown: String = path.chars().take(100).collect();
        let path =
            clean(path).map_err(|why| Error::invalid(format!("the image's volume {shown:?} {why}")))?;
        if default(&path).is_none() && hosts().all(|at| at != path) {
            found.insert(path);
        }
    }
    for volume in said.iter().filter(|volume| volume.source == Source::Own) {
        let path = &volume.destination;
        if let Some(at) = default(path) {
            let message =
                format!("--volume: {path} lies in {at}, which is mounted; name a folder of the host for it");
            return Err(Error::new(Code::Usage, message));
        }
        found.insert(path.clone());
    }
    let (nested, on_layer) = found.into_iter().partition(|path| hosts().any(|at| is_below(path, at)));
    Ok(Own { on_layer, nested })
}

/// Whether `path` is `folder` or below it.
fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether the group that a mount's option names, if it does, is one of the container's. (In a namespace of root alone, his
/// terminals are root's.)
fn has_group(option: &str, groups: Option<u32>) -> bool {
    let group = option.strip_prefix("gid=").and_then(|group| group.parse::<u32>().ok());
    group.is_none_or(|group| groups.is_none_or(|last| group <= last))
}

/// `mounts` of the config: the defaults that nothing is mounted over, then the rest with what lies higher first.
pub(super) fn mounts(said: &Said, around: &Surroundings, own: &Own) -> Result<Vec<Value>> {
    let bound = |at: &str| said.volumes.iter().any(|v| v.destination == at && v.source != Source::Own);
    let mut all: Vec<Value> = defaults::MOUNTS
        .iter()
        // Who mounts a /dev brings all of it.
        .filter(|(at, ..)| !(bound(at) || at.starts_with("/dev/") && bound("/dev")))
        .map(|(at, kind, source, options)| {
            let options: Vec<&str> =
                options.iter().copied().filter(|option| has_group(option, around.groups)).collect();
            mount(at, kind, source, &options)
        })
        .collect();
    let mut more: Vec<(&str, Value)> = Vec::new();
    if said.read_only {
        for path in &own.on_layer {
            let options = ["nosuid", "nodev", "tmpcopyup"];
            more.push((path, mount(path, "tmpfs", "tmpfs", &options)));
        }
    }
    for (number, path) in own.nested.iter().enumerate() {
        let source = format!("{}/{number}", around.nested);
        more.push((path, mount(path, "bind", &source, &["rbind", "rprivate"])));
    }
    let access: &[&str] = if said.read_only { &["rbind", "rprivate", "ro"] } else { &["rbind", "rprivate"] };
    for (at, file) in [
        ("/etc/hosts", &around.hosts),
        ("/etc/hostname", &around.hostname_file),
        ("/etc/resolv.conf", &around.resolv_conf),
    ] {
        if let Some(file) = file
            && !bound(at)
        {
            more.push((at, mount(at, "bind", file, access)));
        }
    }
    for volume in &said.volumes {
        let at = volume.destination.as_str();
        if volume.relabel && around.selinux {
            let message = format!(
                "--volume: {at}: rcrun sets no labels of SELinux; label the source with chcon and leave z away"
            );
            return Err(Error::new(Code::Unsupported, message));
        }
        match &volume.source {
            Source::Host(source) => {
                let mut options = vec!["rbind", volume.propagation];
                // Docker's `ro` holds for what is mounted below, too.
                options.extend(volume.read_only.then_some("rro"));
                more.push((at, mount(at, "bind", source, &options)));
            }
            Source::Tmpfs(options) => {
                let options: Vec<&str> = options.iter().map(String::as_str).collect();
                more.push((at, mount(at, "tmpfs", "tmpfs", &options)));
            }
            Source::Own => {}
        }
    }
    more.sort_by_key(|(at, _)| at.matches('/').count());
    all.extend(more.into_iter().map(|(_, mount)| mount));
    Ok(all)
}

fn mount(at: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": at, "type": kind, "source": source, "options": options })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Volume> {
        Volume::parse(text, Path::new("/home/me"))
    }

    #[test]
    fn volumes_are_read_as_docker_reads_them() {
        let host = |path: &str| Source::Host(path.into());
        for (text, source, destination, read_only, propagation) in [
            ("/data", Source::Own, "/data", false, "rprivate"),
            ("/data:rw", Source::Own, "/data", false, "rprivate"),
            ("/a:/b", host("/a"), "/b", false, "rprivate"),
            ("/a:/b/", host("/a"), "/b", false, "rprivate"),
            ("/a:/../../b/./c//d/..", host("/a"), "/b/c", false, "rprivate"),
            ("/a:/b:ro", host("/a"), "/b", true, "rprivate"),
            ("/a:/b:rw", host("/a"), "/b", false, "rprivate"),
            ("/a:/b:ro,z", host("/a"), "/b", true, "rprivate"),
            ("/a:/b:rshared,ro,cached,Z", host("/a"), "/b", true, "rshared"),
            ("/a:/b:slave", host("/a"), "/b", false, "slave"),
            ("/a:/b:", host("/a"), "/b", false, "rprivate"),
            ("/a:/ro", host("/a"), "/ro", false, "rprivate"),
            ("./a:/b", host("/home/me/./a"), "/b", false, "rprivate"),
            ("../a:/b", host("/home/me/../a"), "/b", false, "rprivate"),
            (".:/b", host("/home/me/."), "/b", false, "rprivate"),
            ("/with,comma:/b", host("/with,comma"), "/b", false, "rprivate"),
        ] {
            let volume = parse(text).unwrap();
            let found = (&volume.source, volume.destination.as_str(), volume.read_only, volume.propagation);
            assert_eq!(found, (&source, destination, read_only, propagation), "{text}");
            assert_eq!(volume.relabel, text.contains([',']) && text.ends_with(['z', 'Z']), "{text}");
        }
    }

    #[test]
    fn a_tmpfs_has_dockers_options_where_no_other_are_said() {
        for (text, at, options) in [
            ("/run", "/run", "noexec nosuid nodev"),
            ("/run/:rw,size=64k", "/run", "noexec nosuid nodev rw size=64k"),
            ("/a/../b:exec,mode=700,nosuid", "/b", "nosuid nodev exec mode=700"),
        ] {
            let volume = Volume::tmpfs(text).unwrap();
            let options = options.split(' ').map(String::from).collect();
            assert_eq!((volume.destination.as_str(), volume.source), (at, Source::Tmpfs(options)), "{text}");
        }
        for (text, why) in [("", "is not absolute"), ("run", "is not absolute"), ("/", "is the root itself")]
        {
            let error = Volume::tmpfs(text).unwrap_err().to_string();
            assert!(error.starts_with("--tmpfs") && error.ends_with(why), "{error}");
        }
    }

    #[test]
    fn what_is_no_volume_is_refused_in_words() {
        for (text, why) in [
            ("", "the path in the container is not absolute"),
            (":", "the part before the colon is empty"),
            (":/b", "the part before the colon is empty"),
            ("/a:", "the path in the container is not absolute"),
            ("/a:b", "the path in the container is not absolute"),
            ("/a:/", "the path in the container is the root itself"),
            ("/a:/b/..", "the path in the container is the root itself"),
            ("/", "the path in the container is the root itself"),
            ("data", "the path in the container is not absolute"),
            ("/a:/b:ro:z", "not host:container[:options]"),
            ("/a:/b:r", "\"r\" is no option of a volume"),
            ("/a:/b:ro,", "\"\" is no option of a volume"),
            ("/a:/b:ro,rw", "\"rw\" comes beside another of its kind"),
            ("/a:/b:z,Z", "\"Z\" comes beside another of its kind"),
            ("/a:/b:shared,slave", "\"slave\" comes beside another of its kind"),
            ("/a:/b:nocopy", "\"nocopy\" is for named volumes, which rcrun does not keep"),
            ("db:/b", "rcrun keeps no named volumes; write ./db for a folder of that name"),
            ("\x1b[31m:/b", "rcrun keeps no named volumes; write ./\\u{1b}[31m for a folder of that name"),
            (".hidden:/b", "rcrun keeps no named volumes; write ./.hidden for a folder of that name"),
            (
                "/data:ro",
                "a folder of the container's own is neither read-only nor shared; name one of the host",
            ),
            ("/a\0:/b", "contains a NUL byte"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.code(), Code::Usage);
            assert_eq!(error.to_string(), format!("--volume {text:?}: {why}"));
        }
    }

    fn image(paths: &[&str]) -> Execution {
        let volumes: serde_json::Map<String, Value> =
            paths.iter().map(|p| (p.to_string(), json!({}))).collect();
        serde_json::from_value(json!({ "Volumes": volumes })).unwrap()
    }

    #[test]
    fn volumes_of_an_image_stay_inside_of_its_root() {
        let said = ["/host:/b", "/c"].map(|text| parse(text).unwrap());
        let found =
            of_image(&image(&["/a/", "/b", "/../../etc/x", "/a", "/dev/shm/x", "/device"]), &said).unwrap();
        assert_eq!(found.on_layer, ["/a", "/c", "/device", "/etc/x"]);
        assert_eq!(found.nested, Vec::<String>::new());
        for (path, why) in [
            ("a", "the image's volume \"a\" is not absolute"),
            ("", "the image's volume \"\" is not absolute"),
            ("/..", "the image's volume \"/..\" is the root itself"),
        ] {
            assert_eq!(of_image(&image(&[path]), &[]).unwrap_err().to_string(), why);
        }
        let many: Vec<String> = (0..1001).map(|i| format!("/{i}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(of_image(&image(&many), &[]).unwrap_err().code(), Code::Limit);
        let twice = ["/x:/b", "/y:/b/"].map(|text| parse(text).unwrap());
        let error = of_image(&image(&[]), &twice).unwrap_err().to_string();
        assert_eq!(error, "--volume: two are to be mounted on /b");
        let below = ["./:/app", "/app/node_modules"].map(|text| parse(text).unwrap());
        let found = of_image(&image(&["/app/x", "/apple", "/app"]), &below).unwrap();
        assert_eq!(found.on_layer, ["/apple"]);
        assert_eq!(found.nested, ["/app/node_modules", "/app/x"]);
        let error = of_image(&image(&[]), &[parse("/dev/x").unwrap()]).unwrap_err().to_string();
        let why = "--volume: /dev/x lies in /dev, which is mounted; name a folder of the host for it";
        assert_eq!(error, why);
    }

    fn places(volumes: &[&str], read_only: bool, own: &[&str]) -> Vec<String> {
        let said = Said {
            volumes: volumes.iter().map(|text| parse(text).unwrap()).collect(),
            read_only,
            ..Said::default()
        };
        let around = Surroundings {
            hosts: Some("/run/hosts".into()),
            nested: "/run/nested".into(),
            ..Surroundings::default()
        };
        let (nested, on_layer) =
            own.iter().map(|path| path.to_string()).partition(|path| path.starts_with("/nested"));
        let all = mounts(&said, &around, &Own { on_layer, nested }).unwrap();
        all.iter()
            .map(|m| {
                let text = |key: &str| m[key].as_str().unwrap().to_string();
                let options: Vec<&str> =
                    m["options"].as_array().unwrap().iter().map(|o| o.as_str().unwrap()).collect();
                format!("{} {} {}", text("destination"), text("source"), options.join(","))
            })
            .filter(|line| {
                !read_only && volumes.is_empty() || !line.contains("noexec") && !line.contains("strictatime")
            })
            .collect()
    }

    #[test]
    fn mounts_are_in_an_order_that_hides_none() {
        assert_eq!(
            places(&["/s:/etc/a/b/c", "/s:/etc/a:ro", "/s:/etc"], false, &[]),
            [
                "/etc /s rbind,rprivate",
                "/etc/hosts /run/hosts rbind,rprivate",
                "/etc/a /s rbind,rprivate,rro",
                "/etc/a/b/c /s rbind,rprivate",
            ]
        );
        assert_eq!(
            places(&["/mine:/etc/hosts"], true, &["/v"]),
            ["/v tmpfs nosuid,nodev,tmpcopyup", "/etc/hosts /mine rbind,rprivate"]
        );
        assert_eq!(
            places(&["/s:/nested/a", "/s:/nested/a/b/c"], false, &["/nested/a/b"]),
            [
                "/etc/hosts /run/hosts rbind,rprivate",
                "/nested/a /s rbind,rprivate",
                "/nested/a/b /run/nested/0 rbind,rprivate",
                "/nested/a/b/c /s rbind,rprivate",
            ]
        );
        assert_eq!(places(&[], false, &["/v"]).len(), 8);
        assert_eq!(places(&[], true, &[]), ["/etc/hosts /run/hosts rbind,rprivate,ro"]);
    }

    #[test]
    fn what_is_mounted_over_a_default_takes_its_place() {
        let at = |volumes: &[&str]| -> Vec<String> {
            let said = Said {
                volumes: volumes.iter().map(|text| parse(text).unwrap()).collect(),
                ..Said::default()
            };
            let all = mounts(&said, &Surroundings::default(), &Own::default()).unwrap();
            all.iter().map(|m| m["destination"].as_str().unwrap().to_string()).collect()
        };
        let rest = ["/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm"];
        assert_eq!(at(&["/x:/dev/shm"]), rest);
        assert_eq!(at(&["/dev:/dev"]), ["/proc", "/sys", "/sys/fs/cgroup", "/dev"]);
        assert_eq!(at(&["/x:/devices"])[..7], rest);
    }

    #[test]
    fn labels_are_asked_for_in_vain_only_where_selinux_is() {
        let said = Said { volumes: vec![parse("/a:/b:z").unwrap()], ..Said::default() };
        let mut around = Surroundings::default();
        assert_eq!(mounts(&said, &around, &Own::default()).unwrap().len(), 8);
        around.selinux = true;
        let error = mounts(&said, &around, &Own::default()).unwrap_err().to_string();
        assert!(error.starts_with("--volume: /b: rcrun sets no labels of SELinux"), "{error}");
    }
}
