"""A model of mlx-lm, loaded: its prompts, its batch, its memory. Every failure to load becomes one clear error."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import mlx.core as mx
from mlx.utils import tree_reduce

from tasks.engine.answers.answers import Answers
from tasks.engine.constraint.compiler import Compiler
from tasks.engine.constraint.tokens import Tokens
from tasks.engine.failure import first_line, ran_out_of_memory
from tasks.engine.generation.runner import Facts, Memory, OutOfDeviceMemory
from tasks.engine.model.batching.batch import Batch
from tasks.engine.model.batching.stepping import Stepping
from tasks.engine.model.kept.verdicts import Verdicts
from tasks.engine.model.loading import (
    accelerator,
    bound_memory,
    clear_errors,
    find_batch_support,
    load_laid_out,
    open_folder,
)
from tasks.engine.model.measure import measure_cache
from tasks.engine.sampling.barred import NONE_BARRED, Barred
from tasks.engine.sampling.sampler import BatchSampler, check_sampling
from tasks.engine.text.control import ControlTokens
from tasks.engine.text.detokenizer import token_text
from tasks.engine.text.prompt import Prompt, PromptEncoder
from tasks.engine.text.template import ChatTemplate
from tasks.engine.text.tokenizer import load_tokenizer
from tasks.errors import InvalidRequest
from tasks.messages.memory import margin_bytes
from worker_config.cache import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlx.nn.layers.base import Module
    from mlx_lm.tokenizer_utils import TokenizerWrapper

    from tasks.engine.answers.assembler import TextAssembler
    from tasks.engine.constraint.grammar import Grammar
    from tasks.engine.files.folder import ModelFolder
    from tasks.engine.generation.runner import Draw
    from tasks.engine.generation.sequence import Request
    from tasks.engine.model.loading import Progress
    from tasks.engine.model.selftest import BatchSupport
    from tasks.messages.engine import EngineConfig, Submit
    from tasks.models.templates import Template

Result = TypeVar("Result")

#: The least and the most of the silence that an idle engine takes for the end of a burst.
LEAST_QUIET_S, MOST_QUIET_S = 0.002, 0.01


def load_model(
    config: EngineConfig,
    progress: Progress,
    blas: str,
    folder: ModelFolder | None = None,
    adjust: Callable[[Stepping], Stepping] = lambda usual: usual,
) -> MlxRunner:
    """Load the model that the configuration names.

    Args:
        config: which model, and its bounds.
        progress: is told how far it is.
        blas: what MLX computes with.
        folder: the model's, where it has been opened.
        adjust: changes how rows are stepped, to compare one way with another.

    Raises:
        ModelLoadFailed: files are missing or broken, or mlx-lm does not know this kind of model.
        OutOfMemory: the weights alone are over the budget.
    """
    folder = folder or open_folder(config, progress)
    # The weights keep one core busy, and its tokenizer another.
    with clear_errors(folder), ThreadPoolExecutor(1, "tokenizer") as aside:
        tokenizer = aside.submit(
            load_tokenizer,
            folder.path,
            trust_remote_code=config.trust_remote_code,
            ends=folder.generation.ends,
            template=_text(folder.template) or None,
            tool_template=_text(folder.tool_template),
        )
        verdicts = Verdicts(None if config.try_each_load else cache_folder(), folder, blas)
        loaded = load_laid_out(folder, config, blas, verdicts)
        tokenizer.result()
        progress(0.9, "trying it out")
        on_gpu = accelerator() != "cpu"
        support = find_batch_support(loaded, verdicts, warm_up=on_gpu)
        stepping = adjust(Stepping.of(support, on_gpu=on_gpu, drafts=config.drafts))
        return MlxRunner(config, loaded.model, tokenizer.result(), folder, blas, support, stepping)


class MlxRunner:
    """A model of mlx-lm behind the engine's loop."""

    def __init__(
        self,
        config: EngineConfig,
        model: Module,
        tokenizer: TokenizerWrapper,
        folder: ModelFolder,
        blas: str,
        support: BatchSupport,
        stepping: Stepping,
    ) -> None:
        template = ChatTemplate(
            *(tokenizer, _text(folder.template), folder.templates.none_for_messages), _text(folder.tool_template)
        )
        self._tokenizer = tokenizer
        source = _text(folder.template) + _text(folder.tool_template)
        self._answers = Answers(tokenizer, source, folder.generation.stops)
        control = ControlTokens(tokenizer, source, self._answers.format.names)
        self._prompts = PromptEncoder(tokenizer, template, control, folder.context_tokens)
        self._vocabulary_tokens = support.vocabulary_tokens
        width, marks = support.vocabulary_tokens, self._answers.marks
        self._compiler = Compiler(lambda: Tokens(tokenizer, width, marks))
        self.facts = Facts(
            revision=folder.revision,
            context_tokens=folder.context_tokens,
            sampling=folder.generation.sampling,
            weights_bytes=tree_reduce(lambda total, array: total + array.nbytes, model.parameters(), 0),
            kv=measure_cache(model),
            prefill_step_tokens=config.prefill_step_tokens,
            accelerator=accelerator(),
            blas=blas,
            end_ids=frozenset(tokenizer.eos_token_ids),
            batching=support.batching,
            batching_why=support.why,
        )
        bound_memory(config, margin_bytes(self.facts.weights_bytes, self.facts.kv, config.prefill_step_tokens))
        self._batch: Batch = Batch(
            model,
            BatchSampler(
                self._vocabulary_tokens,
                lambda token_id: token_text(tokenizer, token_id),
                barred=_barred(folder, tokenizer, width),
                on_host=not stepping.ahead,
            ),
            stepping,
            prefill_step_tokens=config.prefill_step_tokens,
            prompt_cache_bytes=config.prompt_cache_bytes,
        )

    @property
    def gather_s(self) -> float:
        """A twentieth of a decode step, which nobody feels: a request that comes just too late waits for a whole prefill."""
        return min(max(self._batch.step_s / 20, LEAST_QUIET_S), MOST_QUIET_S)

    @property
    def prefilled_tokens(self) -> int:
        """Prompt tokens computed so far."""
        return self._batch.prefilled_tokens

    def encode(self, submit: Submit) -> Prompt:
        """The prompt, with the chat template applied to messages.

        Raises:
            InvalidRequest: the model cannot take it.
        """
        check_sampling(submit.sampling, self._vocabulary_tokens)
        prompt = self._prompts.encode(submit)
        # MLX reads whatever lies behind the embedding, where PyTorch has an error.
        if prompt.ids and (last := max(prompt.ids)) >= self._vocabulary_tokens:
            field = "messages" if submit.prompt is None else "prompt"
            raise InvalidRequest(
                f"{field}: the tokenizer has the token {token_text(self._tokenizer, last)!r} ({last}), and the model knows "
                f"{self._vocabulary_tokens} tokens; leave it out, or take the tokenizer that the model was trained with"
            )
        return prompt

    def assembler(self, submit: Submit, prompt: Prompt, grammar: Grammar | None) -> TextAssembler:
        """A new text assembler."""
        return self._answers.assembler(submit, prompt, grammar)

    def grammar(self, submit: Submit, prompt: Prompt) -> Grammar | None:
        """The compiled constraint.

        Raises:
            InvalidRequest: it cannot be enforced.
        """
        return self._answers.grammar(submit, prompt, self._compiler)

    def shares_prefill(self, request: Request) -> bool:
        """See :meth:`Batch.shares_prefill`.

        Raises:
            OutOfDeviceMemory: the batch is lost.
        """
        return _translated(lambda: self._batch.shares_prefill(request.prompt + request.ids))

    def insert(self, request: Request) -> int:
        """See :meth:`Batch.insert`.

        Raises:
            OutOfDeviceMemory: the batch is lost.
        """
        return _translated(
            lambda: self._batch.insert(
                *(request.uid, request.prompt, request.ids, request.limit, request.submit.sampling, request.grammar)
            )
        )

    def compute_alone(self, request: Request) -> Sequence[Draw]:
        """See :meth:`Batch.compute_alone`.

        Raises:
            OutOfDeviceMemory: the batch is lost.
        """
        return _translated(lambda: self._batch.compute_alone(request.uid))

    def decode(self, pause: Callable[[], None] | None = None) -> Sequence[Draw]:
        """See :meth:`Batch.decode`.

        Raises:
            OutOfDeviceMemory: the batch is lost.
        """
        return _translated(lambda: self._batch.decode(pause))

    def prefill(self, pause: Callable[[], None] | None = None) -> Sequence[Draw]:
        """See :meth:`Batch.prefill`.

        Raises:
            OutOfDeviceMemory: the batch is lost.
        """
        return _translated(lambda: self._batch.prefill(pause))

    def remove(self, uids: Sequence[int], *, keep: bool) -> None:
        """See :meth:`Batch.remove`.

        Raises:
            OutOfDeviceMemory: the batch is lost.
        """
        _translated(lambda: self._batch.remove(uids, keep=keep))

    def limit_prompt_cache(self, most_bytes: int) -> None:
        """See :meth:`Batch.limit_prompt_cache`."""
        self._batch.limit_prompt_cache(most_bytes)

    def reset(self) -> None:
        """See :meth:`Batch.reset`."""
        self._batch.reset()

    def memory(self) -> Memory:
        """MLX's own figures."""
        return Memory(mx.get_active_memory(), mx.get_cache_memory(), mx.get_peak_memory())


def _barred(folder: ModelFolder, tokenizer: TokenizerWrapper, width: int) -> Barred:
    barred = Barred(folder.generation.barred, folder.generation.barred_first).within(width)
    if barred != NONE_BARRED:
        known = [token_id for token_id in tokenizer.get_vocab().values() if token_id < width]
        barred.require_others(known, folder.path)
    return barred


def _text(template: Template | None) -> str:
    return template.text if template is not None else ""


def _translated(step: Callable[[], Result]) -> Result:
    try:
        return step()
    except (RuntimeError, MemoryError) as error:
        if ran_out_of_memory(error):
            raise OutOfDeviceMemory(first_line(error)) from error
        raise
