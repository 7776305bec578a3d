//! What the argument of `run` names: an id, a bundle, or an image. The rule is a pure function
//! of what lies where. Uses: args.

use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, RandomState};
use std::path::{Component, Path, PathBuf};

use rcrun_runtime::{Code, Error, Result};

use crate::args::{Run, RunImage};
use crate::images::load;

/// What a `run` runs.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    /// A bundle, as a container of this id.
    Named {
        /// The folder with config.json.
        bundle: PathBuf,
        /// The id that was asked for.
        id: String,
    },
    /// A bundle whose container gets an id made from `name`: see [`ids`].
    Unnamed {
        /// The folder with config.json.
        bundle: PathBuf,
        /// The bundle's name.
        name: String,
    },
    /// An image: a file, a layout folder, or a name in the store.
    Image(OsString),
}

/// What the rule asks the file system.
pub trait Look {
    /// `folder` holds a config.json.
    fn holds_config(&self, folder: &Path) -> bool;
    /// `path` is a folder.
    fn is_folder(&self, path: &Path) -> bool;
    /// `word` names an image that is not in the store: an archive or a layout, with a name behind it or not.
    fn is_image(&self, word: &OsStr) -> bool;
    /// `folder` without `.`, `..` and symlinks.
    fn real(&self, folder: &Path) -> PathBuf;
}

/// This machine's file system.
pub struct Machine;

impl Look for Machine {
    fn holds_config(&self, folder: &Path) -> bool {
        // Also where it is a broken link or unreadable: then the loader says so.
        folder.join("config.json").symlink_metadata().is_ok()
    }

    fn is_folder(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn is_image(&self, word: &OsStr) -> bool {
        load::place(word).is_some()
    }

    fn real(&self, folder: &Path) -> PathBuf {
        folder.canonicalize().unwrap_or_else(|_| folder.into())
    }
}

/// With `--bundle` the argument is the id. Else a folder with config.json is the bundle. Else a layout or an archive is
/// an image. Else, in a folder with config.json, a word without `/` and `:` is the id. Else it is the name of an image.
///
/// Only what follows an image is all its command's: of anything else options may follow. So the line is given back as it
/// is meant.
pub fn find<'a>(run: &'a Run, look: &impl Look) -> Result<(Target, &'a Run)> {
    if let Some(anywhere) = &run.anywhere {
        // An image may have an option called --bundle: it is ours where it names one.
        let bundle = anywhere.bundle.as_deref().is_some_and(|bundle| look.holds_config(bundle));
        if bundle || !matches!(kind(run, look), Ok(Target::Image(_))) {
            return find(anywhere, look);
        }
    }
    let target = kind(run, look)?;
    if matches!(target, Target::Image(_)) {
        return Ok((target, run));
    }
    if let Some(word) = run.command.first() {
        return Err(Error::new(
            Code::Usage,
            format!("one argument too many: {word:?}: what a bundle executes stands in its config.json"),
        ));
    }
    let (Target::Named { bundle, .. } | Target::Unnamed { bundle, .. }) = &target else {
        return Ok((target, run));
    };
    if (RunImage { store: run.image.store.clone(), ..RunImage::default() }) != *run.image {
        return Err(Error::new(
            Code::Usage,
            format!(
                "{}: is a bundle, whose config.json says what is executed and how: -e, -t, -v and their like are for \
                 images",
                bundle.display()
            ),
        ));
    }
    match (target, &run.name) {
        (Target::Unnamed { bundle, .. }, Some(name)) => Ok((Target::Named { bundle, id: name.clone() }, run)),
        (Target::Named { id, .. }, Some(name)) if *name != id => {
            Err(Error::new(Code::Usage, format!("--name {name}: the argument {id} is the id already")))
        }
        (target, _) => Ok((target, run)),
    }
}

