"""The markers of each family's thoughts, and the channels of an answer that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from tasks.engine.text.channels import OneChannel
from tasks.engine.text.headers import HeaderMarks, Headers
from tasks.engine.text.thoughts import Delimiters, Thoughts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tasks.engine.text.channels import Channels

    #: From the end of a prompt, stop strings and the marks of calls to the channels of one answer.
    MakeChannels: TypeAlias = Callable[[str, frozenset[str], Mapping[str, str]], Channels]

#: Markers of thoughts, each a token of its own. The first three are what mlx-lm looks for.
TOKENS = (
    ("<think>", "</think>"),
    ("<longcat_think>", "</longcat_think>"),
    ("<|think:start|>", "<|think:end|>"),
    ("<thought>", "</thought>"),  # EXAONE
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),  # Magistral
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Cohere
    ("<mm:think>", "</mm:think>"),  # MiniMax M3, which has <think> too
    # K2 (LLM360), by reasoning_effort
    *(
        (f"<{name}>", f"</{name}>")
        for name in ("think_fast", "think_faster", "ifm|think", "ifm|think_fast", "ifm|think_faster")
    ),
    ("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    ("◁think▷", "◁/think▷"),  # Kimi
    ("<reasoning>", "</reasoning>"),
    ("<thinking>", "</thinking>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),  # OpenThinker, Sky-T1
)
#: Markers that are ordinary text where the vocabulary has no tokens for them; the last are those of Granite 3.2 and Apriel.
TEXTS = (
    *TOKENS[:6],
    *TOKENS[-4:],
    ("Here is my thought process:", "Here is my response:"),
    ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
)
_SOLUTION = ("<|begin_of_solution|>", "<|end_of_solution|>")
#: Tokens around the answer behind a thought, which say nothing: ERNIE's, Hunyuan's, Cohere's, OpenThinker's.
AROUND_ANSWERS = (
    *("<response>", "</response>", "<answer>", "</answer>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    *_SOLUTION,
)
#: The same as ordinary text that the template names: Granite 3.3's, Hunyuan-A13B's, Apriel's, OpenThinker's.
AROUND_TEXTS = (("<response>", "</response>"), ("<answer>", "</answer>"), ("[END FINAL RESPONSE]",), _SOLUTION)
#: Halves of surrogate pairs, one for each marker: no decoded text has them.
_FIRST_MARK = 0xDC00


@dataclass(slots=True, frozen=True)
class Format:
    """The markers of one tokenizer.

    ``marks`` has a character for each token that is a marker or a part of one, by the token's id; ``names`` has the same by
    the token's text.
    """

    marks: Mapping[int, str]
    names: Mapping[str, str]
    make: MakeChannels

    @property
    def markers(self) -> Delimiters | HeaderMarks | None:
        """The markers that the channels look for; ``None`` where nothing is marked."""
        return self.make.args[0] if isinstance(self.make, partial) else None

    def channels(self, tail: str = "", stop: tuple[str, ...] = (), calls: Mapping[str, str] | None = None) -> Channels:
        """The channels of one answer.

        Args:
            tail: how the prompt ends, with markers as the chat template wrote them.
            stop: stop strings of the request. One that is a marker ends the answer there.
            calls: characters that mark calls of functions, which are left in the content, by their tokens' names.
        """
        for name, mark in self.names.items():
            tail = tail.replace(name, mark)
        return self.make(tail, frozenset(self.names.get(text, text) for text in stop), calls or {})


def find_format(added: Mapping[str, int], template: str) -> Format:
    """The format of a model.

    Args:
        added: the ids of the vocabulary's added tokens, by their text.
        template: the chat template's source, which names the markers that are no tokens; empty where there is none.
    """
    found = _of_tokens(added)
    if found is not None:
        return found
    # A template may open a thought and never write its end, or cut thoughts off behind their end.
    texts = [pair for pair in TEXTS if any(marker in template for marker in pair)]
    if not texts:
        return Format({}, {}, lambda _tail, _stop, _calls: OneChannel())
    opens, closes = zip(*texts, strict=True)
    around = [text for texts in AROUND_TEXTS if all(text in template for text in texts) for text in texts]
    return Format({}, {}, partial(Thoughts, Delimiters(opens, closes, tuple(around))))


def _of_tokens(added: Mapping[str, int]) -> Format | None:
    """The format whose markers are tokens of this vocabulary."""
    names: tuple[str, ...]
    for family in _FAMILIES:
        if all(name in added for name in family.needed):
            names, make = (*family.needed, *family.further), family.make
            break
    else:
        pairs = [pair for pair in TOKENS if all(name in added for name in pair)]
        if not pairs:
            return None
        names, make = (*(name for pair in pairs for name in pair), *AROUND_ANSWERS), partial(_pairs, pairs)
    here = [name for name in names if name in added]
    marks = {name: chr(_FIRST_MARK + number) for number, name in enumerate(here)}
    return Format({added[name]: mark for name, mark in marks.items()}, marks, make(marks))


def _pairs(pairs: Sequence[tuple[str, str]], marks: Mapping[str, str]) -> MakeChannels:
    """One marker opens a thought and one closes it."""
    opens, closes = zip(*((marks[first], marks[last]) for first, last in pairs), strict=True)
    around = tuple(marks[name] for name in AROUND_ANSWERS if name in marks)
    return partial(Thoughts, Delimiters(opens, closes, around, "".join(marks.values())))


def _harmony(marks: Mapping[str, str]) -> MakeChannels:
    start, channel, message, *others = marks.values()
    constrain = marks.get("<|constrain|>", "")
    ends = "".join(others).replace(constrain, "")
    return partial(Headers, HeaderMarks(start, message, ends, channel, constrain))


def _muse(marks: Mapping[str, str]) -> MakeChannels:
    start, message, *ends = marks.values()
    return partial(Headers, HeaderMarks(start, message, "".join(ends)))


def _xtml(marks: Mapping[str, str]) -> MakeChannels:
    begin, end, sep, _ = marks.values()
    silent = (f"{begin}response{sep}", f"{end}response{sep}", f"{end}message{sep}")
    return partial(
        Thoughts, Delimiters((f"{begin}think{sep}",), (f"{end}think{sep}",), silent, "".join(marks.values()))
    )


def _solar(marks: Mapping[str, str]) -> MakeChannels:
    begin, think, end, answer = marks.values()
    header = f"{begin}assistant"
    return partial(
        Thoughts,
        Delimiters((think, f"{header}{think}"), (end,), (answer, f"{header}{answer}"), "".join(marks.values())),
    )


def _gemma(marks: Mapping[str, str]) -> MakeChannels:
    begin, end = marks.values()
    return partial(Thoughts, Delimiters((f"{begin}thought",), (end,), (), begin + end))


@dataclass(slots=True, frozen=True)
class _Family:
    """A family whose markers are more than a pair of tokens.

    ``needed`` are the tokens by which it is known, ``further`` those that it may have; ``make`` gets the marks of all that the
    vocabulary has, in this order.
    """

    needed: tuple[str, ...]
    make: Callable[[Mapping[str, str]], MakeChannels]
    further: tuple[str, ...] = ()


#: The first one that fits counts: some have the tokens of another one, and more.
_FAMILIES = (
    _Family(
        ("<|start|>", "<|channel|>", "<|message|>", "<|end|>"), _harmony, ("<|constrain|>", "<|call|>", "<|return|>")
    ),
    _Family(("<|start|>", "<|message|>", "<|eom|>", "<|eot|>"), _muse),
    _Family(("<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>"), _xtml),  # Kimi K3
    _Family(("<|begin|>", "<|think|>", "<|end|>", "<|content|>"), _solar),  # Solar Open
    _Family(("<|channel>", "<channel|>"), _gemma),
)
