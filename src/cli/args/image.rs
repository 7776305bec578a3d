//! `rcrun image`: what its verbs were asked to do. Uses: verbs, flags, resolve.

mod verbs;

use std::ffi::OsString;
use std::path::PathBuf;

use rcrun_runtime::{Code, Error, Result};

use super::flags::Verb;
use super::resolve::{self, Matches, Plain};
use super::{Invocation, Table, flags, usage};

pub use verbs::VERBS;

/// Where root's images are when nobody says it.
const ROOTS_STORE: &str = "/var/lib/rcrun";

/// Where images are when nobody says it. Those of an ordinary user are where the XDG base directories have data.
pub fn default_store() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return ROOTS_STORE.into();
    }
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = folder("XDG_DATA_HOME").or_else(|| folder("HOME").map(|home| home.join(".local/share")));
    data.map_or_else(|| ROOTS_STORE.into(), |data| data.join("rcrun"))
}

/// `rcrun image`
#[derive(Debug, PartialEq, Eq)]
pub struct Image {
    /// `--store`
    pub store: PathBuf,
    /// The verb.
    pub verb: ImageVerb,
}

/// What is to be done with images.
#[derive(Debug, PartialEq, Eq)]
pub enum ImageVerb {
    /// `list`
    List {
        /// `--format`
        format: Table,
        /// `--quiet`: names only.
        quiet: bool,
    },
    /// `inspect`
    Inspect {
        /// The image.
        image: OsString,
    },
    /// `history`
    History {
        /// The image.
        image: OsString,
        /// `--format`
        format: Table,
    },
    /// `layers`
    Layers {
        /// The image.
        image: OsString,
        /// `--depth`
        depth: u32,
        /// `--format`
        format: Table,
    },
    /// `tag`
    Tag {
        /// The image.
        image: OsString,
        /// Its new name.
        name: String,
    },
    /// `remove`
    Remove {
        /// The images.
        images: Vec<OsString>,
        /// `--quiet`
        quiet: bool,
    },
    /// `prune`
    Prune {
        /// `--quiet`
        quiet: bool,
        /// `--format`
        format: Table,
    },
    /// `fsck`
    Fsck {
        /// `--repair`
        repair: bool,
        /// `--quiet`
        quiet: bool,
        /// `--format`
        format: Table,
    },
    /// `load`
    Load {
        /// The file or folder, with `:NAME` behind it or not.
        from: OsString,
        /// `--name`
        names: Vec<String>,
        /// `--platform`
        platform: Option<String>,
        /// `--quiet`: no progress, and only digests.
        quiet: bool,
    },
    /// `pull`
    Pull {
        /// The name, which says where the image is.
        name: String,
        /// `--platform`
        platform: Option<String>,
        /// `--plain-http`
        plain_http: bool,
        /// `--quiet`: no progress, and only the digest.
        quiet: bool,
    },
    /// `push`
    Push {
        /// The image in the store.
        image: OsString,
        /// Where it goes; without, where its name says.
        name: Option<String>,
        /// `--plain-http`
        plain_http: bool,
        /// `--quiet`: no progress, and only the digest.
        quiet: bool,
    },
    /// `save`
    Save {
        /// The images.
        images: Vec<OsString>,
        /// `--output`
        output: Option<PathBuf>,
    },
    /// `unpack`
    Unpack {
        /// The image.
        image: OsString,
        /// The folder that becomes a bundle.
        bundle: PathBuf,
        /// `--flat`
        flat: bool,
        /// `--quiet`
        quiet: bool,
    },
}

/// What is to be done with the container of an image. Its state tells where the image is.
#[derive(Debug, PartialEq, Eq)]
pub enum OfContainer {
    /// `diff`
    Diff {
        /// The container.
        container: String,
        /// `--format`
        format: Table,
    },
    /// `commit`
    Commit(Commit),
}

/// `rcrun image commit`
#[derive(Debug, PartialEq, Eq)]
pub struct Commit {
    /// The container.
    pub container: String,
    /// The name of the new image.
    pub name: String,
    /// `--author`
    pub author: Option<String>,
    /// `--change`: instructions of a Dockerfile.
    pub changes: Vec<String>,
    /// `--message`
    pub message: Option<String>,
    /// `--pause`: the container stands still meanwhile.
    pub pause: bool,
    /// `--quiet`: prints the digest only.
    pub quiet: bool,
}

