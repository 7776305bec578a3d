//! `docker compose`, or docker-compose where Docker has no such command: an application and a scaled service behind a reverse
//! proxy with TLS, and nothing left of them.

use crate::tutorial::{Tutorial, step, tutorial};

pub const TUTORIALS: &[Tutorial] = &[tutorial(
    "a_proxy_with_tls_stands_before_an_application_and_a_scaled_service_and_down_leaves_nothing",
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
    resolver 127.0.0.11 valid=1s; set $whoami whoami; set $application application;
    location / { proxy_pass http://$application:8000; }
    location /whoami/ { proxy_pass http://$whoami:80; }
  }
}
END
             cat > app.py <<'END'
def app(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [b'the application']
END
             cat > docker-compose.yml <<'END'
version: '2.4'
services:
  proxy:
    image: debian
    command: nginx -c /conf/nginx.conf
    ports: ['127.0.0.1:8443:443']
    volumes: ['.:/conf:ro', '/run/docker.sock:/run/docker.sock']
    depends_on:
      application: {condition: service_healthy}
      whoami: {condition: service_healthy}
    healthcheck: {test: 'curl -skf https://$$HOSTNAME/', interval: 1s, retries: 100}
  application:
    image: debian
    working_dir: /app
    command: gunicorn --bind 0.0.0.0:8000 app:app
    volumes: ['./app.py:/app/app.py:ro']
    healthcheck: {test: 'curl -sf 127.0.0.1:8000/', interval: 1s, retries: 100}
  whoami:
    image: busybox
    command: sh -c 'mkdir /www/whoami && hostname > /www/whoami/index.html && exec httpd -f -p 80 -h /www'
    healthcheck: {test: 'wget -qO- 127.0.0.1/whoami/', interval: 1s, retries: 100}
END
             $COMPOSE -p scaled up -d --scale whoami=2",
        ),
        step("$COMPOSE -p scaled ps -q | wc -l").prints("4"),
        step("becomes $($COMPOSE -p scaled ps -q proxy) '{{.State.Health.Status}}' healthy"),
        step("for id in $($COMPOSE -p scaled ps -q whoami); do becomes $id '{{.State.Health.Status}}' healthy; done"),
        step("proxy=127.0.0.1:8443; curl -sk https://$proxy/").prints("the application"),
        // Which of the two answers is the resolver's choice: each does within some tries.
        step("proxy=127.0.0.1:8443; for i in $(seq 60); do curl -skf https://$proxy/whoami/; done | sort -u > answered
              $COMPOSE -p scaled ps -q whoami | cut -c-12 | sort | diff - answered"),
        step("docker exec $($COMPOSE -p scaled ps -q proxy) curl -s --unix-socket /run/docker.sock engine/_ping").prints("OK"),
        // It would read what a pipe before it brings.
        step("$COMPOSE -p scaled exec -T whoami hostname > one; cat one answered; grep -qxF -f one answered"),
        step("$COMPOSE -p scaled down -t 0"),
        step("docker ps -aq -f label=com.docker.compose.project=scaled; docker network ls -q -f name=scaled").prints(""),
    ],
)];
