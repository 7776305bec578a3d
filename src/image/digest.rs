//! Content digests: parsed once, strictly, and from then on a value of fixed size that no path can hide in; and the
//! reader that verifies size and digest of what passes through it. Uses: error.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

use crate::error::{Code, Error, Result};

/// The algorithms of registered digests that are read. BLAKE3 is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, what every tool writes.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

    /// The word before the colon, also the name of the folder of its blobs.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Algorithm::Sha256 => 32,
            Algorithm::Sha512 => 64,
        }
    }
}

/// The digest of a content: an algorithm and its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    bytes: [u8; 64],
}

impl Digest {
    /// The SHA-256 of `content`.
    pub fn of(content: &[u8]) -> Digest {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(content);
        hasher.finish()
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The digest without its algorithm: lower-case hex, nothing else. It is safe as the name of a file.
    pub fn hex(&self) -> String {
        self.in_hex(&mut [0; 128]).to_string()
    }

    fn in_hex<'a>(&self, buffer: &'a mut [u8; 128]) -> &'a str {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let bytes = &self.bytes[..self.algorithm.bytes()];
        for (byte, pair) in bytes.iter().zip(buffer.chunks_exact_mut(2)) {
            pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        str::from_utf8(&buffer[..2 * bytes.len()]).expect("hex is ASCII")
    }

    /// The digest of `algorithm` that `hex` writes out, if it is lower-case hex of the right length.
    pub fn from_hex(algorithm: Algorithm, hex: &str) -> Option<Digest> {
        let mut bytes = [0; 64];
        if hex.len() != algorithm.bytes() * 2 {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Some(Digest { algorithm, bytes })
    }
}

fn nibble(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Digest> {
        let shown = || text.chars().take(150).collect::<String>();
        let Some((algorithm, hex)) = text.split_once(':') else {
            return Err(Error::invalid(format!("digest {:?}: no algorithm before a colon", shown())));
        };
        let Some(algorithm) = Algorithm::ALL.into_iter().find(|a| a.as_str() == algorithm) else {
            return Err(Error::new(
                Code::Unsupported,
                format!("digest {:?}: the algorithm is neither sha256 nor sha512", shown()),
            ));
        };
        Digest::from_hex(algorithm, hex).ok_or_else(|| {
            let length = algorithm.bytes() * 2;
            Error::invalid(format!("digest {:?}: not {length} lower-case hexadecimal digits", shown()))
        })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm.as_str())?;
        f.write_str(":")?;
        f.write_str(self.in_hex(&mut [0; 128]))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Digest, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A digest under way. sha2 looks at the processor at run time and takes its SHA instructions where it has them.
#[derive(Clone)]
pub enum Hasher {
    /// SHA-256.
    Sha256(sha2::Sha256),
    /// SHA-512.
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// Nothing hashed yet.
    pub fn new(algorithm: Algorithm) -> Hasher {
        match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(sha2::Sha512::new()),
        }
    }

    /// Hashes `bytes` after what was hashed before.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// The digest of all that was hashed.
    pub fn finish(self) -> Digest {
        let mut bytes = [0; 64];
        let algorithm = match self {
            Hasher::Sha256(hasher) => {
                bytes[..32].copy_from_slice(&hasher.finalize());
                Algorithm::Sha256
            }
            Hasher::Sha512(hasher) => {
                bytes.copy_from_slice(&hasher.finalize());
                Algorithm::Sha512
            }
        };
        Digest { algorithm, bytes }
    }
}

/// Reads a content of known digest and size. End of file comes only after both are found right; a content that is longer
/// is refused at the first byte too many, and nothing of that byte's read is handed out.
pub struct Verified<R> {
    inner: R,
    hasher: Option<Hasher>,
    expected: Digest,
    size: u64,
    seen: u64,
}

impl<R: Read> Verified<R> {
    /// Reads `inner`, which must be `size` bytes of `expected`.
    pub fn new(inner: R, expected: Digest, size: u64) -> Self {
        Verified { inner, hasher: Some(Hasher::new(expected.algorithm)), expected, size, seen: 0 }
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let Some(hasher) = &mut self.hasher else { return Ok(0) };
        let read = self.inner.read(buffer)?;
        self.seen += read as u64;
        if self.seen > self.size {
            let (expected, size) = (self.expected, self.size);
            return Err(Error::invalid(format!(
                "blob {expected}: is longer than the {size} bytes it should be"
            ))
            .into());
        }
        if read > 0 {
            hasher.update(&buffer[..read]);
            return Ok(read);
        }
        if self.seen < self.size {
            let (expected, seen, size) = (self.expected, self.seen, self.size);
            return Err(Error::invalid(format!(
                "blob {expected}: ends after {seen} of {size} bytes: the file or the download is truncated"
            ))
            .into());
        }
        let found = self.hasher.take().map(Hasher::finish);
        if found != Some(self.expected) {
            let (expected, found) = (self.expected, found.map(|d| d.to_string()).unwrap_or_default());
            return Err(Error::invalid(format!("blob {expected}: its content has the digest {found}")).into());
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_digest_is_an_algorithm_and_lower_case_hex_and_nothing_else() {
        assert_eq!(EMPTY.parse::<Digest>().unwrap().to_string(), EMPTY);
        let long = format!("sha512:{}", "0f".repeat(64));
        assert_eq!(long.parse::<Digest>().unwrap().to_string(), long);
        for (text, why) in [
            ("", "no algorithm"),
            ("sha256", "no algorithm"),
            ("sha256:", "64 lower-case"),
            ("sha256:../../../../../../../../../../../../../../../../../../../etc/shadow", "64 lower-case"),
            (&EMPTY.to_uppercase(), "neither sha256"),
            (&format!("sha256:{}", &EMPTY[7..].to_uppercase()), "64 lower-case"),
            (&EMPTY[..70], "64 lower-case"),
            (&format!("{EMPTY}0"), "64 lower-case"),
            (&format!("{EMPTY}\0"), "64 lower-case"),
            (&format!("sha512:{}", &EMPTY[7..]), "128 lower-case"),
            (&EMPTY.replace("sha256", "blake3"), "neither sha256"),
            (&EMPTY.replace("sha256", "sha256+b64"), "neither sha256"),
            (&EMPTY.replace("sha256", "../sha256"), "neither sha256"),
            (&"é".repeat(1_000_000), "no algorithm"),
        ] {
            let error = text.parse::<Digest>().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert!(error.len() < 1000, "a bounded sentence");
        }
    }

    #[test]
    fn digests_are_those_of_the_standard() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(b"ab");
        hasher.update(b"c");
        assert!(hasher.finish().hex().starts_with("ddaf35a193617abacc417349ae204131"));
    }

    #[test]
    fn a_content_ends_only_when_size_and_digest_are_right() {
        let good = Digest::of(b"content");
        for (content, digest, size, why) in [
            (&b"content"[..], good, 7, None),
            (b"content", good, 8, Some("ends after 7 of 8 bytes")),
            (b"content", good, 6, Some("longer than the 6 bytes")),
            (b"content", good, 0, Some("longer than the 0 bytes")),
            (b"Content", good, 7, Some("has the digest")),
            (b"", good, 7, Some("ends after 0 of 7")),
        ] {
            let mut out = Vec::new();
            let result = Verified::new(content, digest, size).read_to_end(&mut out);
            match why {
                None => assert_eq!((result.unwrap(), &out[..]), (7, content)),
                Some(why) => {
                    let error = Error::call("read", result.unwrap_err());
                    assert_eq!(error.code(), Code::Invalid);
                    assert!(error.to_string().contains(why), "{error}");
                }
            }
        }
    }
}
