//! `rcrun image`: its verbs, their options, and what they were asked to do. Uses: flags, resolve.

use std::ffi::OsString;
use std::path::PathBuf;

use rcrun_runtime::{Code, Error, Result};

use super::flags::{Verb, list, path, store, switch, table, text};
use super::resolve::{self, Matches, Plain};
use super::words::Options;
use super::{Invocation, Table, flags, usage};

/// Where images are when nobody says it.
pub const DEFAULT_STORE: &str = "/var/lib/rcrun";

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
    let store = options.path("store").unwrap_or_else(|| DEFAULT_STORE.into());
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

fn quiet(help: &'static str) -> clap::Arg {
    switch("quiet", help).short('q')
}

fn platform() -> clap::Arg {
    text("platform", "OS/ARCH", "Of an image for several platforms, take this one")
}

fn plain_http() -> clap::Arg {
    switch("plain-http", "Allow HTTP without TLS, where others on the way read and change all")
}

/// The verbs of `image` in the order in which people meet them.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "image load",
        about: "Load images from an archive or a layout folder into the store",
        takes: "FILE|DIR[:NAME]",
        options: Options::Anywhere,
        more: "\
Reads what docker save, podman save, skopeo, buildah and `rcrun image save` write: OCI layouts as a
folder or a tar, Docker archives, compressed or not. Every digest is verified. All images of the
file are loaded, or the one whose name follows it.

