"""How one model's answers are read: what marks its thoughts, and how it writes calls of functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.engine.text.assembler import TextAssembler
from tasks.engine.text.control import added_tokens, special_tokens
from tasks.engine.text.formats import find_format
from tasks.engine.tools.form import find_form
from tasks.engine.tools.functions import Functions
from tasks.engine.tools.splitter import Splitter
from tasks.errors import InvalidRequest

if TYPE_CHECKING:
    from mlx_lm.tokenizer_utils import TokenizerWrapper

    from tasks.engine.text.prompt import Prompt
    from tasks.messages.engine import Submit


class Answers:
    """Makes the text assemblers of one model's requests. Any thread may call it.

    Args:
        tokenizer: the model's.
        source: its chat template's text.
    """

    def __init__(self, tokenizer: TokenizerWrapper, source: str) -> None:
        self.tokenizer = tokenizer
        self.format = find_format(added_tokens(tokenizer), source)
        kind = tokenizer.init_kwargs.get("tool_parser_type")
        self.calls = find_form(kind, special_tokens(tokenizer), self.format.names)

    @property
    def marks(self) -> dict[int, str]:
        """Characters for the tokens that mark a part of an answer, by the tokens' ids."""
        return {**self.format.marks, **(self.calls.marks if self.calls is not None else {})}

    def assembler(self, submit: Submit, prompt: Prompt) -> TextAssembler:
        """A new text assembler.

        Raises:
            InvalidRequest: it has tools, and how the model writes calls is not known.
        """
        return TextAssembler(self.tokenizer, submit.stop, self.format, prompt.tail, self._splitter(submit))

    def _splitter(self, submit: Submit) -> Splitter | None:
        if submit.tools is None:
            return None
        if self.calls is None:
            raise InvalidRequest(
                "tools: how this model writes calls is not known; leave tools out, or describe the functions in a message and "
                "read the answer's text"
            )
        return Splitter(self.calls, Functions(submit.tools))
