//! start, delete, -v and -info: what containerd executes.

use crate::harness::{Io, Living, Place, Shim, all_here, binary, run, text};
use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::types::introspection::RuntimeInfo;
use runtime_tests::bundle::Bundle;
use runtime_tests::inside::{is_alive, shell};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

#[test]
fn start_answers_each_containerd_in_its_protocol() {
    let place = Place::new("shim-protocols");
    let bundle = Bundle::new("shim-protocols", &["true"]);
    let bare = place.start(&bundle, "p1");
    let path = bare.strip_prefix("unix:///run/containerd/s/").expect("an address").to_string();
    assert!(path.len() == 64 && path.bytes().all(|b| b.is_ascii_hexdigit()), "{bare}");
    assert_eq!(text(&bundle.path().join("address")), bare);

    // The shim is there already: it is named again.
    let json = run(place.command(&bundle, "p1").env("MAX_SHIM_VERSION", "2").arg("start"), b"");
    let json: serde_json::Value = serde_json::from_str(&json.out).expect("JSON");
    assert_eq!(json, serde_json::json!({"version": 2, "address": bare, "protocol": "ttrpc"}));

    let params = BootstrapParams {
        instance_id: "p2".into(),
        namespace: place.namespace.clone(),
        containerd_ttrpc_address: place.folder.path().join("events.sock").display().to_string(),
        socket_dir: Some("/run/sockets".into()),
        ..BootstrapParams::default()
    };
    let mut command = place.command(&bundle, "p2");
    command.env("MAX_SHIM_VERSION", "3").env_remove("TTRPC_ADDRESS").arg("start");
    let said = run(&mut command, &params.write_to_bytes().expect("encode"));
    let result = BootstrapResult::parse_from_bytes(said.out.as_bytes()).expect("protobuf");
    assert_eq!((result.version, result.protocol.as_str()), (3, "ttrpc"));
    assert!(result.address.starts_with("unix:///run/sockets/"), "{}", result.address);

    for (address, id) in [(bare, "p1"), (result.address, "p2")] {
        let shim = Shim::at(&address).v3();
        shim.create(&bundle, id, &Io::none()).expect("create");
        shim.clear(id);
        assert_eq!(place.heard(3), ["create", "exit", "delete"].map(|topic| format!("/tasks/{topic} {id}")));
        assert!(!shim.socket().exists(), "the socket goes with the shim");
    }
}

#[test]
fn a_pod_has_one_shim_which_goes_after_its_last_container() {
    let place = Place::new("shim-pod");
    for annotation in ["io.kubernetes.cri.sandbox-id", "io.containerd.runc.v2.group"] {
        let of_pod = |name: &str| {
            Bundle::new(name, &["sleep", "1000"])
                .with(|c| c["annotations"] = serde_json::json!({annotation: "pod-1"}))
        };
        let (first, second) = (of_pod("shim-first"), of_pod("shim-second"));
        let address = place.start(&first, "first");
        assert_eq!(place.start(&second, "second"), address);
        let shim = Shim::at(&address);
        shim.create(&first, "first", &Io::none()).expect("create");
        shim.create(&second, "second", &Io::none()).expect("create");
        let pid = shim.pid("first");
        assert_eq!(pid, shim.pid("second"));
        shim.kill("first", "", libc::SIGKILL, false).expect("kill");
        shim.wait("first", "").expect("wait");
        shim.delete("first", "").expect("delete");
        shim.shut_down();
        assert_eq!(shim.pid("second"), pid, "it stays while there are containers");
        shim.clear("second");
    }
}

#[test]
fn only_root_may_connect() {
    let place = Place::new("shim-peer");
    let bundle = Bundle::new("shim-peer", &["true"]);
    let shim = place.created(&bundle, "peer", &Io::none());
    let socket = shim.socket();
    assert_eq!(socket.metadata().expect("the socket").permissions().mode() & 0o7777, 0o600);
    let connect = r#"use Socket; socket(S, PF_UNIX, SOCK_STREAM, 0); $! = 0; connect(S, pack_sockaddr_un($ARGV[0]));
                     print "$!\n"; $| = 1; print "end\n" unless sysread(S, $_, 1);"#;
    let as_user = || {
        let output = Command::new("perl").args(["-e", connect]).arg(&socket).uid(65534).output();
        String::from_utf8(output.expect("perl").stdout).expect("text")
    };
    assert_eq!(as_user(), "Permission denied\nend\n");
    // Somebody has opened the way: the shim looks who comes.
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).expect("chmod");
    assert_eq!(as_user(), "\nend\n");
    shim.clear("peer");
}

