//! The shim where cgroups have their controllers: limits, the OOM killer, statistics, and cgroups that systemd makes.

use crate::limits::EATS_MEMORY;
use crate::shim_harness::{Io, Place};
use containerd_shim_protos::cgroups_v2::metrics::Metrics;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::shim::oci::Options;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_tests::bundle::Bundle;
use serde_json::json;
use std::fs;
use std::path::Path;

const MIB: u64 = 1 << 20;

fn metrics(stats: &containerd_shim_protos::api::StatsResponse) -> Metrics {
    Metrics::parse_from_bytes(&stats.stats.value).expect("metrics")
}

#[test]
fn a_kill_by_the_oom_killer_is_told_before_the_end() {
    let place = Place::new("shim-oom");
    let bundle = Bundle::new("shim-oom", &EATS_MEMORY)
        .with(|c| c["linux"]["resources"] = json!({"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}));
    let shim = place.created(&bundle, "oom", &Io::none());
    shim.start("oom", "").expect("start");
    assert_eq!(shim.wait("oom", ""), Ok(137));
    shim.clear("oom");
    let topics = ["create", "start", "oom", "exit", "delete"].map(|topic| format!("/tasks/{topic} oom"));
    assert_eq!(place.heard(5), topics);
}

#[test]
fn a_kill_that_the_container_survives_is_told_each_time() {
    let place = Place::new("shim-survives");
    let bundle = Bundle::new("shim-survives", &["sleep", "1000"])
        .with(|c| c["linux"]["resources"] = json!({"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}));
    let shim = place.created(&bundle, "survives", &Io::none());
    shim.start("survives", "").expect("start");
    assert_eq!(place.heard(2).len(), 2);
    for name in ["first", "second"] {
        shim.exec("survives", name, &Io::none(), "echo 1000 > /proc/self/oom_score_adj; exec tail /dev/zero")
            .expect("exec");
        shim.start("survives", name).expect("start");
        assert_eq!(shim.wait("survives", name), Ok(137));
        let expected = [
            format!("/tasks/exec-added {name}"),
            format!("/tasks/exec-started {name}"),
            "/tasks/oom survives".to_string(),
            format!("/tasks/exit {name}"),
        ];
        assert_eq!(place.heard(4), expected);
    }
    let figures = metrics(&shim.stats("survives").expect("stats"));
    assert_eq!(figures.memory_events.oom_kill, 2);
    shim.clear("survives");
}

#[test]
fn a_kill_in_a_scope_is_told_also_when_systemd_has_removed_it_first() {
    let place = Place::new("shim-late");
    let script = "read go </go; exec tail /dev/zero";
    let bundle = Bundle::new("shim-late", &["sh", "-c", script]).with(|c| {
        c["linux"]["cgroupsPath"] = json!("rcruntest-late.slice:rt:late");
        c["linux"]["resources"] = json!({"memory": {"limit": 16 * MIB, "swap": 16 * MIB}});
    });
    let go = bundle.root().join("go");
    nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    let shim = place.created(&bundle, "late", &Io::none());
    shim.start("late", "").expect("start");
    let scope = Path::new("/sys/fs/cgroup/rcruntest.slice/rcruntest-late.slice/rt-late.scope");
    assert!(scope.exists());
    let pid = Pid::from_raw(shim.pid("late"));
    kill(pid, Signal::SIGSTOP).expect("stop the shim");
    fs::write(&go, "go\n").expect("write to the container");
    while scope.exists() {
        std::thread::yield_now();
    }
    kill(pid, Signal::SIGCONT).expect("continue the shim");
    assert_eq!(shim.wait("late", ""), Ok(137));
    shim.clear("late");
    let topics = ["create", "start", "oom", "exit", "delete"].map(|topic| format!("/tasks/{topic} late"));
    assert_eq!(place.heard(5), topics);
}

#[test]
fn a_shim_that_stays_lets_go_of_the_cgroup_of_a_container_that_is_deleted() {
    let place = Place::new("shim-lets-go");
    let bundle = |id: &str| {
        Bundle::new(id, &["sleep", "1000"])
            .with(|c| c["annotations"] = json!({"io.containerd.runc.v2.group": "lets-go"}))
    };
    let stays = bundle("stays");
    let shim = place.created(&stays, "stays", &Io::none());
    shim.start("stays", "").expect("start");
    let fds = format!("/proc/{}/fd", shim.pid("stays"));
    let watched = || {
        let links = fs::read_dir(&fds).expect("fds").flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        let mut watched: Vec<_> = links.filter(|link| link.starts_with("/sys/fs/cgroup")).collect();
        watched.sort();
        watched
    };
    let before = watched();
    assert!(before.iter().any(|file| file.ends_with("memory.events")), "{before:?}");
    for id in ["ends", "is-killed", "never-starts"] {
        let bundle = bundle(id);
        assert_eq!(place.start(&bundle, id), shim.address);
        shim.create(&bundle, id, &Io::none()).expect("create");
        assert!(watched().len() > before.len());
        match id {
            "never-starts" => {}
            "ends" => {
                let pid = shim.start(id, "").expect("start");
                kill(Pid::from_raw(pid as i32), Signal::SIGKILL).expect("kill");
            }
            _ => {
                shim.start(id, "").expect("start");
                shim.kill(id, "", libc::SIGKILL, false).expect("kill");
            }
        }
        if id != "never-starts" {
            shim.wait(id, "").expect("wait");
        }
        shim.delete(id, "").expect("delete");
        // Its end is being written to its state meanwhile, by a thread that has its cgroup open.
        let gone = (0..100_000).any(|_| watched() == before);
        assert!(gone, "after {id}: {:?}, before: {before:?}", watched());
    }
    shim.clear("stays");
}

#[test]
fn statistics_and_limits_are_those_of_the_cgroup() {
    let place = Place::new("shim-figures");
    let limits = json!({"memory": {"limit": 64 * MIB}, "pids": {"limit": 20}, "cpu": {"quota": 50_000, "period": 100_000}});
    let busy = ["sh", "-c", "while :; do :; done"];
    let bundle = Bundle::new("shim-figures", &busy).with(|c| c["linux"]["resources"] = limits);
    let shim = place.created(&bundle, "figures", &Io::none());
    shim.start("figures", "").expect("start");
    // A kernel that measures time in ticks has not seen what takes less than one.
    let mut figures = (0..10_000).map(|_| metrics(&shim.stats("figures").expect("stats")));
    let figures = figures.find(|figures| figures.cpu.usage_usec > 0).expect("time that was used");
    assert_eq!((figures.pids.current, figures.pids.limit), (1, 20));
    assert_eq!(figures.memory.usage_limit, 64 * MIB);
    assert!(figures.memory.usage > 0 && figures.memory.anon > 0, "{figures:?}");
    shim.update("figures", r#"{"memory":{"limit":33554432},"pids":{"limit":10}}"#).expect("update");
    let figures = metrics(&shim.stats("figures").expect("stats"));
    assert_eq!((figures.memory.usage_limit, figures.pids.limit), (32 * MIB, 10));
    let (_, text) = shim.update("figures", r#"{"pids":{"limit":"many"}}"#).expect_err("a refusal");
    assert!(text.contains("/pids/limit"), "{text}");
    shim.clear("figures");
}

#[test]
fn systemd_makes_the_cgroup_by_the_option_or_by_the_form_of_its_path() {
    let place = Place::new("shim-systemd");
    let bundle = Bundle::new("shim-systemd", &["sleep", "1000"])
        .with(|c| c["linux"]["cgroupsPath"] = json!("rcruntest-shim.slice:rt:shim"));
    let options = Options { systemd_cgroup: true, ..Options::default() };
    // Docker tells a runtime that it does not know nothing but the path.
    for options in [Some(options), None] {
        let shim = place.shim(&bundle, "scope");
        shim.create_with(&bundle, "scope", &Io::none(), |request| {
            if let Some(options) = &options {
                let any = request.options.mut_or_insert_default();
                any.type_url = "containerd.runc.v1.Options".into();
                any.value = options.write_to_bytes().expect("encode");
            }
        })
        .expect("create");
        let pid = shim.start("scope", "").expect("start");
        let cgroup = Path::new("/sys/fs/cgroup/rcruntest.slice/rcruntest-shim.slice/rt-shim.scope");
        let inside = fs::read_to_string(cgroup.join("cgroup.procs")).expect("the scope");
        assert_eq!(inside.trim(), pid.to_string());
        shim.exec("scope", "e", &Io::none(), "exec sleep 1000").expect("exec");
        shim.start("scope", "e").expect("start");
        assert_eq!(shim.pids("scope").expect("pids").len(), 2);
        shim.clear("scope");
        assert!(!cgroup.exists());
    }
}

#[test]
fn the_shim_goes_to_the_cgroup_that_it_is_told() {
    let place = Place::new("shim-cgroup");
    let cgroup = Path::new("/sys/fs/cgroup").join(&place.namespace);
    fs::create_dir_all(cgroup.join("shim")).expect("mkdir");
    let bundle = Bundle::new("shim-cgroup", &["sleep", "1000"]);
    let options = Options { shim_cgroup: format!("/{}/shim", place.namespace), ..Options::default() };
    let any = containerd_shim_protos::protobuf::well_known_types::any::Any {
        type_url: "containerd.runc.v1.Options".into(),
        value: options.write_to_bytes().expect("encode"),
        ..Default::default()
    };
    let said = crate::shim_harness::run(
        place.command(&bundle, "in-cgroup").arg("start"),
        &any.write_to_bytes().expect("encode"),
    );
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    let shim = crate::shim_harness::Shim::at(&said.out);
    let bundle =
        bundle.with(|c| c["linux"]["cgroupsPath"] = json!(format!("/{}/in-cgroup", place.namespace)));
    shim.create(&bundle, "in-cgroup", &Io::none()).expect("create");
    let own = shim.pid("in-cgroup");
    let inside = fs::read_to_string(cgroup.join("shim/cgroup.procs")).expect("cgroup.procs");
    assert_eq!(inside.trim(), own.to_string());
    shim.clear("in-cgroup");
}
