//! Data that outlives a container: bind mounts, volumes, tmpfs.

use crate::tutorial::{Tutorial, step, tutorial};

pub const TUTORIALS: &[Tutorial] = &[
    tutorial(
        "a_folder_of_the_host_is_seen_read_only_and_read_write",
        &[
            step("mkdir src; echo onhost > src/f; docker run --rm -v $PWD/src:/d busybox sh -c 'cat /d/f; echo new > /d/g'")
                .prints("onhost"),
            step("cat src/g; docker run --rm -v $PWD/src:/d:ro busybox sh -c 'cat /d/g; touch /d/x'")
                .ends(1)
                .says(&["new\nnew", "Read-only file system"]),
            step("docker run --rm --mount type=bind,src=$PWD/src/f,dst=/file,readonly busybox cat /file").prints("onhost"),
            step("docker run --rm -v $PWD/made/here:/d busybox touch /d/x; ls made/here").prints("x"),
            step("docker run --rm --mount type=bind,src=$PWD/nowhere,dst=/d busybox true")
                .ends(125)
                .says(&["bind source path does not exist"]),
            // A folder of the host below another, and one that hides a file of /proc.
            step("docker run --rm -v $PWD/src:/d -v $PWD/made:/d/inner busybox ls /d/inner").prints("here"),
            step("docker run --rm -v $PWD/src/f:/proc/meminfo busybox cat /proc/meminfo").prints("onhost"),
            step("docker run --rm -v $PWD/src:/proc/acpi busybox true").ends(125).says(&["inside /proc"]),
            step("docker run --rm -v $PWD/src/f:/www busybox true").ends(125).says(&["Are you trying to mount a directory onto a file"]),
            step("docker run --rm -v $PWD/src:/etc/group busybox true").ends(125).says(&["(or vice-versa)?"]),
            step("docker run --rm -v /run/docker.sock:/engine busybox ls -l /engine").says(&["srw"]),
        ],
    ),
    tutorial(
        "mounts_propagate_as_they_are_asked_to",
        &[
            step("mkdir shared; mount -t tmpfs t shared; mount --make-shared shared; \
                  docker run -d --name spreads -v $PWD/shared:/s:rslave busybox sleep 1000 >/dev/null"),
            step("mkdir shared/late; mount -t tmpfs t shared/late; touch shared/late/seen; docker exec spreads ls /s/late")
                .prints("seen"),
            step("docker run --rm --privileged -v $PWD/shared:/s:rshared busybox sh -c \
                  'mkdir /s/theirs; mount -t tmpfs t /s/theirs; touch /s/theirs/back'; ls shared/theirs")
                .prints("back"),
            // Since Docker 25 what is mounted below is read-only too.
            step("docker run --rm -v $PWD/shared:/s:ro busybox touch /s/late/x || test $DOCKER -ge 25"),
            step("docker run --rm -v $PWD/shared:/s:ro busybox touch /s/x").ends(1).says(&["Read-only file system"]),
            step("docker rm -f spreads; umount -R shared"),
        ],
    ),
    tutorial(
        "a_volume_is_filled_from_the_image_and_kept_when_its_container_goes",
        &[
            step("docker volume create kept; docker volume ls -q -f name=kept").says(&["kept"]),
            step("docker run --rm -v kept:/www busybox sh -c 'cat /www/index.html; echo mine > /www/mine'")
                .prints("hello from a container"),
            step("docker run --rm -v kept:/other:ro busybox sh -c 'cat /other/mine; touch /other/x'")
                .ends(1)
                .says(&["mine", "Read-only file system"]),
            step("docker run --rm -v bare:/www:nocopy busybox ls /www").prints(""),
            step("docker volume inspect -f '{{.Driver}}' kept").prints("local"),
            step("docker run -d --name uses -v kept:/d busybox sleep 1000; docker volume rm kept").ends(1).says(&["in use"]),
            step("docker rm -f uses; docker volume rm kept bare").says(&["kept\nbare"]),
        ],
    ),
    tutorial(
        "changes_go_with_rm_and_stay_with_start",
        &[
            step("docker run --name changes busybox sh -c 'echo run >> /log; cat /log'").prints("run"),
            step("docker start -a changes").prints("run\nrun"),
            step("docker rm changes; docker run --rm --name changes busybox sh -c 'echo run >> /log; cat /log'")
                .prints("changes\nrun"),
        ],
    ),
    tutorial(
        "a_container_of_data_is_used_by_others",
        &[
            step("docker create --name data -v /data busybox"),
            step("docker run --rm --volumes-from data busybox sh -c 'echo kept > /data/f'"),
            step("docker run --rm --volumes-from data:ro busybox sh -c 'cat /data/f; touch /data/x'")
                .ends(1)
                .says(&["kept", "Read-only file system"]),
            step("docker rm -v data"),
        ],
    ),
    tutorial(
        "a_tmpfs_has_its_size_and_mode_and_is_gone_after",
        &[
            step("docker run --rm --mount type=tmpfs,dst=/t,tmpfs-size=65536,tmpfs-mode=1770 busybox sh -c \
                  'ls -ld /t; df /t; head -c 70000 /dev/zero > /t/x'")
                .ends(1)
                .says(&["drwxrwx--T", " 64 ", "I/O error"]),
        ],
    ),
    tutorial(
        "volumes_of_nobody_are_pruned",
        &[
            step("docker volume create lonely; docker volume prune -f $(test $DOCKER -lt 23 || echo --all)").says(&["lonely"]),
            step("docker volume ls -q").prints(""),
        ],
    )
    .alone(),
];
