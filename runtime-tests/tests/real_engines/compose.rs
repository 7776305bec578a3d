//! docker-compose: an application behind a reverse proxy with TLS, scaled, and nothing left of it.

use crate::tutorial::{Tutorial, step, tutorial};

pub const TUTORIALS: &[Tutorial] = &[tutorial(
    "a_proxy_with_tls_stands_before_a_scaled_service_and_down_leaves_nothing",
    &[
        step(
            "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=proxy 2>/dev/null
             cat > nginx.conf <<'END'
daemon off; pid /tmp/nginx.pid; error_log /dev/stderr;
events {}
http {
  access_log off;
  server {
    listen 443 ssl; ssl_certificate /conf/cert.pem; ssl_certificate_key /conf/key.pem;
    location / { resolver 127.0.0.11 valid=1s; set $to whoami; proxy_pass http://$to:80; }
  }
}
END
             cat > docker-compose.yml <<'END'
version: '3'
services:
  proxy:
    image: debian
    command: nginx -c /conf/nginx.conf
    ports: ['127.0.0.1:8443:443']
    volumes: ['.:/conf:ro', '/run/docker.sock:/run/docker.sock']
    depends_on: [whoami]
  whoami:
    image: busybox
    command: sh -c 'hostname > /www/index.html && exec httpd -f -p 80 -h /www'
END
             docker-compose -p scaled up -d --scale whoami=2",
        )
        .says(&["done"]),
        step("docker-compose -p scaled ps -q | wc -l").prints("3"),
        // Each has answered within some tries; which one does is the resolver's choice.
        step("proxy=127.0.0.1:8443; for i in $(seq 60); do curl -sk https://$proxy/ || true; done | sort -u | wc -l").prints("2"),
        step("docker exec scaled_proxy_1 curl -s --unix-socket /run/docker.sock engine/_ping").prints("OK"),
        step("docker-compose -p scaled exec -T whoami hostname").says(&[""]),
        step("docker-compose -p scaled down -t 0").says(&["done"]),
        step("docker ps -aq -f label=com.docker.compose.project=scaled; docker network ls -q -f name=scaled").prints(""),
    ],
)];