/// Reads what follows `image`.
pub fn verb(words: Vec<OsString>) -> Result<Invocation> {
    let mut words = words.into_iter();
    match words.next() {
        None => Err(usage("image: a command is missing: `rcrun help image` lists them")),
        Some(word) if matches!(word.to_str(), Some("-h" | "-help" | "--help" | "help")) => {
            let name = words.next().filter(|_| word == "help");
            let verb = match name {
                None => flags::find("image")?,
                Some(name) => find(&name.to_string_lossy())?,
            };
            Ok(Invocation::Help(Some(verb)))
        }
        Some(word) => resolve::resolve(find(&word.to_string_lossy())?, words.collect()),
    }
}

/// Finds a verb of `image`.
pub fn find(name: &str) -> Result<&'static Verb> {
    // What people who come from other tools type.
    let name = match name {
        "ls" => "list",
        "rm" => "remove",
        other => other,
    };
    VERBS.iter().find(|verb| verb.name.strip_prefix("image ") == Some(name)).ok_or_else(|| {
        Error::new(Code::Usage, format!("unknown command \"image {name}\": `rcrun help image` lists them"))
    })
}

/// The words of one verb, resolved.
pub(super) fn resolved(verb: &Verb, options: &Matches, plain: &mut Plain<'_>) -> Result<Invocation> {
    const IMAGE: &str = "an image";
    if let "image diff" | "image commit" = verb.name {
        return of_container(verb, options, plain);
    }
    let format = || options.table();
    let quiet = || options.on("quiet");
    let asked = match verb.name {
        "image list" => ImageVerb::List { format: format(), quiet: quiet() },
        "image inspect" => ImageVerb::Inspect { image: plain.word(IMAGE)? },
        "image history" => ImageVerb::History { image: plain.word(IMAGE)?, format: format() },
        "image layers" => {
            let depth = options.word("depth").unwrap_or("2".into());
            let depth = depth.parse().map_err(|_| usage(format!("--depth: {depth:?} is no number")))?;
            ImageVerb::Layers { image: plain.word(IMAGE)?, depth, format: format() }
        }
        "image tag" => {
            let image = plain.word(IMAGE)?;
            ImageVerb::Tag { image, name: name(plain.word("a name")?)? }
        }
        "image remove" => {
            let first = plain.word(IMAGE)?;
            ImageVerb::Remove { images: [vec![first], plain.all()].concat(), quiet: quiet() }
        }
        "image prune" => ImageVerb::Prune { quiet: quiet(), format: format() },
        "image fsck" => ImageVerb::Fsck { repair: options.on("repair"), quiet: quiet(), format: format() },
        "image load" => ImageVerb::Load {
            from: plain.word("a file or folder")?,
            names: options.all("name"),
            platform: options.word("platform"),
            quiet: quiet(),
        },
        "image pull" => ImageVerb::Pull {
            name: name(plain.word("the name of an image")?)?,
            platform: options.word("platform"),
            plain_http: options.on("plain-http"),
            quiet: quiet(),
        },
        "image push" => ImageVerb::Push {
            image: plain.word(IMAGE)?,
            name: plain.optional().map(name).transpose()?,
            plain_http: options.on("plain-http"),
            quiet: quiet(),
        },
        "image save" => {
            let first = plain.word(IMAGE)?;
            ImageVerb::Save { images: [vec![first], plain.all()].concat(), output: options.path("output") }
        }
        _ => ImageVerb::Unpack {
            image: plain.word(IMAGE)?,
            bundle: plain.word("a folder for the bundle")?.into(),
            flat: options.on("flat"),
            quiet: quiet(),
        },
    };
    plain.end()?;
    let store = options.path("store").unwrap_or_else(default_store);
    Ok(Invocation::Image(Image { store, verb: asked }))
}

fn of_container(verb: &Verb, options: &Matches, plain: &mut Plain<'_>) -> Result<Invocation> {
    let container = plain.id()?;
    let asked = match verb.name {
        "image diff" => OfContainer::Diff { container, format: options.table() },
        _ => OfContainer::Commit(Commit {
            container,
            name: name(plain.word("a name")?)?,
            author: options.word("author"),
            changes: options.all("change"),
            message: options.word("message"),
            pause: options.word("pause").as_deref() != Some("false"),
            quiet: options.on("quiet"),
        }),
    };
    plain.end()?;
    Ok(Invocation::OfContainer(asked))
}

