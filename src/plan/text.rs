//! Text in steps: people and tools see the string, init finds it followed by NUL, ready for the kernel.

use serde::{Deserialize, Deserializer};

/// Borrowed text as init reads it: the bytes end with the only NUL among them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Z<'a>(&'a [u8]);

impl<'a> Z<'a> {
    /// The bytes with the NUL at their end.
    pub fn with_nul(self) -> &'a [u8] {
        self.0
    }

    /// The bytes without the NUL.
    pub fn bytes(self) -> &'a [u8] {
        &self.0[..self.0.len() - 1]
    }

    /// Takes bytes that end with their only NUL.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        match bytes.iter().position(|b| *b == 0) {
            Some(at) if at + 1 == bytes.len() => Some(Z(bytes)),
            _ => None,
        }
    }
}

impl core::fmt::Debug for Z<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(self.bytes(), f)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Z<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let bytes = <&'de [u8]>::deserialize(d)?;
        Z::new(bytes).ok_or_else(|| serde::de::Error::custom("text does not end with its only NUL"))
    }
}

#[cfg(feature = "alloc")]
mod owned {
    use alloc::string::{String, ToString};
    use alloc::vec::Vec;
    use serde::{Serialize, Serializer};

    /// Owned text as the compiler writes it. Holds no NUL: `spec` refuses one anywhere in config.json, and
    /// encoding fails on one.
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
    pub struct Text(pub String);

    impl From<&str> for Text {
        fn from(s: &str) -> Self {
            Text(s.to_string())
        }
    }

    impl From<String> for Text {
        fn from(s: String) -> Self {
            Text(s)
        }
    }

    impl core::fmt::Display for Text {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            f.write_str(&self.0)
        }
    }

    impl Serialize for Text {
        fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
            if s.is_human_readable() {
                return s.serialize_str(&self.0);
            }
            if self.0.contains('\0') {
                return Err(serde::ser::Error::custom("text holds a NUL"));
            }
            let mut bytes = Vec::with_capacity(self.0.len() + 1);
            bytes.extend_from_slice(self.0.as_bytes());
            bytes.push(0);
            s.serialize_bytes(&bytes)
        }
    }
}

#[cfg(feature = "alloc")]
pub use owned::Text;
