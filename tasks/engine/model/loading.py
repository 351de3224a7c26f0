"""The loading that all kinds of models share: folder, budget, weights, and one clear error for every failure."""

from __future__ import annotations

import hashlib
import logging
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm import utils

from tasks.engine.failure import first_line, is_panic, ran_out_of_memory
from tasks.engine.files.folder import read_folder
from tasks.engine.files.integrity import weights_bytes
from tasks.engine.files.staging import staged
from tasks.engine.model.adapter import apply_adapter, fuse_adapter
from tasks.engine.model.blas import blas_threads, describe_blas
from tasks.engine.model.corrections.activation import check_activation
from tasks.engine.model.corrections.architectures import correct
from tasks.engine.model.corrections.buffers import without_buffers
from tasks.engine.model.corrections.fractions import require_fractions
from tasks.engine.model.corrections.rotary import exact_frequencies, rotary_fields
from tasks.engine.model.corrections.tied import tied_fields
from tasks.engine.model.layout.dense import lay_out
from tasks.engine.model.layout.dequantise import dequantise
from tasks.engine.model.layout.record import Record
from tasks.engine.model.reference import Reference
from tasks.engine.model.selftest import BatchSupport, try_out
from tasks.engine.model.unloadable import why_unloadable
from tasks.errors import GenerationError, ModelLoadFailed, OutOfMemory
from worker_config.cache import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlx.nn.layers.base import Module

    from tasks.engine.files.folder import ModelFolder
    from tasks.engine.model.kept.verdicts import Verdicts
    from tasks.messages.engine import EngineConfig

logger = logging.getLogger(__name__)

#: Is told the fraction of a load that is done, or ``None``, and the current action.
Progress: TypeAlias = "Callable[[float | None, str], None]"


def open_folder(config: EngineConfig, progress: Progress) -> ModelFolder:
    """Fetch the model that the configuration names, and check its files.

    Raises:
        ModelLoadFailed: files are missing or broken.
        OutOfMemory: the weights alone are over the budget.
    """
    progress(None, f"looking for {config.source}")
    folder = read_folder(config)
    size, budget = weights_bytes(folder.path), config.memory_budget_bytes
    if budget is not None and size > budget:
        raise OutOfMemory(
            f"model {config.model!r}: its weights take {size} bytes, the memory budget is {budget} bytes; take a smaller "
            "or more strongly quantised model, or raise the budget"
        )
    progress(0.1, f"loading {folder.path.name}")
    return folder


@contextmanager
def clear_errors(folder: ModelFolder) -> Iterator[None]:
    """Turn the errors of libraries while they load into one clear error.

    Raises:
        ModelLoadFailed: files are missing or broken, or nobody knows this kind of model.
        OutOfMemory: loading ran out of memory.
    """
    try:
        yield
    except GenerationError:
        raise
    except MemoryError:
        raise OutOfMemory(f"{folder.path}: loading ran out of memory") from None
    except SystemExit as error:  # mlx-lm's code for some models ends the program where a package is missing
        raise ModelLoadFailed(
            f"{folder.path}: mlx-lm's code for {folder.config.get('model_type')!r} ended with status {error.code}, as it does "
            "where a package that it needs is not installed"
        ) from error
    except Exception as error:
        if ran_out_of_memory(error):
            raise OutOfMemory(f"{folder.path}: loading ran out of memory: {first_line(error)}") from error
        raise ModelLoadFailed(why_unloadable(folder, error)) from error
    except BaseException as error:
        if not is_panic(error):
            raise
        raise ModelLoadFailed(f"{folder.path}: its tokenizer cannot be used: {first_line(error)}") from error