#[test]
fn delete_clears_what_a_killed_shim_has_left() {
    let place = Place::new("shim-killed");
    let bundle = Bundle::new("shim-killed", &["sleep", "1000"]);
    let shim = place.created(&bundle, "killed", &Io::none());
    let pid = shim.start("killed", "").expect("start") as i32;
    let own = shim.pid("killed");
    let state = std::path::Path::new("/run/containerd/rcrun").join(&place.namespace).join("killed");
    assert!(state.exists());
    let living = Living::of(own);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(own), nix::sys::signal::Signal::SIGKILL).expect("kill");
    living.ends();
    assert!(is_alive(pid), "the container outlives its shim");
    assert!(shim.socket().exists());
    let mut command = place.command(&bundle, "killed");
    command.arg("-bundle").arg(bundle.path()).arg("delete");
    let output = command.output().expect("execute the shim");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let response = DeleteResponse::parse_from_bytes(&output.stdout).expect("protobuf");
    assert_eq!((response.pid as i32, response.exit_status), (pid, 137));
    assert!(response.exited_at.seconds > 1_600_000_000);
    assert!(!is_alive(pid) && !state.exists() && !shim.socket().exists());
    // A second time there is nothing to do.
    assert!(command.output().expect("execute the shim").status.success());
}

#[test]
fn a_shim_whose_containerd_was_killed_before_it_asked_for_a_container_ends() {
    let place = Place::new("shim-deserted");
    let bundle = Bundle::new("shim-deserted", &["true"]);
    let serving = || -> Vec<Living> { all_here().into_iter().filter_map(Living::of_some).collect() };
    // After the answer: the next containerd runs `delete`.
    let shim = place.shim(&bundle, "deserted");
    let living = serving();
    assert_eq!(living.len(), 1);
    let mut command = place.command(&bundle, "deserted");
    let deleted = run(command.arg("-bundle").arg(bundle.path()).arg("delete"), b"");
    assert_eq!((deleted.status, deleted.err.as_str()), (0, ""));
    living.iter().for_each(Living::ends);
    assert!(!shim.socket().exists());
    // Before it: nobody reads the answer.
    let (reader, writer) = rustix::pipe::pipe().expect("pipe");
    drop(reader);
    let mut command = place.command(&bundle, "deserted");
    let status = command.arg("start").stdout(std::fs::File::from(writer)).stderr(Stdio::null());
    assert!(!status.status().expect("execute the shim").success());
    serving().iter().for_each(Living::ends);
    assert!(!shim.socket().exists());
}

