//! podman and Docker of an ordinary user.

use crate::setup::Need;
use crate::tutorial::{Tutorial, step, tutorial};

pub const TUTORIALS: &[Tutorial] = &[
    tutorial(
        "podman_of_an_ordinary_user_runs_as_root_of_its_own",
        &[
            step("podman info -f '{{.Host.OCIRuntime.Path}} {{.Host.Security.Rootless}}'").says(&["/bin/r", " true"]),
            step("podman run --rm --network none busybox id -u").prints("0"),
            step("podman run --rm --network none busybox sh -c 'echo out; echo err >&2; exit 42'").ends(42).says(&["out", "err"]),
            step("podman run --rm --network none busybox nope").ends(127).says(&["executable file not found in $PATH"]),
            step("podman run --rm --network none busybox /etc/passwd").ends(126).says(&["permission denied"]),
            step("podman run --rm --network none -u web busybox sh -c 'id -un; touch /srv/x'").ends(1).says(&["web", "Permission denied"]),
            step("podman run --rm --network none --userns keep-id busybox sh -c 'test $(id -u) = '$(id -u)"),
            step("echo mine > file; podman run --rm --network none -v $PWD:/d busybox sh -c 'cat /d/file; echo theirs > /d/back'; \
                  stat -c %U back")
                .prints("mine\ntutor"),
            step("podman run -it --rm --network none busybox sh").ends(3).says(&["1 /dev/pts/0"]).typed(&[
                ("# ", "echo $$ $(tty)\n"),
                ("# ", "exit 3\n"),
            ]),
        ],
    )
    .of_a_user(),
    tutorial(
        "podman_of_an_ordinary_user_execs_stops_commits_and_removes",
        &[
            step("podman run -d --name mine --network none busybox sleep 1000"),
            step("podman exec mine ps").says(&["    1 root     sleep 1000"]),
            step("podman exec -e A=1 -u web -w /www mine sh -c 'echo $A $PWD; id -un; exit 5'").ends(5).prints("1 /www\nweb"),
            step("podman exec mine nope").ends(127).says(&["executable file not found in $PATH"]),
            step("podman exec -it mine sh").ends(4).typed(&[("# ", "exit 4\n")]),
            step("echo text > file; podman cp file mine:/tmp/file; podman exec mine cat /tmp/file").prints("text"),
            step("podman commit -q mine written; podman run --rm --network none written cat /tmp/file").says(&["text"]),
            step("podman kill -s KILL mine; podman wait mine").says(&["137"]),
            step("podman start mine; podman stop -t 0 mine; podman rm mine; podman rmi written"),
            step("podman ps -aq -f name=mine").prints(""),
        ],
    )
    .of_a_user(),
    tutorial(
        "podman_of_an_ordinary_user_serves_a_port_and_builds",
        &[
            step("podman run -d --name serves --network slirp4netns -p 127.0.0.1:8099:80 busybox httpd -f -p 80 -h /www"),
            step("curl -s --retry 5 --retry-connrefused 127.0.0.1:8099/").prints("hello from a container"),
            step("podman rm -f -t 0 serves"),
            step(
                "printf 'FROM localhost/busybox\\nRUN id -u && echo built > /built\\nUSER web\\nRUN test $(id -un) = web\\n\
                 CMD [\"cat\", \"/built\"]\\n' > Containerfile
                 podman build --runtime $RUNTIME --isolation oci --network none -t made -f Containerfile .",
            )
            .says(&["Successfully tagged localhost/made"]),
            step("podman run --rm --network none made").prints("built"),
            step("podman rmi made"),
        ],
    )
    .of_a_user(),
    tutorial(
        "podman_of_an_ordinary_user_limits_what_is_delegated",
        &[
            step("podman run -d --name small --network none -m 64m --pids-limit 33 busybox sleep 1000"),
            step("podman exec small cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max").prints("67108864\n33"),
            step("podman stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' small").says(&["/ 67.11MB 1"]),
            step("podman pause small; podman ps -a -f name=small --format '{{.Status}}'").says(&["aused"]),
            step("podman unpause small; podman top small").says(&["sleep 1000"]),
            step("podman update -m 128m small; podman exec small cat /sys/fs/cgroup/memory.max").says(&["134217728"]),
            step("podman rm -f -t 0 small"),
            // conmon 2.1.12 looks no more after the first event, be it no kill, with runc too: State.OOMKilled is chance.
            step("podman run -d --name eats --network none -m 24m --memory-swap 24m busybox sleep 1000"),
            step("podman exec eats tail /dev/zero").ends(137),
            step("podman exec eats grep oom_kill /sys/fs/cgroup/memory.events").prints("oom_kill 1"),
            step("podman rm -f -t 0 eats"),
        ],
    )
    .needs(&[Need::Systemd, Need::Controller("memory"), Need::Controller("pids")])
    .of_a_user(),
    tutorial(
        "docker_of_an_ordinary_user_runs_serves_limits_and_builds",
        &[
            // As docker's own script for users sets it up, with the runtime added.
            step(
                "mkdir -p $HOME/.config/docker
                 echo '{\"runtimes\": {\"rcrun\": {\"path\": \"'$RUNTIME'\"}}, \"default-runtime\": \"rcrun\"}' > $HOME/.config/docker/daemon.json
                 systemd-run --user --unit=docker --quiet --property=Type=notify --property=NotifyAccess=all --property=Delegate=yes \
                 --setenv=PATH=$ENGINES/path:/usr/sbin:/usr/bin:/sbin:/bin --setenv=XDG_RUNTIME_DIR=$XDG_RUNTIME_DIR \
                 --property=TimeoutStartSec=300 /usr/share/docker.io/contrib/dockerd-rootless.sh",
            ),
            step("docker import --change 'CMD [\"sh\"]' $BUSYBOX busybox"),
            step("docker info").says(&["rootless", "Default Runtime: rcrun", "Cgroup Driver: systemd", "Cgroup Version: 2"]),
            step("docker run --rm busybox id -u").prints("0"),
            step("docker run --rm busybox sh -c 'exit 42'").ends(42),
            step("docker run -d --name serves -p 127.0.0.1:8098:80 -m 64m --pids-limit 33 busybox httpd -f -p 80 -h /www"),
            step("curl -s --retry 5 --retry-connrefused 127.0.0.1:8098/").prints("hello from a container"),
            step("docker exec serves cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max").prints("67108864\n33"),
            step("docker stats --no-stream --format '{{.Name}} {{.MemUsage}} {{.PIDs}}' serves").says(&["serves ", "/ 64MiB 1"]),
            step("docker pause serves; docker unpause serves; docker exec serves echo thawed").says(&["thawed"]),
            step("docker rm -f serves"),
            step("printf 'FROM busybox\\nRUN echo built > /built\\nCMD [\"cat\", \"/built\"]\\n' | docker build -q -t built - && docker run --rm built")
                .says(&["built"]),
            step("docker run --rm -m 24m --memory-swap 24m busybox tail /dev/zero").ends(137),
            step("docker rmi built; docker ps -aq").says(&[""]),
            step("systemctl --user stop docker"),
        ],
    )
    .needs(&[Need::Systemd, Need::Controller("memory"), Need::Controller("pids")])
    .of_a_user(),
];
