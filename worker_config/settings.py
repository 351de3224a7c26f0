"""The project's settings: one frozen record, read once from the environment or a file it names.

The environment beats the file, the file beats the default; a command-line option beats all three. A setting ``name`` is
the variable ``CELERY_MLX_NAME``; the file is TOML with the plain names, and ``CELERY_MLX_CONFIG`` says where it is.
``REDIS_URL`` keeps its usual name; ``HF_HOME``, ``HF_TOKEN``, ``HF_ENDPOINT`` and ``HF_HUB_OFFLINE`` are read by huggingface_hub.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker_config.environment import Environment, SettingError
from worker_config.redis_url import RedisUrl, without_password

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "CELERY_MLX_"
#: Variables with a password of Redis in them, which a process that speaks to no Redis has no use for.
REDIS_VARIABLES = frozenset(
    {
        "REDIS_URL",
        "CELERY_BROKER_URL",
        "CELERY_BROKER_READ_URL",
        "CELERY_BROKER_WRITE_URL",
        "CELERY_RESULT_BACKEND",
    }
)


def setting(
    default: Any, about: str, *, env: str | None = None, at_least: float | None = None, secret: bool = False
) -> Any:
    """A dataclass field with its documentation, variable name and lower bound; ``repr`` leaves out a ``secret`` one."""
    return field(default=default, repr=not secret, metadata={"about": about, "env": env, "at_least": at_least})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting, with its unit in its name. The configuration reference is generated from this class."""

    redis_url: str = setting(
        "redis://localhost:6379/0",
        "Redis or Valkey: broker, results, journals and registry.",
        env="REDIS_URL",
        secret=True,
    )
    redis_server: str = setting(
        "", "The server program of the demo's and the tests' private Redis; empty means find one.", env="REDIS_SERVER"
    )
    cache: str = setting(
        "", "The folder of the bundled model; empty means celery-mlx in the platform's folder for caches."
    )
    default_model: str = setting(
        "smollm2-135m", "The model of a request that names none; the producer's own setting counts."
    )
    catalogue: str = setting("", "A model catalogue (TOML) that is read after, and wins over, the built-in one.")
    allow_fake: bool = setting(False, "Allow models called fake:STEP_MS, which compute nothing. For tests.")
    show_prompts: bool = setting(False, "Show prompts in events, logs and Flower instead of their lengths.")
    log_json: bool = setting(False, "Write the log as one JSON object a line.")

    redis_timeout_s: float = setting(
        5.0,
        "A reply of Redis that has not come by then is given up with its connection; a call is tried once more on a new one.",
        at_least=0.1,
    )
    redis_patience_s: float = setting(
        75.0,
        "How long get() and stream() wait for a Redis that they lost, before they raise BrokerUnavailable; 0 means for ever.",
        at_least=0,
    )
    unknown_after_s: float = setting(
        5.0,
        "How long get() and stream() look for an unknown id, before they raise UnknownRequest; 0 means for ever.",
        at_least=0,
    )
    result_ttl_s: int = setting(86_400, "How long Celery results are kept.", at_least=1)
    journal_ttl_s: int = setting(3_600, "How long a journal is kept after its request has ended.", at_least=1)

    models: tuple[str, ...] = setting((), "Models to load at start and to keep loaded.")
    keep_alive_s: float = setting(600.0, "An engine that was idle for so long is ended; 0 means never.", at_least=0)
    load_timeout_s: float = setting(600.0, "A model that is not loaded by then has failed to load.", at_least=1)
    try_each_load: bool = setting(
        False, "Try a model out at every load, also where an earlier load of the same on this machine has done so."
    )
    fair_wait_s: float = setting(
        30.0,
        "A request whose model is not loaded waits at most so long before models with work have to make room for it.",
        at_least=0,
    )
    download_timeout_s: float = setting(
        14_400.0,
        "A model that is not fetched from the hub by then has failed to load; the fetched part is kept.",
        at_least=1,
    )
    download_stall_s: float = setting(
        60.0, "A download that receives nothing for so long has failed; the fetched part is kept.", at_least=1
    )
    stall_timeout_s: float = setting(
        120.0, "An engine with work that makes no step for so long is replaced.", at_least=1
    )
    prefill_step_tokens: int = setting(256, "The most prompt tokens that one engine step prefills.", at_least=1)
    max_batch: int = setting(0, "Requests in one engine's batch; 0 means as many as the worker has slots.", at_least=0)
    prompt_cache_bytes: int = setting(
        0, "Bytes for cached prompts in each engine; 0 means a tenth of the budget.", at_least=0
    )

    heartbeat_s: float = setting(5.0, "Interval of a worker's heartbeat.", at_least=0.005)
    dead_after_s: float = setting(15.0, "A worker that was silent for so long is dead.", at_least=0.5)
    sweep_s: float = setting(0.5, "Interval of the sweep for dead workers.", at_least=0.05)
    drain_timeout_s: float = setting(
        300.0, "How long a worker that was told to stop lets its requests run.", at_least=0
    )

    starved_after_s: float = setting(
        30.0,
        "A worker that has room, and receives nothing of a queue with requests for so long, ends with status 75; 0 means never.",
        at_least=0,
    )

    batch_share: float = setting(
        0.125,
        "The share of a worker's slots that batch work (priority 9) keeps, however many urgent requests wait. From the others it "
        "is preempted, and continues later. 1 means never.",
        at_least=0,
    )

    one_core: bool = setting(
        True,
        "Linux: a worker keeps its own threads, of which Python runs one at a time, on one core. Its engines use all of them.",
    )
    affinity: bool = setting(
        True,
        "Requests whose prompts begin alike go to the worker that has computed that beginning, if it takes them soon.",
    )
    affinity_wait_s: float = setting(
        2.0,
        "The longest that a request waits for that worker; half the time of computing the beginning again, at most.",
        at_least=0,
    )

    queue_per_slot: int = setting(
        100,
        "Requests that may wait in a tier's queue for each slot that serves it; above it delay() refuses.",
        at_least=1,
    )
    queue_floor: int = setting(
        1_000, "Requests that may wait in a tier's queue however few slots serve it.", at_least=1
    )

    gateway_wait_s: float = setting(
        540.0,
        "How long a client of the gateway waits without a stream. OpenAI's SDKs send a request again after 600 s.",
        at_least=1,
    )
    gateway_grace_s: float = setting(
        3.0,
        "A streamed answer whose client has left is cancelled after so long, unless the client has continued it.",
        at_least=0,
    )
    gateway_stall_s: float = setting(
        60.0,
        "How long a client of the gateway may stall: with a request's head, with the next part of its body, or with reading.",
        at_least=0.1,
    )
    gateway_files: str = setting(
        "",
        "The folder of files and batches, the same for all gateways; empty means celery-mlx/gateway in the user's data folder.",
    )
    gateway_file_mib: int = setting(200, "The largest file that the gateway takes (MiB).", at_least=1)
    gateway_files_mib: int = setting(10_240, "All files of the gateway together (MiB).", at_least=1)
    gateway_file_ttl_s: int = setting(2_592_000, "How long files and batches are kept.", at_least=60)
    gateway_batch_lease_s: int = setting(
        15, "A batch whose gateway was silent for so long continues at another one.", at_least=1
    )

    chip: str = setting("", "Overrides the detected chip, as in 'Apple M2 Pro'. For virtual machines and simulations.")
    gpu_cores: int = setting(0, "Overrides the detected number of GPU cores; 0 means detect.", at_least=0)
    memory_gb: float = setting(0.0, "Overrides the detected memory (GiB); 0 means detect.", at_least=0)
    cuda_visible_devices: str = setting(
        "", "The NVIDIA GPUs that CUDA may use; the first of them is the worker's.", env="CUDA_VISIBLE_DEVICES"
    )

    def __json__(self) -> dict[str, Any]:
        """Return the fields that kombu writes where it shows its transport's options (``inspect stats``); this is one."""
        return {field_.name: getattr(self, field_.name) for field_ in fields(self) if field_.repr}


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Settings out of these variables and the file that ``CELERY_MLX_CONFIG`` names.

    Raises:
        SettingError: a variable or a line of the file is unknown, unreadable or out of bounds.
    """
    environment = Environment(environ)
    known = {field_.name: field_ for field_ in fields(Settings)}
    config_name = f"{PREFIX}CONFIG"
    values: dict[str, Any] = {}
    if environment.has(config_name):
        values.update(_read_file(Path(environment.text(config_name)), known))
    for name, setting in known.items():
        variable = variable_name(setting)
        if environment.has(variable):
            values[name] = _bounded(setting, _typed(environment, variable, setting), f"{variable} (environment)")
    return replace(Settings(), **values)


@cache
def current_settings() -> Settings:
    """This process's settings, read from its environment at the first call.

    Raises:
        SettingError: as :func:`read_settings`.
    """
    return read_settings(os.environ)


def child_environment(defaults: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a child process that does not use Redis: these defaults, then our own variables without Redis's URL."""
    own = {name: value for name, value in os.environ.items() if name not in REDIS_VARIABLES}
    return {**(defaults or {}), **own}


