//! containerd's ctr with the stock runc shim, whose BinaryName is the runtime under test.

use crate::tutorial::{Tutorial, step, tutorial};

pub const TUTORIALS: &[Tutorial] = &[tutorial(
    "ctr_runs_executes_pauses_and_removes",
    &[
        step("docker save busybox | ctr image import -").says(&["docker.io/library/busybox:latest"]),
        // ctr's default of cpu shares takes a controller that this machine may not have.
        step("ctr run --rm --cpu-shares 0 --runc-binary $RUNTIME docker.io/library/busybox:latest once echo from ctr").prints("from ctr"),
        step("ctr run --rm --cpu-shares 0 --runc-binary $RUNTIME docker.io/library/busybox:latest fails sh -c 'exit 9'").ends(9),
        step("ctr run --rm --cpu-shares 0 --runc-binary $RUNTIME docker.io/library/busybox:latest none nope")
            .ends(1)
            .says(&["executable file not found in $PATH"]),
        step("ctr run -d --cpu-shares 0 --runc-binary $RUNTIME docker.io/library/busybox:latest stays sleep 1000; ctr task ls").says(&["stays", "RUNNING"]),
        // Its output is not looked at: ctr may end before it has copied it.
        step("ctr task exec --exec-id e1 stays sh -c 'ps | grep -q \"1 root     sleep 1000\"'"),
        step("ctr task exec --exec-id e2 stays sh -c 'exit 5'").ends(5),
        step("ctr task exec -t --exec-id e3 stays sh").ends(4).says(&["/dev/pts/"]).typed(&[("# ", "tty\n"), ("# ", "exit 4\n")]),
        step("ctr task pause stays; ctr task ls").says(&["PAUSED"]),
        step("ctr task resume stays; ctr task ls").says(&["RUNNING"]),
        step("ctr task ps stays").says(&["PID"]),
        // attach removes the task at its end.
            step("ctr task attach stays & ctr task kill -s KILL stays; wait $!").ends(137),
        step("ctr container rm stays; ctr task ls -q; ctr container ls -q").prints(""),
        step("find /sys/fs/cgroup/default -mindepth 1 -type d; ls /run/containerd/runc/default").prints(""),
    ],
)];
