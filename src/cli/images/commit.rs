//! `rcrun image diff` and `commit`: what a container of an image changed, and a new image of it. Uses: container, own, load,
//! rcrun-image.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rcrun_image::commit::{self, Taken, Words};
use rcrun_image::layer::{ChangeKind, Changes, Over};
use rcrun_image::store::{Store, Unpacked};
use rcrun_image::{Digest, import};
use rcrun_runtime::container::{self, Container, StateRoot, Status};
use rcrun_runtime::error::{CallContext, Context};
use rcrun_runtime::spec::id::ContainerId;
use rcrun_runtime::{Code, Error, Result};
use rustix::process::Resource;
use serde_json::json;

use super::{load, open, own, parse, told};
use crate::args::{Commit, OfContainer, Table};
use crate::{ExitCode, Global, output};

/// `rcrun image diff`, `rcrun image commit`
#[inline(never)]
pub fn run(global: &Global, args: &OfContainer) -> Result<ExitCode> {
    more_files();
    match args {
        OfContainer::Diff { container, format } => diff(global, container, *format)?,
        OfContainer::Commit(args) => commit(global, args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A walk through a deep tree over many layers has many folders open at a time.
fn more_files() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let most = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Without, most trees can be walked.
    let _ = rustix::process::setrlimit(Resource::Nofile, most);
}

/// A container of an image.
struct OfImage {
    container: Container,
    store: Store,
    /// Its folder in the store.
    folder: PathBuf,
    digest: Digest,
    /// As long as it is there, nobody removes the folder.
    _lock: OwnedFd,
}

fn find(global: &Global, id: &ContainerId) -> Result<OfImage> {
    let root = StateRoot::new(&global.root);
    super::container::enter(&root, id)?;
    let container = root.open(id)?;
    let being_made = || Error::new(Code::Status, "the container is being made or removed");
    let bundle = container.state()?.ok_or_else(being_made)?.bundle;
    let Some(place) = super::container::store_of(&bundle, id.as_str()) else {
        let message = "the container was made from a bundle: only of a container of an image (`rcrun run IMAGE`) is it \
                       known what it changed";
        return Err(Error::new(Code::Usage, message));
    };
    let lock = super::container::hold(&bundle)?;
    // It may have been deleted, and made anew, before the lock.
    if container.state()?.is_none_or(|state| state.bundle != bundle) {
        return Err(being_made());
    }
    let store = open(&place)?;
    let digest = store.image_of_container(id.as_str()).map_err(told)?.ok_or_else(|| {
        Error::new(Code::System, format!("the store {} does not know of which image it is", place.display()))
    })?;
    Ok(OfImage { container, store, folder: bundle, digest, _lock: lock })
}

impl OfImage {
    fn upper(&self) -> Result<File> {
        let path = self.folder.join("upper");
        File::open(&path).call(format!("open {}", path.display()))
    }

    fn layers(&self) -> Result<Vec<Unpacked>> {
        self.store.layers_of(&self.digest).map_err(told)
    }

    fn changes(&self, upper: &File) -> Result<Changes> {
        let layers = self.layers()?;
        let lower = || layers.iter().map(|layer| layer.fd.try_clone()).collect();
        let over = Over {
            form: self.store.form(),
            lower: &lower,
            root: layers.iter().find(|layer| layer.root).map(|layer| layer.fd.as_fd()),
            made: &own::made(&self.folder)?,
            without: &own::volumes(&self.folder)?,
        };
        commit::changes(upper.as_fd(), &over).map_err(told)
    }
}

/// `rcrun image diff`
fn diff(global: &Global, id: &str, format: Table) -> Result<()> {
    let id: ContainerId = id.parse()?;
    let found = find(global, &id).and_then(|found| found.changes(&found.upper()?));
    let mut changes = found.context(format!("diff {id}"))?.all;
    // As paths are sorted, not as folders are walked: `a.b` before `a/b`.
    changes.sort_by(|one, other| one.path.cmp(&other.path));
    let letter = |kind| match kind {
        ChangeKind::Added => "A",
        ChangeKind::Changed => "C",
        ChangeKind::Removed => "D",
    };
    let lines = changes.iter().map(|change| (letter(change.kind), own::shown(&change.path)));
    match format {
        Table::Json => {
            output::line(&lines.map(|(kind, path)| json!({ "kind": kind, "path": path })).collect::<Vec<_>>())
        }
        Table::Table => output::print(
            lines.map(|(k, path)| format!("{k} {}\n", crate::output::shown(&path))).collect::<String>(),
        ),
    }
}

/// `rcrun image commit`
fn commit(global: &Global, args: &Commit) -> Result<()> {
    let id: ContainerId = args.container.parse()?;
    let name = parse(&args.name)?;
    let instructions = args.changes.iter().map(|text| text.parse().map_err(told));
    let instructions = instructions.collect::<Result<Vec<_>>>().context("commit")?;
    let latest = source_date_epoch()?;
    let imported = (|| {
        let found = find(global, &id)?;
        let words = Words {
            author: args.author.clone(),
            message: args.message.clone(),
            created_by: command(&found)?,
            instructions,
        };
        let base = found.store.image(&found.digest).map_err(told)?;
        let taken = match args.pause {
            true => paused(&found, || take(&found, latest))?,
            false => take(&found, latest)?,
        };
        taken.notes().iter().for_each(|note| global.log.warn(note.clone()));
        let options =
            import::Options { names: vec![name.clone()], jail: load::jail(), ..import::Options::default() };
        let imported = commit::commit(&found.store, &base, &taken, &words, latest, &options).map_err(told)?;
        imported.notes.iter().for_each(|note| global.log.warn(note.clone()));
        Ok(imported)
    })();
    let imported = imported.map_err(|e: Error| e.context(format!("commit {id}")))?;
    output::print(match args.quiet {
        true => format!("{}\n", imported.digest),
        false => format!("committed {} as {}\n", imported.digest, name.short()),
    })
}

/// The time that reproducible builds go by, in seconds of 1970.
fn source_date_epoch() -> Result<Option<i64>> {
    let Some(word) = std::env::var_os("SOURCE_DATE_EPOCH").filter(|word| !word.is_empty()) else {
        return Ok(None);
    };
    let seconds = word.to_str().and_then(|word| word.parse::<u32>().ok()).map(i64::from);
    let wrong =
        || Error::new(Code::Usage, format!("SOURCE_DATE_EPOCH: {word:?} is no number of seconds since 1970"));
    seconds.map(Some).ok_or_else(wrong)
}

/// What the container was started with.
fn command(found: &OfImage) -> Result<Option<String>> {
    let spec = found.container.spec()?;
    Ok(spec.process().as_ref().and_then(|process| process.args().as_ref()).map(|args| args.join(" ")))
}

fn take(found: &OfImage, latest: Option<i64>) -> Result<Taken> {
    let upper = found.upper()?;
    let changes = found.changes(&upper)?;
    let signals = Signals::hold()?;
    let stop = || signals.came().map(|signal| format!("{} came", signal.as_str()));
    commit::take(&found.store, upper.as_fd(), &changes, found.store.form(), latest, &stop).map_err(told)
}

/// Does `work` while the container stands still. However that ends, it goes on; but one that was paused stays so.
fn paused<T>(found: &OfImage, work: impl FnOnce() -> Result<T>) -> Result<T> {
    // A signal that ended this process now would leave it paused.
    let signals = Signals::hold()?;
    match container::pause(&found.container) {
        // Paused already, or ended; or it ends just now.
        Err(e) if e.code() == Code::Status || status(found)? == Status::Stopped => return work(),
        other => other?,
    }
    let paused = Paused(&found.container);
    let done = work();
    let resumed = paused.end();
    drop(signals);
    match (done, resumed) {
        (Ok(done), Ok(())) => Ok(done),
        // It ended while it was paused: killed.
        (Ok(done), Err(_)) if status(found)? == Status::Stopped => Ok(done),
        (Ok(_), Err(error)) => Err(error),
        (Err(error), Ok(())) => Err(error),
        (Err(error), Err(left)) => Err(error.attach(&left)),
    }
}

fn status(found: &OfImage) -> Result<Status> {
    Ok(found.container.status(found.container.state()?.as_ref()))
}

/// A container that goes on when this is dropped.
struct Paused<'a>(&'a Container);

impl Paused<'_> {
    fn end(self) -> Result<()> {
        let container = self.0;
        std::mem::forget(self);
        container::resume(container)
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        let _ = container::resume(self.0);
    }
}

/// Holds back the signals that end a process, as long as it lives.
struct Signals {
    fd: SignalFd,
    before: SigSet,
}

impl Signals {
    fn hold() -> Result<Signals> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
            set.add(signal);
        }
        let before = set.thread_swap_mask(SigmaskHow::SIG_BLOCK).map_err(failed("sigprocmask"))?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(failed("signalfd"))?;
        Ok(Signals { fd, before })
    }

    /// One that came meanwhile.
    fn came(&self) -> Option<Signal> {
        let info = self.fd.read_signal().ok()??;
        Signal::try_from(info.ssi_signo as i32).ok()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
    }
}

fn failed(call: &'static str) -> impl Fn(nix::errno::Errno) -> Error {
    move |e| Error::call(call, std::io::Error::from(e))
}
