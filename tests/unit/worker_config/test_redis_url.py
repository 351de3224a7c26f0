"""The address of Redis: what may be in it, how clients read it, and that no way to write it shows its password."""

from __future__ import annotations

import os
import traceback
from typing import Any
from urllib.parse import quote

import pytest
import redis
from celery.backends.redis import RedisBackend
from hypothesis import given
from hypothesis import strategies as st
from kombu import Connection

from worker_config.environment import SettingError
from worker_config.redis_url import KNOWN, RedisUrl, without_password
from worker_config.settings import Settings, read_settings

#: No part of it is a part of anything else in these URLs.
SECRET = "Zs3cretZ"
#: What people put into passwords, and what stands for something in a URL.
CHARACTERS = st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs"))
PASSWORDS = st.text(CHARACTERS, max_size=6).flatmap(
    lambda before: st.text(CHARACTERS, max_size=6).map(lambda after: f"{before}{SECRET}{after}")
)
SCHEMES = st.sampled_from(
    [
        "redis",
        "rediss",
        "REDIS",
        "unix",
        "redis+socket",
        "sentinel",
        "rediss+sentinel",
        "rediss+cluster",
        "redis+cluster",
        "amqp",
        "valkey",
        "http",
    ]
)
USERS = st.sampled_from(["", "default", "a.user", "ü"])
PLACES = st.sampled_from(["box", "box:6379", "127.0.0.1:1", "[::1]:6379", "", "a,b:1", "box:port"])
ENDS = st.sampled_from(
    ["", "/0", "/", "/x", "/0/", "/run/redis.sock", "/0?db=1", "/0?ssl_ca_certs=/ca.pem", "/0#x", "?", "/0?a"]
)


@st.composite
def urls(draw: st.DrawFn) -> str:
    """A URL with a password somewhere, escaped or not; or several of them."""
    made = []
    for _ in range(draw(st.integers(1, 3))):
        scheme, password = draw(SCHEMES), draw(PASSWORDS)
        written = draw(st.sampled_from([password, quote(password, safe=""), quote(password)]))
        end, place, user = draw(ENDS), draw(PLACES), draw(USERS)
        name = draw(st.sampled_from(["password", "pass%77ord", "PASSWORD", "ssl_password", "auth", ""]))
        made.append(
            draw(
                st.sampled_from(
                    [
                        f"{scheme}://{user}:{written}@{place}{end}",
                        f"{scheme}://{written}@{place}{end}",
                        f"{scheme}://{written}:@{place}{end}",
                        f"{scheme}://:{written}{end}",
                        f"{scheme}://{place}/0?{name}={written}",
                        f"{scheme}://{place}/0?{name}={written}&db=0",
                        f"{scheme}://{place},{place}/0?master_name=m&sentinel_password={written}",
                        f"{scheme}://{place}/0?db=0&{written}",
                        f"{scheme}://{user}:x@{place}{end}#{written}",
                        f"{user}:{written}@{place}",
                        f"{scheme}:/{user}:{written}@{place}",
                        f":{written}",
                    ]
                )
            )
        )
    return draw(st.sampled_from([";", ",", "; ", " "])).join(made)


@given(urls())
def test_no_form_of_a_url_shows_its_password(url: str) -> None:
    """The URL as it is shown, and the error about it, have no password in them, however the URL is written."""
    said = without_password(url)
    try:
        made = RedisUrl.parse(url)
        said += repr(made) + without_password(str(made))
    except SettingError as error:
        said += "".join(traceback.format_exception(error))
    assert SECRET not in said


@given(user=USERS, password=PASSWORDS, database=st.integers(0, 99), host=st.sampled_from(["box", "127.0.0.1", "::1"]))
def test_every_client_reads_the_same(user: str, password: str, database: int, host: str) -> None:
    """What redis-py, kombu and Celery's result backend read out of a URL is what was put in, whatever the password."""
    url = RedisUrl(user=user, password=password, database=database, host=host, port=7777)
    text = str(url)
    assert RedisUrl.parse(text) == url
    wanted = {"host": host, "port": 7777, "password": password}
    read = redis.ConnectionPool.from_url(text).connection_kwargs
    assert {name: read[name] for name in wanted} == wanted
    assert (read["db"], read.get("username") or "") == (database, user)
    with Connection(text) as connection:
        assert (
            connection.info() | {"hostname": host, **{name: wanted[name] for name in ("port", "password")}}
            == connection.info()
        )
        assert (connection.virtual_host, connection.userid or "") == (str(database), user)
        assert SECRET not in connection.as_uri()
    backend = RedisBackend._params_from_url(_Bare(), text, {})
    assert (backend["host"], backend["port"], backend["password"], backend["db"]) == (host, 7777, password, database)


