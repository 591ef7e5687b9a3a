"""The real nginx in front of the edges, as the README tells operators to set it up."""

import contextlib
import pathlib
import shutil

from harness import Process, free_port, get, until

_CONF = """
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {directory}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  client_body_temp_path {directory}/nginx.body;
  proxy_temp_path {directory}/nginx.proxy;
  fastcgi_temp_path {directory}/nginx.fastcgi;
  uwsgi_temp_path {directory}/nginx.uwsgi;
  scgi_temp_path {directory}/nginx.scgi;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
  upstream edges {{
{servers}
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://edges;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_connect_timeout 2s;
      proxy_read_timeout 120s;
      proxy_next_upstream error timeout http_503;
      proxy_next_upstream_tries 2;
    }}
  }}
}}
"""


class Nginx(Process):
    """Takes part in a Stack by stack.add."""

    def __init__(self, directory, edges):
        program = shutil.which("nginx") or "/usr/sbin/nginx"
        assert pathlib.Path(program).exists(), "nginx is not installed: scripts/test installs it (nginx-light)"
        self.port = free_port()
        self.http, self.ws = f"http://127.0.0.1:{self.port}", f"ws://127.0.0.1:{self.port}/ws"
        servers = "\n".join(f"    server 127.0.0.1:{edge.port} max_fails=0;" for edge in edges)
        path = pathlib.Path(directory) / "nginx.conf"
        path.write_text(_CONF.format(directory=directory, servers=servers, port=self.port))
        super().__init__("nginx", [program, "-c", path, "-e", "stderr"], directory)
        until(self.answers, what=lambda: f"nginx answers; {self.log()}")

    def answers(self):
        assert self.process.poll() is None, self.log()
        with contextlib.suppress(OSError):
            return get(self.http + "/health").status == 200
