"""Where journals find Redis, and what they make of its errors."""

from __future__ import annotations

import ssl
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import redis
from celery import Celery

from tasks.broker.channel.channel import Channel
from tasks.errors import BrokerMisconfigured, BrokerUnavailable, JournalFailed
from tasks.server.connection import Endpoint, connect, endpoint, translated
from tasks.server.sentinel import SentinelConnection, SentinelTlsConnection
from tasks.server.trouble import trouble
from worker_config.celeryconfig import celery_options
from worker_config.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def app() -> Iterator[Celery]:
    """An application of somebody else's."""
    with Celery("shop", set_as_current=False) as app:
        yield app


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h:1/2", "redis://h:1/2"),
        ("redis+socket:///tmp/s?virtual_host=3", "unix:///tmp/s?db=3"),
        ("redis+socket://:pw@/tmp/s", "unix://:pw@/tmp/s?db=0"),
        ("rediss://h:1/0?ssl_cert_reqs=CERT_REQUIRED", "rediss://h:1/0?ssl_cert_reqs=required"),
        ("rediss://h:1/0?ssl_cert_reqs=none", "rediss://h:1/0?ssl_cert_reqs=none"),
    ],
)
def test_urls(url: str, expected: str) -> None:
    """Celery's spellings of a Redis URL become redis-py's, and redis-py takes them."""
    assert endpoint(url).url == expected
    with connect(url) as client:
        settings = client.get_connection_kwargs()
    assert settings["protocol"] == 2
    assert settings["socket_timeout"] == 5
    assert settings["decode_responses"] is False


def test_app(app: Celery) -> None:
    """The broker that is read from wins; without a Redis broker, the result backend does."""
    app.conf.update(broker_url="redis://one/0", result_backend="redis://results/0")
    assert endpoint(app).url == "redis://one:6379/0"
    app.conf.update(broker_read_url=["redis://three/0"])
    assert endpoint(app).url == "redis://three:6379/0"
    app.conf.update(broker_url="amqp://h//", broker_read_url=None)
    assert endpoint(app).url == "redis://results:6379/0"


@pytest.mark.parametrize("several", ["redis://:pw@one/0;redis://:pw@two/0", ["redis://:pw@one/0", "redis://:pw@two/0"]])
def test_several_brokers(app: Celery, several: Any) -> None:
    """An application whose broker fails over to another server is refused: its journals would stay behind."""
    app.conf.update(broker_url=several)
    with pytest.raises(
        BrokerMisconfigured, match=r"^broker_read_url='redis://:\*\*\*@one/0; .*several servers are named"
    ) as caught:
        endpoint(app)
    assert "pw" not in str(caught.value)


def test_tls_options(app: Celery) -> None:
    """TLS options that Celery keeps beside the URL reach redis-py, and beat those of the URL."""
    app.conf.update(broker_url="rediss://h/0", broker_use_ssl={"ssl_cert_reqs": ssl.CERT_NONE, "ssl_ca_certs": "/ca"})
    where = endpoint(app)
    assert where == Endpoint("rediss://h:6379/0", (("ssl_ca_certs", "/ca"), ("ssl_cert_reqs", ssl.CERT_NONE)))
    with connect(where) as client:
        settings = client.get_connection_kwargs()
    assert (settings["ssl_ca_certs"], settings["ssl_cert_reqs"]) == ("/ca", ssl.CERT_NONE)


def test_sentinels_that_are_away() -> None:
    """The error is a line for people: redis-py puts each of its clients into it, with all of their arguments."""
    with connect("sentinel://:pw@127.0.0.1:1,127.0.0.1:2/0?sentinel_password=secret") as client:
        with pytest.raises(redis.ConnectionError) as caught:
            client.ping()
        found = trouble(caught.value)
    assert found.says.startswith("No master found for 'mymaster' : ")
    assert "<" not in found.says
    assert len(found.says) < 200
    assert found.remedy == "are the Sentinels' hosts and master_name in REDIS_URL right?"


@pytest.mark.parametrize("scheme", ["sentinel", "rediss+sentinel"])
def test_sentinel(app: Celery, scheme: str) -> None:
    """Broker, results and our own connections ask the same Sentinels for the same primary, with the same login."""
    url = f"{scheme}://me:pw@a:1,b:2/3?master_name=shop&sentinel_password=secret"
    app.config_from_object(celery_options(read_settings({"REDIS_URL": url})))
    where = endpoint(app)
    assert where.parsed.sentinels == (("a", 1), ("b", 2))
    with connect(where) as client:
        ours = client.get_connection_kwargs()
        assert "secret" not in repr(client)
    assert "secret" not in repr(app.backend.client)
    broker = _channel_parameters(app)
    results = app.backend.connparams
    for parameters in (ours, broker, results):
        assert [tuple(place) for place in parameters["sentinels"]] == [("a", 1), ("b", 2)]
        assert (parameters["master_name"], parameters["db"], parameters["username"], parameters["password"]) == (
            "shop",
            3,
            "me",
            "pw",
        )
        assert parameters["sentinel_kwargs"]["password"] == "secret"
        assert "secret" not in repr(parameters)
        assert ("ssl" in parameters["sentinel_kwargs"]) == (scheme != "sentinel")
    secure = scheme != "sentinel"
    assert issubclass(broker["connection_class"], SentinelTlsConnection if secure else SentinelConnection)
    assert results["connection_class"] is (SentinelTlsConnection if secure else SentinelConnection)
    assert app.backend.is_brokers


