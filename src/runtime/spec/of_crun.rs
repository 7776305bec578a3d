//! The annotations of crun's that rcrun acts upon: whose groups the processes have, and where hooks write. Pure. Uses: fault.

use std::collections::HashMap;
use std::path::Path;

use oci_spec::runtime as oci;

use super::Spec;
use super::fault::Fault;

/// The processes keep the supplementary groups of whoever calls rcrun.
pub const KEEP_GROUPS: &str = "run.oci.keep_original_groups";

/// Hooks append what they write on standard output to this file.
pub const HOOKS_STDOUT: &str = "run.oci.hooks.stdout";

/// The same of standard error.
pub const HOOKS_STDERR: &str = "run.oci.hooks.stderr";

/// JSON pointer of an annotation.
fn pointer(key: &str) -> String {
    format!("/annotations/{key}")
}

/// Refuses values that mean nothing.
pub(super) fn check(key: &str, value: &str) -> Result<(), Fault> {
    match (key, value) {
        (HOOKS_STDOUT | HOOKS_STDERR, "") => Err(Fault::new(pointer(key), "names no file")),
        _ => Ok(()),
    }
}

/// As with crun, any value but 0 says so.
fn keeps_groups(annotations: &Option<HashMap<String, String>>) -> bool {
    annotations.as_ref().and_then(|all| all.get(KEEP_GROUPS)).is_some_and(|value| value != "0")
}

/// What of a config such groups take the place of, for a person to know.
pub(super) fn warning(spec: &oci::Spec) -> Option<String> {
    let gids = spec.process().as_ref()?.user().additional_gids().as_deref().unwrap_or_default();
    let told = keeps_groups(spec.annotations()) && !gids.is_empty();
    told.then(|| format!("/process/user/additionalGids: {}", without_effect()))
}

/// Why groups that are asked for are not those of the process.
pub fn without_effect() -> String {
    format!("no effect: by the annotation {KEEP_GROUPS} the groups of whoever calls rcrun stay")
}

impl Spec {
    /// The processes keep the supplementary groups that rcrun has.
    pub fn keeps_groups(&self) -> bool {
        keeps_groups(self.annotations())
    }

    /// The files for hooks' standard output and standard error, with their annotations.
    pub fn hooks_files(&self) -> [Option<(&'static str, &Path)>; 2] {
        [HOOKS_STDOUT, HOOKS_STDERR]
            .map(|key| self.annotations().as_ref()?.get(key).map(|file| (key, Path::new(file))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(annotations: serde_json::Value, gids: serde_json::Value) -> crate::Result<Spec> {
        let config = json!({
            "ociVersion": "1.2.0",
            "root": {"path": "rootfs"},
            "process": {"user": {"uid": 0, "gid": 0, "additionalGids": gids}, "args": ["/a"], "cwd": "/"},
            "annotations": annotations,
        });
        super::super::parse(config.to_string().as_bytes())
    }

    #[test]
    fn any_value_but_0_keeps_the_groups() {
        for (annotations, kept) in [
            (json!({}), false),
            (json!({KEEP_GROUPS: "0"}), false),
            (json!({KEEP_GROUPS: "1"}), true),
            (json!({KEEP_GROUPS: ""}), true),
            (json!({"run.oci.keep_original_group": "1"}), false),
        ] {
            let found = spec(annotations.clone(), json!([])).unwrap();
            assert_eq!((found.keeps_groups(), found.warnings()), (kept, &[][..]), "{annotations}");
            let found = spec(annotations.clone(), json!([7])).unwrap();
            assert_eq!(found.warnings().len(), usize::from(kept), "{annotations}");
        }
        let found = spec(json!({KEEP_GROUPS: "1"}), json!([7])).unwrap();
        assert_eq!(
            found.warnings(),
            [
                "/process/user/additionalGids: no effect: by the annotation run.oci.keep_original_groups the groups of whoever calls rcrun stay"
            ]
        );
    }

    #[test]
    fn hooks_write_to_the_files_that_are_named() {
        assert_eq!(spec(json!({}), json!([])).unwrap().hooks_files(), [None, None]);
        let found = spec(json!({HOOKS_STDERR: "/e", HOOKS_STDOUT: "o"}), json!([])).unwrap();
        assert_eq!(
            found.hooks_files(),
            [Some((HOOKS_STDOUT, Path::new("o"))), Some((HOOKS_STDERR, Path::new("/e")))]
        );
        let error = spec(json!({HOOKS_STDERR: ""}), json!([])).unwrap_err();
        assert_eq!(error.pointer(), Some("/annotations/run.oci.hooks.stderr"));
        assert!(error.to_string().contains("names no file"), "{error}");
    }
}