def environment_with(**changes: str) -> dict[str, str]:
    """This process's environment with some variables changed, for a process that it starts."""
    return {**os.environ, **changes}


def change_environment(**changes: str) -> None:
    """Change variables of this process and of those that it starts from now on; settings are read again."""
    os.environ.update(changes)
    current_settings.cache_clear()


def redis_was_given() -> bool:
    """Whether somebody said which Redis to use, be it the default one."""
    return Environment(os.environ).has("REDIS_URL") or current_settings().redis_url != Settings().redis_url


def variable_name(setting: Any) -> str:
    """The environment variable of a field of :class:`Settings`."""
    return str(setting.metadata["env"] or PREFIX + setting.name.upper())


def _read_file(path: Path, known: Mapping[str, Any]) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(
            f"{PREFIX}CONFIG={str(path)!r}: cannot be read ({error.strerror}); name a TOML file"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"{path}: not valid TOML: {error}") from None
    values: dict[str, Any] = {}
    for name, value in table.items():
        if name not in known:
            raise SettingError(f"{path}: unknown setting {name!r}; known are {', '.join(sorted(known))}")
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        reader = Environment({name: text}, source=str(path))
        values[name] = _bounded(known[name], _typed(reader, name, known[name]), f"{name} ({path})")
    return values


def _typed(reader: Environment, name: str, setting: Any) -> Any:
    kind = str(setting.type)
    if kind == "bool":
        return reader.flag(name)
    if kind == "int":
        return reader.integer(name)
    if kind == "float":
        return reader.number(name)
    if kind.startswith("tuple"):
        return reader.words(name)
    return reader.text(name)


def _bounded(setting: Any, value: Any, where: str) -> Any:
    if setting.name == "redis_url":
        return _redis_url(value, where)
    at_least = setting.metadata["at_least"]
    if at_least is not None and value < at_least:
        raise SettingError(f"{where} is {value}: expected at least {at_least}")
    return value


def _redis_url(text: str, where: str) -> str:
    """The URL as every client reads it."""
    name = where.removesuffix(" (environment)")
    url = RedisUrl.parse(text, name)
    if url.scheme == "unix":  # kombu has another transport for sockets
        raise SettingError(
            f"{name}={without_password(text)!r}: sockets by path are not supported; name a host, as in redis://localhost:6379/0"
        )
    return str(url)
