//! What a config says of the inside of the container, looked for in its root: mount points, the program and whom it needs,
//! the working folder, the user. Uses: host, prepare, spec.

use super::program::{self, Kind};
use super::view::{Found as There, View, What};
use super::{Found, Site};
use crate::prepare;
use crate::spec::mount::MountOptions;
use crate::spec::{Namespace, Spec};
use oci_spec::runtime::LinuxNamespaceType;
use rustix::fs::{FileType, Mode, OFlags};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

/// A script that a script interprets, and so on: more the kernel does not follow.
const MOST_INTERPRETERS: usize = 5;

/// Looks at all of it.
pub(super) fn look(site: &Site<'_>, found: &mut Found) {
    let spec = &site.start.spec;
    let Some(root) = spec.root() else { return };
    // What is wrong with it has been told.
    let Ok(folder) = prepare::open_root(&site.on_machine(root.path())) else { return };
    let empty = fs::read_dir(site.on_machine(root.path())).is_ok_and(|mut entries| entries.next().is_none());
    let covered = spec.mounts().iter().flatten().any(|mount| MountOptions::of(mount).bind.is_some());
    if empty && !covered {
        let remedy = "unpack a root file system there: `rcrun image unpack`, or that of another container";
        found.error("/root/path", "the folder is empty: there is nothing in it to execute", remedy);
        return;
    }
    let mut view = View::new(folder);
    if spec.namespace(LinuxNamespaceType::Mount) != Namespace::Inherit {
        mounts(site, &mut view, found);
    }
    if spec.process().is_some() {
        working_folder(spec, &view, found);
        program(site, &view, found);
        user(spec, &view, found);
    }
    start_hooks(site, &view, found);
}

fn is_folder(file: &There) -> Option<bool> {
    match file {
        There::There { stat, .. } => Some(FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
        There::Folder { .. } => Some(true),
        _ => None,
    }
}

/// Puts the mounts on the root, one after the other as at the start, and says where one has no place.
fn mounts(site: &Site<'_>, view: &mut View, found: &mut Found) {
    let mut places: Vec<(usize, String)> = Vec::new();
    for (i, mount) in site.start.spec.mounts().iter().flatten().enumerate() {
        let options = MountOptions::of(mount);
        let kind = mount.typ().as_deref().unwrap_or_default();
        let pointer = format!("/mounts/{i}/destination");
        let destination = mount.destination().to_string_lossy();
        let there = view.find(&destination);
        let changes = options.remount || options.bind.is_none() && kind.is_empty();
        if let There::NotFolder { path } = &there {
            let text = format!("/{path} is no folder in the root: nothing can be mounted below it");
            found.error(&pointer, &text, "mount elsewhere, or take the file out of the root");
            continue;
        }
        if let There::Circle = there {
            let text = format!("the links at {destination} lead in a circle");
            found.error(&pointer, &text, "mend the links in the root");
            continue;
        }
        if changes {
            if let There::Missing { path } = &there {
                let text = format!("there is nothing at /{path} that could be changed");
                found.error(&pointer, &text, "mount it first, or give this entry a type and a source");
            }
            continue;
        }
        let source = mount.source().as_deref().unwrap_or(Path::new(""));
        let what = match options.bind {
            Some(_) => {
                let opened = open(&site.on_machine(source));
                let folder = opened.as_ref().and_then(|file| rustix::fs::fstat(file).ok());
                let folder = folder.map(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory);
                match (folder, is_folder(&there)) {
                    (Some(true), Some(false)) => {
                        let text = format!("{destination} is a file in the root, and the source is a folder");
                        found.error(&pointer, &text, "a folder can be mounted on a folder only");
                    }
                    (Some(false), Some(true)) => {
                        let text = format!("{destination} is a folder in the root, and the source is none");
                        found.error(&pointer, &text, "a file can be mounted on a file only");
                    }
                    _ => {}
                }
                opened.map_or(What::Unseen, What::Tree)
            }
            None => {
                if is_folder(&there) == Some(false) {
                    let text = format!("{destination} is a file in the root: a {kind} needs a folder");
                    found.error(&pointer, &text, "mount elsewhere, or take the file out of the root");
                }
                match kind {
                    // It has what it covers.
                    "tmpfs" if options.tmpcopyup => continue,
                    "tmpfs" => What::Empty,
                    _ => What::Unseen,
                }
            }
        };
        let place = match &there {
            There::There { path, .. } | There::Folder { path } | There::Missing { path } => path.clone(),
            There::Unseen { path } | There::Denied { path } => path.clone(),
            There::NotFolder { .. } | There::Circle => continue,
        };
        let covers = |at: &str| place.is_empty() || at == place || at.starts_with(&format!("{place}/"));
        for (earlier, at) in places.iter().filter(|(_, at)| covers(at)) {
            let text = format!("it is hidden by /mounts/{i}, which is mounted on /{place} later");
            let remedy = match *at == place {
                true => "take one of the two out",
                false => "put the deeper one behind it in the list",
            };
            found.warning(&format!("/mounts/{earlier}/destination"), &text, Some(remedy));
        }
        places.push((i, place));
        view.mount(&destination, what);
    }
}

fn open(path: &Path) -> Option<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()
}

