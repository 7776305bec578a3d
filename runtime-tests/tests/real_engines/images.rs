//! Images that go between engines, files, registries and rcrun itself.

use crate::setup::Need;
use crate::tutorial::{Tutorial, step, tutorial};

pub const TUTORIALS: &[Tutorial] = &[
    tutorial(
        "images_are_tagged_listed_saved_loaded_and_removed",
        &[
            step("docker tag busybox mine/app:1; docker images -q mine/app:1 | wc -l").prints("1"),
            step("docker save -o app.tar mine/app:1; docker rmi mine/app:1; docker load -i app.tar").says(&["Loaded image: mine/app:1"]),
            step("docker run --rm mine/app:1 echo loaded").prints("loaded"),
            step("docker inspect -f '{{.Os}}' mine/app:1; docker history mine/app:1 | wc -l").prints("linux\n2"),
            step("docker rmi mine/app:1; docker rmi mine/app:1").ends(1).says(&["No such image"]),
        ],
    ),
    tutorial(
        "what_docker_saved_rcrun_runs_and_what_rcrun_saved_docker_runs",
        &[
            step(
                "printf 'FROM busybox\\nRUN mkdir /app && echo text > /app/file && rm /www/index.html\\nUSER web\\n\
                 WORKDIR /app\\nENV A=b\\nLABEL c=d\\nENTRYPOINT [\"cat\"]\\nCMD [\"file\"]\\n' | docker build -q -t exchanged -",
            ),
            step("docker save -o saved.tar exchanged; rcrun run --store store saved.tar").prints("text"),
            step("rcrun run --store store saved.tar /www/index.html").ends(1).says(&["No such file"]),
            step("rcrun image load --store store saved.tar; rcrun image list --store store").says(&["exchanged:latest"]),
            step("rcrun image save --store store exchanged -o ours.tar; docker rmi exchanged; docker load -i ours.tar")
                .says(&["Loaded image: exchanged:latest"]),
            step("docker run --rm exchanged").prints("text"),
            step("docker inspect -f '{{.Config.User}} {{.Config.WorkingDir}} {{.Config.Labels.c}} {{.Config.Env}}' exchanged")
                .says(&["web /app d [", "A=b"]),
            // A change made under rcrun, run under Docker.
            step("rcrun run --detach --store store --name changed -u root --entrypoint sleep exchanged 1000 >/dev/null; \
                  rcrun exec changed sh -c 'echo more >> /app/file'; rcrun image commit changed changed:2; rcrun delete --force changed"),
            step("rcrun image save --store store changed:2 | docker load; docker run --rm --entrypoint cat changed:2 file").says(&["text\nmore"]),
            step("podman load -q -i ours.tar; podman run --rm --network none exchanged").says(&["text"]),
            step("docker rmi exchanged changed:2"),
        ],
    )
    .needs(&[Need::Rcrun]),
    tutorial(
        "a_private_registry_on_this_runtime_is_pushed_to_and_pulled_from",
        &[
            step(
                "mkdir auth; htpasswd -Bbc auth/users me secret
                 sed 's:path. /etc/docker/registry.*:path\\: /auth/users:' /etc/docker/registry/config.yml > auth/config.yml
                 docker run -d --name registry --restart=always -p 127.0.0.1:5000:5000 -v registry:/var/lib/docker-registry \
                 -v $PWD/auth:/auth:ro debian docker-registry serve /auth/config.yml",
            ),
            step("await 1 'listening on' docker logs -f registry; docker tag busybox 127.0.0.1:5000/bb:1; docker push 127.0.0.1:5000/bb:1")
                .ends(1)
                .says(&["no basic auth credentials"]),
            step("echo secret | docker login -u me --password-stdin 127.0.0.1:5000").says(&["Login Succeeded"]),
            step("docker push 127.0.0.1:5000/bb:1").says(&["digest: sha256:"]),
            step("docker rmi 127.0.0.1:5000/bb:1; docker pull 127.0.0.1:5000/bb:1; docker run --rm 127.0.0.1:5000/bb:1 echo pulled")
                .says(&["pulled"]),
            step("kill -9 $(docker inspect -f '{{.State.Pid}}' registry); \
                  becomes registry '{{.RestartCount}} {{.State.Status}}' '1 running'; \
                  await 2 'listening on' docker logs -f registry"),
            step("curl -s -u me:secret 127.0.0.1:5000/v2/_catalog").says(&["\"bb\""]),
            step("docker rm -f registry; docker rmi 127.0.0.1:5000/bb:1; docker volume rm registry"),
        ],
    ),
];