fn name(word: OsString) -> Result<String> {
    word.into_string().map_err(|word| usage(format!("the name {word:?} is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args;

    fn told(line: &str) -> std::result::Result<Image, String> {
        match args::parse(line.split(' ').map(OsString::from).collect()).1 {
            Ok(Invocation::Image(image)) => Ok(image),
            Ok(other) => panic!("{line}: {other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn every_verb_of_image_is_read() {
        let word = OsString::from;
        let table = Table::Table;
        for (line, verb) in [
            ("list -q", ImageVerb::List { format: table, quiet: true }),
            ("ls --format json", ImageVerb::List { format: Table::Json, quiet: false }),
            ("inspect app:1", ImageVerb::Inspect { image: word("app:1") }),
            ("history app", ImageVerb::History { image: word("app"), format: table }),
            ("layers app --depth 5", ImageVerb::Layers { image: word("app"), depth: 5, format: table }),
            ("layers app", ImageVerb::Layers { image: word("app"), depth: 2, format: table }),
            ("tag a b", ImageVerb::Tag { image: word("a"), name: "b".into() }),
            ("rm a b", ImageVerb::Remove { images: vec![word("a"), word("b")], quiet: false }),
            ("prune", ImageVerb::Prune { quiet: false, format: table }),
            ("fsck --repair -q", ImageVerb::Fsck { repair: true, quiet: true, format: table }),
            (
                "load --name x a.tar",
                ImageVerb::Load {
                    from: word("a.tar"),
                    names: vec!["x".into()],
                    platform: None,
                    quiet: false,
                },
            ),
            (
                "pull a --platform linux/arm64",
                ImageVerb::Pull {
                    name: "a".into(),
                    platform: Some("linux/arm64".into()),
                    plain_http: false,
                    quiet: false,
                },
            ),
            (
                "push a b -q --plain-http",
                ImageVerb::Push { image: word("a"), name: Some("b".into()), plain_http: true, quiet: true },
            ),
            ("push a", ImageVerb::Push { image: word("a"), name: None, plain_http: false, quiet: false }),
            ("save a -o f", ImageVerb::Save { images: vec![word("a")], output: Some("f".into()) }),
            (
                "unpack --flat a b",
                ImageVerb::Unpack { image: word("a"), bundle: "b".into(), flat: true, quiet: false },
            ),
        ] {
            let image = told(&format!("image {line}")).unwrap();
            assert_eq!(image, Image { store: default_store(), verb }, "{line}");
        }
        assert_eq!(told("image list --store /s").unwrap().store, PathBuf::from("/s"));
    }

    #[test]
    fn what_is_for_a_container_of_an_image_is_read() {
        let told = |line: &str| match args::parse(line.split(' ').map(OsString::from).collect()).1 {
            Ok(Invocation::OfContainer(asked)) => asked,
            other => panic!("{line}: {other:?}"),
        };
        let diff = OfContainer::Diff { container: "web".into(), format: Table::Json };
        assert_eq!(told("image diff web -f json"), diff);
        let commit = |author: Option<&str>, message: Option<&str>, changes: &[&str], pause, quiet| {
            OfContainer::Commit(Commit {
                container: "web".into(),
                name: "app:2".into(),
                author: author.map(String::from),
                changes: changes.iter().map(|change| change.to_string()).collect(),
                message: message.map(String::from),
                pause,
                quiet,
            })
        };
        assert_eq!(told("image commit web app:2"), commit(None, None, &[], true, false));
        assert_eq!(
            told("image commit -q -a me -c USER=x --change CMD=y -m text --pause=false web app:2"),
            commit(Some("me"), Some("text"), &["USER=x", "CMD=y"], false, true)
        );
    }

    #[test]
    fn what_is_wrong_is_told_by_name() {
        for (line, why) in [
            ("image", "image: a command is missing: `rcrun help image` lists them"),
            ("image nope", "unknown command \"image nope\": `rcrun help image` lists them"),
            (
                "image pull",
                "image pull: an argument is missing: the name of an image \
                 (usage: rcrun image pull NAME[:TAG][@DIGEST])",
            ),
            ("image tag a", "image tag: an argument is missing: a name (usage: rcrun image tag IMAGE NAME)"),
            ("image layers --depth x a", "image layers: --depth: \"x\" is no number"),
            ("image list a", "image list: one argument too many: \"a\" (usage: rcrun image list)"),
            (
                "image commit web",
                "image commit: an argument is missing: a name (usage: rcrun image commit CONTAINER NAME)",
            ),
            (
                "image commit web a b",
                "image commit: one argument too many: \"b\" (usage: rcrun image commit CONTAINER NAME)",
            ),
            (
                "image diff",
                "image diff: an argument is missing: a container id (usage: rcrun image diff CONTAINER)",
            ),
            (
                "image list --all",
                "image list: flag provided but not defined: --all (`rcrun help image list` lists the options)",
            ),
        ] {
            assert_eq!(told(line).unwrap_err(), why, "{line}");
        }
    }
}
