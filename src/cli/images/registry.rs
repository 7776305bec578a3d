//! `rcrun image pull` and `push`. Uses: rcrun-registry, load, progress.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rcrun_image::import::{self, Imported};
use rcrun_image::store::Store;
use rcrun_image::{Digest, Name, Platform};
use rcrun_registry::{Options, Progress};
use rcrun_runtime::{Code, Error, Result, users};

use super::progress::Bar;
use super::table::bytes;
use super::{find, load, parse, told};
use crate::{Global, output};

/// Layers that come at the same time at least: a registry answers slowly, whatever processors this machine has.
const PARALLEL: usize = 4;

/// `rcrun image pull`
pub fn pull(
    global: &Global,
    store: &Store,
    word: &str,
    platform: Option<&str>,
    plain_http: bool,
    quiet: bool,
) -> Result<()> {
    let name = remote(word)?;
    let platform = platform.map_or(Ok(Platform::host()), str::parse).map_err(told)?;
    let before = store.find(&name).map_err(told)?;
    let (pulled, amounts) = carry(global, store, &name, &platform, plain_http, quiet)?;
    let digest = pulled.digest;
    if quiet {
        return output::print(format!("{digest}\n"));
    }
    let named = match name.digest() {
        None => format!(" as {}", name.short()),
        Some(_) => String::new(),
    };
    let what = match pulled.blobs {
        0 if before == Some(digest) && pulled.unpacked == 0 => {
            return output::print(format!("{} is up to date: {digest}\n", name.short()));
        }
        0 => "all its layers were there already".to_string(),
        1 => amounts.told("1 layer"),
        blobs => amounts.told(&format!("{blobs} layers")),
    };
    output::print(format!("pulled {digest}{named}: {what}\n"))
}

/// What `word` means to its registry now, for `run`: standard output is the container's.
pub fn bring(global: &Global, store: &Store, word: &OsStr, platform: &Platform) -> Result<Digest> {
    let name = word.to_str().ok_or_else(|| {
        Error::new(Code::Usage, format!("the image {word:?} is not UTF-8, as every name of an image is"))
    });
    let (pulled, _) = carry(global, store, &remote(name?)?, platform, false, false)?;
    Ok(pulled.digest)
}

fn carry(
    global: &Global,
    store: &Store,
    name: &Name,
    platform: &Platform,
    plain_http: bool,
    quiet: bool,
) -> Result<(Imported, Amounts)> {
    let options = import::Options { jail: load::jail(), ..import::Options::default() };
    let options = import::Options { parallel: options.parallel.max(PARALLEL), ..options };
    let carried = Carried::new(name, quiet);
    let report = |progress| carried.tell(progress);
    let pulled = rcrun_registry::pull(name, platform, store, &spoken(plain_http), &options, &report);
    let amounts = carried.end();
    let pulled = pulled.map_err(told)?;
    pulled.notes.iter().for_each(|note| global.log.warn(note.clone()));
    Ok((pulled, amounts))
}

/// `rcrun image push`
pub fn push(store: &Store, word: &OsStr, name: Option<&str>, plain_http: bool, quiet: bool) -> Result<()> {
    let image = find(store, word)?;
    let name = match name {
        Some(name) => remote(name)?,
        None => own_name(store, word, &image)?,
    };
    let carried = Carried::new(&name, quiet);
    let report = |progress| carried.tell(progress);
    let pushed = rcrun_registry::push(store, &image, &name, &spoken(plain_http), &report);
    carried.end();
    let pushed = pushed.map_err(told)?;
    if quiet {
        return output::print(format!("{}\n", pushed.digest));
    }
    let mut told = Vec::new();
    for (count, what) in [
        (pushed.sent, "sent"),
        (pushed.there, "already there"),
        (pushed.mounted, "taken there from another image"),
    ] {
        if count > 0 {
            told.push(format!("{count} {what}"));
        }
    }
    output::print(format!("pushed {} as {} (blobs: {})\n", pushed.digest, name.short(), told.join(", ")))
}

/// How registries are spoken to.
fn spoken(plain_http: bool) -> Options {
    Options { plain_http, ..Options::of_environment(users::caller()) }
}

/// The name of an image in a registry.
fn remote(word: &str) -> Result<Name> {
    // What other tools and browsers write before it.
    match word.split_once("://") {
        Some((_, rest)) => {
            let message = format!("image name {word:?}: a name has no scheme, write {rest}");
            Err(Error::new(Code::Usage, message))
        }
        None => parse(word),
    }
}

