//! The configuration of an image: what it runs, and the diffIDs of its layers. Uses: digest, error, platform.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{LAYERS_MAX, null_is_empty, parse};
use crate::digest::Digest;
use crate::error::{Code, Error, Result};
use crate::platform::Platform;

/// An image's configuration, as far as it matters for unpacking, running and telling of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// When it was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// What it runs on.
    #[serde(flatten)]
    pub platform: Platform,
    /// The version of the operating system, for Windows.
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// What the operating system must have.
    #[serde(
        default,
        rename = "os.features",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub os_features: Vec<String>,
    /// What it runs.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub config: Execution,
    /// Its layers.
    pub rootfs: RootFs,
    /// How each layer came to be.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

/// The layers of an image by what they hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The digest of each layer's tar, lowest first.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub diff_ids: Vec<Digest>,
}

/// What a container of the image runs, before the command line changes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Execution {
    /// `uid[:gid]` or `user[:group]`.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `80/tcp` and the like.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Nothing>,
    /// `NAME=value`.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// What comes first on the command line.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// What comes after, and is replaced by a person's own words.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Folders that get a volume each.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Nothing>,
    /// The working folder.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// What its maker says of it.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The signal that ends it.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
}

/// The value of a table that is a set: `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nothing {}

/// One step of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By what command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// By whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// In what words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether it made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl Config {
    /// Parses `text`, which `what` names, for a manifest of `layers` layers.
    pub fn parse(what: &str, text: &[u8], layers: usize) -> Result<Config> {
        let config: Config = parse(what, text)?;
        if config.rootfs.kind != "layers" {
            let kind: String = config.rootfs.kind.chars().take(100).collect();
            return Err(Error::new(
                Code::Unsupported,
                format!("{what}: rootfs.type is {kind:?}, not \"layers\""),
            ));
        }
        let diff_ids = config.rootfs.diff_ids.len();
        if diff_ids > LAYERS_MAX {
            return Err(Error::new(
                Code::Limit,
                format!("{what}: has {diff_ids} layers, more than {LAYERS_MAX}"),
            ));
        }
        if diff_ids != layers {
            return Err(Error::invalid(format!(
                "{what}: rootfs.diff_ids has {diff_ids} entries, and the manifest {layers} layers"
            )));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_writes_is_read_null_or_not() {
        let text = br#"{"architecture":"amd64","os":"linux","created":"2024-01-01T00:00:00Z","container":"x",
            "config":{"Hostname":"","User":"","Env":["A=b"],"Cmd":null,"Entrypoint":["/x"],"Volumes":{"/v":{}},
            "WorkingDir":"","Labels":null,"OnBuild":null,"ExposedPorts":{"80/tcp":{}},"Healthcheck":{"Test":["x"]}},
            "history":[{"created":"x","created_by":"y","empty_layer":true}],
            "rootfs":{"type":"layers","diff_ids":null},"variant":""}"#;
        let config = Config::parse("c", text, 0).unwrap();
        assert_eq!(config.platform.to_string(), "linux/amd64");
        assert_eq!(config.config.entrypoint, ["/x"]);
        assert!(config.config.exposed_ports.contains_key("80/tcp"));
        assert!(config.config.volumes.contains_key("/v"));
        assert!(config.history[0].empty_layer);
        let none = br#"{"architecture":"amd64","os":"linux","config":null,"rootfs":{"type":"layers"}}"#;
        assert_eq!(Config::parse("c", none, 0).unwrap().config, Execution::default());
    }

    #[test]
    fn a_config_that_does_not_fit_its_manifest_is_refused() {
        let d = Digest::of(b"x");
        for (rootfs, why) in [
            (r#"{"type":"layers","diff_ids":[]}"#.to_string(), "0 entries, and the manifest 1"),
            (format!(r#"{{"type":"layers","diff_ids":["{d}","{d}"]}}"#), "2 entries, and the manifest 1"),
            (format!(r#"{{"type":"squash","diff_ids":["{d}"]}}"#), "rootfs.type is"),
            (r#"{"type":"layers","diff_ids":["sha256:../../x"]}"#.to_string(), "hexadecimal"),
            (format!(r#"{{"type":"layers","type":"layers","diff_ids":["{d}"]}}"#), "duplicate field"),
            ("null".to_string(), "invalid type"),
        ] {
            let text = format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{rootfs}}}"#);
            let error = Config::parse("c", text.as_bytes(), 1).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