Examples:
  rcrun image load app.tar
  rcrun image load --name app:test layout/
  rcrun image load all.tar:app:1",
        flags: || {
            vec![
                store(),
                list("name", "NAME", "Give the image this name instead of its own (repeatable)"),
                platform(),
                quiet("No progress; print digests only"),
            ]
        },
    },
    Verb {
        name: "image pull",
        about: "Bring an image from a registry into the store",
        takes: "NAME[:TAG][@DIGEST]",
        options: Options::Anywhere,
        more: "\
A name begins with the registry, HOST[:PORT]/; without one it is docker.io. Without a tag it means
:latest. Every digest is verified, layers that are there are not read again, and a pull that was
interrupted goes on where it stopped when the command is repeated.

Who is logged in stands in the files that podman login, docker login and skopeo login write:
$REGISTRY_AUTH_FILE alone if it is set, else $XDG_RUNTIME_DIR/containers/auth.json (without the
variable, /run/containers/UID/auth.json), ~/.config/containers/auth.json, ~/.docker/config.json.
Trusted are the system's certificates, and for one registry *.crt in its folder HOST:PORT below
/etc/containers/certs.d or /etc/docker/certs.d. Of this machine (localhost, 127.*) plain HTTP will
do.

Examples:
  rcrun image pull localhost:5000/app:1
  rcrun image pull --platform linux/arm64 registry.example:5000/team/app
  rcrun image pull debian:12 && rcrun run -it debian:12",
        flags: || vec![store(), platform(), plain_http(), quiet("No progress; print the digest only")],
    },
    Verb {
        name: "image push",
        about: "Bring an image of the store to a registry",
        takes: "IMAGE [NAME[:TAG]]",
        options: Options::Anywhere,
        more: "\
The name says which registry: NAME if it is given, else the image's own. What the registry has
already is not sent. `rcrun help image pull` tells about logins, certificates and plain HTTP.

Examples:
  rcrun image push localhost:5000/app:1
  rcrun image push app:1 registry.example:5000/team/app:1",
        flags: || vec![store(), plain_http(), quiet("No progress; print the digest only")],
    },
    Verb {
        name: "image list",
        about: "List the images in the store",
        takes: "",
        options: Options::Anywhere,
        more: "\
Examples:
  rcrun image list
  rcrun image list -q              names only
  rcrun image list --format json   for tools",
        flags: || vec![store(), table(), quiet("Print names only; digests of images without one")],
    },
    Verb {
        name: "image inspect",
        about: "Print what an image consists of and what it runs, as JSON",
        takes: "IMAGE",
        options: Options::Anywhere,
        more: "\
Example:
  rcrun image inspect app:1",
        flags: || vec![store()],
    },
    Verb {
        name: "image history",
        about: "Print the steps in which an image was built",
        takes: "IMAGE",
        options: Options::Anywhere,
        more: "\
Example:
  rcrun image history app:1",
        flags: || vec![store(), table()],
    },
    Verb {
        name: "image layers",
        about: "Show what each layer of an image added, changed, removed and wasted",
        takes: "IMAGE",
        options: Options::Anywhere,
        more: "\
A tree for each layer, the largest first. Wasted are bytes that a later layer hides: they are stored
and moved about, and no container sees them.

Examples:
  rcrun image layers app:1
  rcrun image layers --depth 4 app:1",
        flags: || vec![store(), text("depth", "N", "Show folders down to this depth (default: 2)"), table()],
    },
    Verb {
        name: "image tag",
        about: "Give an image one more name",
        takes: "IMAGE NAME",
        options: Options::Anywhere,
        more: "\
Example:
  rcrun image tag app:1 app:latest",
        flags: || vec![store()],
    },
    Verb {
        name: "image remove",
        about: "Take names away, and remove the images that have none left",
        takes: "IMAGE...",
        options: Options::Anywhere,
        more: "\
A name is taken away; with its last name the image goes, and what no other image shares. A digest
means the image with all its names. An image that a container uses stays.

Examples:
  rcrun image remove app:1
  rcrun image remove sha256:4f0c6a...",
        flags: || vec![store(), quiet("Print nothing")],
    },
    Verb {
        name: "image prune",
        about: "Remove images without a name, and all that no image and no container needs",
        takes: "",
        options: Options::Anywhere,
        more: "\
Example:
  rcrun image prune",
        flags: || vec![store(), table(), quiet("Print nothing")],
    },
    Verb {
        name: "image fsck",
        about: "Verify every digest and every link in the store",
        takes: "",
        options: Options::Anywhere,
        more: "\
The exit status is 1 when something is broken and stays so.

Examples:
  rcrun image fsck
  rcrun image fsck --repair",
        flags: || {
            vec![store(), switch("repair", "Remove what is broken"), table(), quiet("Print problems only")]
        },
    },
    Verb {
        name: "image save",
        about: "Write images to a tar: an OCI layout that docker load reads too",
        takes: "IMAGE...",
        options: Options::Anywhere,
        more: "\
Examples:
  rcrun image save app:1 -o app.tar
  rcrun image save app:1 | ssh host rcrun image load /dev/stdin",
        flags: || {
            vec![store(), path("output", "FILE", "Write to FILE (default: standard output)").short('o')]
        },
    },
    Verb {
        name: "image diff",
        about: "List what a container of an image changed in it",
        takes: "CONTAINER",
        options: Options::Anywhere,
        more: "\
A line for each path: A for added, C for changed, D for deleted. A folder in which something changed
is changed. Volumes, mounts, and what rcrun itself put there are not the container's changes.

Examples:
  rcrun image diff web
  rcrun image diff --format json web",
        flags: || vec![table()],
    },
    Verb {
        name: "image commit",
        about: "Make an image of a container: its own, and what the container changed",
        takes: "CONTAINER NAME",
        options: Options::Anywhere,
        more: "\
The new image has the layers of the container's, and one with what `rcrun image diff` lists. It lies
in the same store. What the container had of `rcrun run`, such as its command, does not go into it:
--change says what it runs, with CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME and
WORKDIR as in a Dockerfile. The same changes with the same times give the same digest; with
SOURCE_DATE_EPOCH in the environment no time is later than that.

Examples:
  rcrun image commit web app:2
  rcrun image commit -m 'with nginx' -c 'CMD [\"nginx\"]' -c 'ENV A=1' web app:2",
        flags: || {
            vec![
                text("author", "NAME", "Who made the image").short('a'),
                list("change", "INSTRUCTION", "Change the image's configuration (repeatable)").short('c'),
                text("message", "TEXT", "What was done, for `rcrun image history`").short('m'),
                text("pause", "true|false", "Pause the container meanwhile (default: true)")
                    .value_parser(["true", "false"])
                    .hide_possible_values(true)
                    .short('p'),
                quiet("Print the digest only"),
            ]
        },
    },
    Verb {
        name: "image unpack",
        about: "Write a bundle: a config.json, and the image's root file system",
        takes: "IMAGE BUNDLE",
        options: Options::Anywhere,
        more: "\
The root is an overlay, mounted at BUNDLE/rootfs: the layers in the store, which nothing writes to,
below BUNDLE/upper; `umount BUNDLE/rootfs` ends it. The layers stay as long as there is a
BUNDLE/config.json. With --flat the root is one folder of files, which needs no store.

Examples:
  rcrun image unpack app:1 /srv/app && rcrun run --bundle /srv/app app
  rcrun image unpack --flat app.tar /srv/app",
        flags: || {
            vec![
                store(),
                switch("flat", "Copy all layers into one folder instead of an overlay"),
                quiet("No progress"),
            ]
        },
    },
];

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
            assert_eq!(image, Image { store: DEFAULT_STORE.into(), verb }, "{line}");
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
            ("image list --all", "image list: flag provided but not defined: --all"),
        ] {
            assert_eq!(told(line).unwrap_err(), why, "{line}");
        }
    }
}
