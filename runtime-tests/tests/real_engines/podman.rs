//! podman with conmon and netavark, and buildah.

use crate::setup::Need;
use crate::tutorial::{Tutorial, step, tutorial};

pub const TUTORIALS: &[Tutorial] = &[
    tutorial(
        "podman_runs_and_its_status_is_the_commands_or_125_126_127",
        &[
            step("podman info -f '{{.Host.OCIRuntime.Path}} {{.Host.CgroupsVersion}}'").says(&["/bin/r", " v2"]),
            step("podman run --rm busybox echo hello").prints("hello"),
            step("podman run --rm --network none busybox sh -c 'exit 42'").ends(42),
            step("podman run --rm --network none busybox nope").ends(127).says(&["executable file not found in $PATH"]),
            step("podman run --rm --network none busybox /nope").ends(127).says(&["no such file or directory"]),
            step("podman run --rm --network none busybox /etc/passwd").ends(126).says(&["permission denied"]),
            step("podman run --rm --network none busybox /etc").ends(126).says(&["permission denied"]),
            step("podman run -it --rm --network none busybox sh").ends(3).says(&["1 /dev/pts/0"]).typed(&[
                ("# ", "echo $$ $(tty)\n"),
                ("# ", "exit 3\n"),
            ]),
        ],
    ),
    tutorial(
        "the_snippets_that_are_installed_are_read_by_podman_and_containerd",
        &[
            step("for file in $SNIPPETS/*; do sed \"s:@SBIN@:${RUNTIME%/*}:\" $file > ${file##*/}; done
                  CONTAINERS_CONF=$PWD/containers.conf podman --cgroup-manager cgroupfs info -f '{{.Host.OCIRuntime.Path}}'")
                .says(&["/bin/rcrun"]),
            step("containerd --config containerd.toml config dump")
                .says(&["default_runtime_name = \"rcrun\"", "runtime_type = \"io.containerd.rcrun.v2\""]),
        ],
    )
    .needs(&[Need::Rcrun]),
    tutorial(
        "podman_execs_pauses_restarts_copies_commits_and_removes",
        &[
            step("podman run -d --name pod-life --network none busybox sleep 1000"),
            step("podman exec pod-life ps").says(&["    1 root     sleep 1000"]),
            step("podman exec -e A=1 -u web -w /www pod-life sh -c 'echo $A $PWD; id -un; exit 5'").ends(5).prints("1 /www\nweb"),
            step("podman exec pod-life nope").ends(127).says(&["executable file not found in $PATH"]),
            step("podman exec pod-life /etc/passwd").ends(126).says(&["permission denied"]),
            step("podman exec -it pod-life sh").ends(4).typed(&[("# ", "exit 4\n")]),
            step("podman pause pod-life; podman ps -a -f name=pod-life --format '{{.Status}}'").says(&["aused"]),
            step("podman unpause pod-life; podman top pod-life").says(&["sleep 1000"]),
            step("echo text > file; podman cp file pod-life:/tmp/file; podman exec pod-life cat /tmp/file").prints("text"),
            step("podman commit -q pod-life pod-written; podman run --rm --network none pod-written cat /tmp/file").says(&["text"]),
            step("podman restart -t 0 pod-life; podman kill -s KILL pod-life; podman wait pod-life").says(&["137"]),
            step("podman start pod-life; podman stop -t 0 pod-life; podman rm pod-life; podman rmi pod-written"),
        ],
    ),
    tutorial(
        "podmans_options_are_what_they_are",
        &[
            step("podman run --rm --network none --read-only busybox touch /x").ends(1).says(&["Read-only file system"]),
            step("podman run --rm --network none --privileged busybox ls /dev").says(&["kmsg"]),
            step("podman run --rm --network none -u 1000:1000 busybox id").says(&["uid=1000"]),
            step("podman run --rm --network none --init busybox cat /proc/1/comm").prints("podman-init"),
            step("podman run --rm --network none --systemd=always busybox sh -c 'mkdir /sys/fs/cgroup/x && echo made'").prints("made"),
            step("podman run --rm --network none --security-opt mask=/proc/version --security-opt seccomp=unconfined busybox \
                  sh -c 'wc -c < /proc/version; grep Seccomp: /proc/self/status'")
                .says(&["0\n", "Seccomp:\t0"]),
            step("podman run --rm --network none --mount type=tmpfs,dst=/t,tmpfs-size=64k busybox df /t").says(&[" 64 "]),
            step("podman run --rm --network none -v named:/www busybox ls /www; podman volume rm named").says(&["index.html"]),
            step("podman run --rm --network none --sysctl net.ipv4.ip_forward=1 busybox cat /proc/sys/net/ipv4/ip_forward").prints("1"),
            step("echo passed > passed; podman run --rm --network none --preserve-fds 1 busybox cat /proc/self/fd/3 3< passed").prints("passed"),
            step("podman run -d --name hc --network none --health-cmd 'test ! -e /bad' --health-interval disable busybox sleep 1000; \
                  podman healthcheck run hc"),
            step("podman exec hc touch /bad; podman healthcheck run hc").ends(1).says(&["unhealthy"]),
            step("podman rm -f -t 0 hc"),
        ],
    ),
    tutorial(
        "podman_keeps_the_groups_of_its_caller_and_what_hooks_say",
        &[
            step("setpriv --groups 33,44 podman run --rm --network none --group-add keep-groups busybox \
                  sed -n 's/^Groups:.//p' /proc/self/status")
                .says(&["33 44"]),
            step("mkdir hooks.d; printf '%s' '{\"version\": \"1.0.0\", \"hook\": {\"path\": \"/bin/echo\", \"args\": [\"echo\", \"heard\"]}, \
                  \"when\": {\"always\": true}, \"stages\": [\"poststart\"]}' > hooks.d/echo.json
                  podman --hooks-dir $PWD/hooks.d run --rm --network none --annotation run.oci.hooks.stdout=$PWD/hook busybox true; cat hook")
                .says(&["heard"]),
        ],
    )
    .needs(&[Need::Rcrun]),
    tutorial(
        "a_pod_shares_its_network_and_a_user_network_has_names",
        &[
            // A pod's own cgroup, as podman 4.3 makes it without systemd, allows no device: runc fails in it too.
            step("podman pod create --share-parent=false --name shares --infra-image localhost/busybox --infra-command 'sleep 100000' --network none"),
            step("podman run -d --pod shares --name in-pod busybox httpd -f -p 8080 -h /www; listens 8080 podman exec in-pod"),
            step("podman run --rm --pod shares busybox wget -qO- 127.0.0.1:8080/").prints("hello from a container"),
            step("podman pod ps --format '{{.Name}} {{.Status}}'").says(&["shares Running"]),
            step("podman pod pause shares; podman pod unpause shares; podman pod stop -t 0 shares; podman pod rm shares"),
            step("podman run -d --name published -p 127.0.0.1:8090:80 busybox httpd -f -p 80 -h /www; listens 80 podman exec published; curl -s 127.0.0.1:8090/")
                .says(&["hello from a container"]),
            step("podman rm -f -t 0 published"),
        ],
    ),
    tutorial(
        "podman_build_and_buildah_run_their_steps_on_the_runtime",
        &[
            step(
                "printf 'FROM localhost/busybox\\nRUN id -u && echo built > /built\\n\
                 RUN --mount=type=tmpfs,target=/t touch /t/x\\nUSER web\\nRUN test $(id -un) = web\\n\
                 CMD [\"cat\", \"/built\"]\\n' > Containerfile
                 podman build --runtime $RUNTIME --network none -t pod-built -f Containerfile .",
            )
            .says(&["Successfully tagged localhost/pod-built"]),
            step("podman run --rm --network none pod-built").prints("built"),
            step("buildah bud --runtime $RUNTIME --isolation oci --network none --no-cache -f Containerfile -t bud .").says(&["COMMIT bud"]),
            step("buildah from --name working localhost/busybox"),
            step("buildah run --runtime $RUNTIME --isolation oci --network none working sh -c 'echo by buildah > /file; exit 6'").ends(6),
            step("buildah run --runtime $RUNTIME --isolation oci --network none working nope")
                .ends(1)
                .says(&["executable file not found in $PATH"]),
            step("buildah commit -q working committed"),
            step("podman run --rm --network none committed sh -c 'wc -c /file; cat /file'").prints("11 /file\nby buildah"),
            step("podman save -q -o saved.tar pod-built; podman rmi pod-built; podman load -q -i saved.tar").says(&["pod-built"]),
            step("buildah rm working; podman rmi -f pod-built bud committed"),
        ],
    ),
    tutorial(
        "podman_limits_counts_updates_and_tells_of_oom",
        &[
            step("podman run -d --name pod-small --network none -m 64m --pids-limit 33 --cpus 0.5 busybox sleep 1000"),
            step("podman exec pod-small sh -c 'cd /sys/fs/cgroup; cat memory.max pids.max cpu.max'").prints("67108864\n33\n50000 100000"),
            step("podman stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' pod-small").says(&["/ 67.11MB 1"]),
            step("podman update -m 128m --pids-limit 44 pod-small; podman exec pod-small cat /sys/fs/cgroup/memory.max").says(&["134217728"]),
            step("podman pause pod-small; podman ps -a -f name=pod-small --format '{{.Status}}'").says(&["aused"]),
            step("podman unpause pod-small; podman top pod-small").says(&["sleep 1000"]),
            step("podman rm -f -t 0 pod-small"),
            // conmon 2.1.12 looks no more after the first event, be it no kill, with runc too: State.OOMKilled is chance.
            step("podman run -d --name pod-eats --network none -m 24m --memory-swap 24m busybox sleep 1000"),
            step("podman exec pod-eats tail /dev/zero").ends(137),
            step("podman exec pod-eats grep oom_kill /sys/fs/cgroup/memory.events").prints("oom_kill 1"),
            step("podman rm -f -t 0 pod-eats"),
            step("podman pod create --name pod-limited -m 96m --infra-image localhost/busybox --infra-command 'sleep 100000' --network none"),
            step("podman run --rm --pod pod-limited busybox echo in a pod with a limit").says(&["in a pod with a limit"]),
            step("podman pod rm -f -t 0 pod-limited"),
        ],
    )
    .needs(&[Need::Controller("memory"), Need::Controller("pids"), Need::Controller("cpu")]),
    tutorial(
        "all_of_podman_is_removed_and_nothing_is_left",
        &[
            step("podman run -d busybox sleep 1000; podman rm -fa -t 0; podman ps -aq | wc -l").says(&["0\n"]),
            step("pgrep conmon").ends(1),
            step("find /sys/fs/cgroup/libpod_parent -mindepth 1 -type d ! -name conmon").prints(""),
        ],
    )
    .alone(),
];