fn working_folder(spec: &Spec, view: &View, found: &mut Found) {
    let Some(process) = spec.process() else { return };
    let (pointer, cwd) = ("/process/cwd", process.cwd().to_string_lossy());
    match view.find(&cwd) {
        There::Missing { .. } if spec.namespace(LinuxNamespaceType::Mount) == Namespace::Inherit => {
            let text = format!("there is no folder {cwd} in the root");
            found.error(pointer, &text, "make it in the root, or begin in /");
        }
        There::Missing { .. } => {
            let text =
                format!("there is no folder {cwd} in the root: it is made at the start, owned by root");
            found.note(pointer, &text, None);
        }
        There::NotFolder { path } => {
            found.error(
                pointer,
                &format!("/{path} is no folder in the root"),
                "name a folder, or begin in /",
            );
        }
        There::Circle => {
            let text = format!("the links at {cwd} lead in a circle");
            found.error(pointer, &text, "mend the links in the root");
        }
        there @ There::There { .. } if is_folder(&there) == Some(false) => {
            found.error(pointer, &format!("{cwd} is no folder in the root"), "name a folder, or begin in /");
        }
        There::Denied { path } => found.unseen(pointer, &format!("/{path} in the root")),
        There::There { .. } | There::Folder { .. } | There::Unseen { .. } => {}
    }
}

/// As init looks for it: the first candidate that is a file and executable.
fn program(site: &Site<'_>, view: &View, found: &mut Found) {
    let pointer = "/process/args/0";
    let Some(process) = site.start.spec.process() else { return };
    let plan = &site.start.plan;
    let name = plan.args.first().map(String::as_str).unwrap_or_default();
    if plan.candidates.is_empty() {
        found.error(
            "/process/env",
            &format!("there is no PATH, so {name:?} is looked for nowhere: executable file not found in $PATH"),
            "add \"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\", or let /process/args begin with a whole path",
        );
        return;
    }
    let mut worse: Option<(String, String)> = None;
    for candidate in &plan.candidates {
        let path = process.cwd().join(candidate);
        let path = path.to_string_lossy();
        match view.find(&path) {
            There::There { file, stat, path } => {
                let mode = stat.st_mode & 0o7777;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::RegularFile if mode & 0o111 != 0 => {
                        return executable(site, view, (&file, &path), pointer, 0, found);
                    }
                    FileType::RegularFile => {
                        let text =
                            format!("/{path} is not executable: permission denied (its mode is {mode:04o})");
                        worse.get_or_insert((text, format!("chmod +x {path} in the root")));
                    }
                    _ => {
                        let text = format!("/{path} is no file");
                        worse.get_or_insert((text, "name a program".to_string()));
                    }
                }
            }
            There::Unseen { path } => {
                let text = format!("whether /{path} is there shows only when its mount is made");
                return found.note(pointer, &text, None);
            }
            There::Denied { path } => return found.unseen(pointer, &format!("/{path} in the root")),
            There::Folder { .. } | There::Missing { .. } | There::NotFolder { .. } | There::Circle => {}
        }
    }
    let (message, remedy) = worse.unwrap_or_else(|| not_there(name, &plan.candidates));
    found.error(pointer, &message, &remedy);
}

fn not_there(name: &str, candidates: &[String]) -> (String, String) {
    if name.contains('/') {
        let text = format!("there is no {name} in the root: no such file or directory");
        return (text, "name a program of the root, or put it there".to_string());
    }
    let folders: Vec<&str> =
        candidates.iter().filter_map(|path| path.rsplit_once('/')).map(|(folder, _)| folder).collect();
    let text = format!("{name:?} is in no folder of PATH: executable file not found in $PATH");
    let remedy =
        format!("PATH of /process/env has {}: install it there, or give its whole path", folders.join(", "));
    (text, remedy)
}

