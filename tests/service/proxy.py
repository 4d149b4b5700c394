"""The system's nginx, with deploy/nginx.conf as it stands but for its ports and paths."""

import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from live_service import ROOT, wait_until

CONFIGURATION = ROOT / "deploy" / "nginx.conf"
HOST = "search.example.org"
SHAPE = {"code", "message", "param", "type"}
_SYSTEM = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))
NGINX, OPENSSL = shutil.which("nginx", path=_SYSTEM), shutil.which("openssl")
MISSING = " and ".join(name for name, path in (("nginx", NGINX), ("openssl", OPENSSL)) if path is None)


@dataclass(frozen=True)
class Proxy:
    """A running nginx; `client` speaks to its encrypted port in the name that the file has."""

    client: httpx.Client
    port: int
    plain_port: int
    trust: ssl.SSLContext
    log: Path

    @contextmanager
    def dialled(self) -> Iterator[ssl.SSLSocket]:
        """A bare encrypted connection to it."""
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=60) as plain,
            self.trust.wrap_socket(plain, server_hostname="127.0.0.1") as caller,
        ):
            yield caller


@contextmanager
def proxied(
    folder: Path, *services: str, changes: Mapping[str, str] | None = None, text: str | None = None
) -> Iterator[Proxy]:
    """nginx before services (`127.0.0.1:8000`, …); `changes` replace parts of the file, or of `text`."""
    folder.mkdir(exist_ok=True)
    port, plain_port = free_port(), free_port()
    text = text or CONFIGURATION.read_text(encoding="utf-8")
    first = "server 127.0.0.1:8000 max_conns=300;"
    servers = [first] if len(services) == 1 else [first.replace("max_conns=300", "max_fails=0")] * len(services)
    places = {
        "user www-data;": f"user {'root' if os.geteuid() == 0 else 'nobody'};",
        "/run/nginx.pid": str(folder / "nginx.pid"),
        "/var/log/nginx/error.log warn": "stderr warn",
        "/var/log/nginx/access.log": str(folder / "access.log"),
        "/etc/nginx/tls/fullchain.pem": str(folder / "certificate.pem"),
        "/etc/nginx/tls/privkey.pem": str(folder / "key.pem"),
        "listen 80;": f"listen 127.0.0.1:{plain_port};",
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        first: "\n".join(
            line.replace("127.0.0.1:8000", at) for line, at in zip(servers, services, strict=True)
        ),
        "http {": f"http {{\n{_folders_of_its_own(folder)}",
    }
    for found, put in {**places, **(changes or {})}.items():
        text = _replaced_once(text, found, put)
    configuration = folder / "nginx.conf"
    configuration.write_text(text, encoding="utf-8")
    trust = _make_certificate(folder)
    with _running(folder, configuration) as process:
        wait_until(lambda: process.poll() is not None or _listens(port))
        assert process.poll() is None, (folder / "stderr").read_text()
        with httpx.Client(
            base_url=f"https://127.0.0.1:{port}",
            headers={"host": HOST},
            verify=trust,
            timeout=60,
            trust_env=False,
        ) as client:
            yield Proxy(client, port, plain_port, trust, folder / "access.log")


def error_of(answer: httpx.Response, status: int) -> str:
    """The code of an error in the one shape."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json"), answer.text
    assert set(answer.json()["error"]) == SHAPE
    assert re.fullmatch(r"[\x21-\x7e]{1,128}", answer.headers["x-request-id"])
    return answer.json()["error"]["code"]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _replaced_once(text: str, found: str, put: str) -> str:
    assert len(re.findall(re.escape(found), text)) == 1, f"{found!r} is not in {CONFIGURATION} once"
    return text.replace(found, put)


def _folders_of_its_own(folder: Path) -> str:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return "\n".join(f"{kind}_temp_path {folder / kind};" for kind in kinds)


def _make_certificate(folder: Path) -> ssl.SSLContext:
    """Signed by itself; returns what trusts it."""
    assert OPENSSL is not None
    names = f"subjectAltName=DNS:{HOST},IP:127.0.0.1"
    subprocess.run(
        [
            *(OPENSSL, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", folder / "key.pem", "-out", folder / "certificate.pem"),
            *("-days", "2", "-subj", f"/CN={HOST}", "-addext", names),
        ],
        check=True,
        capture_output=True,
    )
    return ssl.create_default_context(cafile=str(folder / "certificate.pem"))


@contextmanager
def _running(folder: Path, configuration: Path) -> Iterator[subprocess.Popen[bytes]]:
    assert NGINX is not None
    command = [NGINX, "-p", folder, "-c", configuration, "-e", "stderr", "-g", "daemon off;"]
    with (folder / "stderr").open("wb") as told, subprocess.Popen(command, stderr=told) as process:
        try:
            yield process
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
