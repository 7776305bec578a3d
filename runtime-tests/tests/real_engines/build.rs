//! `docker build` with the classic builder and with BuildKit, which runs what is called runc on dockerd's PATH.

use crate::tutorial::{Step, Tutorial, step, tutorial};

// What is the same for both builders: they differ in the variable.
const CONTEXT: Step = step(
    "cat > Dockerfile <<'END'
FROM busybox as builder
MAINTAINER me
ARG WHO=world
ENV GREETING=hello
WORKDIR /src
COPY . .
RUN test ! -e ignored && echo \"$GREETING $WHO\" > out
SHELL [\"/bin/sh\", \"-e\", \"-c\"]
USER web
RUN id -un > /tmp/me && test $(cat /tmp/me) = web && test $PWD = /src
from busybox
COPY --from=builder --chown=web:web /src/out /tmp/me /
ADD add.tar /added/
EXPOSE 80/tcp
EXPOSE 53/udp
VOLUME /data
LABEL a=b
STOPSIGNAL SIGINT
HEALTHCHECK --interval=1s CMD true
ENTRYPOINT [\"/bin/cat\"]
CMD [\"/out\"]
END
     echo ignored > .dockerignore; echo x > ignored; echo kept > kept; tar -cf add.tar kept
     printf 'FROM busybox\\nRUN exit 7\\n' > bad; printf 'FROM busybox\\nRUN [\"/nope\"]\\n' > nope",
);

pub const TUTORIALS: &[Tutorial] = &[
    tutorial(
        "the_classic_builder_builds_a_dockerfile_and_uses_its_cache",
        &[
            CONTEXT,
            step("DOCKER_BUILDKIT=0 docker build --build-arg WHO=you -t classic .").says(&["Successfully tagged classic:latest"]),
            step("DOCKER_BUILDKIT=0 docker build --build-arg WHO=you -t classic .")
                .says(&["Using cache", "Successfully tagged"])
                .lacks(&["Running in"]),
            step("docker run --rm classic").prints("hello you"),
            step("docker run --rm classic /me /added/kept").prints("web\nkept"),
            step("docker run --rm --entrypoint stat classic -c %U /out").prints("web"),
            step("docker inspect -f '{{.Config.StopSignal}} {{.Config.Labels.a}} {{.Config.ExposedPorts}} {{.Config.Volumes}}' classic")
                .prints("SIGINT b map[53/udp:{} 80/tcp:{}] map[/data:{}]"),
            step("DOCKER_BUILDKIT=0 docker build -f bad .").ends(7).says(&["returned a non-zero code: 7"]),
            step("DOCKER_BUILDKIT=0 docker build -f nope .").ends(1).says(&["no such file or directory"]),
            step("docker history classic").says(&["HEALTHCHECK", "ENTRYPOINT"]),
            step("docker rmi classic"),
        ],
    ),
    tutorial(
        "buildkit_builds_the_same_and_more",
        &[
            CONTEXT,
            step("DOCKER_BUILDKIT=1 docker build --progress plain --build-arg WHO=you -t kit .").says(&["naming to docker.io/library/kit"]),
            step("DOCKER_BUILDKIT=1 docker build --progress plain --build-arg WHO=you -t kit .").says(&["CACHED"]),
            step("docker run --rm kit").prints("hello you"),
            step("docker run --rm kit /me /added/kept").prints("web\nkept"),
            step("docker run --rm --entrypoint stat kit -c %U /out").prints("web"),
            step("docker inspect -f '{{.Config.StopSignal}} {{.Config.Labels.a}} {{.Config.ExposedPorts}} {{.Config.Volumes}}' kit")
                .prints("SIGINT b map[53/udp:{} 80/tcp:{}] map[/data:{}]"),
            step("DOCKER_BUILDKIT=1 docker build --progress plain -f bad .").ends(1).says(&["exit code: 7"]),
            step("DOCKER_BUILDKIT=1 docker build --progress plain -f nope .").ends(1).says(&["/nope: no such file or directory"]),
            step(
                "cat > mounts <<'END'
FROM busybox
RUN --mount=type=cache,target=/c echo x >> /c/f && wc -l /c/f
RUN --mount=type=tmpfs,target=/t touch /t/x && grep ' /t ' /proc/mounts
RUN --mount=type=secret,id=s grep kept /run/secrets/s
RUN --mount=type=bind,target=/ctx cat /ctx/kept
END
                 DOCKER_BUILDKIT=1 docker build --no-cache --secret id=s,src=kept --progress plain -f mounts .",
            )
            .says(&["1 /c/f", "tmpfs /t tmpfs", "kept"]),
            step("docker rmi kit"),
        ],
    ),
    tutorial(
        "an_image_of_one_file_says_hello",
        &[
            step("cp /bin/busybox echo; printf 'FROM scratch\\nCOPY echo /\\nCMD [\"/echo\", \"Hello from Docker!\"]\\n' > Dockerfile
                  docker build -q -t hello ."),
            step("docker run hello").prints("Hello from Docker!"),
            step("docker rm $(docker ps -aq -f ancestor=hello); docker rmi hello"),
        ],
    ),
    tutorial(
        "an_application_tells_its_health_by_its_dockerfiles_check",
        &[
            step(
                "cat > app.py <<'END'
healthy = True
def app(environ, start_response):
    global healthy
    healthy = healthy and environ['PATH_INFO'] != '/fail'
    start_response('200 OK' if healthy else '500 Broken', [('Content-Type', 'text/plain')])
    return [b'as told']
END
                 cat > Dockerfile <<'END'
FROM debian
WORKDIR /app
COPY app.py .
HEALTHCHECK --interval=1s --timeout=60s --start-period=1h --retries=2 CMD curl -sf 127.0.0.1:8000/ || exit 1
CMD [\"gunicorn\", \"--bind\", \"0.0.0.0:8000\", \"app:app\"]
END
                 docker build -q -t told .",
            ),
            step("docker run -d --name told -p 127.0.0.1:8084:8000 told; docker inspect -f '{{.State.Health.Status}}' told >/dev/null"),
            step("becomes told '{{.State.Health.Status}}' healthy"),
            step("curl -s 127.0.0.1:8084/fail").prints("as told"),
            step("becomes told '{{.State.Health.Status}}' unhealthy"),
            step("docker inspect -f '{{.State.Health.Status}} {{.State.Status}}' told").prints("unhealthy running"),
            step("docker rm -f told; docker rmi told"),
        ],
    ),
    tutorial(
        "an_entrypoint_is_given_arguments_and_replaced",
        &[
            step("printf 'FROM debian\\nENTRYPOINT [\"ping\", \"-c\", \"1\"]\\nCMD [\"127.0.0.1\"]\\n' | docker build -t ping -"),
            step("docker run --rm ping").says(&["1 packets transmitted, 1 received"]),
            step("docker run --rm ping -c 2 127.0.0.2").says(&["PING 127.0.0.2", "2 packets transmitted"]),
            step("docker run --rm --entrypoint echo ping replaced").prints("replaced"),
            step("docker rmi ping"),
        ],
    ),
    tutorial(
        "an_application_of_python_is_built_and_served_by_an_ordinary_user",
        &[
            step(
                "cat > app.py <<'END'
def app(environ, start_response):
    import os
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [f'hello from uid {os.getuid()}'.encode()]
END
                 cat > Dockerfile <<'END'
FROM debian
RUN useradd --uid 1000 app
WORKDIR /app
COPY app.py .
USER app
EXPOSE 8000
CMD [\"gunicorn\", \"--bind\", \"0.0.0.0:8000\", \"app:app\"]
END
                 DOCKER_BUILDKIT=1 docker build -q -t application .",
            ),
            step("docker run -d --name serves -p 127.0.0.1:8083:8000 application"),
            step("await 1 'Listening at' docker logs -f serves; curl -s 127.0.0.1:8083/").prints("hello from uid 1000"),
            step("docker stop -t 100 serves; docker inspect -f '{{.State.ExitCode}}' serves").prints("serves\n0"),
            step("docker rm serves; docker rmi application"),
        ],
    ),
    tutorial(
        "a_server_for_ssh_is_built_and_logged_in_to",
        &[
            step(
                "ssh-keygen -q -t ed25519 -N '' -f key
                 printf 'FROM debian\\nRUN useradd -m me && mkdir -p /run/sshd /home/me/.ssh\\n\
                 COPY key.pub /home/me/.ssh/authorized_keys\\nCMD [\"/usr/sbin/sshd\", \"-D\", \"-e\", \"-p\", \"2222\"]\\n' > Dockerfile
                 docker build -q -t sshd .",
            ),
            step("docker run -d --name sshd -p 127.0.0.1:2222:2222 sshd; await 1 'listening on 0.0.0.0' docker logs -f sshd"),
            step("ssh -i key -p 2222 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null me@127.0.0.1 'id -un; tty || true'")
                .says(&["me\nnot a tty"]),
            step("ssh -tt -i key -p 2222 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null me@127.0.0.1 tty")
                .says(&["/dev/pts/"]),
            step("docker rm -f sshd; docker rmi sshd"),
        ],
    ),
];
