//! What a restore finds elsewhere: memory that is asked for as it is needed, open connections; and a user namespace.

use super::{COUNT, Images, checkpoint, checkpointed, number, restore, try_restore};
use runtime_tests::inside::{owned, shell};
use runtime_tests::runtime::{Lines, Runtime, readable};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Child, Command, Stdio};

/// A port that nobody listens on just now.
fn port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.local_addr().expect("an address").port()
}

fn without_network(config: &mut Value) {
    let namespaces = config["linux"]["namespaces"].as_array_mut().expect("a list");
    namespaces.retain(|namespace| namespace["type"] != "network");
}

#[test]
fn memory_is_handed_out_as_it_is_asked_for() {
    let (runtime, images) = (Runtime::new(), Images::new());
    // A variable of 2 MiB, whose length is told again and again.
    let script = "a=0123456789abcdef; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17; do a=$a$a; done; i=0; \
                  while :; do i=$((i+1)); echo $i ${#a}; sleep 0.1; done";
    let bundle = shell("lazy", script, |_| ());
    let mut lines = runtime.detached(&bundle, "lazy");
    let mut before = lines.until("2 2097152\n");
    let (reader, writer) = std::io::pipe().expect("pipe");
    let port = port();
    let number = writer.as_raw_fd().to_string();
    rustix::io::fcntl_setfd(&writer, rustix::io::FdFlags::empty()).expect("F_SETFD");
    let server = format!("--page-server=127.0.0.1:{port}");
    let folder = images.of("a");
    let words = ["checkpoint", "--lazy-pages", &server, "--status-fd", &number, &folder, "lazy"];
    let mut dump = runtime.command(words).stderr(Stdio::piped()).spawn().expect("execute the runtime");
    drop(writer);
    assert!(readable(reader.as_fd()), "nobody says that pages can be had");
    let mut ready = [1];
    assert_eq!(rustix::io::read(&reader, &mut ready).expect("read"), 1, "{}", said(&mut dump));
    assert_eq!(ready, [0]);
    let mut pages = Command::new("criu")
        .args(["lazy-pages", "--page-server", "--address", "127.0.0.1", "--port", &port.to_string(), "-D"])
        .arg(images.path().join("a"))
        .args(["-o", "lazy.log", "-v4"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("execute criu");
    // What is not handed out yet is not deleted either.
    let options = ["--lazy-pages", &folder];
    let restored = try_restore(
        &runtime,
        &bundle.with(|c| c["linux"]["cgroupsPath"] = json!("/lazier")),
        &options,
        "lazier",
    );
    let mut after = restored.unwrap_or_else(|error| {
        let log = fs::read_to_string(images.path().join("a/lazy.log")).unwrap_or_default();
        let _ = (pages.kill(), dump.kill());
        panic!("{error:?}\n{log}\n{}", said(&mut pages))
    });
    before += &lines.rest();
    let (line, end) = (after.line(), last_pair(&before));
    assert_eq!(line, format!("{} 2097152", end + 1));
    assert_eq!(said(&mut dump), "");
    assert_eq!(pages.wait().expect("wait").code(), Some(0));
    assert_eq!(runtime.say(["state", "lazy"]).status, 1, "it is deleted");
    after.line();
    assert_eq!(runtime.status("lazier"), "running");
}

fn last_pair(text: &str) -> u64 {
    let line = text.lines().last().unwrap_or_else(|| panic!("no lines in {text:?}"));
    number(line.split(' ').next().unwrap_or_default())
}

/// Waits for its end; its standard error.
fn said(child: &mut Child) -> String {
    let mut text = String::new();
    if let Some(mut err) = child.stderr.take() {
        std::io::Read::read_to_string(&mut err, &mut text).expect("read");
    }
    let _ = child.wait();
    text
}

#[test]
fn an_open_connection_goes_on_after_the_restore() {
    let (runtime, images) = (Runtime::new(), Images::new());
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("an address").port();
    let script =
        format!("exec nc 127.0.0.1 {port} -e sh -c 'i=0; while read x; do i=$((i+1)); echo $i $x; done'");
    let bundle = shell("connected", &script, without_network);
    runtime.detached(&bundle, "connected");
    let (mut stream, _) = listener.accept().expect("accept");
    let mut lines = Lines::of(stream.try_clone().expect("dup").into());
    stream.write_all(b"a\n").expect("write");
    assert_eq!(lines.line(), "1 a");
    let said = checkpoint(&runtime, &[&images.of("refused")], "connected");
    assert!(said.status == 1 && said.err.contains("tcp-established"), "{}", said.err);
    // It runs on, and may have been woken out of its wait.
    assert_eq!(runtime.status("connected"), "running");
    checkpointed(&runtime, &["--tcp-established", &images.of("a")], "connected");
    restore(&runtime, &bundle, &["--tcp-established", &images.of("a")], "connected");
    stream.write_all(b"b\n").expect("write");
    assert_eq!(lines.line(), "2 b");
    drop((stream, lines));
    runtime.wait_for_end("connected");
}

#[test]
fn a_container_with_a_new_user_namespace_is_refused_and_runs_on() {
    let (runtime, images) = (Runtime::new(), Images::new());
    let bundle = owned("mapped", COUNT, |_| ());
    let mut lines = runtime.detached(&bundle, "mapped");
    lines.until("2\n");
    let said = checkpoint(&runtime, &[&images.of("a")], "mapped");
    let why = "/linux/namespaces: CRIU does not restore a new user namespace";
    assert!(said.status == 1 && said.err.contains(why), "{}", said.err);
    assert_eq!(runtime.status("mapped"), "running");
    fs::create_dir(images.path().join("a")).expect("mkdir");
    let said = try_restore(&runtime, &bundle, &[&images.of("a")], "again").expect_err("a refusal");
    assert!(said.err.contains(why), "{}", said.err);
}
