//! `rcrun run IMAGE`: the layers under a fresh folder, a config.json, and then the way of every bundle.
//!
//! The overlay is a tree that is mounted nowhere until the container puts it in its place, in a mount namespace of its own:
//! the machine never sees it, and however this process ends nothing of it is left.

use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcrun_image::bundle::{self, Cpus, Network, RootFiles, Said, Seccomp, Source, Surroundings, Volume};
use rcrun_image::layer::Form;
use rcrun_image::overlay::{self, Upper};
use rcrun_image::store::{CONTAINER_MAX, Lease, Placed, Record, Store};
use rcrun_image::{Digest, Platform};
use rcrun_runtime::error::{CallContext, Context};
use rcrun_runtime::spec::id::ContainerId;
use rcrun_runtime::{Code, Error, Result, users};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountPropagationFlags, OpenTreeFlags};

use super::{container, load, none, open_in_haste, own, registry, told};
use crate::Global;
use crate::args::{Pull, Run, RunImage};
use crate::target;

/// An image that is in the store, unpacked, and what a person says to it.
#[derive(Debug)]
pub struct Ready {
    /// The store.
    pub store: Store,
    /// Where it is.
    pub place: PathBuf,
    digest: Digest,
    /// Of an image that has no name, until a container keeps it.
    hold: Option<Lease>,
    said: Said,
    name: String,
    /// What the container writes goes with its end, and need not reach the disk.
    volatile: bool,
}

/// Fetches the image of `run`, and reads all that is said to it.
pub fn ready(global: &Global, run: &Run, word: &OsStr) -> Result<Ready> {
    // Before anything is fetched or made.
    if let Some(name) = &run.name {
        let id: ContainerId = name.parse()?;
        if id.as_str().len() > CONTAINER_MAX {
            let message = format!(
                "--name: has {} characters, and a container of an image at most {CONTAINER_MAX}",
                name.len()
            );
            return Err(Error::new(Code::Usage, message));
        }
    }
    let said = said(&run.image, &run.command)?;
    let platform = run.image.platform.as_deref().map_or(Ok(Platform::host()), str::parse).map_err(told)?;
    let place = &run.image.store;
    let pull = run.image.pull;
    let lies = load::place(word);
    let is_file = lies.is_some();
    if is_file && pull != Pull::Never {
        let message =
            format!("--pull: {} is a file of this machine, not the name of an image", word.display());
        return Err(Error::new(Code::Usage, message));
    }
    if !is_file && pull == Pull::Never && !place.exists() {
        // A word that was mistyped makes no store.
        return Err(load::neither(word, none(&word.to_string_lossy())));
    }
    super::become_root()?;
    let store = open_in_haste(place)?;
    let bring = || registry::bring(global, &store, word, &platform).map(|digest| (digest, None));
    let (digest, hold) = match pull {
        Pull::Always => bring()?,
        Pull::Never | Pull::Missing => match load::fetch(global, &store, word, lies, &platform, false) {
            Err(error) if pull == Pull::Missing && error.code() == Code::NotFound => bring()?,
            Ok((digest, _)) if run.image.platform.is_some() && !is_file => {
                match another_platform(&store, &digest, word, &platform)? {
                    Some(_) if pull == Pull::Missing => bring()?,
                    Some(error) => return Err(error),
                    None => (digest, None),
                }
            }
            fetched => fetched?,
        },
    };
    let name = name(word);
    Ok(Ready {
        place: store.path().to_path_buf(),
        store,
        digest,
        hold,
        said,
        name,
        volatile: !run.keep && !run.detach,
    })
}

/// What is wrong with the image `digest`, which the store has as `word`, where it is for another platform than the one that was
/// asked for: a name means one image.
fn another_platform(
    store: &Store,
    digest: &Digest,
    word: &OsStr,
    platform: &Platform,
) -> Result<Option<Error>> {
    let found = store.config(&store.require_record(digest).map_err(told)?).map_err(told)?.platform;
    if found.runs_on(platform) {
        return Ok(None);
    }
    let word = word.to_string_lossy();
    let message = format!(
        "--platform {platform}: the store has {word} for {found}: `rcrun image pull --platform {platform} {word}` brings the other"
    );
    Ok(Some(Error::new(Code::NotFound, message)))
}

