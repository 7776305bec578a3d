//! Platforms, and which entry of an index runs on one. Pure. Uses: error.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};

/// What an image runs on, in Go's words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// The operating system: `linux`.
    #[serde(default)]
    pub os: String,
    /// The processor: `amd64`, `arm64`.
    #[serde(default)]
    pub architecture: String,
    /// Its level: `v7`, `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// That of this machine.
    pub fn host() -> Platform {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", None),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Platform { os: "linux".into(), architecture: architecture.into(), variant: variant.map(String::from) }
    }

    /// Names that people and old tools write, made those of the spec.
    fn normal(&self) -> (String, String, Option<String>) {
        let os = self.os.to_ascii_lowercase();
        let architecture = self.architecture.to_ascii_lowercase();
        let variant = self.variant.as_deref().filter(|v| !v.is_empty()).map(str::to_ascii_lowercase);
        let (architecture, variant) = match (architecture.as_str(), variant) {
            ("x86_64" | "x86-64", variant) => ("amd64".to_string(), variant),
            ("i386" | "i686", _) => ("386".to_string(), None),
            ("aarch64", variant) => ("arm64".to_string(), variant),
            ("armhf", _) => ("arm".to_string(), Some("v7".to_string())),
            ("armel", _) => ("arm".to_string(), Some("v6".to_string())),
            (_, variant) => (architecture, variant),
        };
        let variant = variant.map(|v| if v.starts_with('v') { v } else { format!("v{v}") });
        (os, architecture, variant)
    }

    /// The level of the processor as a number, with the default of its family where none is named.
    fn level(architecture: &str, variant: Option<&str>) -> Option<u32> {
        match (architecture, variant) {
            ("amd64", None) => Some(1),
            ("arm", None) => Some(7),
            ("arm64", None) => Some(8),
            ("amd64" | "arm" | "arm64", Some(variant)) => {
                // v8.1 and later minors of arm64 are extensions of v8.
                variant.strip_prefix('v')?.split('.').next()?.parse().ok()
            }
            _ => None,
        }
    }

    /// Whether an image for `self` runs on `wanted`: same system and processor, and not a higher level of it.
    pub fn runs_on(&self, wanted: &Platform) -> bool {
        let (os, architecture, variant) = self.normal();
        let (wanted_os, wanted_architecture, wanted_variant) = wanted.normal();
        if os != wanted_os || architecture != wanted_architecture {
            return false;
        }
        let needs = Platform::level(&architecture, variant.as_deref());
        let has = Platform::level(&architecture, wanted_variant.as_deref());
        match (needs, has) {
            (Some(needs), Some(has)) => needs <= has,
            _ => variant.is_none() || variant == wanted_variant,
        }
    }

    /// Build tools write `unknown/unknown` for what is no image, such as attestations.
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" || self.architecture == "unknown"
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// `os/architecture[/variant]`, as after Docker's `--platform`.
    fn from_str(text: &str) -> Result<Platform> {
        let parts: Vec<&str> = text.split('/').collect();
        let word = |part: &&str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(word) {
            return Err(Error::new(
                Code::Usage,
                format!("platform {text:?}: not of the form os/architecture[/variant]"),
            ));
        }
        Ok(Platform {
            os: parts[0].into(),
            architecture: parts[1].into(),
            variant: parts.get(2).map(|v| v.to_string()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_runs_on_its_processor_and_on_higher_levels_of_it() {
        for (image, machine, runs) in [
            ("linux/amd64", "linux/amd64", true),
            ("linux/x86_64", "linux/amd64", true),
            ("linux/amd64/v1", "linux/amd64", true),
            ("linux/amd64/v3", "linux/amd64", false),
            ("linux/amd64/v2", "linux/amd64/v3", true),
            ("linux/amd64", "linux/arm64", false),
            ("windows/amd64", "linux/amd64", false),
            ("linux/386", "linux/amd64", false),
            ("linux/arm64", "linux/arm64/v8", true),
            ("linux/arm64/v8", "linux/aarch64", true),
            ("linux/arm64/v9", "linux/arm64", false),
            ("linux/arm/v6", "linux/arm/v7", true),
            ("linux/arm/v7", "linux/arm", true),
            ("linux/arm/7", "linux/arm", true),
            ("linux/arm/v8", "linux/arm", false),
            ("linux/armhf", "linux/arm/v6", false),
            ("linux/ppc64le/power9", "linux/ppc64le", false),
            ("linux/ppc64le", "linux/ppc64le/power9", true),
            ("linux/riscv64", "linux/riscv64", true),
        ] {
            let image: Platform = image.parse().unwrap();
            assert_eq!(image.runs_on(&machine.parse().unwrap()), runs, "{image} on {machine}");
        }
    }

    #[test]
    fn a_platform_is_two_or_three_words() {
        for text in ["", "linux", "linux/", "/amd64", "linux/amd64/v1/x", "linux/../x", "linux/a b"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
