//! Containers that speak: bridges, published ports, networks of a user with names, macvlan, none, host, another's.

use crate::tutorial::{Tutorial, step, tutorial};

pub const TUTORIALS: &[Tutorial] = &[
    tutorial(
        "a_port_is_published_and_two_containers_have_two",
        &[
            step("docker run -d --name web1 -p 127.0.0.1:8081:80 busybox httpd -f -p 80 -h /www"),
            step("docker run -d --name web2 -p 8082:80 busybox httpd -f -p 80 -h /www"),
            step("listens 80 docker exec web1; listens 80 docker exec web2"),
            step("curl -s 127.0.0.1:8081/ 127.0.0.1:8082/").prints("hello from a container\nhello from a container"),
            step("curl -s $(docker inspect -f '{{.NetworkSettings.IPAddress}}' web1)/").prints("hello from a container"),
            // From elsewhere than this machine the kernel's own tables lead there.
            step("iptables -t nat -S DOCKER").says(&["--dport 8082 -j DNAT --to-destination 172.17.0."]),
            step("docker run --rm debian curl -s 172.17.0.1:8082/").prints("hello from a container"),
            step("docker port web1").prints("80/tcp -> 127.0.0.1:8081"),
            step("docker run -d --name web3 -p 127.0.0.1:8081:80 busybox true").ends(125).says(&["port is already allocated"]),
            step("docker rm -f web1 web2 web3; curl -s 127.0.0.1:8081/").ends(7),
        ],
    ),
    tutorial(
        "the_bridge_has_an_address_and_a_gateway_in_the_container",
        &[
            step("docker run --rm debian sh -c 'ip -o -4 addr show eth0; ip route'").says(&["inet 172.17.", "default via 172.17.0.1"]),
            step("docker run --rm debian ping -c 1 172.17.0.1").says(&["1 received"]),
            step("docker run --rm --mac-address 02:00:00:00:00:09 busybox cat /sys/class/net/eth0/address")
                .prints("02:00:00:00:00:09"),
        ],
    ),
    tutorial(
        "without_a_network_and_with_the_hosts_and_with_anothers",
        &[
            step("docker run --rm --network none busybox ls /sys/class/net").prints("lo"),
            step("docker run --rm --network host busybox ls /sys/class/net").says(&["docker0", "lo"]),
            step("docker run -d --name server busybox httpd -f -p 80 -h /www; listens 80 docker exec server"),
            step("docker run --rm --network container:server debian curl -s 127.0.0.1/").prints("hello from a container"),
            step("docker rm -f server"),
        ],
    ),
    tutorial(
        "a_users_network_resolves_names_and_is_joined_and_left",
        &[
            step("docker network create --subnet 10.9.0.0/24 own"),
            step("docker run -d --name named --network own --ip 10.9.0.10 --network-alias site busybox httpd -f -p 80 -h /www; listens 80 docker exec named"),
            step("docker run --rm --network own debian sh -c 'getent hosts named; curl -s site/'")
                .says(&["10.9.0.10", "hello from a container"]),
            step("docker run --rm debian getent hosts named").ends(2),
            step("docker run -d --name joins debian sleep 1000; docker exec joins getent hosts named").ends(2),
            step("docker network connect own joins; docker exec joins curl -s named/").prints("hello from a container"),
            step("docker network disconnect own joins; docker exec joins ls /sys/class/net").prints("eth0\nlo"),
            step("docker network inspect -f '{{range .Containers}}{{.Name}}{{end}}' own").prints("named"),
            step("docker network rm own").ends(1).says(&["has active endpoints"]),
            step("docker rm -f named joins; docker network rm own").says(&["own"]),
        ],
    ),
    tutorial(
        "macvlan_gives_an_address_on_the_parents_network",
        &[
            step("ip link add parent type veth peer name peer; ip link set parent up; ip link set peer up"),
            step("docker network create -d macvlan --subnet 10.77.0.0/24 -o parent=parent lan"),
            step("docker run -d --name on-lan --network lan --ip 10.77.0.10 busybox httpd -f -p 80 -h /www; listens 80 docker exec on-lan"),
            step("docker run --rm --network lan --ip 10.77.0.11 debian curl -s 10.77.0.10/").prints("hello from a container"),
            step("docker rm -f on-lan; docker network rm lan; ip link del parent"),
        ],
    ),
    tutorial(
        "an_unhealthy_application_is_told_from_a_healthy_one",
        &[
            // Within its start period a failure does not count.
            step("docker run -d --name checked --health-cmd 'test -e /up -a ! -e /bad' --health-interval 500ms --health-retries 2 \
                  --health-start-period 1h busybox sleep 1000; docker inspect -f '{{.State.Health.Status}}' checked")
                .says(&["starting"]),
            step("docker exec checked touch /up; \
                  becomes checked '{{.State.Health.Status}}' healthy"),
            step("docker ps -f name=checked --format '{{.Status}}'").says(&["(healthy)"]),
            step("docker exec checked touch /bad; \
                  becomes checked '{{.State.Health.Status}}' unhealthy"),
            step("docker inspect -f '{{.State.Health.Status}} {{.State.Status}}' checked").prints("unhealthy running"),
            step("docker rm -f checked"),
        ],
    ),
    tutorial(
        "networks_of_nobody_are_pruned",
        &[
            step("docker network create lonely; docker network prune -f").says(&["lonely"]),
            step("docker network ls --format '{{.Name}}'").prints("bridge\nhost\nnone"),
        ],
    )
    .alone(),
];