class _Bare:
    """All that Celery's reading of a URL needs of a backend."""

    redis = redis


@pytest.mark.parametrize(
    ("url", "made"),
    [
        ("redis://", "redis://localhost:6379/0"),
        ("REDIS://Box/3/", "redis://box:6379/3"),
        ("redis://box?db=3", "redis://box:6379/3"),
        ("redis://box/3?db=3", "redis://box:6379/3"),
        ("redis://box/0?password=a%2Fb&username=me", "redis://me:a%2Fb@box:6379/0"),
        ("redis://:a;b@box", "redis://:a%3Bb@box:6379/0"),
        ("redis://:a@b:c@box", "redis://:a%40b%3Ac@box:6379/0"),
        ("redis://:50%off@box", "redis://:50%25off@box:6379/0"),
        ("redis://:p[s@box", "redis://:p%5Bs@box:6379/0"),
        ("redis://me@box", "redis://me@box:6379/0"),
        ("redis://[::1]:1/0", "redis://[::1]:1/0"),
        ("rediss://box", "rediss://box:6379/0?ssl_cert_reqs=required"),
        (
            "rediss://box/0?ssl_ca_certs=/a.pem&ssl_cert_reqs=CERT_NONE",
            "rediss://box:6379/0?ssl_cert_reqs=none&ssl_ca_certs=/a.pem",
        ),
        ("unix://:p@/run/s?db=2", "unix://:p@/run/s?db=2"),
        ("sentinel://a", "sentinel://a:26379/0?master_name=mymaster"),
        ("redis+sentinel://u:p@A:1,b/2?master_name=m", "sentinel://u:p@a:1,b:26379/2?master_name=m"),
        ("sentinel://:p@a:1/0;sentinel://:p@b:2/0", "sentinel://:p@a:1,b:2/0?master_name=mymaster"),
        (
            "rediss+sentinel://a,[::1]:2/0?sentinel_username=u&sentinel_password=s%2F",
            (
                "rediss+sentinel://a:26379,[::1]:2/0"
                "?master_name=mymaster&sentinel_username=u&sentinel_password=s%2F&ssl_cert_reqs=required"
            ),
        ),
    ],
)
def test_what_a_url_may_be(url: str, made: str) -> None:
    """Every usual form becomes one that all clients read the same, and that reads as itself."""
    assert str(RedisUrl.parse(url)) == made
    assert str(RedisUrl.parse(made)) == made


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://:p/s@box:1/0", "percent-encode the characters / ? #"),
        ("redis://:p?s@box:1/0", "percent-encode"),
        ("redis://:p#s@box:1/0", "percent-encode"),
        ("redis://:p s@box:1/0", "percent-encode"),
        ("redis://box:port/0", "HOST:PORT is not valid"),
        ("redis://box:70000/0", "the port is not between 1 and 65535"),
        ("redis://:6379/0", "there is no host before the port; write redis://localhost"),
        ("redis://box/shop", "the database is not a number; end the URL with the number of a database, as in /0"),
        ("redis://box/0/1", "the database is not a number"),
        ("redis://box/0?db=1", "there are two databases; leave one out"),
        ("redis://:a@box/0?password=b", "there are two passwords; leave one out"),
        (
            "redis://a/0;redis://b/0",
            "several servers are named, and queues, results and journals must be on one: name one",
        ),
        ("redis://a:1,b:2/0", "HOST:PORT is not valid"),
        ("sentinel://a:1/0;sentinel://:p@b:1/0", "several servers are named"),
        ("sentinel://a:1/0;redis://b:1/0", "several servers are named"),
        ("sentinel://a:port/0", "HOST:PORT is not valid"),
        ("sentinel://a/0?ssl_cert_reqs=none", "ssl_cert_reqs is for TLS; write rediss+sentinel://"),
        ("valkey-sentinel://a/0", "write redis://"),
        ("sentinels://a/0", "not a URL of Redis"),
        ("redis://a/0?master_name=x", "the parameter master_name cannot be set there"),
        ("redis+cluster://a/0", "Redis Cluster is not supported"),
        ("rediss-cluster://a/0", "Redis Cluster is not supported"),
        ("valkey://a/0", "write redis://"),
        ("amqp://a//", "not a URL of Redis"),
        ("localhost:6379", "not a URL; write redis://USER:PASSWORD@HOST:6379/0"),
        ("", "not a URL"),
        ("redis://box/0?ssl_cert_reqs=none", "ssl_cert_reqs is for TLS; write rediss://"),
        ("rediss://box/0?ssl_cert_reqs=maybe", "ssl_cert_reqs is not valid; write CERT_REQUIRED"),
        ("redis://box/0?shop=1", "an unknown parameter cannot be set there"),
        ("redis://box/0?virtual_host=1", "virtual_host is for sockets"),
        ("unix://box/run/s", "no path of a socket"),
        ("unix:///", "no path of a socket"),
    ],
)
def test_what_a_url_may_not_be(url: str, reason: str) -> None:
    """Everything else is an error that names the setting and says what to do."""
    with pytest.raises(SettingError, match=r"^REDIS_URL='") as caught:
        RedisUrl.parse(url)
    assert reason in str(caught.value)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_nothing_that_the_code_relies_on_comes_from_a_query(name: str) -> None:
    """A parameter that a client would take from the URL, and beat this project's own with, is refused by its name."""
    with pytest.raises(SettingError, match=f"the parameter {name} cannot be set there; leave it out"):
        RedisUrl.parse(f"rediss://box/0?{name}=1")


