"""Loads a model's tokenizer, and tries whether it follows the model's own files.

mlx-lm's loader is followed here and not called: its detokenizers, which nobody here uses, refuse vocabularies with odd
entries (``<0xZZ>``), and take a second for a large one. transformers has classes for some kinds of tokenizer that put
their own rules in the place of what ``tokenizer.json`` says, whatever it says: with the class of another kind, spaces
vanish without an error. So the file is asked too, and where the two differ the file's word counts.
"""

from __future__ import annotations

import importlib
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mlx_lm import utils
from mlx_lm.tokenizer_utils import TokenizerWrapper, _infer_tool_parser

from tasks.engine.failure import first_line
from tasks.engine.files.staging import readable
from tasks.engine.text.detokenizer import streamed_text
from tasks.engine.text.spm import follow_file
from tasks.engine.text.tokenizer_fields import corrected_fields, without_empty_tokens
from tasks.errors import ModelLoadFailed
from tasks.models.reading import ModelFilesUnreadable, read_object_if_there
from tasks.models.special_tokens import CONFIG, SPECIAL_TOKENS, read_end_token

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tokenizers import Tokenizer

logger = logging.getLogger(__name__)

#: Text that tokenizers are known to lose or to change: spaces at every place, line ends, digits, apostrophes, other
#: scripts, characters of several code points, code.
PROBES = (
    "The cat sat on 2 mats.",
    " one space before",
    "two  spaces,   three, and one behind ",
    "a line\nand another\n\n\tindented",
    "A title\n\nIts text\n\n\n1.",
    "12 345 6789 3.14",
    "it's we'll DON'T",
    "Grüße, 你好 и привет",
    "👩‍👩‍👧 e\u0301 ½",
    "def f(x):\n    return {'a': [x ** 2]}\r\n",
)
#: The characters that stand for a space or a line end in vocabularies, and never in text.
MARKS = ("\u0120", "\u010a", "\u2581", "<0x0A>")


def load_tokenizer(
    folder: Path,
    *,
    trust_remote_code: bool,
    ends: Sequence[int | str],
    template: str | None,
    tool_template: str = "",
) -> TokenizerWrapper:
    """The tokenizer in mlx-lm's wrapper.

    Args:
        folder: the model's.
        trust_remote_code: whether code in the folder may run.
        ends: the end tokens that the model's files name, by id or by text; the tokenizer's own is added.
        template: the chat template's source, from whichever file has it.
        tool_template: that of the one for conversations with tools, where it is another.

    Raises:
        ModelLoadFailed: it says other text than it was given.
        Exception: transformers cannot load it, in whatever way.
    """
    with readable(folder, without_empty_tokens(folder)) as plain:
        hf = _with_decoder(_checked(_load(plain, trust_remote_code), plain))
    hf.split_special_tokens = (
        False  # a template's own tokens are tokens; those in messages are told from them elsewhere
    )
    hf.chat_template = f"{template or ''}{tool_template}" or None
    defaults = utils._tokenizer_defaults(folder) or {}
    ids = [end for end in ends if isinstance(end, int)] or defaults.get("eos_token_ids")
    hf.init_kwargs["tool_parser_type"] = _tool_syntax(hf, defaults)  # as mlx-lm leaves it there
    hf.chat_template = template
    wrapped = TokenizerWrapper(hf, _NoDetokenizer, eos_token_ids=ids, **_template_module(hf, defaults))
    vocabulary = hf.get_vocab()
    if hf.eos_token is None and (token := read_end_token(folder)) is not None:
        ends = [*ends, token[0]]
    wrapped.eos_token_ids |= {vocabulary[end] for end in ends if isinstance(end, str) and end in vocabulary}
    if not wrapped.eos_token_ids:
        logger.warning("%s names no end token: answers end by max_tokens and stop strings alone", folder)
    check_round_trip(wrapped, folder)
    return wrapped


class _NoDetokenizer:
    """A place holder for mlx-lm's detokenizer, which the wrapper wants: :mod:`tasks.engine.text.detokenizer` does that work."""

    def __init__(self, _: Any) -> None:
        pass

    def reset(self) -> None:
        """Nothing to reset."""


