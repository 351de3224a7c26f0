"""What may stand before a constrained answer, for each way in which models mark their thoughts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.parts.scripted_model import byte_tokenizer
from tasks.engine.answers.assembler import TextAssembler
from tasks.engine.constraint.compiler import Compiler
from tasks.engine.constraint.lead import lead_of
from tasks.engine.constraint.tokens import Tokens
from tasks.engine.text.control import added_tokens
from tasks.engine.text.formats import find_format
from tasks.engine.text.tokenizer import load_tokenizer
from tasks.errors import InvalidRequest
from tasks.messages.constraint import Constraint
from tests.tiny_tokenizers import save

if TYPE_CHECKING:
    from pathlib import Path

    from mlx_lm.tokenizer_utils import TokenizerWrapper

ANSWER = Constraint(kind="json_object")
#: Tokens of each family, how its prompt ends, and answers with the thought that is in them.
FAMILIES = {
    "opened": (("<think>", "</think>"), "<think>\n", {'so {"a":1}</think>\n\n{}': 'so {"a":1}'}),
    "optional": (("<think>", "</think>"), "assistant\n", {"<think>so</think>{}": "so", "\n{}": "", "{}": ""}),
    "closed": (("<think>", "</think>"), "<think>\n\n</think>\n\n", {"{}": ""}),
    "text": ((), "<think>", {"so <b></b></think>\n{}": "so <b></b>"}),
    "gemma": (("<|channel>", "<channel|>"), "model\n", {"<|channel>thought\nso<channel|>{}": "\nso", "{}": ""}),
    "xtml": (
        ("<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>"),
        "<|open|>think<|sep|>",
        {"so<|close|>think<|sep|><|open|>response<|sep|>{}": "so", "so<|close|>think<|sep|>{}": "so"},
    ),
    "harmony": (
        ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|constrain|>", "<|call|>", "<|return|>"),
        "<|start|>assistant",
        {
            "<|channel|>analysis<|message|>so<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>{}": "so",
            "<|channel|>final<|message|>{}": "",
        },
    ),
    "muse": (
        ("<|start|>", "<|message|>", "<|eom|>", "<|eot|>"),
        "<|start|>assistant",
        {" to=self<|message|>so<|eom|><|start|>assistant<|message|>{}": "so", "<|message|>{}": ""},
    ),
}
TEMPLATE = "{% if x %}<think></think>{% endif %}"


def tokenizer_with(folder: Path, added: tuple[str, ...]) -> TokenizerWrapper:
    save(byte_tokenizer(("</s>",), added, ()), folder, tokenizer_class="PreTrainedTokenizerFast")
    return load_tokenizer(folder, trust_remote_code=False, ends=(), template=None)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_thought_and_its_answer_are_one_language(family: str, tmp_path: Path) -> None:
    """Each answer is of the grammar to its last token and complete there, and the assembler finds thought and answer in it."""
    added, tail, answers = FAMILIES[family]
    tokenizer = tokenizer_with(tmp_path, added)
    form = find_format(added_tokens(tokenizer), TEMPLATE)
    grammar = Compiler(lambda: Tokens(tokenizer, 300, form.marks)).compile(ANSWER, lead_of(form, tail, None))
    for text, thought in answers.items():
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert not grammar.matcher(ids[:-1]).complete
        matcher = grammar.matcher(ids)
        assert not matcher.error
        assert matcher.complete
        assembler = TextAssembler(tokenizer, (), form, tail)
        pieces = [piece for token_id in ids for piece in assembler.push(token_id)] + assembler.finish()
        said = {
            kind: "".join(piece.text for piece in pieces if piece.kind == kind) for kind in ("reasoning", "content")
        }
        assert (said["reasoning"], said["content"].strip()) == (thought, "{}")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_thought_of_no_tokens(family: str, tmp_path: Path) -> None:
    """With a budget of 0 the first token of a thought is refused, and the answer alone, with what closes the thought, is not."""
    added, tail, answers = FAMILIES[family]
    tokenizer = tokenizer_with(tmp_path, added)
    form = find_format(added_tokens(tokenizer), TEMPLATE)
    grammar = Compiler(lambda: Tokens(tokenizer, 300, form.marks)).compile(ANSWER, lead_of(form, tail, 0))
    for text, thought in answers.items():
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert bool(grammar.matcher(ids).error) is bool(thought)
        start = text.find(thought) if thought else -1
        if start == 0:
            assert grammar.matcher(tokenizer.encode(text.removeprefix(thought), add_special_tokens=False)).complete


def test_a_budget_needs_markers_that_are_tokens(tmp_path: Path) -> None:
    """A model that marks no thoughts, or by text, cannot keep to one; without a budget nothing stands before the answers."""
    by_text = find_format({}, TEMPLATE)
    with pytest.raises(InvalidRequest, match="thinking_budget: this model's markers are text"):
        lead_of(by_text, "<think>", 10)
    form = find_format(added_tokens(tokenizer_with(tmp_path, ())), "")
    assert not lead_of(form, "assistant\n", None).rules
    with pytest.raises(InvalidRequest, match="thinking_budget: this model marks no thoughts"):
        lead_of(form, "assistant\n", 10)
