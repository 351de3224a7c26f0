"""What is deployed beside the code names things that exist, and passes the checks of the tools it is for."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.cli.exporter.families import METRICS
from tasks.gateway.answers.metrics import METRICS as GATEWAY_METRICS

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
DASHBOARD = ROOT / "deploy/grafana/dashboards/celery-mlx.json"
COMPOSE = ROOT / "docker-compose.yml"
SUFFIXES = {"gauge": ("",), "counter": ("",), "histogram": ("_bucket", "_sum", "_count")}
EXPORTED = {metric.full_name + suffix for metric in (*METRICS, *GATEWAY_METRICS) for suffix in SUFFIXES[metric.kind]}

promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not here: apt install prometheus")


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def queries() -> list[str]:
    """Every query of the dashboard, with the variable of its interval filled in."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return [target["expr"].replace("$__rate_interval", "1m") for panel in panels for target in panel["targets"]]


@pytest.mark.parametrize("query", [*queries(), *(alert["expr"] for alert in alerts())])
def test_every_query_asks_for_what_is_exported(query: str) -> None:
    """A metric that is renamed takes its alerts and panels with it."""
    names = set(re.findall(r"celery_mlx_\w+", query))
    assert names <= EXPORTED, names - EXPORTED
    assert names or query.startswith("up{")


def test_every_alert_says_what_to_do() -> None:
    """A summary, a description and how urgent it is."""
    for alert in alerts():
        assert alert["labels"]["severity"] in {"critical", "warning"}, alert["alert"]
        assert alert["annotations"]["summary"]
        assert alert["annotations"]["description"]


def test_the_dashboard_is_laid_out() -> None:
    """Every panel has a title, an id of its own and a place that no other panel has."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["title"]
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_page_about_operating_lists_every_metric() -> None:
    """With its kind and labels, as the exporter has it. ``python -m tests.unit.test_deploy`` renews the table."""
    page = ROOT / "docs/operating.md"
    assert page.read_text(encoding="utf-8") == renewed(page.read_text(encoding="utf-8"))


def renewed(text: str) -> str:
    lines = ["| `celery_mlx_…` | kind | labels | |", "|---|---|---|---|"]
    lines += [f"| `{metric.name}` | {metric.kind} | {metric.labels or '–'} | {metric.about} |" for metric in METRICS]
    before, _, rest = text.partition("<!-- metrics -->\n")
    _, _, after = rest.partition("\n<!-- /metrics -->")
    table = "\n".join(lines)
    return f"{before}<!-- metrics -->\n{table}\n<!-- /metrics -->{after}"


@promtool
def test_promtool_accepts_configuration_and_alerts() -> None:
    """Prometheus's own check of both files."""
    run("promtool", "check", "config", str(PROMETHEUS / "prometheus.yml"))


@promtool
def test_promtool_accepts_every_query_of_the_dashboard(tmp_path: Path) -> None:
    """Each of them as a rule, so that its syntax and types are checked."""
    rules = [{"record": f"query:number:{number}", "expr": query} for number, query in enumerate(queries())]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    run("promtool", "check", "rules", str(path))


@promtool
def test_every_alert_fires_when_it_should_and_only_then() -> None:
    """Told by promtool in simulated time: a fleet that is well, and one that has every trouble."""
    run("promtool", "test", "rules", str(Path(__file__).with_name("alerts_test.yml")))
    tested = Path(__file__).with_name("alerts_test.yml").read_text(encoding="utf-8")
    assert {alert["alert"] for alert in alerts()} == set(re.findall(r"alertname: (\w+)", tested))


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("vendor.compose-spec", COMPOSE),
        ("vendor.github-workflows", ROOT / ".github/workflows/ci.yml"),
        ("vendor.github-workflows", ROOT / ".github/workflows/release.yml"),
    ],
)
def test_the_file_follows_its_schema(schema: str, path: Path) -> None:
    """The published schema of compose files and of workflows."""
    run(str(Path(sys.executable).with_name("check-jsonschema")), "--builtin-schema", schema, str(path))


def test_hadolint_has_nothing_to_say_of_the_dockerfile() -> None:
    """Every rule that is not kept is named where it is not."""
    run(str(Path(sys.executable).with_name("hadolint")), str(ROOT / "Dockerfile"))


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return loaded


def test_nothing_listens_beyond_loopback_by_default() -> None:
    """Every published port has an address, which is loopback's or a variable whose default is."""
    ports = [port for service in compose()["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 5
    for port in ports:
        assert re.match(r"(\$\{\w+:-127\.0\.0\.1\}|127\.0\.0\.1):\d+:\d+$", port), port


def test_no_password_has_a_default() -> None:
    """A password that is not set, or empty as in the example, is an error that names the file."""
    text = COMPOSE.read_text(encoding="utf-8")
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    for name in ("REDIS_PASSWORD", "FLOWER_PASSWORD", "GRAFANA_PASSWORD"):
        uses = re.findall(r"\$\{" + name + r"[^}]*\}", text)
        assert uses
        assert all(use == f"${{{name}:?set it in .env, see .env.example}}" for use in uses)
        assert f"\n{name}=\n" in example
    assert ".env\n" in (ROOT / ".gitignore").read_text(encoding="utf-8")


def test_every_variable_is_in_the_example() -> None:
    """What can be set is where people look for it."""
    names = set(re.findall(r"\$\{(\w+)", COMPOSE.read_text(encoding="utf-8")))
    assert names == set(re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))


def test_profiles() -> None:
    """``all`` starts everything, ``infra`` everything but what runs models; nothing needs what its profile lacks."""
    services = compose()["services"]
    infra = {name for name, service in services.items() if "infra" in service["profiles"]}
    assert infra == {"redis", "beat", "flower", "metrics", "prometheus", "grafana"}
    assert {name for name, service in services.items() if "all" in service["profiles"]} == set(services)
    for name in infra:
        assert set(services[name].get("depends_on", ())) <= infra


def test_what_is_mounted_and_copied_is_there() -> None:
    """Every path of this checkout that compose mounts or the Dockerfile copies exists."""
    services = compose()["services"]
    mounted = [volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])]
    copied = re.findall(
        r"^COPY ((?!--from)[^\n]+) \S+$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE
    )
    paths = [*(path for path in mounted if path.startswith("./")), *" ".join(copied).split()]
    assert len(paths) >= 9
    for path in paths:
        assert (ROOT / path).exists(), path
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"}
    assert {word.split("/")[0] for word in " ".join(copied).split()} == kept


def test_the_worker_has_longer_than_its_drain_to_stop() -> None:
    """Else Docker kills it in the middle of a request."""
    from worker_config.settings import Settings

    grace = re.match(r"(\d+)m$", compose()["services"]["worker"]["stop_grace_period"])
    assert grace
    assert int(grace[1]) * 60 > Settings().drain_timeout_s


def run(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


if __name__ == "__main__":
    PAGE = ROOT / "docs/operating.md"
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
