//! `docker run` and its options one by one, and the life of a container.

use crate::setup::{Need, Shim};
use crate::tutorial::{Tutorial, step, tutorial};

pub const TUTORIALS: &[Tutorial] = &[
    tutorial(
        "the_runtime_is_listed_and_the_default_and_is_what_runs",
        &[
            step("docker info").says(&["Runtimes:", " rcrun", "Default Runtime: rcrun", "Cgroup Version: 2"]),
            step("docker run -d --name listed busybox sleep 1000 >/dev/null"),
            step("docker inspect -f '{{.HostConfig.Runtime}} {{.State.Status}}' listed").prints("rcrun running"),
            // Its state lies below the root that Docker names, and the runtime of that root knows it.
            step("$RUNTIME --root $(ls -d $STATES) list -q | grep $(docker inspect -f '{{.Id}}' listed)"),
            step("docker rm -f listed").prints("listed"),
            step("docker run --rm --runtime rcrun busybox echo by name").prints("by name"),
            // The shim executes what is called runc on its PATH.
            step("docker run --rm --runtime runc busybox echo as runc").prints("as runc"),
        ],
    ),
    tutorial(
        "docker_tells_the_version_of_the_default_runtime",
        &[
            step("$RUNTIME --version | sed -n '1s/.* version /rcrun /p' > version; cat version").says(&["rcrun "]),
            step("docker version -f '{{range .Server.Components}}{{println .Name .Version}}{{end}}' | grep -xf version"),
            step("docker info -f '{{.RuncCommit.ID}}' > commit; $RUNTIME --version | grep -xF \"commit: $(cat commit)\""),
        ],
    )
    .needs(&[Need::Shim(Shim::Stock)]),
    tutorial(
        "docker_tells_the_features_of_the_runtime",
        &[
            step("docker info -f '{{json .Runtimes.rcrun}}'")
                .says(&["org.opencontainers.runtime-spec.features", "mountOptions", "LINUX_IMMUTABLE"]),
        ],
    )
    .needs(&[Need::Docker(26), Need::Shim(Shim::Stock)]),
    tutorial(
        "a_container_prints_and_its_status_is_the_commands_or_125_126_127_137",
        &[
            step("docker run --rm busybox echo hello").prints("hello"),
            step("docker run --rm busybox sh -c 'echo out; echo err >&2; exit 42'").ends(42).says(&["out", "err"]),
            step("docker run --rm busybox nope").ends(127).says(&["\"nope\": executable file not found in $PATH"]),
            step("docker run --rm busybox /nope").ends(127).says(&["no such file or directory"]),
            step("docker run --rm busybox /etc/passwd").ends(126).says(&["permission denied"]),
            step("docker run --rm busybox /etc").ends(126).says(&["permission denied"]),
            step("docker run --rm -w /etc/passwd busybox true").ends(125).says(&["not a directory"]),
            step("docker run --rm --init busybox sh -c 'kill -9 $$'").ends(137),
            step("docker run --rm --sysctl kernel.msgmax=junk busybox true").ends(125).says(&["msgmax", "invalid argument"]),
            step("docker run -d --name killed busybox sleep 1000 >/dev/null; docker kill killed; docker wait killed")
                .says(&["137"]),
            step("docker inspect -f '{{.State.OOMKilled}} {{.State.ExitCode}}' killed").prints("false 137"),
            step("docker rm killed"),
        ],
    ),
    tutorial(
        "bash_at_a_terminal_is_pid_1_and_resizes_and_exits_with_its_code",
        &[
            step("docker run -it --rm debian bash --norc").ends(3).says(&["1 /dev/pts/0", "1 pts/0    bash --norc", "so 2"]).typed(&[
                ("# ", "echo $$ $(tty)\n"),
                ("# ", "ps -o pid,tty,args > list; cat list; echo so $(($(wc -l < list) - 1))\n"),
                ("# ", "tty; exit 3\n"),
            ]),
            step("stty rows 33 cols 77; docker run -it --rm busybox \
                  sh -c 'until stty size | grep -x \"33 77\"; do :; done; read x; echo got $x'")
                .says(&["got word"])
                .typed(&[("33 77", "word\n")]),
            // Control-C reaches the container's foreground process.
            step("docker run -it --rm busybox sh -c 'trap \"echo caught; exit 5\" INT; echo ready; sleep 100 & wait'")
                .ends(5)
                .says(&["caught"])
                .typed(&[("ready", "\x03")]),
            step("docker run -t --rm busybox tty").says(&["/dev/pts/0"]).typed(&[]),
        ],
    ),
    tutorial(
        "a_terminal_is_left_by_the_detach_keys_and_attached_again",
        &[
            step("docker run -it --name detached busybox sh").typed(&[("# ", "export MARK=kept\n"), ("# ", "\x10\x11")]),
            step("docker inspect -f '{{.State.Running}}' detached").prints("true"),
            // The client that is left ends with 1, by its own choice.
            step("docker attach --detach-keys ctrl-x,x detached")
                .ends(1)
                .says(&["read escape sequence"])
                .typed(&[("", "echo $((40 + 2))again\n"), ("42again", "\x18x")]),
            step("docker attach detached").ends(6).says(&["it is kept"]).typed(&[
                ("", "echo it is $MARK\n"),
                ("it is kept", "exit 6\n"),
            ]),
            step("docker start -ai detached").ends(7).typed(&[("# ", "exit 7\n")]),
            step("docker rm detached"),
        ],
    ),
    tutorial(
        "input_and_output_of_any_size_go_through",
        &[
            step("echo typed | docker run --rm -i busybox cat").prints("typed"),
            step("head -c 5000000 /dev/zero | docker run --rm -i busybox wc -c").prints("5000000"),
            step("docker run --rm busybox head -c 5000000 /dev/zero | wc -c").prints("5000000"),
            step("docker run --rm busybox cat").prints(""),
        ],
    ),
    tutorial(
        "names_hosts_users_and_the_environment",
        &[
            step("docker run --rm --hostname box --domainname home busybox sh -c 'hostname; cat /proc/sys/kernel/domainname'")
                .prints("box\nhome"),
            step("docker run --rm -e A=b -e EMPTY= --env-file /dev/null busybox sh -c 'echo $A[$EMPTY]$HOME'").prints("b[]/root"),
            step("docker run --rm --entrypoint /bin/echo busybox from the entrypoint").prints("from the entrypoint"),
            step("docker run --rm -u web busybox sh -c 'id; echo $HOME'").prints(
                "uid=33(web) gid=33(web) groups=33(web),44(more)\n/srv",
            ),
            step("docker run --rm -u 1000:44 --group-add 33 busybox id").prints("uid=1000 gid=44(more) groups=33(web),44(more)"),
            step("docker run --rm -u nobody busybox id").ends(125).says(&["unable to find user nobody"]),
            step("docker run --rm -w /made/up busybox pwd").prints("/made/up"),
            step("docker run --rm --add-host db:10.1.2.3 --dns 10.9.9.9 busybox cat /etc/hosts /etc/resolv.conf")
                .says(&["10.1.2.3\tdb", "nameserver 10.9.9.9"]),
            step("docker run --rm --init busybox cat /proc/1/comm").prints("docker-init"),
            // As PID 1 sleep has no SIGTERM; below an init it has.
            step("docker run -d --name inits --init busybox sleep 1000 >/dev/null; docker stop -t 100 inits; docker wait inits; docker rm inits")
                .prints("inits\n143\ninits"),
        ],
    ),
    tutorial(
        "rights_are_given_and_taken",
        &[
            step("docker run --rm busybox grep -E 'CapEff|Seccomp:|NoNewPrivs' /proc/self/status")
                .says(&["CapEff:\t00000000a80425fb", "Seccomp:\t2", "NoNewPrivs:\t0"]),
            step("docker run --rm --cap-drop ALL busybox sh -c 'grep CapEff /proc/self/status; chown web /www'")
                .ends(1)
                .says(&["CapEff:\t0000000000000000", "Operation not permitted"]),
            step("docker run --rm --cap-add NET_ADMIN busybox ip link set lo mtu 1400"),
            step("docker run --rm busybox ip link set lo mtu 1400").ends(2).says(&["Operation not permitted"]),
            step("docker run --rm busybox unshare -m true").ends(1).says(&["Operation not permitted"]),
            step("docker run --rm --security-opt seccomp=unconfined busybox grep Seccomp: /proc/self/status").says(&["\t0"]),
            step(
                "echo '{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"syscalls\": [{\"names\": [\"mkdir\", \"mkdirat\"],
                 \"action\": \"SCMP_ACT_ERRNO\", \"errnoRet\": 5}]}' > profile.json
                 docker run --rm --security-opt seccomp=profile.json busybox mkdir /x",
            )
            .ends(1)
            .says(&["Input/output error"]),
            step("docker run --rm --security-opt no-new-privileges busybox grep NoNewPrivs /proc/self/status").says(&["\t1"]),
            step("docker run --rm busybox sh -c 'ls /proc/acpi /sys/firmware | wc -l; echo 1 > /proc/sys/vm/swappiness'")
                .ends(1)
                .says(&["Read-only file system"]),
            step("docker run --rm --read-only busybox touch /x").ends(1).says(&["Read-only file system"]),
            step("docker run --rm --read-only --tmpfs /t:size=64k,mode=1700 busybox sh -c 'touch /t/x; df /t | tail -1; ls -ld /t'")
                .says(&[" 64 ", "drwx-----T"]),
            step("docker run --rm --privileged busybox sh -c \
                  'mkdir /m && mount -t tmpfs t /m && umount /m && test -c /dev/kmsg && grep -E \"Seccomp:\" /proc/self/status'")
                .says(&["Seccomp:\t0"]),
            step("docker run --rm --oom-score-adj 500 busybox cat /proc/self/oom_score_adj").prints("500"),
        ],
    ),
    tutorial(
        "limits_devices_and_sysctls",
        &[
            step("docker run --rm --ulimit nofile=77:99 --ulimit core=0 busybox sh -c 'ulimit -n; ulimit -Hn; ulimit -c'")
                .prints("77\n99\n0"),
            step("docker run --rm --sysctl net.core.somaxconn=7 --sysctl kernel.shmmax=12345 busybox \
                  cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shmmax")
                .prints("7\n12345"),
            step("docker run --rm --shm-size 1m busybox df /dev/shm").says(&[" 1024 "]),
            step("docker run --rm --device /dev/fuse:/dev/f:r busybox sh -c ': < /dev/f && echo read; : > /dev/f'")
                .ends(1)
                .says(&["read", "Operation not permitted"]),
            step("docker run --rm --device /dev/fuse busybox sh -c ': <> /dev/fuse && echo opened'").prints("opened"),
            step("docker run --rm --device /dev/nope busybox true").ends(127).says(&["custom device \"/dev/nope\""]),
            step("docker run --rm --device-cgroup-rule 'c 10:229 rwm' busybox sh -c 'mknod /f c 10 229 && : > /f && echo allowed'")
                .prints("allowed"),
            step("docker run --rm busybox sh -c 'mknod /f c 10 229 && : > /f'").ends(1).says(&["Operation not permitted"]),
            step("docker run --rm --gpus all busybox true").ends(125).says(&["could not select device driver"]),
            // What this machine cannot limit, Docker says itself.
            step("docker run --rm --pids-limit 33 --oom-kill-disable busybox echo runs")
                .says(&["runs", "WARNING: Your kernel does not support OomKillDisable"]),
        ],
    ),
    tutorial(
        "namespaces_are_shared_with_the_host_and_with_containers",
        &[
            step("docker run -d --name shared --ipc shareable --hostname theirs busybox sleep 1000 >/dev/null"),
            step("test $(docker run --rm --ipc container:shared busybox readlink /proc/self/ns/ipc) = \
                  $(docker exec shared readlink /proc/self/ns/ipc)"),
            step("docker run --rm --pid container:shared busybox ps").says(&["    1 root     sleep 1000"]),
            step("docker run --rm --network container:shared busybox hostname").prints("theirs"),
            step("test $(docker run --rm --ipc host busybox readlink /proc/self/ns/ipc) = $(readlink /proc/self/ns/ipc)"),
            step("docker run --rm --pid host busybox ps").says(&["dockerd"]),
            step("test $(docker run --rm --uts host busybox hostname) = $(hostname)"),
            step("docker run --rm --cgroupns host busybox cat /proc/self/cgroup").says(&["0::/docker/"]),
            step("docker run --rm --cgroupns private busybox cat /proc/self/cgroup").says(&["0::/\n"]),
            step("docker run --rm --cgroup-parent /mine/own --cgroupns host busybox cat /proc/self/cgroup")
                .says(&["0::/mine/own/"]),
            step("docker rm -f shared"),
        ],
    ),
    tutorial(
        "exec_runs_beside_as_another_with_a_terminal_and_in_the_background",
        &[
            step("docker run -d --name execed -e FROM=image busybox sleep 1000 >/dev/null"),
            step("docker exec execed ps").says(&["    1 root     sleep 1000", " ps"]),
            step("docker exec -e A=5 -u web -w /www execed sh -c 'echo $FROM $A $PWD; id -un; exit 7'")
                .ends(7)
                .prints("image 5 /www\nweb"),
            step("echo typed | docker exec -i execed cat").prints("typed"),
            step("docker exec -it execed sh").ends(4).says(&["/dev/pts/"]).typed(&[("# ", "tty\n"), ("# ", "exit 4\n")]),
            step("docker exec -d execed sh -c 'mkfifo /ready; echo made > /ready' && \
                  docker exec execed sh -c 'until test -p /ready; do :; done; cat /ready'")
                .prints("made"),
            step("docker exec execed nope").ends(126).says(&["\"nope\": executable file not found in $PATH"]),
            step("docker exec execed /etc/passwd").ends(126).says(&["permission denied"]),
            step("docker exec -u nobody execed true").ends(126).says(&["unable to find user nobody"]),
            step("docker exec --privileged execed grep CapEff /proc/self/status").lacks(&["a80425fb"]),
            step("docker exec execed sh -c 'kill -9 $$'").ends(137),
            step("docker rm -f execed; docker exec execed true").ends(1).says(&["No such container"]),
        ],
    ),
    tutorial(
        "a_container_is_stopped_started_paused_renamed_and_removed",
        &[
            step("docker create --name life busybox echo once").says(&[""]),
            step("docker ps -a -f name=life --format '{{.Status}}'").prints("Created"),
            step("docker start -a life").prints("once"),
            step("docker ps -a -f name=life --format '{{.Status}}'").says(&["Exited (0)"]),
            step("docker rm life"),
            step("docker run -d --name life busybox sh -c \
                  'trap \"echo stopped; exit 9\" TERM; mkfifo /hold; echo up; while :; do read x < /hold; done' >/dev/null"),
            step("await 1 up docker logs -f life"),
            step("docker stop -t 100 life; docker inspect -f '{{.State.ExitCode}}' life").prints("life\n9"),
            step("docker logs life").prints("up\nstopped"),
            step("docker start life").prints("life"),
            step("docker restart -t 0 life").prints("life"),
            step("docker pause life; docker ps -f name=life --format '{{.Status}}'").says(&["(Paused)"]),
            step("docker exec life true").ends(1).says(&["is paused"]),
            step("docker unpause life; docker exec life echo thawed").says(&["thawed"]),
            step("docker top life -o pid,args").says(&["sh -c trap"]),
            step("docker stats --no-stream --format '{{.Name}}' life").prints("life"),
            step("docker update --restart=no life").prints("life"),
            step("docker rename life lives; docker exec lives echo renamed").prints("renamed"),
            step("docker kill -s KILL lives; docker wait lives").prints("lives\n137"),
            step("docker kill lives").ends(1).says(&["is not running"]),
            step("docker rm $(docker inspect -f '{{.Id}}' lives | cut -c-9)"),
            step("docker inspect lives").ends(1),
        ],
    ),
    tutorial(
        "containers_are_found_by_state_name_and_label_and_known_by_the_beginning_of_an_id",
        &[
            step("docker create --name shelf1 --label shelf=a busybox true"),
            step("docker run -d --name shelf2 --label shelf=a busybox sleep 1000"),
            step("docker run --name shelf3 --label shelf=a busybox false").ends(1),
            step("docker ps -f label=shelf=a --format '{{.Names}}'").prints("shelf2"),
            step("docker ps -a -f label=shelf=a --format '{{.Names}} {{.State}}'")
                .prints("shelf3 exited\nshelf2 running\nshelf1 created"),
            step("docker ps -a -f label=shelf=a -f status=exited -f exited=1 --format '{{.Names}}'").prints("shelf3"),
            step("test $(docker ps -q --no-trunc -f name=shelf2) = $(docker inspect -f '{{.Id}}' shelf2)"),
            step("docker exec $(docker ps -q -f name=shelf2 | cut -c-9) echo by its beginning").prints("by its beginning"),
            step("docker rm -f $(docker ps -aq -f label=shelf=a)"),
        ],
    ),
    tutorial(
        "signals_reach_the_container_by_name_and_as_its_stop_signal",
        &[
            step("docker run -d --name usr1 --stop-signal SIGUSR1 busybox sh -c \
                  'trap \"echo got; exit 9\" USR1; mkfifo /hold; echo up; while :; do read x < /hold; done' >/dev/null"),
            step("await 1 up docker logs -f usr1; docker stop -t 100 usr1; docker logs usr1; docker wait usr1")
                .prints("usr1\nup\ngot\n9"),
            step("docker run -d --name rtmin --stop-signal SIGRTMIN+3 busybox sh -c \
                  'trap \"echo got; exit 8\" 37; mkfifo /hold; echo up; while :; do read x < /hold; done' >/dev/null"),
            step("await 1 up docker logs -f rtmin; docker stop -t 100 rtmin; docker wait rtmin").prints("rtmin\n8"),
            step("docker rm usr1 rtmin"),
        ],
    ),
    tutorial(
        "what_ends_is_started_again_as_its_restart_policy_says",
        &[
            step("docker run -d --name fails --restart=on-failure:2 busybox sh -c 'echo run; exit 4' >/dev/null"),
            step("becomes fails '{{.RestartCount}} {{.State.Status}}' '2 exited'"),
            step("docker wait fails; docker logs fails").prints("4\nrun\nrun\nrun"),
            step("docker run -d --name always --restart=always busybox sleep 1000 >/dev/null"),
            step("kill -9 $(docker inspect -f '{{.State.Pid}}' always); \
                  becomes always '{{.RestartCount}} {{.State.Status}}' '1 running'"),
            step("docker inspect -f '{{.State.Status}} {{.RestartCount}}' always").prints("running 1"),
            step("docker rm -f fails always"),
        ],
    ),
    tutorial(
        "output_is_kept_and_followed",
        &[
            step("docker run -d --name talks busybox sh -c 'for i in 1 2 3; do echo $i; done; echo last >&2; echo end'"),
            step("docker logs -f talks").says(&["1\n2\n3\n", "last", "end"]),
            step("docker logs talks 2>/dev/null").prints("1\n2\n3\nend"),
            step("docker logs --tail 1 talks 2>&1 | wc -l").prints("1"),
            step("docker logs -t talks 2>/dev/null | cut -dZ -f2").prints("1\n 2\n 3\n end"),
            step("docker start -a talks").says(&["1\n2\n3\n"]),
            step("docker rm talks"),
        ],
    ),
    tutorial(
        "what_a_container_wrote_is_copied_compared_committed_and_exported",
        &[
            step("docker run -d --name wrote busybox sleep 1000 >/dev/null"),
            step("docker exec wrote sh -c 'echo text > /made; rm /www/index.html'"),
            step("docker diff wrote").says(&["A /made", "D /www/index.html"]),
            step("docker cp wrote:/made copied; cat copied").says(&["text"]),
            step("echo back > back; docker cp back wrote:/srv/back; docker exec wrote cat /srv/back").says(&["back"]),
            step("mkdir tree; echo leaf > tree/leaf; docker cp tree wrote:/srv; tar -c tree | docker cp - wrote:/www; \
                  docker exec wrote cat /srv/tree/leaf /www/tree/leaf")
                .prints("leaf\nleaf"),
            step("docker restart -t 0 wrote; docker exec wrote cat /made").says(&["text"]),
            step("docker commit -c 'CMD [\"cat\", \"/made\"]' wrote written >/dev/null; docker run --rm written").prints("text"),
            step("docker export wrote | tar -t | grep -x made").prints("made"),
            step("docker export wrote | docker import - flat >/dev/null; docker run --rm flat cat /srv/back").prints("back"),
            step("docker rm -f wrote; docker rmi written flat"),
        ],
    ),
    tutorial(
        "all_containers_are_removed_at_once_and_pruned_and_nothing_is_left",
        &[
            step("docker run -d --name first busybox sleep 1000; docker run -d busybox sleep 1000; docker run --name latest busybox true"),
            step("docker ps -l --format '{{.Names}}'").prints("latest"),
            step("docker ps -q | wc -l; docker ps -aq -f name=latest | wc -l").prints("2\n1"),
            // Of seventeen two begin with the same digit.
            step("for i in $(seq 14); do docker create busybox; done; \
                  docker rm $(docker ps -aq | cut -c1 | sort | uniq -d | head -n 1)")
                .ends(1)
                .says(&["ultiple IDs found with provided prefix"]),
            step("docker rm -f $(docker ps -aq)"),
            step("docker ps -aq; docker run busybox true"),
            step("docker system prune -f").says(&["Deleted Containers:"]),
            step("docker ps -aq").prints(""),
            step("docker run -d --name survivor busybox sleep 1000 >/dev/null; docker ps -q | wc -l").prints("1"),
            step("docker rm -f survivor"),
            step("ls $STATES").prints(""),
            step("find /sys/fs/cgroup/docker -mindepth 1 -type d ! -name buildkit").prints(""),
            step("pgrep containerd-shim").ends(1),
        ],
    )
    .alone(),
];
