//! Images from and to Debian's registry on loopback, by the command that a person types.

#[path = "../../src/registry/tests/server/mod.rs"]
mod server;

use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_tests::bundle::Folder;
use runtime_tests::image::Image;
use runtime_tests::runtime::{Lines, Runtime, Said, code, said};
use serde_json::{Value, json};
use server::{Registry, Road, run};
use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;

/// Somebody with a store and auth files of their own.
struct Person {
    runtime: Runtime,
    folder: Folder,
}

impl Person {
    fn new() -> Person {
        Person { runtime: Runtime::new(), folder: Folder::new("registry") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, line: &str) -> Command {
        // The verb, the store, and the rest.
        let words: Vec<&str> = line.split(' ').collect();
        let verb = if words[0] == "image" { 2 } else { 1 };
        let mut command = self.runtime.command(&words[..verb]);
        command.arg("--store").arg(self.path("store")).args(&words[verb..]);
        // Who is logged in on this machine is not for a test to use.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.folder.path()).env("REGISTRY_AUTH_FILE", self.path("auth.json"));
        command
    }

    fn says(&self, line: &str) -> Said {
        said(&self.command(line).output().expect("execute the runtime"))
    }

    /// What a command prints that must succeed and tell of nothing else.
    fn gets(&self, line: &str) -> String {
        let said = self.says(line);
        assert_eq!((said.status, said.err.as_str()), (0, ""), "{line}: {}", said.out);
        said.out
    }

    fn starts(&self, line: &str) -> Child {
        self.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("execute the runtime")
    }

    /// The only image of the store.
    fn digest(&self) -> String {
        let listed: Value = serde_json::from_str(&self.gets("image list --format json")).expect("JSON");
        assert_eq!(listed.as_array().expect("a list").len(), 1, "{listed}");
        listed[0]["digest"].as_str().expect("a digest").to_string()
    }

    /// All that the store has is whole, and what a pull that was killed left goes with `prune`.
    fn is_sound(&self) {
        assert_eq!(self.gets("image fsck"), "the store is sound\n");
        self.gets("image prune -q");
        for folder in ["tmp", "leases", "partials/sha256"] {
            let left: Vec<_> = fs::read_dir(self.path("store").join(folder)).expect(folder).collect();
            assert!(left.is_empty(), "{folder}: {left:?}");
        }
        assert_eq!(self.gets("image fsck"), "the store is sound\n");
    }

    /// Bytes of blobs, whole and begun.
    fn kept(&self) -> u64 {
        bytes(&self.path("store/blobs")) + bytes(&self.path("store/partials"))
    }
}

/// Bytes of the files below.
fn bytes(at: &Path) -> u64 {
    let entries = fs::read_dir(at).expect("a folder").map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| match entry.file_type().expect("a type").is_dir() {
            true => bytes(&entry.path()),
            false => entry.metadata().expect("stat").len(),
        })
        .sum()
}

/// Three layers, of which two do not compress.
fn noisy(name: &str) -> Image {
    let noise = |bytes: u64| {
        move |root: &Path| {
            let mut noise = Vec::new();
            let random = fs::File::open("/dev/urandom").expect("open /dev/urandom");
            random.take(bytes).read_to_end(&mut noise).expect("read /dev/urandom");
            fs::write(root.join(format!("noise{bytes}")), noise).expect("write noise");
        }
    };
    Image::new(name)
        .layer(noise(3_000_000))
        .layer(noise(1_500_000))
        .runs(json!({ "Cmd": ["echo", "pulled and run"], "Env": ["PATH=/bin"] }))
}

/// Somebody who has the image as `app`.
fn owner(name: &str) -> Person {
    let person = Person::new();
    noisy(name).layout(&person.path("layout"), "1");
    let layout = person.path("layout");
    person.gets(&format!("image load -q --name app {}", layout.display()));
    person
}

/// The registry has the image of `owner` as `app:1`; what it weighs.
fn pushed(owner: &Person, address: SocketAddr) -> u64 {
    owner.gets(&format!("image push -q app {address}/app:1"));
    bytes(&owner.path("layout/blobs"))
}