def _load(folder: Path, trust_remote_code: bool) -> Any:
    """By transformers' own choice of a class; where that fails, without the model's configuration, then by the file alone."""
    try:
        return _by_class(folder, trust_remote_code)
    except Exception as error:
        found = _without_config(folder, trust_remote_code)
        if found is None:
            raise ModelLoadFailed(_why_unloadable(folder, error)) from error
        logger.warning("%s: loaded without its config.json, because transformers fails with: %s", folder, error)
        return found


def _why_unloadable(folder: Path, error: Exception) -> str:
    """Name the damaged file, where one is: transformers says which character of it; or whose code would have to run."""
    try:
        for file in ("tokenizer.json", CONFIG, SPECIAL_TOKENS, "added_tokens.json"):
            read_object_if_there(folder / file)
    except ModelFilesUnreadable as damaged:
        return str(damaged)
    if "custom code" in str(error):
        return _own_code(folder)
    return f"{folder}: its tokenizer cannot be loaded: {first_line(error)}"


def _by_class(folder: Path, trust_remote_code: bool, **more: Any) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(
        folder, trust_remote_code=trust_remote_code, **corrected_fields(folder), **more
    )


def _without_config(folder: Path, trust_remote_code: bool) -> Any:
    """For a kind of model that transformers does not know: its rotary scaling fails there, and not the tokenizer."""
    from transformers import PreTrainedConfig

    plain: Any = PreTrainedConfig
    with suppress(Exception):
        return _by_class(folder, trust_remote_code, config=plain())
    with suppress(Exception):
        return _by_file(folder)
    return None


def _by_file(folder: Path) -> Any:
    """The tokenizer exactly as ``tokenizer.json`` describes it."""
    from transformers import PreTrainedTokenizerFast

    if "auto_map" in read_object_if_there(folder / CONFIG):
        raise ModelLoadFailed(_own_code(folder))
    return PreTrainedTokenizerFast.from_pretrained(folder, **corrected_fields(folder))


def _own_code(folder: Path) -> str:
    return f"{folder}: its tokenizer is code of its own; trust_remote_code in the catalogue allows it"