/// The name of `image` that `word` is: digits are none.
fn own_name(store: &Store, word: &OsStr, image: &Digest) -> Result<Name> {
    if let Some(name) = word.to_str().and_then(|word| word.parse::<Name>().ok())
        && store.find(&name).map_err(told)?.as_ref() == Some(image)
    {
        return Ok(name);
    }
    let message = format!("push: {} does not say where to: write a name behind it", word.display());
    Err(Error::new(Code::Usage, message))
}

/// What was carried, shown on the terminal while it is.
struct Carried {
    bar: Bar,
    amounts: Mutex<Amounts>,
}

#[derive(Default)]
struct Amounts {
    /// Bytes to carry.
    total: u64,
    /// Of them were there when their blobs began.
    kept: u64,
    /// And came since.
    came: u64,
    /// Bytes that another pull carries.
    elsewhere: u64,
    /// Where each blob is.
    blobs: HashMap<Digest, At>,
    /// When the first came.
    begin: Option<Instant>,
}

/// Where a blob is.
enum At {
    /// So many bytes of it are there.
    Here(u64),
    /// Another pull has it.
    Elsewhere,
}

impl Carried {
    fn new(name: &Name, quiet: bool) -> Carried {
        Carried { bar: Bar::new(name.short(), quiet), amounts: Mutex::default() }
    }

    fn tell(&self, progress: Progress) {
        let mut amounts = self.amounts.lock().unwrap_or_else(PoisonError::into_inner);
        amounts.add(progress);
        // Nothing may follow for long.
        let news = matches!(progress, Progress::Waits { .. });
        self.bar.show(amounts.kept + amounts.came, amounts.total, news, || amounts.more());
    }

    fn end(self) -> Amounts {
        self.amounts.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Amounts {
    fn add(&mut self, progress: Progress) {
        match progress {
            Progress::Ahead { bytes, .. } => self.total += bytes,
            Progress::Waits { digest, size } => {
                if self.blobs.insert(digest, At::Elsewhere).is_none() {
                    self.total = self.total.saturating_sub(size);
                    self.elsewhere += size;
                }
            }
            Progress::Blob { digest, done, size } => {
                match self.blobs.insert(digest, At::Here(done)) {
                    Some(At::Here(before)) => {
                        self.came = (self.came + done).saturating_sub(before);
                        return;
                    }
                    // The other pull gave up.
                    Some(At::Elsewhere) => {
                        self.total += size;
                        self.elsewhere = self.elsewhere.saturating_sub(size);
                    }
                    None => {}
                }
                self.kept += done;
                self.begin.get_or_insert_with(Instant::now);
            }
        }
    }

    /// What came of `layers` from where.
    fn told(&self, layers: &str) -> String {
        let mut told = layers.to_string();
        let Amounts { kept, came, elsewhere, .. } = *self;
        for (amount, whence) in [
            (came, ""),
            (kept, " from a pull that had stopped"),
            (elsewhere, " by another pull at the same time"),
        ] {
            if amount > 0 {
                told += &format!(", {}{whence}", bytes(amount));
            }
        }
        told
    }

    /// How fast it is, and what is waited for.
    fn more(&self) -> String {
        let time = self.begin.map_or(Duration::ZERO, |begin| begin.elapsed());
        let mut more = String::new();
        // Before, it says nothing.
        if time > Duration::from_millis(500) {
            more += &format!(", {}/s", bytes((self.came as f64 / time.as_secs_f64()) as u64));
        }
        if self.elsewhere > 0 {
            more += &format!(", {} by another pull", bytes(self.elsewhere));
        }
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_and_what_was_there_are_counted_apart() {
        let [one, two, three] = [b"1", b"2", b"3"].map(|text| Digest::of(text));
        let mut amounts = Amounts::default();
        let blob = |digest, done| Progress::Blob { digest, done, size: 100 };
        for progress in [
            Progress::Ahead { blobs: 3, bytes: 300 },
            blob(one, 40),
            blob(two, 0),
            Progress::Waits { digest: three, size: 100 },
            blob(one, 70),
            blob(two, 100),
        ] {
            amounts.add(progress);
        }
        assert_eq!((amounts.total, amounts.kept, amounts.came, amounts.elsewhere), (200, 40, 130, 100));
        assert_eq!(amounts.more(), ", 100 B by another pull");
        assert!(amounts.told("3 layers").ends_with(", 100 B by another pull at the same time"));
        // The other pull died at 60; an upload that broke begins anew.
        for progress in [blob(three, 60), blob(three, 90), blob(two, 0), blob(two, 100)] {
            amounts.add(progress);
        }
        assert_eq!((amounts.total, amounts.kept, amounts.came, amounts.elsewhere), (300, 100, 160, 0));
        assert_eq!(amounts.told("3 layers"), "3 layers, 160 B, 100 B from a pull that had stopped");
    }
}