#[test]
fn what_is_pushed_is_read_by_others_and_pulled_and_run() {
    let registry = Registry::new();
    let name = format!("{}/team/app:1", registry.address);
    let owner = owner("reg-round");
    let digest = owner.digest();
    assert_eq!(
        owner.gets(&format!("image push app {name}")),
        format!("pushed {digest} as {name} (blobs: 4 sent)\n")
    );
    let told = format!("pushed {digest} as {name} (blobs: 4 already there)\n");
    assert_eq!(owner.gets(&format!("image push app {name}")), told);
    let seen = run("skopeo", &["inspect", "--tls-verify=false", &format!("docker://{name}")]);
    let seen: Value = serde_json::from_slice(&seen).unwrap();
    assert_eq!((seen["Digest"].as_str(), &seen["RepoTags"]), (Some(digest.as_str()), &json!(["1"])));

    let person = Person::new();
    let told = person.gets(&format!("image pull {name}"));
    assert!(told.starts_with(&format!("pulled {digest} as {name}: 3 layers, 5.")), "{told}");
    assert!(told.ends_with(" MB\n"), "{told}");
    assert_eq!(person.digest(), digest);
    assert_eq!(person.gets(&format!("run {name}")), "pulled and run\n");
    assert_eq!(person.gets(&format!("image pull {name}")), format!("{name} is up to date: {digest}\n"));
    assert_eq!(person.gets(&format!("image pull -q {name}")), format!("{digest}\n"));
    // Under another name, nothing comes but the manifest; and a blob that the registry has it takes from itself.
    let other = format!("{}/other:2", registry.address);
    person.gets(&format!("image tag {name} {other}"));
    let told = format!("pushed {digest} as {other} (blobs: 1 sent, 3 taken there from another image)\n");
    assert_eq!(person.gets(&format!("image push {other}")), told);
    person.gets(&format!("image remove -q {other}"));
    let told = format!("pulled {digest} as {other}: all its layers were there already\n");
    assert_eq!(person.gets(&format!("image pull {other}")), told);
    // By digest it gets no name.
    let by_digest = format!("{}/other@{digest}", registry.address);
    let told = person.gets(&format!("image pull {by_digest}"));
    assert!(told.contains("is up to date"), "{told}");
    assert_eq!(person.gets(&format!("run {by_digest}")), "pulled and run\n");
    assert_eq!(person.gets("image list -q"), format!("{other}\n{name}\n"));
    person.is_sound();
}

#[test]
fn a_tag_that_moved_brings_only_the_layers_that_are_new() {
    let registry = Registry::new();
    let name = format!("{}/app:1", registry.address);
    let owner = owner("reg-moved");
    pushed(&owner, registry.address);
    let person = Person::new();
    person.gets(&format!("image pull -q {name}"));
    let before = person.digest();

    // One more layer over the same.
    let more = |root: &Path| fs::write(root.join("more"), "more\n").expect("write");
    let file = owner.path("app.tar");
    owner.gets(&format!("image unpack --flat app {}", owner.path("flat").display()));
    assert!(owner.path("flat/rootfs/noise3000000").exists());
    let image = Image::new("reg-moved-more")
        .layer(more)
        .runs(json!({ "Cmd": ["cat", "more"], "Env": ["PATH=/bin"] }));
    image.docker_save(&file, &["two:1"]);
    owner.gets(&format!("image load -q {}", file.display()));
    owner.gets(&format!("image push -q two:1 {name}"));
    assert_eq!(person.gets(&format!("run {name}")), "pulled and run\n", "run does not ask by itself");
    assert_eq!(person.gets(&format!("run --pull missing {name}")), "pulled and run\n", "it is there");
    assert_eq!(person.gets(&format!("run --pull always {name}")), "more\n");
    assert!(person.says(&format!("run {before}")).out == "pulled and run\n", "the old one stays until prune");
    person.is_sound();
}

