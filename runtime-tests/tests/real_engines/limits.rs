//! Limits, statistics and systemd's cgroups: what takes a machine with controllers.

use crate::setup::{Driver, Need, Shim};
use crate::tutorial::{Tutorial, step, tutorial};

const MEMORY: &[Need] = &[Need::Controller("memory"), Need::Controller("pids"), Need::Controller("cpu")];

pub const TUTORIALS: &[Tutorial] = &[
    tutorial(
        "docker_knows_the_driver_and_misses_nothing",
        &[
            step("docker info -f '{{.CgroupDriver}} {{.CgroupVersion}}'").prints("systemd 2"),
            // The one of user-mode Linux.
            step("docker info 2>&1 | grep -i warning | grep -v cpuset").ends(1),
        ],
    )
    .needs(&[Need::Controller("memory"), Need::Driver(Driver::Systemd)]),
    tutorial(
        "a_container_that_eats_its_memory_is_killed_and_docker_says_so",
        &[
            step("docker run --rm -m 24m --memory-swap 24m busybox tail /dev/zero").ends(137),
            // The stock shim looks for a kill only once start has returned, and not after the cgroup's end: both are awaited.
            step("docker run -d --name eats -m 24m --memory-swap 24m busybox sh -c \
                  'mkfifo /go /end; echo up; read x < /go; tail /dev/zero; status=$?; read x < /end; exit $status' >/dev/null"),
            step("await 1 up docker logs -f eats; docker exec eats sh -c 'echo > /go'; \
                  await 1 oom docker events --since 0 -f container=eats -f event=oom"),
            // The end of the first process is that of all others.
            step("docker exec eats sh -c 'echo > /end' || true; docker wait eats").prints("137"),
            step("docker inspect -f '{{.State.OOMKilled}} {{.State.ExitCode}}' eats").prints("true 137"),
            step("docker rm -f eats"),
        ],
    )
    .needs(MEMORY),
    tutorial(
        "a_first_process_that_is_killed_at_once_is_told_of_by_the_own_shim",
        &[
            step("docker run --name eats -m 24m --memory-swap 24m busybox tail /dev/zero").ends(137),
            step("docker inspect -f '{{.State.OOMKilled}} {{.State.ExitCode}}' eats").prints("true 137"),
            step("docker rm eats"),
        ],
    )
    // With systemd, too, which removes the scope with what the kernel has counted as soon as it is empty.
    .needs(&[Need::Controller("memory"), Need::Shim(Shim::Own)]),
    tutorial(
        "limits_are_those_of_the_command_line",
        &[
            step("docker run --rm --cpus 0.5 --cpu-shares 512 --pids-limit 33 -m 64m --memory-swap 96m --memory-reservation 32m busybox \
                  sh -c 'cd /sys/fs/cgroup; cat cpu.max pids.max memory.max memory.swap.max memory.low'")
                .prints("50000 100000\n33\n67108864\n33554432\n33554432"),
            step("docker run --rm --pids-limit 5 busybox sh -c 'for i in 1 2 3 4 5 6 7; do sleep 1000 & done'")
                .ends(2)
                .says(&["can't fork"]),
            step("docker run --rm -m 64m --oom-kill-disable busybox echo runs").says(&["OomKillDisable discarded", "runs"]),
            step("docker run --rm -m 1m busybox true").ends(125).says(&["Minimum memory limit allowed is 6MB"]),
            step("docker run --rm --gpus all busybox true").ends(125).says(&["could not select device driver"]),
        ],
    )
    .needs(MEMORY),
    tutorial(
        "limits_are_changed_while_it_runs",
        &[
            step("docker run -d --name grows -m 64m --memory-swap 64m --cpus 0.5 --pids-limit 33 busybox sleep 1000"),
            step("docker update -m 128m --memory-swap 160m --cpus 0.25 --pids-limit 44 grows").prints("grows"),
            step("docker exec grows sh -c 'cd /sys/fs/cgroup; cat cpu.max pids.max memory.max memory.swap.max'")
                .prints("25000 100000\n44\n134217728\n33554432"),
            step("docker update --memory-reservation 16m grows; docker exec grows cat /sys/fs/cgroup/memory.low").says(&["16777216"]),
            // What it was told last holds after a new start too.
            step("docker restart -t 0 grows; docker exec grows cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max").says(&["134217728\n44"]),
            step("docker rm -f grows"),
        ],
    )
    .needs(MEMORY),
    tutorial(
        "statistics_and_processes_are_shown_and_a_container_is_frozen",
        &[
            step("docker run -d --name counted -m 64m --pids-limit 33 busybox sh -c 'sleep 1000 & wait' >/dev/null"),
            step("docker stats --no-stream --format '{{.Name}} {{.MemUsage}} {{.PIDs}}' counted").says(&["counted ", "/ 64MiB 2"]),
            step("docker top counted -o pid,args").says(&["sleep 1000", "sh -c"]),
            step("docker pause counted; docker ps -f name=counted --format '{{.Status}}'").says(&["(Paused)"]),
            step("docker exec counted true").ends(1).says(&["is paused"]),
            step("docker unpause counted; docker exec counted echo thawed").says(&["thawed"]),
            step("docker rm -f counted"),
        ],
    )
    .needs(MEMORY),
    tutorial(
        "processors_and_the_weight_of_disks_are_given",
        &[
            step("docker run --rm --cpuset-cpus 1 busybox sh -c 'cat /sys/fs/cgroup/cpuset.cpus; nproc'").prints("1\n1"),
            step("docker run --rm --cpuset-cpus 7 busybox true").ends(125).says(&["Requested CPUs are not available"]),
            step("docker run -d --name pinned --cpuset-cpus 0 busybox sleep 1000; docker update --cpuset-cpus 0-1 pinned; \
                  docker exec pinned cat /sys/fs/cgroup/cpuset.cpus")
                .says(&["0-1"]),
            step("docker rm -f pinned"),
            step("docker run --rm --blkio-weight 300 busybox sh -c 'cat /sys/fs/cgroup/io.*weight'").says(&["default "]),
        ],
    )
    .needs(&[Need::Controller("cpuset"), Need::Controller("io")]),
    tutorial(
        "systemd_has_a_scope_for_each_container_with_its_limits",
        &[
            step("docker run -d --name scoped -m 64m --pids-limit 33 busybox sleep 1000"),
            step("systemctl show -p MemoryMax -p TasksMax -p Slice docker-$(docker inspect -f '{{.Id}}' scoped).scope")
                .says(&["MemoryMax=67108864", "TasksMax=33", "Slice=system.slice"]),
            step("docker update -m 128m --memory-swap 128m scoped; \
                  systemctl show -p MemoryMax docker-$(docker inspect -f '{{.Id}}' scoped).scope")
                .says(&["MemoryMax=134217728"]),
            step("docker run -d --name sliced --cgroup-parent mine.slice busybox sleep 1000; \
                  systemctl show -p Slice docker-$(docker inspect -f '{{.Id}}' sliced).scope")
                .says(&["Slice=mine.slice"]),
            // systemd reads its units anew; the device filter and the limits stay.
            step("systemctl daemon-reload; docker exec scoped sh -c 'cat /sys/fs/cgroup/memory.max; mknod /f c 10 229 && : > /f'")
                .ends(1)
                .says(&["134217728", "Operation not permitted"]),
            step("docker rm -f scoped sliced; systemctl list-units --plain --no-legend --all 'docker-*.scope'").says(&["scoped\nsliced"]).lacks(&[".scope"]),
        ],
    )
    .needs(&[Need::Systemd, Need::Driver(Driver::Systemd)])
    .alone(),
    tutorial(
        "containers_live_on_while_docker_is_updated",
        &[
            step("docker run -d --name lives --restart=always busybox sleep 1000 >/dev/null; docker inspect -f '{{.State.Pid}}' lives > pid"),
            // dockerd takes its time to find the new containerd, and fails what it is asked before.
            step("systemctl restart containerd; for i in $(seq 20); do docker exec lives true 2>/dev/null && break; sleep 0.5; done; docker exec lives echo still").prints("still"),
            step("test $(docker inspect -f '{{.State.Pid}}' lives) = $(cat pid)"),
            step("systemctl restart docker; docker exec lives echo again").prints("again"),
            step("docker rm -f lives"),
        ],
    )
    .needs(&[Need::Systemd])
    .alone(),
];
