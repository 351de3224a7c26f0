"""Options of an application that the fleet has to share are refused where they differ, before anything waits for them."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery

from tasks.errors import BrokerMisconfigured
from tasks.server.application import require_options, require_results
from tasks.server.connection import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

BOX = "redis://me:secret@box:6379/0"


@pytest.fixture
def shop() -> Iterator[Celery]:
    """An application whose requests go to a server that nobody reaches."""
    app = Celery("shop", set_as_current=False, broker=BOX)
    yield app
    app.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"broker_transport_options": {"global_keyprefix": "shop:"}},
            "broker_transport_options: global_keyprefix='shop:': the fleet's keys have no prefix",
        ),
        (
            {"result_backend_transport_options": {"global_keyprefix": "shop:"}},
            "result_backend_transport_options: global_keyprefix='shop:': ",
        ),
        ({"task_protocol": 1}, "task_protocol=1: workers read messages of protocol 2: leave it out"),
    ],
)
def test_options(shop: Celery, options: dict[str, Any], said: str) -> None:
    """One error names the option, its value and the remedy; without the option there is none."""
    require_options(shop)
    shop.conf.update(options)
    with pytest.raises(BrokerMisconfigured) as caught:
        require_options(shop)
    assert str(caught.value).startswith(said)
    assert not caught.value.retryable


@pytest.mark.parametrize(
    "url", ["redis://me:secret@box:6379/1", "celery_mlx.broker.results:Backend+redis://me:secret@box:6379/1"]
)
def test_results_in_another_database(shop: Celery, url: str) -> None:
    """Results that the fleet does not store there are refused, without a word of the password."""
    shop.conf.result_backend = url
    with closing(connect(BOX)) as client, pytest.raises(BrokerMisconfigured) as caught:
        require_results(shop, client)
    assert str(caught.value).startswith(
        "result_backend is database 1 of box:6379, and the fleet stores results beside the requests, in database 0 of box:6379: "
    )
    assert "secret" not in str(caught.value)


def test_results_in_another_store(shop: Celery, caplog: pytest.LogCaptureFixture) -> None:
    """An application whose results are not in Redis is told that it can read streams alone, unless it has workers of its own."""
    shop.conf.result_backend = "cache+memory://"
    with closing(connect(BOX)) as client:
        require_results(shop, client)
    assert "result_backend is a CacheBackend, and workers of `celery -A tasks` store results in Redis" in caplog.text


@pytest.mark.parametrize("url", [BOX, "redis://other:login@box:6379", "disabled", None])
def test_results_in_the_same_place(shop: Celery, url: str | None) -> None:
    """Those are not: the same database, with whatever login, and applications that read streams alone. Nobody is asked."""
    shop.conf.result_backend = url
    with closing(connect(BOX)) as client:
        require_results(shop, client)