def _checked(hf: Any, folder: Path) -> Any:
    """The tokenizer, with the file's own rules where the class that transformers took has others."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    path = folder / "tokenizer.json"
    if not path.is_file():
        return follow_file(hf, folder, PROBES)
    if type(hf) is PreTrainedTokenizerFast or not hasattr(hf, "backend_tokenizer"):
        return hf
    if _differing(hf.backend_tokenizer, Tokenizer.from_file(str(path))) is None:
        return hf
    try:
        by_file = _by_file(folder)
    except ModelLoadFailed:
        return hf
    # Where both differ from the bare file in the same way, tokenizer_config.json is the cause.
    differing = _differing(hf.backend_tokenizer, by_file.backend_tokenizer)
    if differing is None:
        return hf
    logger.warning(
        "%s: transformers' %s reads %r otherwise than tokenizer.json says; tokenizer.json is used as it is",
        *(folder, type(hf).__name__, differing),
    )
    if type(hf).__module__.startswith("transformers."):
        return by_file
    hf._tokenizer = by_file._tokenizer  # a class of mlx-lm or of the model does more, around the file's rules
    return hf


def _with_decoder(hf: Any) -> Any:
    """The tokenizer with the decoder that belongs to its vocabulary, where its file has none, or one that leaves out bytes."""
    from tokenizers import decoders

    backend = getattr(hf, "backend_tokenizer", None)
    if backend is None:
        return hf
    if backend.decoder is not None:
        if MARKS[3] in _round_trip(hf, "a\nb"):
            backend.decoder = decoders.Sequence([decoders.ByteFallback(), backend.decoder])
        return hf
    tokens = "".join(hf.convert_ids_to_tokens(_ids(hf, " a b")))
    if MARKS[0] in tokens:
        backend.decoder = decoders.ByteLevel()
    elif MARKS[2] in tokens:
        steps = [decoders.Replace(MARKS[2], " "), decoders.ByteFallback(), decoders.Fuse()]
        backend.decoder = decoders.Sequence(steps)
        if _round_trip(hf, "a b").startswith(" "):  # the encoder puts a space before a text
            backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    return hf


def _differing(left: Tokenizer, right: Tokenizer) -> str | None:
    """A text that the two read otherwise, or that one fails to read, if there is one."""
    try:
        return next((text for text in PROBES if _bare_ids(left, text) != _bare_ids(right, text)), None)
    except Exception as error:  # noqa: BLE001 - the library underneath raises nothing narrower
        return f"{PROBES[0]} ({error})"


def _bare_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def _ids(hf: Any, text: str) -> list[int]:
    return list(hf.encode(text, add_special_tokens=False))


def _round_trip(hf: Any, text: str) -> str:
    return _decoded(hf, _ids(hf, text))


def _decoded(hf: Any, ids: list[int]) -> str:
    return str(hf.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _template_module(hf: Any, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """mlx-lm's own renderer, for the few models whose template is a program; one in the model's files goes before it."""
    kind = hf.init_kwargs.get("chat_template_type", defaults.get("chat_template_type"))
    if not kind:
        return {}
    module = importlib.import_module(f"mlx_lm.chat_templates.{kind}")
    renders = "chat_template_type" in hf.init_kwargs or hf.chat_template is None
    return {
        "chat_template": module.apply_chat_template if renders else None,
        "response_format": getattr(module, "RESPONSE_FORMAT", None),
    }


def _tool_syntax(hf: Any, defaults: Mapping[str, Any]) -> str | None:
    """Return the model's syntax of calls (:mod:`tasks.engine.tools.syntaxes`), by its files, or as mlx-lm infers it."""
    kind = hf.init_kwargs.get("tool_parser_type", defaults.get("tool_parser_type")) or _infer_tool_parser(hf)
    if kind is not None:
        return str(kind)
    template = hf.chat_template if isinstance(hf.chat_template, str) else ""
    renderer = hf.init_kwargs.get("chat_template_type", defaults.get("chat_template_type"))
    if renderer == "deepseek_v32" or "｜DSML｜function_calls" in template:
        return "deepseek_v32"
    if all(name in hf.get_vocab() for name in ("<|start|>", "<|channel|>", "<|message|>", "<|call|>")):
        return "harmony"
    # mlx-lm looks for ``tool_call.name`` besides, and others call the variable otherwise.
    return "json_tools" if "<tool_call>" in template and "arguments" in template else None


def check_round_trip(tokenizer: TokenizerWrapper, folder: Path) -> None:
    """Try the tokenizer with text of the kinds that break.

    Raises:
        ModelLoadFailed: it has no vocabulary, words run together or marks of the vocabulary show in decoded text, or a
            stream would say other text than ``decode``.
    """
    hf = tokenizer._tokenizer
    if not any(_ids(hf, text) for text in PROBES):
        raise ModelLoadFailed(f"{folder}: its tokenizer's vocabulary is empty; copy the original model's files")
    remedy = (
        "its tokenizer files do not fit its tokenizer_class; set that to PreTrainedTokenizerFast in tokenizer_config.json, "
        "or save the tokenizer again with the version of transformers that made it"
    )
    decoded = _round_trip(hf, PROBES[0])
    if len(decoded.split()) < len(PROBES[0].split()) and _letters(decoded) == _letters(PROBES[0]):
        raise ModelLoadFailed(f"{folder}: its tokenizer turns {PROBES[0]!r} into {decoded!r}: {remedy}")
    for text in PROBES:
        decoded = _round_trip(hf, text)
        if any(mark in decoded for mark in MARKS):
            raise ModelLoadFailed(f"{folder}: its tokenizer turns {text!r} into {decoded!r}: {remedy}")
        ids = [token_id for token_id in _ids(hf, text) if token_id not in tokenizer.eos_token_ids]
        decoded, streamed = _decoded(hf, ids), streamed_text(tokenizer, ids)
        if streamed != decoded:
            raise ModelLoadFailed(
                f"{folder}: its tokenizer cannot be streamed: {text!r} would be {streamed!r} where decode says {decoded!r}"
            )


def _letters(text: str) -> str:
    """The text without spaces, and without a difference of case."""
    return "".join(text.split()).casefold()