def load_weights(folder: ModelFolder, config: EngineConfig, **options: Any) -> Module:
    """A model of mlx-lm with its weights in memory, with these options of :func:`mlx_lm.utils.load_model`."""
    check_activation(folder)
    model: Module
    described = _config_for_mlx_lm(folder)
    with staged(folder.path) as loadable:
        model, _ = utils.load_model(
            *(loadable, True),
            model_config=described,
            trust_remote_code=config.trust_remote_code,
            **{"get_model_classes": without_buffers, **options},
        )
        require_fractions(model, folder.path)
        exact_frequencies(model, described, folder.context_tokens)
        if folder.adapter is not None:
            apply_adapter(model, folder.adapter)
        if accelerator() == "cpu" and _fits_dense(model, config):
            # Quantised and 16-bit products are slower than dense float32 ones on a CPU (docs/performance.md).
            model = dequantise(model)
            model.set_dtype(mx.float32)
        if folder.adapter is not None:
            fuse_adapter(model)
        mx.eval(model.parameters())
    mx.clear_cache()
    return model


def _config_for_mlx_lm(folder: ModelFolder) -> dict[str, Any]:
    """``config.json`` as mlx-lm's code reads it rightly."""
    config = dict(folder.config)
    if config.get("text_config", {}) is None:
        config["text_config"] = {}  # mlx-lm's loader takes it for an object without a look
    for name in ("quantization", "quantization_config"):
        if config.get(name) == {}:
            config[name] = None
    config |= tied_fields(folder.path, config)
    return config | rotary_fields(config)


@dataclass(slots=True, frozen=True)
class Loaded:
    """A model with its weights in memory, corrected and laid out.

    Args:
        model: of mlx-lm.
        reference: its results for one row.
        why_apart: why its rows have to be computed one by one, as far as is known without a trial.
    """

    model: Module
    reference: Reference
    why_apart: str


def load_laid_out(folder: ModelFolder, config: EngineConfig, blas: str, verdicts: Verdicts | None = None) -> Loaded:
    """:func:`load_weights`, with dense weights in the layout that this machine's BLAS multiplies quickly."""
    loaded = _load_corrected(folder, config)
    if blas:
        machine = (describe_blas(blas), blas_threads(blas))
        if not lay_out(loaded.model, Record(cache_folder()), *machine, loaded.reference, verdicts):
            logger.warning("%s: mlx-lm's code fails with weights in another layout: kept as they come", folder.path)
            del loaded  # before its weights come again
            loaded = _load_corrected(folder, config)
    return loaded


def _load_corrected(folder: ModelFolder, config: EngineConfig) -> Loaded:
    model = load_weights(folder, config)
    why_apart = correct(model)
    return Loaded(model, Reference(model), why_apart)


def find_batch_support(loaded: Loaded, verdicts: Verdicts, *, warm_up: bool) -> BatchSupport:
    """Find out how a model computes rows beside each other: as an earlier load has, or by a trial.

    With ``warm_up`` it is called once in any case: a GPU compiles its kernels then, and not at the first request.
    """
    about = ("rows", loaded.why_apart, _kinds(loaded.model))
    if (known := BatchSupport.read(verdicts.find(about))) is not None:
        if warm_up:
            mx.eval(loaded.reference.logits)
        return known
    support = try_out(loaded.model, loaded.why_apart, loaded.reference)
    verdicts.keep(about, asdict(support))
    return support


def _kinds(model: Module) -> str:
    """A digest of the parameters' names, shapes and types: one folder may be computed with in several precisions."""
    arrays = cast("list[tuple[str, mx.array]]", tree_flatten(model.parameters()))
    described = "".join(f"{name} {array.shape} {array.dtype}\n" for name, array in arrays)
    return hashlib.blake2b(described.encode(), digest_size=16).hexdigest()


def _fits_dense(model: Module, config: EngineConfig) -> bool:
    dense = 4 * int(utils.get_total_parameters(model))
    budget = config.memory_budget_bytes
    if budget is None or dense <= budget:
        return True
    logger.warning(
        "%d bytes of dense weights are over the budget of %d: kept as they are, which is slower", dense, budget
    )
    return False


def bound_memory(config: EngineConfig, margin_bytes: int) -> None:
    """Have MLX keep no more freed memory than this for later, where the engine has a budget."""
    utils.maybe_set_recommended_wired_limit()
    if config.memory_budget_bytes is not None:
        mx.set_cache_limit(margin_bytes)


def accelerator() -> Literal["metal", "cuda", "cpu"]:
    """Return the device that MLX computes on."""
    if mx.default_device() == mx.Device(mx.DeviceType.cpu, 0):
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"