/// `app` of `localhost:5000/me/app:1`, of `dir/app.tar`.
fn name(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let last = word.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let last = last.split([':', '@']).next().unwrap_or_default();
    let last = last.split(".tar").next().unwrap_or_default();
    target::name(Path::new(if last.is_empty() { "image" } else { last }))
}

/// The ids to try.
pub fn ids(ready: &Ready, run: &Run) -> Vec<String> {
    match &run.name {
        Some(name) => vec![name.clone()],
        None => target::ids(&ready.name).take(64).collect(),
    }
}

/// What a container of an image starts with.
pub struct Made {
    /// Its root, which is mounted nowhere.
    pub tree: Arc<OwnedFd>,
    /// Its config.json.
    pub text: Arc<Vec<u8>>,
}

/// Makes the container `id` ready, and calls `start` with its bundle.
pub fn start<T>(
    global: &Global,
    ready: &mut Ready,
    id: &ContainerId,
    start: impl FnOnce(&Path, Made) -> Result<T>,
) -> Result<T> {
    let folder = container::make(&ready.store, &ready.place, id, &global.root, &ready.digest)?;
    let made = make(global, ready, id, &folder);
    // The configuration is let go of when the container has started: to free its parts takes longer than to write it.
    let started = made.and_then(|(made, _config)| start(&folder.path, made));
    if started.is_ok() {
        ready.hold = None;
    }
    started.map_err(|error| container::abandon(&ready.store, &ready.place, folder, error))
}

fn make(
    global: &Global,
    ready: &Ready,
    id: &ContainerId,
    folder: &container::Folder,
) -> Result<(Made, bundle::Converted)> {
    let image = ready.store.config(&folder.record).map_err(told)?;
    let path = folder.path.as_path();
    let points = mount_points(&ready.place, path)?;
    let image_and_record = (&ready.digest, &folder.record);
    let tree = Stack::of(&ready.store, image_and_record, path, Some(points), ready.volatile)?.tree()?;
    let root = RootFiles::new(tree.try_clone().call("fcntl F_DUPFD_CLOEXEC")?);
    let around = surroundings(&ready.store, &ready.said, id, folder)?;
    let converted = bundle::config(&image, &ready.said, &around, &root).map_err(told)?;
    for (label, _) in &converted.denied {
        global.log.warn(format!("label {label:?} of the image is left out: a runtime could act on it"));
    }
    own::make(&root, &converted, path)?;
    let text = converted.text();
    folder.write("config.json", &text)?;
    Ok((Made { tree: Arc::new(tree), text: Arc::new(text) }, converted))
}

/// Writes a new file of the container's folder.
pub fn write(path: &Path, text: &[u8]) -> Result<()> {
    let call = || format!("write {}", path.display());
    let mut file = std::fs::File::create_new(path).call(call())?;
    // Others than root read it in the container, whatever the caller's umask is.
    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644)).call(call())?;
    file.write_all(text).call(call())
}

/// Where a container puts its root: on the folder that it covers, since each folder costs a tenth of a millisecond to remove
/// from a disk.
const ROOT: &str = "upper";

