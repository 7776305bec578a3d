//! What other runtimes' help lists, verb by verb: every option of runc 1.1 to 1.3 and of crun 1.8 to 1.26 is read here, or
//! refused with a sentence that says why. Of youki 0.5 and 0.6 the options before the verb are, and the verbs that only it has.

use super::tests::{invocation, refused};
use super::*;

/// Verbs with what they take and their options: those of runc, then those that only crun has.
const READ: [(&str, &str, &str); 14] = [
    (
        "create",
        "ID",
        "--bundle B|-b B|--console-socket S|--pidfd-socket S|--pid-file F|--no-pivot|--no-new-keyring|--preserve-fds 1|\
         --config F|-f F|--no-subreaper",
    ),
    (
        "run",
        "ID",
        "--bundle B|-b B|--console-socket S|--pidfd-socket S|--detach|-d|--keep|--pid-file F|--no-subreaper|--no-pivot|\
         --no-new-keyring|--preserve-fds 1|--config F|-f F",
    ),
    ("start", "ID", ""),
    ("state", "ID", ""),
    ("kill", "ID KILL", "--all|-a|--regex|-r"),
    ("delete", "ID", "--force|-f|--regex|-r"),
    (
        "exec",
        "ID sh",
        "--console-socket S|--pidfd-socket S|--cwd D|--env A=1|-e A=1|--tty|-t|--user 1:2|-u 1|--additional-gids 3|-g 3|\
         --detach|-d|--pid-file F|--process-label L|--apparmor P|--no-new-privs|--cap CAP_KILL|-c CAP_KILL|\
         --preserve-fds 1|--cgroup below|--ignore-paused|--tty=true",
    ),
    ("list", "", "--format json|-f table|--quiet|-q"),
    ("ps", "ID", "--format json|-f table"),
    ("pause", "ID", ""),
    ("resume", "ID", ""),
    ("events", "ID", "--interval 1s|--stats"),
    ("spec", "", "--bundle B|-b B|--rootless|--file F|-f F"),
    (
        "update",
        "ID",
        "--resources F|-r F|--resources -|--blkio-weight 10|--cpu-period 1000|--cpu-quota 1000|--cpu-burst 10|\
         --cpu-share 2|--cpu-rt-period 1|--cpu-rt-runtime 1|--cpu-idle 1|--cpuset-cpus 0|--cpuset-mems 0|--kernel-memory 1|\
         --kernel-memory-tcp 1|--memory 64m|--memory-reservation 1m|--memory-swap -1|--pids-limit 5|\
         --l3-cache-schema L3:0=f|--mem-bw-schema MB:0=20",
    ),
];

/// The options before the verb.
const GLOBAL: &str = "--debug|--log F|--log-format json|--root D|--criu C|--systemd-cgroup|--rootless auto|\
    --cgroup-manager cgroupfs|--cgroup-manager systemd|--cgroup-manager disabled|--log file:F|--log journald:ID|\
    --log syslog:ID|--log-level error|--log-level warning|--log-level debug|--rootless=true|\
    -r D|-l F|-s|--log-level info|--log-level warn|--log-level trace";

#[test]
fn every_option_that_runc_or_crun_lists_is_read() {
    for (verb, takes, options) in READ {
        for option in options.split('|') {
            let line = format!("{verb} {option} {takes}");
            assert!(!matches!(invocation(&line), Invocation::Help(_)), "{line}");
        }
        for option in GLOBAL.split('|') {
            let line = format!("{option} {verb} {takes}");
            // `update` wants something to do.
            let line = if verb == "update" { format!("{line} --memory 1m") } else { line };
            assert!(!matches!(invocation(&line), Invocation::Help(_)), "{line}");
        }
        for help in ["--help", "-h", "-?", "--usage"] {
            assert!(
                matches!(invocation(&format!("{verb} {help}")), Invocation::Help(Some(_))),
                "{verb} {help}"
            );
        }
    }
    for line in [
        "mounts add ID F",
        "mounts remove ID F",
        "features",
        "exec --process F ID",
        "exec -p F --tty ID",
        "info",
        "completion -s bash",
        "completion --shell=zsh",
        "completion -s elvish",
        "completion -s powershell",
    ] {
        assert!(!matches!(invocation(line), Invocation::Help(_)), "{line}");
    }
    for version in ["-v", "-V", "--version"] {
        assert_eq!(invocation(version), Invocation::Version, "{version}");
    }
}

#[test]
fn what_is_refused_of_them_is_refused_by_name_and_with_the_reason() {
    for (line, sentence) in [
        // runc's own children; crun has none.
        ("init", "No help topic for 'init'"),
        (
            "exec --cgroup cpu:/a ID sh",
            "exec: --cgroup: \"cpu:/a\": cgroup v2 has no controllers with paths of their own",
        ),
        ("exec --user root ID sh", "names are not looked up"),
        ("--log-level all list", "--log-level: \"all\" is none of error, warning, info, debug, trace"),
        (
            "completion --shell csh",
            "completion: --shell: \"csh\" is not one of bash, zsh, fish, elvish, powershell",
        ),
        ("completion", "completion: an argument is missing: --shell bash, zsh, fish, elvish or powershell"),
        ("--cgroup-manager none list", "is none of cgroupfs, systemd, disabled"),
    ] {
        let error = refused(line).to_string();
        assert!(error.contains(sentence), "{line}: {error}");
    }
}