def _channel_parameters(app: Celery) -> dict[str, Any]:
    """How the broker's channels connect; a whole channel would connect at once."""
    connection = app.connection_for_read()
    channel: Any = Channel.__new__(Channel)
    channel.connection = SimpleNamespace(client=connection, default_port=0)
    vars(channel).update(connection.transport_options, closed=True)
    parameters: dict[str, Any] = channel._connparams()
    return parameters


def test_no_redis(app: Celery) -> None:
    """Without Redis the error names both settings, and no password."""
    app.conf.update(broker_url="amqp://me:secret@h//", result_backend="rpc://")
    with pytest.raises(BrokerMisconfigured) as caught:
        endpoint(app)
    assert "broker_read_url='amqp://me:***@h/***', result_backend='rpc://'" in str(caught.value)


def test_another_thread() -> None:
    """Celery gives a thread without a current application an empty one: the error says how to give it yours."""
    with (
        ThreadPoolExecutor(1) as thread,
        pytest.raises(BrokerMisconfigured, match=r"; call app\.set_default\(\) where"),
    ):
        thread.submit(lambda: endpoint(Celery("default", set_as_current=False))).result()


@pytest.mark.parametrize("url", ["redis://:pw@h:port/0", "redis://:pw@h/0?socket_timeout=soon"])
def test_unusable_url(url: str) -> None:
    """A URL that cannot be used is an error that shows it without its password, and that trying again does not change."""
    with pytest.raises(BrokerMisconfigured, match=r"^the URL of Redis='redis://.*\*\*\*") as caught:
        connect(url)
    assert "pw" not in str(caught.value)
    assert not caught.value.retryable


def test_an_endpoint_keeps_its_password_to_itself() -> None:
    """However an endpoint is written into a message, its password is not in there."""
    where = endpoint("redis://me:s3cret@h/0")
    assert str(where) == "redis://me:***@h:6379/0"
    assert "s3cret" not in repr(where)


@pytest.mark.parametrize(
    ("error", "remedy", "entry"),
    [
        (redis.AuthenticationError("invalid password."), "right user and password", "Wrong password"),
        (redis.ResponseError("NOAUTH Authentication required."), "right user and password", "Wrong password"),
        (
            redis.AuthenticationError("AUTH <password> called without any password configured for the default user."),
            "leave it out of REDIS_URL",
            "Wrong password",
        ),
        (redis.exceptions.NoPermissionError("no 'xadd'"), "docs/security.md", "Wrong password"),
        (redis.exceptions.OutOfMemoryError("command not allowed"), "maxmemory", "Redis is full"),
        # As servers before 7 put what a script was refused.
        (redis.ResponseError("Error running script: -OOM command not allowed when used"), "maxmemory", "Redis is full"),
        (redis.ResponseError("MISCONF Errors writing to the AOF file"), "disk", "Redis is full"),
        (redis.ConnectionError("max number of clients reached"), "maxclients", "Redis is full"),
        (redis.ResponseError("NOREPLICAS Not enough"), "min-replicas-to-write", "Redis is not there"),
        (redis.exceptions.MasterDownError("Link with MASTER is down"), "primary", "Redis is a replica"),
        (redis.ResponseError("DENIED Redis is running in protected mode"), "set a password", "Wrong password"),
        (redis.ReadOnlyError("You can't write"), "primary", "Redis is a replica"),
        (redis.BusyLoadingError("loading"), "wait until", "Redis is not there"),
        (redis.ResponseError("DB index is out of range"), "/0", "Redis is not there"),
        (redis.ResponseError("WRONGTYPE Operation"), "a database of its own", "An address that cannot be used"),
        (redis.TimeoutError("slow"), "firewall", "Redis is not there"),
        (redis.ConnectionError("SSL wrong version number"), "ssl_ca_certs", "TLS at one end only"),
        (redis.ResponseError("unknown command 'CLIENT', with args"), "rename-command", "Redis lacks a command"),
        (redis.ConnectionError("refused"), "start it there", "Redis is not there"),
        (ConnectionResetError(), "start it there", "Redis is not there"),
    ],
)
def test_trouble(error: Exception, remedy: str, entry: str) -> None:
    """What is wrong with a server is told apart, each with what to do and where to read on, in one line."""
    found = trouble(error)
    assert remedy in found.remedy
    assert found.entry == entry
    assert found.says
    assert "\n" not in found.says
    assert not found.says.endswith(".")


def test_trouble_in_a_pipeline() -> None:
    """What redis-py says of the command that failed among several is left out, and what servers say of a script's line."""
    said = "Command # 1 (SADD _kombu.binding.celery a) of pipeline caused error: command not allowed"
    assert trouble(redis.ResponseError(said)).says == "command not allowed"
    for place in (
        " script: on @user_script:167.",
        " script: 5fb1a0c2, on @user_script:12.",
        " script: 5fb1, on @user_script: 1",
    ):
        assert trouble(redis.ResponseError(f"MISCONF No space left on device{place}")).says.endswith("left on device")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (redis.ConnectionError("refused"), BrokerUnavailable),
        (redis.TimeoutError("slow"), BrokerUnavailable),
        (ConnectionResetError("reset"), BrokerUnavailable),
        (redis.ReadOnlyError("a replica"), BrokerUnavailable),
        (redis.ResponseError("MISCONF no disk"), BrokerUnavailable),
        (redis.ResponseError("ERR what"), JournalFailed),
    ],
)
def test_translated(error: Any, expected: type[Exception]) -> None:
    """Faults that may pass are told apart from those that do not, and every message says what was being done."""
    with pytest.raises(expected, match=f"claim of x: .*{error}"), translated("claim of x"):
        raise error
