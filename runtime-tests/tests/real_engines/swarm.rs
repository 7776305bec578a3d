//! A swarm of one node: an overlay network, containers on it, and a service.

use crate::tutorial::{Tutorial, step, tutorial};

pub const TUTORIALS: &[Tutorial] = &[tutorial(
    "an_overlay_network_of_a_swarm_joins_containers_and_the_tasks_of_a_service",
    &[
        step(
            "ip link add swarm type veth peer name other; ip addr add 10.66.0.1/24 dev swarm; ip link set swarm up; ip link set other up
             docker swarm init --advertise-addr 10.66.0.1 --listen-addr 10.66.0.1:2377",
        )
        .says(&["Swarm initialized"]),
        step("docker network create -d overlay --attachable --subnet 10.67.0.0/24 over"),
        step("docker network inspect -f '{{.Driver}} {{.Scope}}' over").prints("overlay swarm"),
        // Docker gives its swarm 20 s to attach a container, which a busy machine may not keep: it is asked again.
        step(
            "docker create --name on-overlay --network over busybox httpd -f -p 80 -h /www
             docker create --name asks --network over debian sleep 1000
             for name in on-overlay asks; do
                 for try in 1 2 3 4; do docker start $name && break; done
             done
             listens 80 docker exec on-overlay",
        ),
        step("docker exec asks sh -c 'getent hosts on-overlay; curl -s on-overlay/'")
            .says(&["10.67.0.", "hello from a container"]),
        // By the tasks' own addresses: the address of a service takes IPVS, which not every kernel has.
        step("docker service create -q --name tasks --network over --endpoint-mode dnsrr --replicas 2 --no-resolve-image busybox httpd -f -p 80 -h /www"),
        step("for task in $(docker ps -q -f name=tasks); do listens 80 docker exec $task; done"),
        step("docker ps -f name=tasks --format '{{.Image}}'").prints("busybox:latest\nbusybox:latest"),
        step("docker exec asks sh -c 'getent ahostsv4 tasks | cut -d \" \" -f 1 | sort -u | wc -l; curl -s tasks/'")
            .prints("2\nhello from a container"),
        step("docker service rm tasks; docker rm -f on-overlay asks; docker swarm leave --force").says(&["Node left the swarm"]),
        step("docker network rm docker_gwbridge; ip link del swarm"),
    ],
)
.alone()];