#[test]
fn a_shim_that_cannot_start_says_why_and_leaves_nothing() {
    let place = Place::new("shim-refused");
    let bundle = Bundle::new("shim-refused", &["true"]);
    let none = Bundle::new("shim-none", &["true"]);
    std::fs::write(none.path().join("config.json"), "{").expect("write");
    let said = run(place.command(&none, "none").arg("start"), b"");
    assert_eq!(said.status, 1);
    assert!(said.err.contains("config.json: "), "{}", said.err);
    let said = run(place.command(&bundle, "none").arg("start"), b"no message at all");
    assert!(said.err.contains("what containerd wrote to stdin cannot be read"), "{}", said.err);
    let mut options = containerd_shim_protos::shim::oci::Options::new();
    options.shim_cgroup = "/no/such/cgroup".into();
    let any = containerd_shim_protos::protobuf::well_known_types::any::Any {
        type_url: "containerd.runc.v1.Options".into(),
        value: options.write_to_bytes().expect("encode"),
        ..Default::default()
    };
    let said = run(place.command(&bundle, "none").arg("start"), &any.write_to_bytes().expect("encode"));
    assert!(said.err.contains("ShimCgroup: write"), "{}", said.err);
    let left: Vec<_> = std::fs::read_dir("/run/containerd/s").expect("sockets").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn who_starts_a_container_after_shutdown_gets_a_shim_that_stays() {
    let place = Place::new("shim-again");
    let bundle = Bundle::new("shim-again", &["true"])
        .with(|c| c["linux"]["cgroupsPath"] = format!("/{}/again", place.namespace).into());
    // A containerd that takes no events: the shim waits for that before it ends, and is there meanwhile.
    let deaf = place.folder.path().join("deaf.sock");
    let listens = std::os::unix::net::UnixListener::bind(&deaf).expect("bind");
    let start = || run(place.command(&bundle, "again").env("TTRPC_ADDRESS", &deaf).arg("start"), b"").out;
    let address = start();
    let first = Shim::at(&address);
    first.create(&bundle, "again", &Io::none()).expect("create");
    let own = first.pid("again");
    first.delete("again", "").expect("delete");
    let living = Living::of(own);
    first.shut_down();
    assert_eq!(start(), address);
    let second = Shim::at(&address);
    second.create(&bundle, "again", &Io::none()).expect("create");
    assert_ne!(second.pid("again"), own);
    // Now there is one that takes them.
    drop(listens);
    std::fs::remove_file(&deaf).expect("unlink");
    std::os::unix::fs::symlink(place.folder.path().join("events.sock"), &deaf).expect("symlink");
    living.ends();
    assert!(second.socket().exists(), "it is the second one's");
    second.clear("again");
    assert!(!second.socket().exists());
}

#[test]
fn a_shim_holds_nothing_of_who_started_it() {
    let place = Place::new("shim-holds");
    let bundle = shell("shim-holds", "true", |_| ());
    let (mut reader, writer) = std::io::pipe().expect("pipe");
    let fd = std::os::fd::OwnedFd::from(writer);
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty()).expect("F_SETFD");
    let mut command = place.command(&bundle, "holds");
    let said = run(command.arg("start"), b"");
    drop(fd);
    let mut rest = String::new();
    // The end of file comes: the shim has no end to write.
    reader.read_to_string(&mut rest).expect("read");
    let shim = Shim::at(&said.out);
    shim.create(&bundle, "holds", &Io::none()).expect("create");
    let pid = shim.pid("holds");
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).expect("cwd").as_os_str(), "/");
    for fd in 0..3 {
        let target = std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).expect("stdio");
        assert_eq!(target.as_os_str(), "/dev/null");
    }
    let score = |of: &str| {
        text(format!("/proc/{of}/oom_score_adj").as_ref()).trim().parse::<i32>().expect("a number")
    };
    assert_eq!(score(&pid.to_string()), (score("self") + 1).min(1000));
    shim.clear("holds");
}

#[test]
fn the_shim_tells_what_it_is() {
    let version = Command::new(binary()).arg("-v").output().expect("execute");
    assert!(String::from_utf8_lossy(&version.stdout).contains("Version: "), "{version:?}");
    let info = Command::new(binary()).arg("-info").stdin(Stdio::null()).output().expect("execute");
    let info = RuntimeInfo::parse_from_bytes(&info.stdout).expect("protobuf");
    assert_eq!(info.name, "io.containerd.rcrun.v2");
    assert!(!info.version.version.is_empty());
    assert_eq!(info.features.type_url, "types.containerd.io/opencontainers/runtime-spec/1/features/Features");
    let features: serde_json::Value = serde_json::from_slice(&info.features.value).expect("JSON");
    let rcrun = Command::new(std::env::var_os("RCRUN").expect("RCRUN")).arg("features").output();
    let mut of_rcrun: serde_json::Value =
        serde_json::from_slice(&rcrun.expect("rcrun").stdout).expect("JSON");
    // The shim is not told from which commit it is built.
    of_rcrun["annotations"].as_object_mut().expect("annotations").remove("org.rcrun.commit");
    assert!(features["linux"]["namespaces"].as_array().is_some_and(|all| all.len() > 5), "{features}");
    assert_eq!(features, of_rcrun);
}
