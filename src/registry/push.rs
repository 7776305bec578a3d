//! An image of the store into a registry: blobs that it lacks, then the manifest, which makes it an image there.
//! Uses: client.

use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcrun_image::document::{Descriptor, Document, media};
use rcrun_image::source::{Blobs, Image, Layer};
use rcrun_image::store::Store;
use rcrun_image::{Code, Digest, Error, Name, Result};
use ureq::http::{Method, StatusCode};

use crate::client::{Ask, Client, Payload};
use crate::options::{Options, Progress, Report};
use crate::pull::content_digest;
use crate::words::shown;

/// What a push did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The digest of the manifest, the name of the image for ever.
    pub digest: Digest,
    /// Blobs that were sent.
    pub sent: usize,
    /// Blobs that the registry took from another of its repositories.
    pub mounted: usize,
    /// Blobs that were there.
    pub there: usize,
}

/// Carries the image of the manifest `image` from `store` to where `name` says, with its tag or, where it has one, by
/// its digest.
pub fn push(
    store: &Store,
    image: &Digest,
    name: &Name,
    options: &Options,
    report: &Report<'_>,
) -> Result<Pushed> {
    let of = |e: Error| e.of(format_args!("push {name}"));
    if name.digest().is_some_and(|digest| digest != *image) {
        return Err(of(Error::new(Code::Usage, format!("the image has the digest {image}"))));
    }
    let _hold = store.hold_image(image)?;
    let image = store.image(image)?;
    let others = others(store, &image, name)?;
    let froms: Vec<&str> = others.iter().map(|(path, _)| path.as_str()).collect();
    let client = Client::connect(name, "pull,push", &froms, options).map_err(of)?;
    Push { client, store, name, image: &image, others, report }.all().map_err(of)
}

/// Other repositories of the registry that the store has images of, and the blobs that they have in common with `image`.
fn others(store: &Store, image: &Image, name: &Name) -> Result<Vec<(String, Vec<Digest>)>> {
    /// A token is asked for each.
    const MAX: usize = 4;
    let mut others: Vec<(String, Vec<Digest>)> = Vec::new();
    for named in store.names()? {
        let other = &named.name;
        if other.registry() != name.registry() || other.path() == name.path() || others.len() == MAX {
            continue;
        }
        let Some(record) = store.record(&named.manifest)? else { continue };
        let common: Vec<Digest> = image
            .layers
            .iter()
            .map(|layer| layer.descriptor.digest)
            .filter(|digest| record.layers.iter().any(|layer| layer.blob == *digest))
            .collect();
        if !common.is_empty() {
            others.push((other.path().to_string(), common));
        }
    }
    Ok(others)
}

struct Push<'a> {
    client: Client<'a>,
    store: &'a Store,
    name: &'a Name,
    image: &'a Image,
    others: Vec<(String, Vec<Digest>)>,
    report: &'a Report<'a>,
}

/// A blob to send.
#[derive(Clone, Copy)]
struct Upload<'a> {
    digest: Digest,
    size: u64,
    content: Content<'a>,
}

/// What it is.
#[derive(Clone, Copy)]
enum Content<'a> {
    Text(&'a [u8]),
    Layer(&'a Layer),
}

/// Tells of what is read.
struct Told<'a> {
    inner: Box<dyn Read + 'a>,
    report: &'a Report<'a>,
    upload: (Digest, u64),
    done: u64,
}

impl Read for Told<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.done += read as u64;
        let (digest, size) = self.upload;
        (self.report)(Progress::Blob { digest, done: self.done, size });
        Ok(read)
    }
}

enum Done {
    Sent,
    Mounted,
    There,
}