/// A file that is there and executable: whether the kernel will take it.
fn executable(
    site: &Site<'_>,
    view: &View,
    (file, path): (&OwnedFd, &str),
    pointer: &str,
    depth: usize,
    found: &mut Found,
) {
    let Ok(head) = View::head(file, program::HEAD) else {
        return found.unseen(pointer, &format!("/{path} in the root"));
    };
    let (interpreter, kind) = match program::kind(&head, site.host.arch) {
        Kind::Elf { interpreter: None } => return,
        Kind::Elf { interpreter: Some(interpreter) } => (interpreter, "is linked against"),
        Kind::Script { interpreter } => (interpreter, "is a script for"),
        other if emulated(&head) => {
            let what = if other == Kind::Unknown { "its kind" } else { "its processor" };
            let text = format!("/{path} is not for this processor: an emulator of binfmt_misc takes {what}");
            return found.note(pointer, &text, None);
        }
        Kind::Foreign { machine } => {
            let native = match site.host.arch {
                crate::host::Arch::X86_64 => "x86-64",
                crate::host::Arch::Aarch64 => "AArch64",
            };
            let text = format!(
                "/{path} is a program for {machine}, and this machine is {native}: exec format error"
            );
            let remedy =
                "take the image for this machine, or register an emulator (Debian: qemu-user-static)";
            return found.error(pointer, &text, remedy);
        }
        Kind::Unknown => {
            let text = format!("/{path} is neither a program nor a script: exec format error");
            let remedy = "let a script begin with #! and its interpreter, such as #!/bin/sh";
            return found.error(pointer, &text, remedy);
        }
    };
    match view.find(&interpreter) {
        There::There { file, stat, path: next } => {
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_mode & 0o111 == 0 {
                let text =
                    format!("/{path} {kind} {interpreter}, which is not executable: permission denied");
                found.error(pointer, &text, &format!("chmod +x {next} in the root"));
            } else if kind == "is a script for" && depth < MOST_INTERPRETERS {
                executable(site, view, (&file, &next), pointer, depth + 1, found);
            }
        }
        There::Unseen { .. } => {}
        There::Denied { path } => found.unseen(pointer, &format!("/{path} in the root")),
        There::Folder { .. } | There::Missing { .. } | There::NotFolder { .. } | There::Circle => {
            let shown = interpreter.escape_debug();
            let text = format!("/{path} {kind} {shown}, which is not in the root: no such file or directory");
            let remedy = match (interpreter.ends_with('\r'), kind) {
                (true, _) => "the script has the line ends of Windows: take them out (dos2unix)",
                (_, "is a script for") => {
                    "put the interpreter into the root, or name another in the first line"
                }
                _ => "put the C library that it was built with into the root, or build it static",
            };
            found.error(pointer, &text, remedy);
        }
    }
}

/// Whether binfmt_misc has somebody for a file that begins so.
fn emulated(head: &[u8]) -> bool {
    let entries = fs::read_dir("/proc/sys/fs/binfmt_misc").into_iter().flatten().flatten();
    let texts = entries.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    texts.into_iter().any(|text| program::taken(&text, head))
}

/// A user without a line in the root's own list works; its name and its home are not known.
fn user(spec: &Spec, view: &View, found: &mut Found) {
    let Some(process) = spec.process() else { return };
    let uid = process.user().uid();
    let There::There { file, .. } = view.find("/etc/passwd") else { return };
    let Ok(text) = View::head(&file, 1 << 20) else { return };
    let text = String::from_utf8_lossy(&text);
    let listed = text.lines().any(|line| line.split(':').nth(2) == Some(uid.to_string().as_str()));
    if uid != 0 && !listed {
        let text =
            format!("uid {uid} has no line in the root's /etc/passwd: it runs without a name, and HOME is /");
        found.note("/process/user/uid", &text, None);
    }
}

fn start_hooks(site: &Site<'_>, view: &View, found: &mut Found) {
    let hooks = site.start.spec.hooks().iter().flat_map(|hooks| hooks.start_container().iter().flatten());
    for (i, hook) in hooks.enumerate() {
        let pointer = format!("/hooks/startContainer/{i}/path");
        let shown = hook.path().to_string_lossy();
        match view.find(&shown) {
            There::There { file, stat, path } => {
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_mode & 0o111 == 0
                {
                    found.error(&pointer, &format!("{shown} in the root is not executable"), "chmod +x it");
                } else {
                    executable(site, view, (&file, &path), &pointer, 0, found);
                }
            }
            There::Unseen { .. } => {}
            There::Denied { path } => found.unseen(&pointer, &format!("/{path} in the root")),
            There::Folder { .. } | There::Missing { .. } | There::NotFolder { .. } | There::Circle => {
                found.error(
                    &pointer,
                    &format!("there is no {shown} in the root, where hooks of startContainer run"),
                    "put it into the root, or mount it there",
                );
            }
        }
    }
}
