//! Names of images, `[host[:port]/]path[:tag][@digest]`, made whole as users of Docker expect. Pure.
//! Uses: digest, error.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::error::{Code, Error, Result};

const HUB: &str = "docker.io";
const LIBRARY: &str = "library";

/// A whole name: `app` is `docker.io/library/app:latest`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    registry: String,
    path: String,
    tag: String,
    digest: Option<Digest>,
}

impl Name {
    /// The host that the image comes from, with its port.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path on that host: `library/app`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag; `latest` where none was given.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The digest after `@`, which then decides.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// As people write it: without what is added by itself, but always with its tag.
    pub fn short(&self) -> String {
        let whole = self.to_string();
        let Some(path) = whole.strip_prefix("docker.io/") else { return whole };
        match path.strip_prefix("library/") {
            Some(short) if !short.contains('/') => short.into(),
            // Without the registry, the first part would be read as one.
            _ if path.split_once('/').is_some_and(|(first, _)| is_host(first)) => whole,
            _ => path.into(),
        }
    }
}

/// Whether the first part of a name is a host: Docker's rule.
fn is_host(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost" || part.chars().any(|c| c.is_ascii_uppercase())
}

fn host_is_valid(host: &str) -> bool {
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (host, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(label),
    };
    host && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or any number of `-`.
fn path_part_is_valid(part: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    part.starts_with(alphanumeric)
        && part.ends_with(alphanumeric)
        && part
            .split(alphanumeric)
            .all(|between| matches!(between, "" | "." | "_" | "__") || between.chars().all(|c| c == '-'))
}

fn tag_is_valid(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= 128 && tag.starts_with(word) && tag.chars().all(|c| word(c) || c == '.' || c == '-')
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Name> {
        let shown = || text.chars().take(300).collect::<String>();
        let bad = |why: &str| Error::new(Code::Usage, format!("image name {:?}: {why}", shown()));
        if text.len() > 1024 {
            return Err(bad("is longer than 1024 bytes"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>().map_err(|e| e.of("image name"))?)),
            None => (text, None),
        };
        // A colon after the last slash begins the tag; one before it, a port.
        let (rest, tag) = match rest.rsplit_once(':') {
            Some((rest, tag)) if !tag.contains('/') => (rest, tag),
            _ => (rest, "latest"),
        };
        if !tag_is_valid(tag) {
            return Err(bad("the tag is not up to 128 letters, digits, '_', '.' and '-'"));
        }
        let (registry, path) = match rest.split_once('/') {
            Some((host, path)) if is_host(host) => (host, path.to_string()),
            _ => (HUB, rest.to_string()),
        };
        let registry = if registry == "index.docker.io" { HUB } else { registry };
        let path = if registry == HUB && !path.contains('/') { format!("{LIBRARY}/{path}") } else { path };
        if !host_is_valid(registry) {
            return Err(bad("its first part is no host"));
        }
        if path.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(bad("it must be in lower case"));
        }
        if !path.split('/').all(path_part_is_valid) {
            return Err(bad("a part of it is not letters and digits joined by '.', '_', '__' or '-'"));
        }
        if registry.len() + path.len() > 255 {
            return Err(bad("is longer than 255 characters"));
        }
        if digest.is_none() && path.len() == LIBRARY.len() + 1 + 64 {
            let hex = &path[LIBRARY.len() + 1..];
            if hex.chars().all(|c| c.is_ascii_hexdigit()) {
                return Err(bad("64 hexadecimal digits are a digest: write sha256: before them"));
            }
        }
        Ok(Name { registry: registry.into(), path, tag: tag.into(), digest })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.registry, self.path, self.tag)?;
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_whole_as_docker_makes_them() {
        for (given, whole, short) in [
            ("app", "docker.io/library/app:latest", "app:latest"),
            ("app:1", "docker.io/library/app:1", "app:1"),
            ("me/app", "docker.io/me/app:latest", "me/app:latest"),
            ("docker.io/app", "docker.io/library/app:latest", "app:latest"),
            ("index.docker.io/library/app:2", "docker.io/library/app:2", "app:2"),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            ("localhost:5000/app:1", "localhost:5000/app:1", "localhost:5000/app:1"),
            ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest", "127.0.0.1:5000/a/b/c:latest"),
            ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
            ("Host/app", "Host/app:latest", "Host/app:latest"),
            ("docker.io/a.test/app", "docker.io/a.test/app:latest", "docker.io/a.test/app:latest"),
            ("a__b/c---d.e_f", "docker.io/a__b/c---d.e_f:latest", "a__b/c---d.e_f:latest"),
            ("app:V1.0-rc_1", "docker.io/library/app:V1.0-rc_1", "app:V1.0-rc_1"),
        ] {
            let name: Name = given.parse().unwrap();
            assert_eq!((name.to_string().as_str(), name.short().as_str()), (whole, short), "{given}");
            assert_eq!(whole.parse::<Name>().unwrap(), name, "the whole name reads back");
            assert_eq!(short.parse::<Name>().unwrap(), name, "the short name reads back");
        }
        let digest = format!("app@{}", Digest::of(b"x"));
        assert_eq!(digest.parse::<Name>().unwrap().digest(), Some(Digest::of(b"x")));
    }

    #[test]
    fn what_is_no_name_is_refused_in_words() {
        for (given, why) in [
            ("", "a part of it"),
            (":1", "a part of it"),
            ("app:", "the tag"),
            ("app:.1", "the tag"),
            ("app:a/../b", "no host"),
            ("../app", "first part is no host"),
            ("a/../b", "a part of it"),
            ("./app", "first part is no host"),
            ("App", "lower case"),
            ("me/App", "lower case"),
            ("a//b", "a part of it"),
            ("-a", "a part of it"),
            ("a___b", "a part of it"),
            ("a b", "a part of it"),
            ("a\nb", "a part of it"),
            ("localhost:99999/app", "no host"),
            ("app@sha256:../../x", "lower-case hex"),
            (&"a".repeat(2000), "longer than 1024"),
            (&"a".repeat(300), "longer than 255"),
            (&Digest::of(b"x").hex(), "sha256:"),
        ] {
            let error = given.parse::<Name>().unwrap_err().to_string();
            assert!(error.contains(why), "{given:?}: {error}");
        }
    }
}