/// The folder of the store at `place` that lies below all layers of each container and has the files on which others are
/// mounted, so that these are not made anew in what each container writes. Made in `folder`, which is locked.
fn mount_points(place: &Path, folder: &Path) -> Result<PathBuf> {
    let path = place.join("mountpoints");
    if path.symlink_metadata().is_ok() {
        return Ok(path);
    }
    let new = folder.join("mountpoints");
    let etc = new.join("etc");
    std::fs::create_dir_all(&etc).call(format!("mkdir {}", etc.display()))?;
    for name in ["hosts", "hostname"] {
        write(&etc.join(name), b"")?;
    }
    for made in [&new, &etc] {
        std::fs::set_permissions(made, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .call(format!("chmod {}", made.display()))?;
    }
    match std::fs::rename(&new, &path) {
        // Another process was first.
        Err(_) if path.symlink_metadata().is_ok() => {
            std::fs::remove_dir_all(&new).call(format!("remove {}", new.display()))?;
        }
        other => other.call(format!("rename {} to {}", new.display(), path.display()))?,
    }
    Ok(path)
}

/// What an overlay is made of.
pub struct Stack {
    layers: Vec<PathBuf>,
    upper: PathBuf,
    work: PathBuf,
    volatile: bool,
    rootless: bool,
}

impl Stack {
    /// The layers of the image `digest` with that record, over `lowest`, under the folder `upper` of `folder`.
    pub fn of(
        store: &Store,
        (digest, record): (&Digest, &Record),
        folder: &Path,
        lowest: Option<PathBuf>,
        volatile: bool,
    ) -> Result<Stack> {
        let layers = match store.places_of_record(record) {
            // After a crash of the machine.
            Err(error) if error.code() == rcrun_image::Code::NotFound => {
                load::restore(store, digest)?;
                store.places_of_record(record)
            }
            other => other,
        };
        let layers = layers.map_err(told)?;
        let [upper, work, empty] = ["upper", "work", "empty"].map(|name| folder.join(name));
        root_attributes(&layers, &upper)?;
        let mut paths: Vec<PathBuf> = layers.into_iter().rev().map(|layer| layer.path).collect();
        if let Some(lowest) = lowest.filter(|_| paths.len() < overlay::LAYERS_MAX) {
            paths.insert(0, lowest);
        }
        if paths.is_empty() {
            std::fs::create_dir(&empty).call(format!("mkdir {}", empty.display()))?;
            paths.push(empty);
        }
        Ok(Stack { layers: paths, upper, work, volatile, rootless: store.form() == Form::UserOverlay })
    }

    fn layers(&self) -> Vec<&Path> {
        self.layers.iter().map(PathBuf::as_path).collect()
    }

    fn upper(&self) -> Upper<'_> {
        Upper { folder: &self.upper, work: &self.work, volatile: self.volatile }
    }

    /// Mounts it at `at`.
    pub fn mount_at(&self, at: &Path) -> Result<()> {
        overlay::mount_at(&self.layers(), self.upper(), at, self.rootless).map_err(told)
    }

    /// Its root, mounted nowhere.
    fn tree(&self) -> Result<OwnedFd> {
        match overlay::mount(&self.layers(), self.upper(), self.rootless) {
            Err(error) if overlay::is_for_mount(&error, self.upper()) => {
                let apart = Apart::enter()?;
                let tree = self.mount_at(&self.upper).and_then(|()| {
                    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
                    rustix::mount::open_tree(rustix::fs::CWD, &self.upper, flags)
                        .call(format!("open_tree {}", self.upper.display()))
                });
                apart.leave().and(tree)
            }
            made => made.map_err(told),
        }
    }
}

