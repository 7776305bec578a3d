//! An image from a registry into the store: its documents, and its layers while they are unpacked. A connection that
//! breaks is made again and the blob goes on where it stopped. Uses: client, rcrun_image::import.

use std::collections::HashSet;
use std::io::{self, Read};

use rcrun_image::digest::Verified;
use rcrun_image::document::{Descriptor, SIZE_MAX, media};
use rcrun_image::import::{self, Imported, import};
use rcrun_image::source::{Blobs, Documents, Image, Layer, search};
use rcrun_image::store::Store;
use rcrun_image::{Code, Digest, Error, Name, Platform, Result};
use ureq::BodyReader;
use ureq::http::{HeaderMap, Method, StatusCode};

use crate::client::{Ask, Client, bounded};
use crate::options::{Options, Progress, Report};
use crate::words;

/// Carries the image `name` for `platform` into `store`. It gets that name, unless the name is a digest. What is there
/// already is not read again, and what was read when it failed is kept: the next pull goes on from there.
pub fn pull(
    name: &Name,
    platform: &Platform,
    store: &Store,
    options: &Options,
    import_options: &import::Options,
    report: &Report<'_>,
) -> Result<Imported> {
    let of = |e: Error| e.of(format_args!("pull {name}"));
    let client = Client::connect(name, "pull", &[], options).map_err(of)?;
    let remote = Remote { client, name, limit: import_options.limits.stream, report };
    let image = remote.image(platform).map_err(of)?;
    let mut met = HashSet::new();
    let mut bytes = 0;
    for Layer { descriptor: Descriptor { digest, size, .. }, .. } in &image.layers {
        if !met.contains(digest) && !store.has_blob(digest)? {
            met.insert(*digest);
            bytes += size;
        }
    }
    report(Progress::Ahead { blobs: met.len(), bytes });
    let mut import_options = import_options.clone();
    if name.digest().is_none() && !import_options.names.contains(name) {
        import_options.names.push(name.clone());
    }
    import(store, &remote, &image, &import_options).map_err(of)
}

struct Remote<'a> {
    client: Client<'a>,
    name: &'a Name,
    limit: u64,
    report: &'a Report<'a>,
}

/// The document that the name means, which is no more to be asked for.
struct Named<'a, 'b> {
    remote: &'b Remote<'a>,
    descriptor: Descriptor,
    text: Vec<u8>,
}

/// What the header `Content-Type` says, without its parameters.
fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get("content-type")?.to_str().ok()?.split(';').next().map(str::trim)
}

/// The digest that a registry says its answer has.
pub(crate) fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