fn kind(run: &Run, look: &impl Look) -> Result<Target> {
    let here = Path::new(".");
    let path = Path::new(&run.what);
    if run.what.is_empty() {
        return Err(Error::new(
            Code::Usage,
            "the argument is empty: an image, a bundle or a container id belongs there",
        ));
    }
    if let Some(bundle) = &run.bundle {
        Ok(Target::Named { bundle: bundle.clone(), id: id(&run.what)? })
    } else if look.holds_config(path) {
        Ok(Target::Unnamed { bundle: path.into(), name: name(&look.real(path)) })
    } else if look.is_image(&run.what) {
        Ok(Target::Image(run.what.clone()))
    } else if is_path(path) && look.is_folder(path) {
        Err(Error::new(
            Code::Usage,
            format!(
                "{}: this folder holds no config.json and no image: `rcrun spec` writes one to start from",
                path.display()
            ),
        ))
    } else if !run.what.to_string_lossy().contains(['/', ':']) && look.holds_config(here) {
        Ok(Target::Named { bundle: here.into(), id: id(&run.what)? })
    } else {
        Ok(Target::Image(run.what.clone()))
    }
}

fn id(word: &OsStr) -> Result<String> {
    let id = word.to_str().map(String::from);
    id.ok_or_else(|| Error::new(Code::Usage, format!("the container id {word:?} is not UTF-8")))
}

/// `x/`, `./x` and `..` are meant as paths; `x` may be an id as well.
fn is_path(path: &Path) -> bool {
    path.as_os_str().to_string_lossy().contains('/')
        || path.components().any(|c| !matches!(c, Component::Normal(_)))
}

/// The last part of the bundle's path, in the characters that an id may have.
pub fn name(bundle: &Path) -> String {
    let last = bundle.file_name().unwrap_or_default().to_string_lossy();
    let name: String =
        last.chars().map(|c| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '-' }).collect();
    // An id that begins with a dash would be read as an option.
    let name: String = name.trim_start_matches(['-', '.']).chars().take(48).collect();
    if name.is_empty() { "bundle".into() } else { name }
}

/// Ids for a bundle of this name, `hello-3f2a`, without end: the caller takes the first one that
/// `create` does not find in use.
pub fn ids(name: &str) -> impl Iterator<Item = String> {
    // Every RandomState has other keys, drawn from the kernel's random numbers.
    std::iter::repeat_with(RandomState::new).map(move |state| made(name, state.hash_one(name) as u16))
}

