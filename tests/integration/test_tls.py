"""Redis behind TLS, as docs/security.md has it: workers, producers, readers and commands, by nothing but the URL."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tasks.engine.fake import fake_text
from tests.support import ROOT
from tests.tls_relay import relay

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartWorker

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")

OPENSSL = (
    *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
    *("-addext", "subjectAltName=DNS:localhost"),
)
PRODUCER = """
from tasks import generate
result = generate.delay(prompt="a", model="fake:1", max_tokens=5)
print("".join(chunk.text for chunk in result.stream(timeout=60)), end="")
assert result.get(timeout=60)["finish_reason"] == "length"
"""


def run(url: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "REDIS_URL": url},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        start_new_session=True,
    )


def test_by_the_url_alone(redis_url: str, worker: StartWorker, tmp_path: Path) -> None:
    """A worker serves, a producer reads its stream and its result, and ``fleet`` sees it; without trust nobody gets in."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [*OPENSSL, "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    there = urlsplit(redis_url)
    with relay(there.port or 0, certificate, key) as port:
        plain = f"rediss://:{there.password}@localhost:{port}/0?ssl_cert_reqs=CERT_REQUIRED"
        url = f"{plain}&ssl_ca_certs={certificate}"
        server = worker("-c", "2", env={"REDIS_URL": url})
        produced = run(url, "-W", "error", "-c", PRODUCER)
        assert produced.stdout == fake_text("a", None, 5), produced.stderr
        assert server.node in run(url, "-m", "celery", "-A", "tasks", "fleet", "--once").stdout
        refused = run(plain, "-m", "celery", "-A", "tasks", "worker")
        assert refused.returncode == 78
        assert "certificate verify failed" in refused.stderr
        assert "or name its certificate: rediss://...?ssl_ca_certs=FILE" in refused.stderr
        server.stop()
        assert server.process.returncode == 0
        assert "Traceback" not in server.log()
