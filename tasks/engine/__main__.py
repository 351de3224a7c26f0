"""``python -m tasks.engine``: an engine for the worker at the other end of ``--fd``, or one answer on the terminal."""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.engine.allocator import trim_heap
from tasks.engine.embedding.embedder import TextModel
from tasks.engine.fake import FakeRunner
from tasks.engine.fake_options import is_fake, parse_options
from tasks.engine.generation.intake import Intake, preparer
from tasks.engine.generation.loop import GenerationLoop
from tasks.engine.library import import_mlx_lm
from tasks.engine.link import Link
from tasks.engine.model.blas import load_blas
from tasks.errors import GenerationError
from tasks.messages.engine import EngineConfig, Sampling, Submit
from tasks.messages.load import LoadFailed, Loading, Ready
from tasks.messages.pipe import Pipe
from tasks.messages.protocol import protocol
from tasks.models.reranking import RerankingRecipe
from tasks.names import PACKAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tasks.engine.embedding.loop import EmbeddingLoop
    from tasks.engine.generation.runner import Facts, ModelRunner
    from tasks.messages.engine import FromEngine

logger = logging.getLogger("tasks.engine")

#: Linux's out-of-memory killer adds this file's number, -1000 to 1000, to a process's share of the memory in thousandths.
OOM_SCORE = Path("/proc/self/oom_score_adj")
OOM_SCORE_ADDED = 500
OOM_SCORE_MOST = 1000
BATCHING = {"equal": "with prompts in equal pieces", "apart": "row by row"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m {PACKAGE}.engine", description=__doc__)
    parser.add_argument("--fd", type=int, help="serve the worker at the other end of this socket")
    parser.add_argument("--protocol", default="", help="what that worker takes the records for")
    parser.add_argument("model", nargs="?", help="a model's folder or hub id, or fake:STEP_MS")
    parser.add_argument("--prompt", help="what to say to the model")
    parser.add_argument("--raw", action="store_true", help="no chat template")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--verbose", action="store_true", help="log at DEBUG")
    options = parser.parse_args(arguments)
    if options.fd is not None:
        if options.protocol != protocol():
            sys.stderr.write("ERROR this engine's code is not its worker's: the package was replaced meanwhile\n")
            return os.EX_PROTOCOL
        return serve(options.fd)
    if not options.model or options.prompt is None:
        parser.error("give a model and --prompt")
    return answer_once(options)


def answer_once(options: argparse.Namespace) -> int:
    """Load a model, print its answer as it comes, and return the exit code."""
    logging.basicConfig(level="DEBUG" if options.verbose else "WARNING", format="%(levelname)s %(message)s")
    config = EngineConfig(model=options.model, source=options.model)
    try:
        runner = load(config, lambda _: None, lambda: None)
    except GenerationError as error:
        print(f"{error.code}: {error}", file=sys.stderr)  # noqa: T201 - this is the command's answer
        return 1
    if isinstance(runner, TextModel):
        print(f"{options.model}: it makes vectors or scores of texts and says nothing", file=sys.stderr)  # noqa: T201
        return 1
    from tasks.engine.generation.terminal import answer

    submit = Submit(
        task_id="terminal",
        messages=None if options.raw else [{"role": "user", "content": options.prompt}],
        prompt=options.prompt if options.raw else None,
        max_tokens=options.max_tokens,
        sampling=Sampling(temperature=options.temperature),
    )
    return answer(runner, submit)


def serve(fd: int) -> int:
    """Load the model that the first message names and serve it until the worker goes."""
    started = time.monotonic()
    _offer_to_oom_killer()
    os.set_inheritable(fd, False)
    pipe = Pipe(socket.socket(fileno=fd), "link-writer")
    config: EngineConfig = pipe.receive()
    logging.basicConfig(level=config.log_level, stream=sys.stderr, format="%(levelname)s %(message)s")
    # A terminal's Ctrl-C and a service manager's stop reach the whole group; the worker drains, and then ends us.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    link = Link(pipe)
    intake: Intake[Any] = Intake()
    link.start(intake.receive)
    try:
        runner = load(config, link.send, link.flush)
    except GenerationError as error:
        logger.debug("loading failed", exc_info=True)
        link.send(LoadFailed(error.code, str(error)))
        link.flush()
        return 1
    facts = runner.facts
    engine = _engine(runner, config, link, intake)
    ready = _ready(config, facts, time.monotonic() - started)
    if facts.batching != "padded":
        logger.warning("%s is served %s: %s", config.model, BATCHING[facts.batching], facts.batching_why)
    # A full garbage collection over what the libraries and the model are made of would stop all streams at once.
    gc.collect()
    gc.freeze()
    trim_heap()
    link.send(ready)
    try:
        engine.run()
    except Exception:
        logger.exception("a step failed")
        link.flush()
    return 1


def _engine(
    runner: ModelRunner | TextModel, config: EngineConfig, link: Link, intake: Intake[Any]
) -> GenerationLoop | EmbeddingLoop:
    """Make the loop that steps this kind of model; its requests are tokenised from now on."""
    if isinstance(runner, TextModel):
        from tasks.engine.embedding.loop import EmbeddingLoop
        from tasks.engine.embedding.texts import prepare_texts

        intake.start(partial(prepare_texts, model=runner), link.tell)
        return EmbeddingLoop(
            runner, intake, link.send, memory_budget_bytes=config.memory_budget_bytes, flush=link.flush
        )
    intake.start(preparer(runner), link.tell)
    return GenerationLoop(
        runner,
        intake,
        link.send,
        config,
        flush=link.flush,
    )


def _offer_to_oom_killer() -> None:
    """Have Linux kill this engine before its worker, which starts another one. Other systems have no such file."""
    with contextlib.suppress(OSError, ValueError):
        score = int(OOM_SCORE.read_text()) + OOM_SCORE_ADDED
        OOM_SCORE.write_text(str(min(score, OOM_SCORE_MOST)))


def load(
    config: EngineConfig, send: Callable[[FromEngine], None], flush: Callable[[], None]
) -> ModelRunner | TextModel:
    """The model that the configuration names.

    Raises:
        ModelLoadFailed: it cannot be loaded.
        OutOfMemory: it does not fit the budget.
    """
    if is_fake(config.model):
        options = parse_options(config.model)
        if not (options.dimensions or options.ranks):
            return FakeRunner(config, flush)
        from tasks.engine.embedding.fake import FakeEmbedder, FakeReranker

        return FakeReranker(config, flush) if options.ranks else FakeEmbedder(config, flush)
    blas = load_blas()  # before MLX is imported: afterwards it has no effect
    import_mlx_lm()
    from tasks.engine.model.loading import open_folder

    def progress(fraction: float | None, about: str) -> None:
        send(Loading(fraction, about))

    folder = open_folder(config, progress)
    if isinstance(folder.recipe, RerankingRecipe):
        from tasks.engine.embedding.reranker import load_reranker

        return load_reranker(config, progress, blas, folder)
    if folder.recipe is not None:
        from tasks.engine.embedding.model import load_embedder

        return load_embedder(config, progress, blas, folder)
    from tasks.engine.model.mlx import load_model

    return load_model(config, progress, blas, folder)


def _ready(config: EngineConfig, facts: Facts, load_s: float) -> Ready:
    return Ready(
        model=config.model,
        revision=facts.revision,
        context_tokens=facts.context_tokens,
        weights_bytes=facts.weights_bytes,
        kv=facts.kv,
        accelerator=facts.accelerator,
        blas=facts.blas,
        load_s=load_s,
        pid=os.getpid(),
        batching=facts.batching,
        batching_why=facts.batching_why,
        sampling=dict(facts.sampling),
    )


if __name__ == "__main__":
    # The interpreter's own end would wait for a stuck device; nothing here needs it.
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