#[test]
fn who_is_logged_in_may_push_and_pull_and_nobody_else() {
    let registry = Registry::for_user("ann", "pass:word");
    let address = registry.address;
    let name = format!("{address}/app:1");
    let owner = owner("reg-login");
    let login = |person: &Person, password: &str| {
        let key = base64(&format!("ann:{password}"));
        let text = json!({ "auths": { address.to_string(): { "auth": key } } }).to_string();
        fs::write(person.path("auth.json"), text).unwrap();
    };
    let person = Person::new();
    let lines = [(&owner, format!("image push app {name}")), (&person, format!("image pull {name}"))];
    for (person, line) in &lines {
        let said = person.says(line);
        assert_eq!((said.status, said.err.lines().count()), (1, 1), "{}", said.err);
        let remedy = "nobody is logged in there (podman login, docker login, skopeo login)";
        assert!(said.err.contains(remedy), "{}", said.err);
        login(person, "secret");
        let said = person.says(line);
        assert!(said.status == 1 && said.err.contains("HTTP 401"), "{}", said.err);
        assert!(said.err.contains("user \"ann\"") && !said.err.contains("secret"), "{}", said.err);
        login(person, "pass:word");
        person.gets(line);
    }
    assert_eq!(person.gets(&format!("run {name}")), "pulled and run\n");
    // The folder of `docker login` counts where no file is named.
    let docker = Person::new();
    fs::create_dir(docker.path(".docker")).unwrap();
    fs::copy(person.path("auth.json"), docker.path(".docker/config.json")).unwrap();
    let output = docker
        .command(&format!("image pull -q {name}"))
        .env_remove("REGISTRY_AUTH_FILE")
        .env("XDG_RUNTIME_DIR", docker.folder.path())
        .output()
        .unwrap();
    assert_eq!(said(&output).err, "");
    assert_eq!(docker.digest(), owner.digest());
}

