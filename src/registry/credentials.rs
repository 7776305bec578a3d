//! Who is logged in at a registry: the auth files that `docker login` and `podman login` write, and the programs that
//! they name. Uses: base64, serde_json.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcrun_image::{Code, Error, Name, Result};
use serde::Deserialize;

use crate::words;

/// No auth file, and no answer of a program, is larger.
const SIZE_MAX: u64 = 1 << 20;
/// Docker's files have the hub under this name.
const HUB_KEY: &str = "index.docker.io/v1";

/// Who someone is at a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A name and a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// A token that the registry's realm gives other tokens for.
    Identity(String),
}

impl std::fmt::Debug for Credentials {
    /// Without what is secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Credentials::Password { user, .. } => write!(f, "user {user:?}"),
            Credentials::Identity(_) => f.write_str("an identity token"),
        }
    }
}

impl Credentials {
    /// For the header `Authorization`; `None` where it takes a realm.
    pub(crate) fn basic(&self) -> Option<String> {
        match self {
            Credentials::Password { user, password } => {
                Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
            }
            Credentials::Identity(_) => None,
        }
    }
}

/// The auth files of other tools for `user`, in the order of containers-auth.json(5), as `variable` of the environment
/// has them.
pub fn auth_files(user: u32, variable: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(file) = variable("REGISTRY_AUTH_FILE") {
        return vec![file];
    }
    let home = variable("HOME");
    let config = variable("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
    let docker = variable("DOCKER_CONFIG").or_else(|| Some(home.as_ref()?.join(".docker")));
    let running = variable("XDG_RUNTIME_DIR").map(|folder| folder.join("containers"));
    let running = running.unwrap_or_else(|| format!("/run/containers/{user}").into());
    [
        Some(running.join("auth.json")),
        config.map(|folder| folder.join("containers/auth.json")),
        docker.map(|folder| folder.join("config.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AuthFile {
    auths: BTreeMap<String, Auth>,
    creds_store: String,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

/// Who is logged in for `name`, by the first of `files` that says so.
pub(crate) fn of_name(name: &Name, files: &[PathBuf]) -> Result<Option<Credentials>> {
    for file in files {
        if let Some(found) = in_file(name, file).map_err(|e| e.of(file.display()))? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn in_file(name: &Name, path: &Path) -> Result<Option<Credentials>> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(Error::call("open", error)),
    };
    let mut text = Vec::new();
    file.take(SIZE_MAX).read_to_end(&mut text).map_err(|e| Error::call("read", e))?;
    // The message of a parser could quote a password.
    let parsed: AuthFile = serde_json::from_slice(&text).map_err(|e| {
        Error::invalid(format!("is not JSON of an auth file: line {}, column {}", e.line(), e.column()))
    })?;
    for key in keys(name) {
        if let Some((_, program)) = parsed.cred_helpers.iter().find(|(given, _)| plain(given) == key) {
            return ask(program, server(name));
        }
        if let Some((given, auth)) = parsed.auths.iter().find(|(given, _)| plain(given) == key) {
            let found = auth.credentials().map_err(|e| e.of(format_args!("auths of {given}")))?;
            if found.is_some() {
                return Ok(found);
            }
        }
    }
    match parsed.creds_store.as_str() {
        "" => Ok(None),
        program => ask(program, server(name)),
    }
}

/// A key of a file without what old versions wrote around the host.
fn plain(key: &str) -> &str {
    let key = key.strip_prefix("https://").or(key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    match key.strip_suffix("/v1").or(key.strip_suffix("/v2")) {
        Some(host) if !host.contains('/') && key != HUB_KEY => host,
        _ => key,
    }
}

/// Under what a file may have `name`: the repository, the parts it is below, the host.
fn keys(name: &Name) -> Vec<String> {
    let mut key = format!("{}/{}", name.registry(), name.path());
    let mut keys = vec![key.clone()];
    while let Some(end) = key.rfind('/') {
        key.truncate(end);
        keys.push(key.clone());
    }
    if is_hub(name) {
        keys.push(HUB_KEY.into());
        keys.extend(HUB_KEY.split_once('/').map(|(host, _)| host.to_string()));
    }
    keys
}

fn is_hub(name: &Name) -> bool {
    HUB_KEY.split('/').next().and_then(|host| host.strip_prefix("index.")) == Some(name.registry())
}

/// What a program that keeps passwords calls the registry.
fn server(name: &Name) -> String {
    if is_hub(name) { format!("https://{HUB_KEY}/") } else { name.registry().into() }
}

impl Auth {
    fn credentials(&self) -> Result<Option<Credentials>> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credentials::Identity(self.identitytoken.clone())));
        }
        if self.auth.is_empty() {
            return Ok((!self.username.is_empty()).then(|| Credentials::Password {
                user: self.username.clone(),
                password: self.password.clone(),
            }));
        }
        let bad = || Error::invalid("its auth is not the base64 of user:password");
        let text = STANDARD.decode(self.auth.trim()).map_err(|_| bad())?;
        let text = String::from_utf8(text).map_err(|_| bad())?;
        let (user, password) = text.split_once(':').ok_or_else(bad)?;
        // Docker pads with NUL.
        let password = password.trim_end_matches('\0');
        Ok(Some(Credentials::Password { user: user.into(), password: password.into() }))
    }
}

/// Asks `docker-credential-PROGRAM`, which the auth file names.
fn ask(program: &str, server: String) -> Result<Option<Credentials>> {
    if !program.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
        return Err(Error::invalid(format!("names the program {:?}", words::shown(program, 100))));
    }
    let program = format!("docker-credential-{program}");
    let failed = |e: std::io::Error| Error::call(format_args!("{program} get"), e);
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let mut answer = Vec::new();
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read it answers without.
        let _ = stdin.write_all(server.as_bytes());
    }
    if let Some(stdout) = child.stdout.take() {
        stdout.take(SIZE_MAX).read_to_end(&mut answer).map_err(failed)?;
    }
    if !child.wait().map_err(failed)?.success() {
        let told = words::shown(&String::from_utf8_lossy(&answer), 200);
        // This sentence is part of the protocol.
        if told.trim() == "credentials not found in native keychain" {
            return Ok(None);
        }
        return Err(Error::new(Code::System, format!("{program} get: {}", told.trim())));
    }
    let helped: Helped = serde_json::from_slice(&answer)
        .map_err(|_| Error::invalid(format!("{program} get: answers no JSON of Username and Secret")))?;
    Ok(Some(match helped.username.as_str() {
        "<token>" => Credentials::Identity(helped.secret),
        _ => Credentials::Password { user: helped.username, password: helped.secret },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Password { user: user.into(), password: password.into() })
    }

    #[test]
    fn the_most_specific_key_counts_and_old_spellings_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("auth.json");
        let b64 = |text: &str| STANDARD.encode(text);
        let text = serde_json::json!({ "auths": {
            "r.test": { "auth": b64("host:1") },
            "r.test/team": { "auth": b64("team:2:with:colons") },
            "https://old.test/v1/": { "auth": b64("old:3\0") },
            "plain.test:5000": { "username": "u", "password": "4" },
            "id.test": { "auth": b64("x:y"), "identitytoken": "t" },
            "empty.test": {},
            (format!("https://{HUB_KEY}/")): { "auth": b64("hub:5") },
            "bad.test": { "auth": "%%%" },
        } });
        std::fs::write(&file, text.to_string()).unwrap();
        let missing = folder.path().join("missing/auth.json");
        let find = |name: &str| of_name(&name.parse().unwrap(), &[missing.clone(), file.clone()]);
        for (name, found) in [
            ("r.test/app", password("host", "1")),
            ("r.test/team/app", password("team", "2:with:colons")),
            ("r.test/teams/app", password("host", "1")),
            ("old.test/app", password("old", "3")),
            ("plain.test:5000/app", password("u", "4")),
            ("plain.test/app", None),
            ("id.test/app", Some(Credentials::Identity("t".into()))),
            ("empty.test/app", None),
            ("app", password("hub", "5")),
            ("me/app:1", password("hub", "5")),
        ] {
            assert_eq!(find(name).unwrap(), found, "{name}");
        }
        let error = find("bad.test/app").unwrap_err().to_string();
        assert!(error.contains("auths of bad.test") && !error.contains("%%%"), "{error}");
    }

    #[test]
    fn the_files_of_other_tools_are_looked_at_in_their_order() {
        let of = |set: &[(&str, &str)]| {
            auth_files(7, &|name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()))
        };
        let home = ("HOME", "/h");
        let text =
            |files: Vec<PathBuf>| files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(" ");
        for (set, files) in [
            (
                vec![home],
                "/run/containers/7/auth.json /h/.config/containers/auth.json /h/.docker/config.json",
            ),
            (vec![home, ("REGISTRY_AUTH_FILE", "/a")], "/a"),
            (
                vec![home, ("XDG_RUNTIME_DIR", "/r"), ("XDG_CONFIG_HOME", "/c"), ("DOCKER_CONFIG", "/d")],
                "/r/containers/auth.json /c/containers/auth.json /d/config.json",
            ),
            (vec![], "/run/containers/7/auth.json"),
        ] {
            assert_eq!(text(of(&set)), files);
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?} {:?}", password("u", "secret"), Credentials::Identity("secret".into()));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
