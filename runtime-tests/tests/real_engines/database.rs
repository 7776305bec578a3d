//! A database: scripts that make its data once, data that outlives the container, and a client in another container.

use crate::tutorial::{Tutorial, step, tutorial};

pub const TUTORIALS: &[Tutorial] = &[tutorial(
    "a_database_is_made_by_scripts_and_its_data_outlive_the_container",
    &[
        step(
            "cat > entrypoint <<'END'
#!/bin/sh
set -e
data=/var/lib/mysql
if [ ! -d $data/mysql ]; then
    mariadb-install-db --user=mysql --datadir=$data --skip-test-db >/dev/null
    for script in /initdb.d/*.sql; do
        echo \"runs $script\"
        mariadbd --user=mysql --datadir=$data --bootstrap < $script
    done
fi
exec mariadbd --user=mysql --datadir=$data --bind-address=0.0.0.0 \"$@\"
END
             chmod +x entrypoint
             cat > 1-users.sql <<'END'
FLUSH PRIVILEGES;
CREATE DATABASE shop;
CREATE USER clerk IDENTIFIED BY 'secret';
GRANT ALL ON shop.* TO clerk;
END
             cat > 2-fruit.sql <<'END'
USE shop;
CREATE TABLE fruit (name VARCHAR(20) PRIMARY KEY);
INSERT INTO fruit VALUES ('pear'), ('apple');
END
             cat > Dockerfile <<'END'
FROM debian
RUN useradd --system mysql && install -d -o mysql /run/mysqld
COPY entrypoint /
COPY *.sql /initdb.d/
VOLUME /var/lib/mysql
EXPOSE 3306
ENTRYPOINT [\"/entrypoint\"]
CMD [\"--innodb-use-native-aio=OFF\"]
END
             docker build -q -t database .; docker network create shop; docker volume create rows",
        ),
        step("docker run -d --name db1 --network shop --network-alias db -v rows:/var/lib/mysql database"),
        step("await 1 'ready for connections' docker logs -f db1"),
        step("docker logs db1 2>&1 | grep runs").prints("runs /initdb.d/1-users.sql\nruns /initdb.d/2-fruit.sql"),
        step("docker run --rm --network shop debian mariadb -h db -u clerk -psecret shop -Ne 'SELECT name FROM fruit'")
            .prints("apple\npear"),
        step("docker run --rm --network shop debian mariadb -h db -u clerk -pwrong shop -e 'SELECT 1'")
            .ends(1)
            .says(&["Access denied for user 'clerk'"]),
        step("docker run --rm --network shop debian mariadb -h db -u clerk -psecret shop -e \"INSERT INTO fruit VALUES ('quince')\""),
        // Not even a chance to write: what it has told its client is there.
        step("docker rm -f db1; docker run -d --name db2 --network shop --network-alias db -v rows:/var/lib/mysql database"),
        step("await 1 'ready for connections' docker logs -f db2"),
        step("docker logs db2 2>&1 | grep runs").ends(1),
        step("docker run --rm --network shop debian mariadb -h db -u clerk -psecret shop -Ne 'SELECT name FROM fruit'")
            .prints("apple\npear\nquince"),
        step("docker stop -t 60 db2; docker inspect -f '{{.State.ExitCode}}' db2").prints("db2\n0"),
        step("docker rm db2; docker volume rm rows; docker network rm shop; docker rmi database"),
    ],
)];
