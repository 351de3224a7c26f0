"""The way one model writes answers: the markers of its thoughts, and its syntax for calls of functions."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tasks.engine.answers.assembler import TextAssembler
from tasks.engine.constraint.lead import lead_of
from tasks.engine.text.control import added_tokens, special_tokens
from tasks.engine.text.formats import find_format
from tasks.engine.tools.form import find_form
from tasks.engine.tools.functions import Functions
from tasks.engine.tools.grammar import check_parameters, constraint_of, header_calls, unchecked
from tasks.engine.tools.splitter import Splitter
from tasks.errors import InvalidRequest

if TYPE_CHECKING:
    from mlx_lm.tokenizer_utils import TokenizerWrapper

    from tasks.engine.constraint.compiler import Compiler
    from tasks.engine.constraint.grammar import Grammar
    from tasks.engine.text.prompt import Prompt
    from tasks.messages.engine import Submit
    from tasks.messages.tools import Tools

logger = logging.getLogger(__name__)


class Answers:
    """Makes the text assemblers of one model's requests. Any thread may call it.

    Args:
        tokenizer: the model's.
        source: its chat template's text.
        stops: texts that end every answer.
    """

    def __init__(self, tokenizer: TokenizerWrapper, source: str, stops: tuple[str, ...] = ()) -> None:
        self.tokenizer = tokenizer
        self._authors_stops = stops
        self.format = find_format(added_tokens(tokenizer), source)
        kind = tokenizer.init_kwargs.get("tool_parser_type")
        self.calls = find_form(kind, special_tokens(tokenizer), self.format.names)

    @property
    def marks(self) -> dict[int, str]:
        """Characters for the tokens that mark a part of an answer, by the tokens' ids."""
        return {**self.format.marks, **(self.calls.marks if self.calls is not None else {})}

    def grammar(self, submit: Submit, prompt: Prompt, compiler: Compiler) -> Grammar | None:
        """The grammar of a request's answer; ``None`` where all may be answered.

        Raises:
            InvalidRequest: a strict constraint cannot be enforced.
        """
        tools = submit.tools
        if tools is not None and self.calls is not None:
            Functions(tools)  # says what is wrong with a schema by its place in the request
            check_parameters(tools)
            return self._with_calls(submit, tools, prompt, compiler)
        if not submit.is_bounded:
            return None
        return compiler.compile(submit.constraint, lead_of(self.format, prompt.tail, submit.thinking_budget))

    def _with_calls(self, submit: Submit, tools: Tools, prompt: Prompt, compiler: Compiler) -> Grammar | None:
        """The grammar of an answer with tools, if there is one: calls are checked in any case."""
        insists = any(function.strict for function in tools.functions)
        try:
            found = self._calling(submit, tools, prompt, compiler, checked=True)
        except InvalidRequest as error:
            if insists:
                raise
            logger.info("request %s: its calls are checked, and not constrained: %s", submit.task_id, error)
            found = None
        if found is not None or not (submit.is_bounded or tools.choice == "required"):
            return found
        try:
            return self._calling(submit, tools, prompt, compiler, checked=False)
        except InvalidRequest:
            if submit.is_bounded:
                raise
            return None

    def _calling(
        self, submit: Submit, tools: Tools, prompt: Prompt, compiler: Compiler, *, checked: bool
    ) -> Grammar | None:
        """Return the grammar of calls, constrained if they are ``checked``, and of the other answers that the request allows."""
        assert self.calls is not None
        budget, otherwise = submit.thinking_budget, submit.constraint
        if self.calls.syntax.name == "harmony":
            lead = lead_of(self.format, prompt.tail, budget, header_calls(tools, checked=checked))
            return compiler.compile(otherwise, lead) if lead.calls is not None else None
        make = constraint_of if checked else unchecked
        found = make(self.calls, tools, compiler.tokens.term, otherwise=otherwise is not None)
        if found is None:
            return None
        return compiler.compile(found, lead_of(self.format, prompt.tail, budget), otherwise)

    def assembler(self, submit: Submit, prompt: Prompt, grammar: Grammar | None) -> TextAssembler:
        """A new text assembler.

        Raises:
            InvalidRequest: it has tools, and how the model writes calls is not known.
        """
        splitter = self._splitter(submit, grammar)
        return TextAssembler(self.tokenizer, (*submit.stop, *self._authors_stops), self.format, prompt.tail, splitter)

    def _splitter(self, submit: Submit, grammar: Grammar | None) -> Splitter | None:
        if submit.tools is None:
            return None
        if self.calls is None:
            raise InvalidRequest(
                "tools: how this model writes calls is not known; leave tools out, or describe the functions in a message and "
                "read the answer's text"
            )
        sound = grammar is not None and grammar.sound_calls
        return Splitter(self.calls, Functions(submit.tools), sound=sound, either=submit.constraint is not None)