/// overlayfs shows the attributes of the topmost folder: they are those of the topmost layer that tells them.
fn root_attributes(layers: &[Placed], upper: &Path) -> Result<()> {
    let call = || format!("give {} the attributes of the image's root", upper.display());
    let Some(layer) = layers.iter().find(|layer| layer.root) else {
        return rustix::fs::chmod(upper, Mode::from_raw_mode(0o755)).call(call());
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(upper, flags, Mode::empty()).call(call())?;
    let stat = rustix::fs::lstat(&layer.path).call(call())?;
    let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(&folder, Some(uid), Some(gid)).call(call())?;
    rustix::fs::fchmod(&folder, Mode::from_raw_mode(stat.st_mode & 0o7777)).call(call())
}

/// What `said` and the machine give to the container, with the files that are mounted in its /etc.
fn surroundings(
    store: &Store,
    said: &Said,
    id: &ContainerId,
    folder: &container::Folder,
) -> Result<Surroundings> {
    let host = said.network == Network::Host;
    let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
    // A plus sign may stand in an id, and not in the name of a host.
    let short: String =
        id.as_str().chars().take(63).map(|c| if c == '+' || c == '_' { '-' } else { c }).collect();
    let name = if host { own } else { short.trim_matches(['-', '.']).to_string() };
    let name = Some(name).filter(|name| !name.is_empty());
    let shown = said.hostname.clone().or(name.clone()).unwrap_or_else(|| "container".into());
    let path = |file: &str| folder.path.join(file).to_string_lossy().into_owned();
    let hosts = match host {
        true => std::fs::read("/etc/hosts").unwrap_or_default(),
        false => bundle::hosts(&shown).into_bytes(),
    };
    folder.write("hosts", &hosts)?;
    folder.write("hostname", format!("{shown}\n").as_bytes())?;
    let mut around = Surroundings {
        root_path: ROOT.into(),
        environment: if said.env.is_empty() { Default::default() } else { environment() },
        hostname: name,
        hosts: Some(path("hosts")),
        hostname_file: Some(path("hostname")),
        nested: path(own::NESTED),
        ..Surroundings::default()
    };
    if host && let Ok(text) = std::fs::read("/etc/resolv.conf") {
        write(&folder.path.join("resolv.conf"), &text)?;
        around.resolv_conf = Some(path("resolv.conf"));
    }
    if store.form() == Form::UserOverlay {
        around.groups = Some(users::last_group()?);
    }
    around.selinux = Path::new("/sys/fs/selinux/enforce").exists();
    Ok(around)
}

fn environment() -> std::collections::BTreeMap<String, String> {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect()
}

/// What `-v` says. Its folder must be there: else the sentence would name a place in a config.json that nobody wrote.
fn volume(text: &str, here: &Path) -> Result<Volume> {
    let volume = Volume::parse(text, here).map_err(told)?;
    if let Source::Host(path) = &volume.source
        && std::fs::symlink_metadata(path).is_err_and(|e| e.kind() == ErrorKind::NotFound)
    {
        let why = format!("--volume {text:?}: {path:?}: no such file or directory: make it first");
        return Err(Error::new(Code::NotFound, why));
    }
    Ok(volume)
}

fn said(args: &RunImage, command: &[OsString]) -> Result<Said> {
    let here = match args.volumes.is_empty() {
        true => PathBuf::new(),
        false => std::env::current_dir().call("getcwd")?,
    };
    let command = command.iter().map(|word| {
        let word = word.to_str().map(String::from);
        word.ok_or_else(|| Error::new(Code::Usage, "run: the command is not UTF-8, as config.json has to be"))
    });
    Ok(Said {
        command: command.collect::<Result<_>>()?,
        entrypoint: args.entrypoint.clone(),
        terminal: args.tty,
        env: env(args)?,
        volumes: args
            .volumes
            .iter()
            .map(|text| volume(text, &here))
            .chain(args.tmpfs.iter().map(|text| Volume::tmpfs(text).map_err(told)))
            .collect::<Result<_>>()?,
        user: args.user.clone(),
        working_dir: args.workdir.clone(),
        read_only: args.read_only,
        hostname: args.hostname.clone(),
        memory: args.memory.as_deref().map_or(Ok(0), bundle::memory).map_err(told)?,
        cpus: args.cpus.as_deref().map_or(Ok(None), Cpus::parse).map_err(told)?,
        pids_limit: match &args.pids_limit {
            None => 0,
            Some(text) => text.parse().ok().filter(|limit| *limit >= -1).ok_or_else(|| {
                Error::new(Code::Usage, format!("--pids-limit: {text:?} is no number of processes"))
            })?,
        },
        network: args.net.as_deref().map_or(Ok(Network::default()), Network::parse).map_err(told)?,
        seccomp: seccomp(&args.security)?,
    })
}

/// What `--env-file` and then `--env` say. A line of such a file is what `--env` takes; empty ones and those that begin with
/// `#` say nothing.
fn env(args: &RunImage) -> Result<Vec<String>> {
    let mut env = Vec::new();
    for file in &args.env_files {
        let shown = file.display();
        let text = std::fs::read_to_string(file).call(format!("--env-file: read {shown}"))?;
        for (i, line) in text.lines().enumerate() {
            let entry = line.trim_start();
            if entry.is_empty() || entry.starts_with('#') {
                continue;
            }
            let name = entry.split('=').next().unwrap_or_default();
            if name.is_empty() || name.contains(char::is_whitespace) {
                let message = format!("--env-file {shown}: line {}: is not NAME=VALUE or NAME", i + 1);
                return Err(Error::new(Code::Usage, message));
            }
            env.push(entry.to_string());
        }
    }
    env.extend(args.env.iter().cloned());
    Ok(env)
}

/// `--security-opt`, of which Docker lets the last one count.
fn seccomp(options: &[String]) -> Result<Seccomp> {
    let usage = |message: String| Error::new(Code::Usage, format!("--security-opt {message}"));
    let mut asked = Seccomp::Default;
    for option in options {
        let Some((_, value)) = option.split_once(['=', ':']).filter(|(name, _)| *name == "seccomp") else {
            return Err(usage(format!("{option:?}: there is seccomp=FILE and seccomp=unconfined")));
        };
        asked = match value {
            "" => return Err(usage(format!("{option:?} names no file"))),
            "unconfined" => Seccomp::Unconfined,
            "builtin" => Seccomp::Default,
            file => {
                let text = std::fs::read(file).call(format!("open {file}")).context("--security-opt")?;
                let release = rustix::system::uname().release().to_string_lossy().into_owned();
                Seccomp::Profile(bundle::seccomp::given(&text, &release).map_err(told).context(file)?)
            }
        };
    }
    Ok(asked)
}

/// The config.json of a bundle of `image`, for which nobody says anything. An image of data has no command: the bundle gets
/// `sh`, as umoci's do, for who has it to change it.
pub fn plain_config(image: &rcrun_image::source::Image, root: &RootFiles) -> Result<bundle::Converted> {
    let groups = users::entered().map(|_| users::last_group()).transpose()?;
    let around = Surroundings {
        root_path: "rootfs".into(),
        environment: environment(),
        groups,
        ..Surroundings::default()
    };
    let execution = &image.config.config;
    let command = match execution.entrypoint.is_empty() && execution.cmd.is_empty() {
        true => vec!["sh".to_string()],
        false => Vec::new(),
    };
    bundle::config(&image.config, &Said { command, ..Said::default() }, &around, root).map_err(told)
}

/// A mount namespace of this process's own, and the way back: for mount(2), which gives no fd.
struct Apart {
    namespace: OwnedFd,
    root: OwnedFd,
    here: OwnedFd,
}

impl Apart {
    fn enter() -> Result<Apart> {
        let open = |path: &str, flags: OFlags| {
            rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).call(format!("open {path}"))
        };
        let namespace = open("/proc/self/ns/mnt", OFlags::RDONLY)?;
        let root = open("/", OFlags::PATH | OFlags::DIRECTORY)?;
        let here = open(".", OFlags::PATH | OFlags::DIRECTORY)?;
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
            .map_err(|e| Error::call("unshare CLONE_NEWNS", std::io::Error::from(e)))?;
        let apart = Apart { namespace, root, here };
        // What the machine mounts and unmounts is seen here still, and nothing the other way.
        let propagation = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        match rustix::mount::mount_change("/", propagation) {
            Ok(()) => Ok(apart),
            Err(e) => Err(e).call("mount --make-rslave /").map_err(|error| match apart.leave() {
                Ok(()) => error,
                Err(left) => error.attach(&left),
            }),
        }
    }

    /// Goes back: a process that stays would hold file systems that the machine unmounts.
    fn leave(self) -> Result<()> {
        nix::sched::setns(&self.namespace, nix::sched::CloneFlags::CLONE_NEWNS)
            .map_err(|e| Error::call("setns to the mount namespace", std::io::Error::from(e)))?;
        // setns goes to the root of the namespace, which need not be that of the caller.
        rustix::process::fchdir(&self.root).call("fchdir /")?;
        rustix::process::chroot(".").call("chroot .")?;
        // A working folder that was removed meanwhile, or cannot be entered, is not worth a failure.
        let _ = rustix::process::fchdir(&self.here);
        Ok(())
    }
}

/// A user without root has the ids that his ranges give him, or root alone: what helps where another is asked for.
pub fn of_no_range(error: Error) -> Error {
    let asked = error.pointer() == Some("/process/user") && error.errno() == Some(libc::EINVAL);
    let hint = users::entered().filter(|_| asked).map(|maps| match maps.uid.lines().count() {
        1 => {
            "this user has no ranges of ids in /etc/subuid and /etc/subgid, and without them root alone: let root call \
             `usermod --add-subuids FIRST-LAST --add-subgids FIRST-LAST USER`"
        }
        _ => "it is beyond the ids that /etc/subuid and /etc/subgid give this user",
    });
    error.hint(hint)
}

/// Without `-i` a container reads nothing.
pub fn close_stdin(args: &RunImage) -> Result<()> {
    if args.interactive || args.tty {
        return Ok(());
    }
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .call("open /dev/null")?;
    rustix::stdio::dup2_stdin(&null).call("dup2").context("standard input")
}
