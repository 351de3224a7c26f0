"""A prompt as the model reads it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tasks.engine.failure import first_line
from tasks.engine.text import rendering
from tasks.engine.text.control import unwrapped
from tasks.engine.text.length import LONG_CHARACTERS, FewestTokens, tokens_left
from tasks.engine.text.template import Options, joined_parts
from tasks.errors import GenerationError, InvalidRequest

if TYPE_CHECKING:
    from mlx_lm.tokenizer_utils import TokenizerWrapper

    from tasks.engine.text.control import ControlTokens
    from tasks.engine.text.template import ChatTemplate
    from tasks.messages.engine import Submit

#: As much of a rendered chat as a template may put behind the last message.
TAIL_CHARACTERS = 512
_LAST_WORD = re.compile(r"\S*\s*\Z")


@dataclass(slots=True, frozen=True)
class Prompt:
    """A tokenised prompt.

    ``tail`` is how its text ends: a chat template may have begun the answer, with a thought. ``rendering`` says what the
    template wrote, for an attempt that resumes this one.
    """

    ids: list[int]
    tail: str = ""
    rendering: str = ""


class PromptEncoder:
    """Makes the prompts of one model's requests. Any thread may call it.

    Args:
        tokenizer: the model's.
        template: its chat template.
        control: its control tokens.
        context_tokens: the most tokens of a prompt and its answer together.
    """

    def __init__(
        self, tokenizer: TokenizerWrapper, template: ChatTemplate, control: ControlTokens, context_tokens: int
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._control = control
        self._context_tokens = context_tokens
        self._fewest_tokens = FewestTokens(tokenizer)

    def encode(self, submit: Submit) -> Prompt:
        """The request's prompt, with the chat template applied to messages.

        Raises:
            InvalidRequest: the model cannot take it.
            ContextExceeded: its length alone says that it does not fit the context.
        """
        try:
            if submit.prompt is not None:
                self._check_length(submit, submit.prompt)
                return Prompt(self._raw_ids(submit.prompt), raw_tail(submit.prompt))
            return self._chat(submit)
        except GenerationError:
            raise
        except (TypeError, ValueError, OverflowError) as error:
            field = "messages" if submit.prompt is None else "prompt"
            raise InvalidRequest(f"{field}: cannot be tokenised: {first_line(error)}") from error

    def _raw_ids(self, prompt: str) -> list[int]:
        """The ids of a raw prompt. One that begins with the first token already, as a rendered chat does, gets no second.

        The tokenizer's end token does not go behind it: the answer goes on from the prompt.
        """
        before, behind = self._around
        first = before or str(self._tokenizer.bos_token or "")
        is_begun = bool(first) and prompt.startswith(first)
        ids = list(self._tokenizer.encode(prompt, add_special_tokens=not is_begun))
        return ids if is_begun or not behind else ids[:-behind]

    @cached_property
    def _around(self) -> tuple[str, int]:
        """The text of what the tokenizer puts before a text, and how many end tokens it puts behind one.

        Before it is one token as a rule, two with GLM, and not always ``bos_token``. Behind it is one where the files are as a
        training left them (``"add_eos_token": true``), or where they are BERT's.
        """
        tokenizer: Any = self._tokenizer
        bare, ids = (list(tokenizer.encode("a", add_special_tokens=adds)) for adds in (False, True))
        starts = range(len(ids) - len(bare), -1, -1)
        start = next((start for start in starts if ids[start : start + len(bare)] == bare), None)
        if start is None:
            return "", 0
        before, behind = ids[:start], ids[start + len(bare) :]
        ends = {*tokenizer.eos_token_ids, getattr(tokenizer, "sep_token_id", None)}
        return "".join(map(str, tokenizer.convert_ids_to_tokens(before))), len(behind) if ends.issuperset(behind) else 0

    def _chat(self, submit: Submit) -> Prompt:
        messages, wrapping = [joined_parts(message) for message in submit.messages or ()], None
        tools = [function.for_template() for function in submit.tools.functions] if submit.tools is not None else []
        if not submit.allow_control_tokens:
            told, wrapping = self._control.wrap([*messages, *tools])
            messages, tools = told[: len(messages)], told[len(messages) :]
        # As most templates have it: tools are behind the instructions.
        words = list(rendering.words_of([*messages[:1], *tools, *messages[1:]]))
        text = rendering.read(submit.resume.rendering, words) if submit.resume is not None else None
        if text is None:
            options = Options(submit.chat_template_kwargs, submit.reasoning_effort, tools)
            text = self._template.render(messages, options)
            text = text if wrapping is None else wrapping.unescaped(text)
        self._check_length(submit, text, sum(map(text.count, wrapping or ())))
        written, tail = rendering.write(text, words), text[-TAIL_CHARACTERS:]
        if wrapping is not None:
            return Prompt(self._control.encode(text, wrapping), unwrapped(tail, wrapping), written)
        return Prompt(list(self._tokenizer.encode(text, add_special_tokens=False)), tail, written)

    def _check_length(self, submit: Submit, text: str, ignored: int = 0) -> None:
        if len(text) > LONG_CHARACTERS:  # a shorter one is soon tokenised, and its error has the exact count
            fewest = self._fewest_tokens(text, ignored)
            tokens_left(fewest, submit.max_tokens, self._context_tokens, at_least=True)


def raw_tail(prompt: str) -> str:
    """The tail of a prompt that is no chat: a marker that is not at its very end is what the text is about."""
    match = _LAST_WORD.search(prompt[-TAIL_CHARACTERS:])
    return match[0] if match else ""