impl Push<'_> {
    fn all(&self) -> Result<Pushed> {
        let config = &self.image.config_descriptor;
        let text = Content::Text(&self.image.config_text);
        let mut work = vec![Upload { digest: config.digest, size: config.size, content: text }];
        for layer in &self.image.layers {
            let Descriptor { digest, size, .. } = layer.descriptor;
            if !work.iter().any(|other| other.digest == digest) {
                work.push(Upload { digest, size, content: Content::Layer(layer) });
            }
        }
        let bytes = work.iter().map(|blob| blob.size).sum();
        (self.report)(Progress::Ahead { blobs: work.len(), bytes });
        work.sort_by_key(|blob| std::cmp::Reverse(blob.size));
        let next = AtomicUsize::new(0);
        let attempts = &self.client.attempts;
        let result = Mutex::new(Ok(Pushed { digest: self.image.digest, sent: 0, mounted: 0, there: 0 }));
        let worker = || {
            while !attempts.is_given_up() {
                let Some(blob) = work.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                let done = self.blob(blob);
                let mut result = result.lock().expect("a lock that no panic held");
                match (done, &mut *result) {
                    (Ok(Done::Sent), Ok(pushed)) => pushed.sent += 1,
                    (Ok(Done::Mounted), Ok(pushed)) => pushed.mounted += 1,
                    (Ok(Done::There), Ok(pushed)) => pushed.there += 1,
                    (Err(error), Ok(_)) => {
                        attempts.give_up();
                        *result = Err(error.of(format_args!("blob {}", blob.digest)));
                    }
                    // What follows the first failure is its consequence.
                    (_, Err(_)) => return,
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.client.options.parallel.clamp(1, work.len()) {
                scope.spawn(worker);
            }
            worker();
        });
        let pushed = result.into_inner().expect("a lock that no panic held")?;
        self.manifest()?;
        Ok(pushed)
    }

    fn blob(&self, blob: &Upload<'_>) -> Result<Done> {
        let Upload { digest, size, .. } = *blob;
        let tell = |done| (self.report)(Progress::Blob { digest, done, size });
        tell(0);
        let mut failures = 0;
        loop {
            let done = match self.is_there(&digest, size) {
                Ok(true) => Ok(Done::There),
                Ok(false) => self.upload(blob, &mut failures),
                Err(error) => Err(error),
            };
            let error = match done {
                Ok(done) => {
                    tell(size);
                    return Ok(done);
                }
                Err(error) => error,
            };
            failures += 1;
            self.client.again(failures, error)?;
        }
    }

    fn is_there(&self, digest: &Digest, size: u64) -> Result<bool> {
        let at = format!("/v2/{}/blobs/{digest}", self.name.path());
        let answer = self.client.ask(&Ask::new(&Method::HEAD, &at))?;
        match answer.status() {
            StatusCode::OK => {
                let length =
                    answer.headers().get("content-length").and_then(|l| l.to_str().ok()?.parse().ok());
                // Another size under this digest is damage; sending it again may mend it.
                Ok(length.is_none_or(|length: u64| length == size))
            }
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.client.refused(answer, "say whether it has it")),
        }
    }

    fn upload(&self, blob: &Upload<'_>, failures: &mut u32) -> Result<Done> {
        let Upload { digest, size, .. } = *blob;
        let path = self.name.path();
        let mut at = format!("/v2/{path}/blobs/uploads/");
        let from = self.others.iter().find(|(_, blobs)| blobs.contains(&digest));
        if let Some((from, _)) = from {
            at += &format!("?mount={digest}&from={from}");
        }
        let answer = self.client.ask(&Ask { body: Payload::Bytes(b""), ..Ask::new(&Method::POST, &at) })?;
        match answer.status() {
            StatusCode::CREATED if from.is_some() => return Ok(Done::Mounted),
            StatusCode::ACCEPTED => {}
            _ => return Err(self.client.refused(answer, "begin an upload")),
        }
        let mut at = self.client.next(&at, answer.headers())?;
        let mut begin = 0;
        if let Some(chunk) = self.client.options.chunk.filter(|chunk| *chunk > 0 && *chunk < size) {
            while begin < size {
                if self.client.attempts.is_given_up() {
                    return Err(Error::new(Code::System, "stopped"));
                }
                let end = size.min(begin + chunk);
                match self.chunk(&at, blob, begin, end) {
                    Ok(next) => {
                        (at, begin) = (next, end);
                        *failures = 0;
                    }
                    Err(error) => {
                        *failures += 1;
                        self.client.again(*failures, error)?;
                        (at, begin) = self.status(&at)?;
                    }
                }
            }
        }
        let separator = if at.contains('?') { '&' } else { '?' };
        let last = format!("{at}{separator}digest={digest}");
        let make = || self.open(blob, begin, size);
        let body = if begin == size { Payload::Bytes(b"") } else { Payload::Made(size - begin, &make) };
        let headers = &[("content-type", "application/octet-stream")];
        let answer = self.client.ask(&Ask { method: &Method::PUT, at: &last, headers, body, size: 0 })?;
        if answer.status() != StatusCode::CREATED {
            return Err(self.client.refused(answer, "take it"));
        }
        Ok(Done::Sent)
    }

    /// Sends bytes `begin..end`; where the next go to.
    fn chunk(&self, at: &str, blob: &Upload<'_>, begin: u64, end: u64) -> Result<String> {
        let range = format!("{begin}-{}", end - 1);
        let headers = &[("content-type", "application/octet-stream"), ("content-range", range.as_str())];
        let make = || self.open(blob, begin, end);
        let body = Payload::Made(end - begin, &make);
        let answer = self.client.ask(&Ask { method: &Method::PATCH, at, headers, body, size: 0 })?;
        match answer.status() {
            StatusCode::ACCEPTED => self.client.next(at, answer.headers()),
            _ => Err(self.client.refused(answer, "take a chunk of it")),
        }
    }

    /// Where an upload that broke goes on, and from which byte.
    fn status(&self, at: &str) -> Result<(String, u64)> {
        let answer = self.client.ask(&Ask::new(&Method::GET, at))?;
        if answer.status() != StatusCode::NO_CONTENT {
            // Debian's registry forgets an upload whose last answer was lost: then it begins anew.
            let refused = self.client.refused(answer, "say how much of it came");
            return Err(Error::new(Code::System, refused.to_string()));
        }
        let range = answer.headers().get("range").and_then(|range| range.to_str().ok()).unwrap_or_default();
        let last: u64 = range
            .trim_start_matches("bytes=")
            .strip_prefix("0-")
            .and_then(|last| last.parse().ok())
            .ok_or_else(|| Error::invalid(format!("says that {:?} of it came", shown(range, 100))))?;
        let next = self.client.next(at, answer.headers()).unwrap_or_else(|_| at.to_string());
        // The spec writes 0-0 for nothing as for one byte: sending that one again is refused, so it is nothing.
        Ok((next, if last == 0 { 0 } else { last + 1 }))
    }

    /// Bytes `begin..end`, which tell of progress while they are read.
    fn open<'a>(&'a self, blob: &Upload<'a>, begin: u64, end: u64) -> Result<Box<dyn Read + 'a>> {
        let inner: Box<dyn Read + 'a> = match blob.content {
            Content::Text(text) => {
                let at = |byte| usize::try_from(byte).unwrap_or(usize::MAX).min(text.len());
                Box::new(&text[at(begin)..at(end)])
            }
            Content::Layer(layer) => Box::new(self.store.open_at(layer, begin)?.take(end - begin)),
        };
        let Upload { digest, size, .. } = *blob;
        Ok(Box::new(Told { inner, report: self.report, upload: (digest, size), done: begin }))
    }

    fn manifest(&self) -> Result<()> {
        let digest = self.image.digest;
        let reference = self.name.digest().map_or(self.name.tag().to_string(), |digest| digest.to_string());
        let at = format!("/v2/{}/manifests/{reference}", self.name.path());
        let media_type = match Document::parse("manifest", &self.image.manifest, None)? {
            Document::Manifest(manifest) => manifest.media_type,
            Document::Index(_) => media::INDEX.into(),
        };
        let headers = &[("content-type", media_type.as_str())];
        let body = Payload::Bytes(&self.image.manifest);
        let mut failures = 0;
        loop {
            let error = match self.client.ask(&Ask { method: &Method::PUT, at: &at, headers, body, size: 0 })
            {
                Ok(answer) if answer.status() == StatusCode::CREATED => {
                    return match content_digest(answer.headers()) {
                        Some(other) if other != digest && other.algorithm() == digest.algorithm() => {
                            Err(Error::invalid(format!("the registry took {digest} for {other}")))
                        }
                        _ => Ok(()),
                    };
                }
                Ok(answer) => self.client.refused(answer, "take the manifest"),
                Err(error) => error,
            };
            failures += 1;
            self.client.again(failures, error)?;
        }
    }
}