impl Remote<'_> {
    fn image(&self, platform: &Platform) -> Result<Image> {
        let named = self.named()?;
        let mut image = search(&named, &[&named.descriptor], platform)?;
        for (i, layer) in image.layers.iter().enumerate() {
            let size = layer.descriptor.size;
            if size > self.limit {
                return Err(Error::new(
                    Code::Limit,
                    format!("layer {} has {size} bytes, more than {}", i + 1, self.limit),
                ));
            }
        }
        if self.name.digest().is_none() {
            image.names = vec![self.name.clone()];
        }
        Ok(image)
    }

    /// The text of a document, at most 4 MiB; `None` if it is not there.
    fn document(&self, at: &str, what: &str) -> Result<Option<(HeaderMap, Vec<u8>)>> {
        let accept = [media::MANIFEST, media::INDEX, media::DOCKER_MANIFEST, media::DOCKER_LIST, "*/*;q=0.1"]
            .join(", ");
        let ask = Ask { headers: &[("accept", &accept)], ..Ask::new(&Method::GET, at) };
        let mut failures = 0;
        loop {
            let error = match self.client.ask(&ask) {
                Ok(answer) if answer.status() == StatusCode::NOT_FOUND => return Ok(None),
                Ok(mut answer) if answer.status() == StatusCode::OK => match bounded(&mut answer, SIZE_MAX) {
                    Ok(text) => return Ok(Some((answer.headers().clone(), text))),
                    Err(error) => error.of(what),
                },
                Ok(answer) => self.client.refused(answer, &format!("give {what}")),
                Err(error) => error,
            };
            failures += 1;
            self.client.again(failures, error)?;
        }
    }

    fn named(&self) -> Result<Named<'_, '_>> {
        let asked = self.name.digest();
        let reference = asked.map_or(self.name.tag().to_string(), |digest| digest.to_string());
        let path = self.name.path();
        let (headers, text) = self
            .document(&format!("/v2/{path}/manifests/{reference}"), &format!("manifest {reference}"))?
            .ok_or_else(|| {
                let registry = self.name.registry();
                let what = match asked {
                    Some(digest) => digest.to_string(),
                    None if reference == "latest" => "the tag latest, which a name without one means".into(),
                    None => format!("the tag {reference}"),
                };
                Error::new(Code::NotFound, format!("registry {registry} has no image {path} with {what}"))
            })?;
        // Of a tag the registry alone says what it means; it must at least mean what it says.
        let digest = match asked.or(content_digest(&headers)) {
            Some(digest) => {
                must_be(&text, &digest)?;
                digest
            }
            None => Digest::of(&text),
        };
        let declared = content_type(&headers).filter(|t| media::is_manifest(t) || media::is_index(t));
        let own = || {
            #[derive(serde::Deserialize)]
            #[serde(rename_all = "camelCase")]
            struct Typed {
                media_type: Option<String>,
            }
            serde_json::from_slice::<Typed>(&text).ok().and_then(|typed| typed.media_type)
        };
        let media_type = declared.map(String::from).or_else(own).unwrap_or_else(|| media::MANIFEST.into());
        let descriptor = Descriptor {
            media_type,
            digest,
            size: text.len() as u64,
            platform: None,
            annotations: Default::default(),
        };
        Ok(Named { remote: self, descriptor, text })
    }
}

fn must_be(text: &[u8], digest: &Digest) -> Result<()> {
    io::copy(&mut Verified::new(text, *digest, text.len() as u64), &mut io::sink())
        .map(|_| ())
        .map_err(|e| Error::call("manifest", e))
}

impl Documents for Named<'_, '_> {
    fn read(&self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>> {
        let digest = descriptor.digest;
        if digest == self.descriptor.digest {
            return Ok(Some(self.text.clone()));
        }
        if descriptor.size > SIZE_MAX {
            return Err(Error::new(Code::Limit, format!("blob {digest}: is larger than {SIZE_MAX} bytes")));
        }
        let is_manifest =
            media::is_manifest(&descriptor.media_type) || media::is_index(&descriptor.media_type);
        let kind = if is_manifest { "manifests" } else { "blobs" };
        let at = format!("/v2/{}/{kind}/{digest}", self.remote.name.path());
        let Some((_, text)) = self.remote.document(&at, &format!("blob {digest}"))? else { return Ok(None) };
        io::copy(&mut Verified::new(&text[..], digest, descriptor.size), &mut io::sink())
            .map_err(|e| Error::call("read", e))?;
        Ok(Some(text))
    }
}

impl Blobs for Remote<'_> {
    fn open<'a>(&'a self, layer: &Layer) -> Result<Box<dyn Read + Send + 'a>> {
        self.open_at(layer, 0)
    }

    fn are_far(&self) -> bool {
        true
    }

    fn waits(&self, layer: &Layer) {
        let Descriptor { digest, size, .. } = layer.descriptor;
        (self.report)(Progress::Waits { digest, size });
    }

    fn open_at<'a>(&'a self, layer: &Layer, at: u64) -> Result<Box<dyn Read + Send + 'a>> {
        let Descriptor { digest, size, .. } = layer.descriptor;
        let blob = Blob { remote: self, digest, size, at, body: None, failures: 0, came: 0 };
        blob.tell();
        Ok(Box::new(blob))
    }
}