fn base64(text: &str) -> String {
    let file = Folder::new("base64");
    fs::write(file.path().join("text"), text).unwrap();
    let out = run("base64", &["-w0", file.path().join("text").to_str().unwrap()]);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_pull_that_was_interrupted_goes_on_where_it_stopped_and_says_so() {
    let registry = Registry::new();
    let size = pushed(&owner("reg-killed"), registry.address);
    // The last as ^C does it: the whole group is told, unpackers and all. (SIGINT itself may be ignored below `make`.)
    for (signal, group, after) in [
        (Signal::SIGKILL, false, 2_000_000),
        (Signal::SIGKILL, false, 5_000),
        (Signal::SIGTERM, false, 4_500_000),
        (Signal::SIGTERM, true, 3_500_000),
    ] {
        let road = Road::to(registry.address);
        let (hang, hung) = std::sync::mpsc::channel();
        *road.hung.lock().unwrap() = Some(hang);
        road.all.store(after, Ordering::SeqCst);
        let person = Person::new();
        let name = format!("{}/app:1", road.address);
        let mut command = person.command(&format!("image pull {name}"));
        let child = command.process_group(0).stdout(Stdio::null()).spawn().expect("execute the runtime");
        hung.recv().expect("the road hangs");
        let pid = child.id() as i32;
        kill(Pid::from_raw(if group { -pid } else { pid }), signal).expect("kill");
        let ended = child.wait_with_output().expect("wait");
        assert_eq!(code(ended.status), 128 + signal as i32);
        assert_eq!(person.gets("image list -q"), "");

        *road.hung.lock().unwrap() = None;
        road.all.store(u64::MAX, Ordering::SeqCst);
        let kept = person.kept();
        let begun = bytes(&person.path("store/partials"));
        let before = road.came.load(Ordering::SeqCst);
        let told = person.gets(&format!("image pull {name}"));
        let came = road.came.load(Ordering::SeqCst) - before;
        assert!(came < size - kept + 50_000, "{came} bytes came, {kept} of {size} were there");
        assert_eq!(bytes(&person.path("store/partials")), 0, "{told}");
        assert_eq!(told.contains(" from a pull that had stopped\n"), begun > 0, "{begun} had begun: {told}");
        assert_eq!(person.gets(&format!("run {name}")), "pulled and run\n");
        person.is_sound();
    }
}

#[test]
fn pulls_of_one_image_at_once_carry_each_layer_once() {
    let registry = Registry::new();
    let size = pushed(&owner("reg-twice"), registry.address);
    let road = Road::to(registry.address);
    let person = Person::new();
    let name = format!("{}/app:1", road.address);
    let children: Vec<Child> = (0..3).map(|_| person.starts(&format!("image pull -q {name}"))).collect();
    let mut told = Vec::new();
    for child in children {
        let said = said(&child.wait_with_output().expect("wait"));
        assert_eq!((said.status, said.err.as_str()), (0, ""));
        told.push(said.out);
    }
    assert_eq!(told, vec![format!("{}\n", person.digest()); 3]);
    let came = road.came.load(Ordering::SeqCst);
    assert!(came < size + size / 4, "{came} bytes for {size}");
    person.is_sound();
}

#[test]
fn on_a_terminal_a_line_tells_how_far_it_is_and_of_another_pull_which_it_takes_over_from() {
    let registry = Registry::new();
    pushed(&owner("reg-screen"), registry.address);
    let road = Road::to(registry.address);
    let (hang, hung) = std::sync::mpsc::channel();
    *road.hung.lock().unwrap() = Some(hang);
    road.all.store(500_000, Ordering::SeqCst);
    let person = Person::new();
    let name = format!("{}/app:1", road.address);
    let mut first = person.starts(&format!("image pull {name}"));
    // All three layers are under way, and none comes to its end.
    for _ in 0..3 {
        hung.recv().expect("the road hangs");
    }
    *road.hung.lock().unwrap() = None;
    road.all.store(u64::MAX, Ordering::SeqCst);

    let pty = openpty(None, None).expect("openpty");
    let stdio = || Stdio::from(pty.slave.try_clone().expect("dup"));
    let mut command = person.command(&format!("image pull {name}"));
    let mut second = command.stdout(stdio()).stderr(stdio()).spawn().expect("execute the runtime");
    drop((command, pty.slave));
    let mut screen = Lines::of(pty.master);
    let drawn = screen.until(" by another pull");
    assert!(drawn.starts_with(&format!("\r\x1b[K{name} [")), "{drawn:?}");
    first.kill().expect("kill");
    first.wait().expect("wait");
    let drawn = screen.rest();
    assert_eq!(code(second.wait().expect("wait")), 0, "{drawn:?}");
    assert!(drawn.contains(" MB"), "{drawn:?}");
    // The last line stands alone: the bar is gone.
    let last = drawn.rsplit("\r\x1b[K").next().unwrap();
    assert!(last.starts_with("pulled sha256:") && last.contains("from a pull that had stopped"), "{last:?}");
    assert_eq!(person.gets(&format!("run {name}")), "pulled and run\n");
    person.is_sound();
}

#[test]
fn what_fails_is_told_in_one_sentence_with_what_to_do() {
    let registry = Registry::new();
    let tls = Registry::over_tls();
    let owner = owner("reg-errors");
    pushed(&owner, registry.address);
    let [address, secure] = [registry.address, tls.address];
    let digest = format!("sha256:{}", "0".repeat(64));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let cases = [
        (
            format!("image pull {free}/app"),
            format!(
                "pull {free}/app:latest: registry {free}: connection: connection refused; is it running, and listening on this port?"
            ),
        ),
        (
            format!("image pull {address}/nope:1"),
            format!("pull {address}/nope:1: registry {address} has no image nope with the tag 1"),
        ),
        (
            format!("image pull {address}/app"),
            format!(
                "pull {address}/app:latest: registry {address} has no image app with the tag latest, which a name without one means"
            ),
        ),
        (
            format!("image pull {address}/app@{digest}"),
            format!("pull {address}/app:latest@{digest}: registry {address} has no image app with {digest}"),
        ),
        (
            format!("image pull --platform linux/s390x {address}/app:1"),
            format!("pull {address}/app:1: has no image for linux/s390x, only for linux/"),
        ),
        (
            format!("image pull {secure}/app:1"),
            format!(
                "pull {secure}/app:1: registry {secure}: connection: invalid peer certificate: UnknownIssuer; to trust it, put the authority's certificate into /etc/containers/certs.d/{secure}/ca.crt"
            ),
        ),
        (
            format!("image pull http://{address}/app:1"),
            format!("image name \"http://{address}/app:1\": a name has no scheme, write {address}/app:1"),
        ),
        (
            format!("image pull {address}/App"),
            format!("image name \"{address}/App\": it must be in lower case"),
        ),
        (format!("image push nope {address}/nope"), "nope: no image of that name is in the store".into()),
        (
            format!("image push {}", owner.digest()),
            format!("push: {} does not say where to: write a name behind it", owner.digest()),
        ),
        (
            format!("run --pull always {address}/app:2"),
            format!("run: pull {address}/app:2: registry {address} has no image app with the tag 2"),
        ),
        (
            format!("run --pull never {address}/app:2"),
            format!(
                "run: {address}/app:2: no image of that name is in the store; `rcrun image list` shows what there is, `rcrun image pull {address}/app:2` asks {address} for it, `rcrun image load` brings what a file has"
            ),
        ),
        (format!("run --pull always {}", owner.path("layout").display()), "run: --pull: ".into()),
        ("run --pull often app".into(), "run: --pull: \"often\" is not one of never, missing, always".into()),
    ];
    for (line, wanted) in cases {
        let said = owner.says(&line);
        assert_eq!((said.status, said.out.as_str()), (1, ""), "{line}: {}", said.err);
        assert!(said.err.starts_with(&format!("rcrun: {wanted}")), "{line}: {}", said.err);
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
    }
    // A certificate of that folder would be trusted; the system's store is asked in the same way.
    let output = owner
        .command(&format!("image push app {secure}/app:1"))
        .env("SSL_CERT_FILE", tls.folder().join("ca.crt"))
        .output()
        .unwrap();
    assert_eq!(said(&output).err, "");
    owner.is_sound();
}

#[test]
fn a_host_that_is_not_there_and_a_name_without_one_are_told() {
    let person = Person::new();
    let rcrun = person.runtime.binary().display().to_string();
    fs::write(person.path("resolv.conf"), "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").unwrap();
    // A network of its own, in which nobody answers.
    let script = format!(
        "mount --bind {here}/resolv.conf /etc/resolv.conf && \
         for name in nosuch.test/app app; do {rcrun} image pull --store {here}/store $name; done",
        here = person.folder.path().display()
    );
    let said = said(&Command::new("unshare").args(["-nm", "sh", "-c", &script]).output().unwrap());
    let why = "there is no such host: is its name right, and does a name server answer?";
    assert_eq!(
        (said.status, said.err),
        (
            1,
            format!(
                "rcrun: pull nosuch.test/app:latest: registry nosuch.test: {why}\n\
                 rcrun: pull docker.io/library/app:latest: registry docker.io: {why}\n"
            )
        )
    );
}

#[test]
fn a_run_that_may_pull_prints_nothing_but_what_the_container_prints() {
    let registry = Registry::new();
    let owner = owner("reg-run");
    pushed(&owner, registry.address);
    let name = format!("{}/app:1", registry.address);
    let person = Person::new();
    let said = person.says(&format!("run {name}"));
    assert!(said.status == 1 && !person.path("store").exists(), "a word makes no store: {}", said.err);
    assert_eq!(person.gets(&format!("run --pull missing {name}")), "pulled and run\n");
    // Now it is there, and the registry is asked no more.
    drop(registry);
    assert_eq!(person.gets(&format!("run --pull missing {name}")), "pulled and run\n");
    assert_eq!(person.gets(&format!("run {name}")), "pulled and run\n");
    assert_eq!(person.digest(), owner.digest());
    person.is_sound();
}
