//! The verbs of `rcrun image`: their texts and options. Uses: flags.

use super::super::flags::{Verb, list, path, store, switch, table, text};
use super::super::words::Options;

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