fn made(name: &str, number: u16) -> String {
    format!("{name}-{number:04x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{self, Invocation};

    /// A file system in which the named folders exist; those with a `!` hold a config.json.
    struct Folders(&'static [&'static str]);

    impl Look for Folders {
        fn holds_config(&self, folder: &Path) -> bool {
            let folder = folder.to_str().unwrap_or("?").trim_end_matches('/');
            self.0.iter().any(|f| f.strip_suffix('!') == Some(folder))
        }

        fn is_folder(&self, path: &Path) -> bool {
            let path = path.to_str().unwrap_or("?").trim_end_matches('/');
            self.0.iter().any(|f| f.trim_end_matches('!') == path)
        }

        fn is_image(&self, word: &OsStr) -> bool {
            let word = word.to_str().unwrap_or("?");
            self.0.iter().any(|f| f.strip_suffix('*').is_some_and(|f| word == f || word == format!("{f}:1")))
        }

        fn real(&self, folder: &Path) -> PathBuf {
            match folder.to_str() {
                Some(".") => "/srv/work".into(),
                _ => Path::new("/srv/work").join(folder),
            }
        }
    }

    fn told(line: &str, folders: &'static [&'static str]) -> String {
        let words = format!("run {line}").split(' ').map(Into::into).collect();
        let Invocation::Run(run) = args::parse(words).1.unwrap() else { panic!("{line}") };
        match find(&run, &Folders(folders)) {
            Ok((Target::Named { bundle, id }, _)) => format!("{id} of {}", bundle.display()),
            Ok((Target::Unnamed { bundle, name }, _)) => format!("{name}-* of {}", bundle.display()),
            Ok((Target::Image(word), run)) => {
                let command: Vec<_> = run.command.iter().map(|word| word.to_string_lossy()).collect();
                format!("image {}: {}", word.display(), command.join(" ")).trim_end_matches([':', ' ']).into()
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_argument_of_run_is_read_as_its_help_says() {
        const EMPTY: &str =
            "this folder holds no config.json and no image: `rcrun spec` writes one to start from";
        const OURS: &str = "is a bundle, whose config.json says what is executed and how: -e, -t, -v and their like are \
                            for images";
        for (line, folders, expected) in [
            ("--bundle b x", &[] as &[_], "x of b".to_string()),
            ("x --bundle b", &["b!", "x!"], "x of b".into()),
            ("x --bundle b", &["b!"], "x of b".into()),
            ("-b b a/b", &[], "a/b of b".into()),
            ("bundles/hello", &["bundles/hello!"], "hello-* of bundles/hello".into()),
            ("bundles/hello/", &["bundles/hello!"], "hello-* of bundles/hello/".into()),
            ("hello", &["hello!", ".!"], "hello-* of hello".into()),
            ("hello -d", &["hello!"], "hello-* of hello".into()),
            ("hello --name x", &["hello!"], "x of hello".into()),
            ("hello -t", &["hello!"], format!("hello: {OURS}")),
            ("-b b --name y x", &[], "--name y: the argument x is the id already".into()),
            (".", &[".!"], "work-* of .".into()),
            ("x", &[".!"], "x of .".into()),
            ("x", &[".!", "x"], "x of .".into()),
            ("./x", &[".!", "./x"], format!("./x: {EMPTY}")),
            (".", &["."], format!(".: {EMPTY}")),
            ("x", &["x", "."], "image x".into()),
            ("x", &["."], "image x".into()),
            ("x.tar", &[".!", "x.tar*"], "image x.tar".into()),
            ("x.tar:1", &[".!", "x.tar*"], "image x.tar:1".into()),
            ("layout", &["layout!", "layout*"], "layout-* of layout".into()),
            ("a/b", &[".!"], "image a/b".into()),
            ("debian:12", &[".!"], "image debian:12".into()),
            ("-t debian sh -c x", &["."], "image debian: sh -c x".into()),
            ("debian --keep -d", &["."], "image debian: --keep -d".into()),
            ("debian -b 5", &["."], "image debian: -b 5".into()),
            ("debian --help", &["."], "image debian: --help".into()),
            (
                "x sh",
                &[".!"],
                "one argument too many: \"sh\": what a bundle executes stands in its config.json".into(),
            ),
            (
                "-b b x sh",
                &[],
                "one argument too many: \"sh\": what a bundle executes stands in its config.json".into(),
            ),
        ] {
            assert_eq!(told(line, folders), expected, "{line} {folders:?}");
        }
    }

    #[test]
    fn an_empty_argument_is_not_the_bundle_here() {
        let (_, invocation) = args::parse(vec!["run".into(), "".into()]);
        let Invocation::Run(run) = invocation.unwrap() else { panic!("run") };
        let error = find(&run, &Folders(&["!", ".!"])).unwrap_err();
        assert!(error.to_string().starts_with("the argument is empty"), "{error}");
    }

    #[test]
    fn an_id_is_made_from_any_name() {
        for (path, expected) in [
            ("/srv/hello", "hello"),
            ("/srv/Hello_1.2", "Hello_1.2"),
            ("/srv/my web", "my-web"),
            ("/srv/-x", "x"),
            ("/srv/.hidden", "hidden"),
            ("/srv/größe", "gr--e"),
            ("/", "bundle"),
            ("/srv/---", "bundle"),
        ] {
            assert_eq!(name(Path::new(path)), expected);
        }
        assert_eq!(name(Path::new(&"a".repeat(300))).len(), 48);
        assert_eq!(made("hello", 0x3f2), "hello-03f2");
    }

    #[test]
    fn made_ids_differ() {
        let made: std::collections::HashSet<String> = ids("hello").take(64).collect();
        assert!(made.len() > 32, "{made:?}");
        assert!(made.iter().all(|id| id.starts_with("hello-") && id.len() == 10));
    }

    #[test]
    fn the_machine_is_looked_at() {
        let folder = std::env::temp_dir().join(format!("rcrun-target-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("inner")).unwrap();
        assert!(Machine.is_folder(&folder) && !Machine.holds_config(&folder));
        std::fs::write(folder.join("config.json"), "{}").unwrap();
        assert!(Machine.holds_config(&folder) && !Machine.is_folder(&folder.join("config.json")));
        assert_eq!(Machine.real(&folder.join("inner/..")), folder.canonicalize().unwrap());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