def test_every_parameter_of_the_clients_is_known() -> None:
    """An error can name every parameter that this version of redis-py reads out of a query."""
    from redis.connection import URL_QUERY_ARGUMENT_PARSERS

    assert set(URL_QUERY_ARGUMENT_PARSERS) <= KNOWN | {"db"}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h/0", "redis://h/0"),
        ("redis://:p@h:1/0", "redis://:***@h:1/0"),
        ("redis://me:p@h:1/0", "redis://me:***@h:1/0"),
        ("redis://me@h:1/0", "redis://***@h:1/0"),
        ("redis://:@h:1/0", "redis://:@h:1/0"),
        ("redis://h/0?password=p&db=1", "redis://h/0?password=***&db=1"),
        ("redis://h/0?db=p", "redis://h/0?db=***"),
        ("redis://h/0?socket_timeout=5", "redis://h/0?socket_timeout=***"),
        ("redis://:p/q@h:1/0", "redis://***"),
        ("redis://[::1", "redis://***"),
        ("sentinel://:p@a:1;sentinel://:p@b:2", "sentinel://:***@a:1; sentinel://:***@b:2"),
        (
            "sentinel://:p@a:1,b:2/0?master_name=m&sentinel_password=s",
            "sentinel://:***@a:1,b:2/0?master_name=m&sentinel_password=***",
        ),
        ("unix:///run/s", "unix:///run/s"),
        ("localhost:6379", "localhost:6379"),
        ("me:p@h", "***"),
    ],
)
def test_what_is_shown(url: str, shown: str) -> None:
    """The parts of a URL that are not secret stay readable."""
    assert without_password(url) == shown


def test_the_setting(tmp_path: Any) -> None:
    """The setting is the URL as all clients read it; an error names the variable, or the line of the file."""
    assert read_settings({"REDIS_URL": "redis://box?password=a/b"}).redis_url == "redis://:a%2Fb@box:6379/0"
    with pytest.raises(SettingError, match=r"^REDIS_URL='redis://box/0\?protocol=\*\*\*': the parameter protocol"):
        read_settings({"REDIS_URL": "redis://box/0?protocol=3"})
    file = tmp_path / "settings.toml"
    file.write_text('redis_url = "unix://:s3cret@/run/redis.sock"')
    with pytest.raises(
        SettingError, match=r"^redis_url \(.*\)='unix://:\*\*\*@/run/redis.sock': sockets by path are not"
    ):
        read_settings({"CELERY_MLX_CONFIG": os.fspath(file)})


def test_settings_are_written_without_the_password() -> None:
    """Settings in a log or a traceback have no password in them."""
    assert SECRET not in repr(Settings(redis_url=f"redis://:{SECRET}@box"))
