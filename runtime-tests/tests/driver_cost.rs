//! What the systemd driver costs beside plain files, for each verb, by rcrun and by crun in turns. A target of its own: in
//! `vm` its times would be those of the tests beside it.

use runtime_tests::bundle::Bundle;
use runtime_tests::runtime::{Runtime, Said};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// What an engine does with a container, in its order.
const VERBS: [&str; 5] = ["create", "start", "exec", "state", "delete"];

/// The drivers: the words that ask for one, its name of the cgroup, and where that is.
const DRIVERS: [(&[&str], &str, &str); 2] = [
    (&[], "/rcrun-cost", "rcrun-cost"),
    (
        &["--systemd-cgroup"],
        "rcruntest-cost.slice:rt:cost",
        "rcruntest.slice/rcruntest-cost.slice/rt-cost.scope",
    ),
];

/// A round takes some seconds in QEMU.
const ROUNDS: usize = 15;

/// Times of one runtime with one driver, by verb.
type Times = [Vec<Duration>; VERBS.len()];

/// The words of a verb for a container `cost`.
fn words<'a>(verb: &'a str, bundle: &'a str) -> Vec<&'a str> {
    match verb {
        "create" => vec!["create", "--bundle", bundle, "cost"],
        "exec" => vec!["exec", "cost", "true"],
        "delete" => vec!["delete", "--force", "cost"],
        other => vec![other, "cost"],
    }
}

fn timed(runtime: &Runtime, driver: &[&str], verb: &str, bundle: &Bundle) -> Duration {
    let place = bundle.path().to_str().expect("UTF-8");
    let mut command = runtime.command([driver, &words(verb, place)].concat());
    let began = Instant::now();
    let Said { status, err, .. } = runtime.without_pipes(&mut command);
    let took = began.elapsed();
    assert_eq!((status, err.as_str()), (0, ""), "{} {verb}", runtime.binary().display());
    took
}

/// Returns when systemd has forgotten the unit: the next container must not wait for the end of this one.
fn wait_for_the_end(cgroup: &str) {
    let began = Instant::now();
    loop {
        let mut systemctl = Command::new("systemctl");
        let units =
            systemctl.args(["list-units", "--all", "--plain", "--no-legend", "rt-cost.scope"]).output();
        let units = units.expect("execute systemctl").stdout;
        if units.is_empty() && !Path::new("/sys/fs/cgroup").join(cgroup).exists() {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{}", String::from_utf8_lossy(&units));
    }
}

/// The median and the shortest: a busy host only adds.
fn of(times: &[Duration]) -> [f64; 2] {
    let mut times = times.to_vec();
    times.sort();
    [times[times.len() / 2], times[0]].map(|time| time.as_secs_f64() * 1e3)
}

#[test]
fn a_containers_life_with_the_systemd_driver_takes_less_time_than_cruns() {
    let runtimes = [Runtime::new(), Runtime::of(PathBuf::from("/usr/bin/crun"))];
    let mut times: [[Times; 2]; 2] = Default::default();
    for round in 0..=ROUNDS {
        // Each is first as often as any other.
        for turn in 0..4 {
            let (r, d) = ((turn + round) % 4 / 2, (turn + round) % 2);
            let (driver, path, cgroup) = DRIVERS[d];
            let bundle = Bundle::new("cost", &["sleep", "1000"]).with(|config| {
                config["linux"]["cgroupsPath"] = json!(path);
                config["linux"]["resources"] = json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 20}});
            });
            for (verb, times) in VERBS.iter().zip(&mut times[r][d]) {
                let took = timed(&runtimes[r], driver, verb, &bundle);
                // The first round reads all from the disk.
                if round > 0 {
                    times.push(took);
                }
            }
            wait_for_the_end(cgroup);
        }
    }
    let columns = times.map(|drivers| drivers.map(|verbs| verbs.map(|times| of(&times))));
    // Not println, which libtest keeps to itself when all is well.
    std::io::stdout().write_all(table(&columns).as_bytes()).expect("standard output");
    let [ours, its] = [0, 1].map(|runtime| sum(&columns[runtime][1]));
    assert!(ours[0] < its[0] && ours[1] < its[1], "with systemd: rcrun {ours:?} ms, crun {its:?} ms");
}

type Column = [[f64; 2]; VERBS.len()];

fn sum(column: &Column) -> [f64; 2] {
    column.iter().fold([0.0; 2], |sum, one| [sum[0] + one[0], sum[1] + one[1]])
}

/// In the form of docs/benchmarks-machines.md.
fn table(columns: &[[Column; 2]; 2]) -> String {
    let mut text = String::from(
        "\n| median (shortest), ms | rcrun, files | systemd | more | crun, files | systemd | more |\n|---|---|---|---|---|---|---|\n",
    );
    for (verb, name) in VERBS.iter().enumerate() {
        text += &line(name, columns.map(|drivers| drivers.map(|column| column[verb])));
    }
    text + &line("all", columns.map(|drivers| drivers.map(|column| sum(&column))))
}

fn line(name: &str, row: [[[f64; 2]; 2]; 2]) -> String {
    let cells = row.iter().flat_map(|[files, systemd]| {
        let more = [systemd[0] - files[0], systemd[1] - files[1]];
        [*files, *systemd, more].map(|[median, shortest]| format!(" {median:.0} ({shortest:.0}) |"))
    });
    format!("| {name} |{}\n", cells.collect::<String>())
}