/// A blob while it comes.
struct Blob<'a> {
    remote: &'a Remote<'a>,
    digest: Digest,
    size: u64,
    at: u64,
    body: Option<BodyReader<'static>>,
    /// In a row, with less than [`PROGRESS`] bytes in between.
    failures: u32,
    /// Bytes since the last of them.
    came: u64,
}

/// So many bytes are worth another connection: a registry that gives one byte in each would be asked without end.
const PROGRESS: u64 = 32 << 10;

impl Blob<'_> {
    fn tell(&self) {
        let Blob { digest, at: done, size, .. } = *self;
        (self.remote.report)(Progress::Blob { digest, done, size });
    }

    /// Asks for what is missing.
    fn begin(&self) -> Result<BodyReader<'static>> {
        let client = &self.remote.client;
        let at = format!("/v2/{}/blobs/{}", self.remote.name.path(), self.digest);
        let range = format!("bytes={}-", self.at);
        let with_range = [("range", range.as_str())];
        let headers = if self.at > 0 { &with_range[..] } else { &[] };
        let answer = client.ask(&Ask { headers, size: self.size, ..Ask::new(&Method::GET, &at) })?;
        let skip = match answer.status() {
            StatusCode::OK => self.at,
            StatusCode::PARTIAL_CONTENT if self.at > 0 => {
                let range = answer.headers().get("content-range").and_then(|range| range.to_str().ok());
                let begins = range.and_then(|r| r.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
                if begins != Some(self.at) {
                    let range = words::shown(range.unwrap_or_default(), 100);
                    return Err(Error::invalid(format!(
                        "was asked for {with_range:?} and answers {range:?}"
                    )));
                }
                0
            }
            StatusCode::NOT_FOUND => {
                return Err(Error::new(Code::NotFound, format!("the registry has no blob {}", self.digest)));
            }
            _ => return Err(client.refused(answer, "give it")),
        };
        let left = self.size - self.at + skip;
        if let Some(length) = answer.body().content_length().filter(|length| *length != left) {
            let whole = length + self.at - skip;
            return Err(Error::invalid(format!("has {whole} bytes, and its descriptor says {}", self.size)));
        }
        let mut body = answer.into_body().into_with_config().limit(u64::MAX).reader();
        // A registry without ranges sends it all again.
        let skipped = io::copy(&mut Read::take(&mut body, skip), &mut io::sink());
        match skipped.map_err(|e| Error::call("read", e))? == skip {
            true => Ok(body),
            false => Err(Error::new(Code::System, "the connection ended")),
        }
    }
}

impl Read for Blob<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.size - self.at.min(self.size);
        // What comes after the last byte is nobody's.
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        loop {
            let came = match &mut self.body {
                Some(body) => body.read(&mut buffer[..wanted]).map_err(|e| Error::call("connection", e)),
                None => match self.begin() {
                    Ok(body) => {
                        self.body = Some(body);
                        continue;
                    }
                    Err(error) if error.code() == Code::System => Err(error),
                    Err(error) => return Err(error.into()),
                },
            };
            let error = match came {
                Ok(came) if came > 0 => {
                    self.at += came as u64;
                    self.came += came as u64;
                    if self.came >= PROGRESS {
                        self.failures = 0;
                    }
                    self.tell();
                    return Ok(came);
                }
                Ok(_) => Error::new(Code::System, "the connection ended"),
                Err(error) => error,
            };
            self.body = None;
            self.came = 0;
            self.failures += 1;
            self.remote.client.again(self.failures, error).map_err(|error| {
                let (at, size) = (self.at, self.size);
                let kept =
                    if at > 0 { "; what came is kept, and the next pull goes on from there" } else { "" };
                error.of(format_args!("{at} of {size} bytes came{kept}"))
            })?;
        }
    }
}
