"""Schemas that people have published, as check-jsonschema has them: answered at random, and judged by another validator."""

from __future__ import annotations

import json
import random
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema
import numpy as np
import pytest

from benchmarks.structured.folder import read
from tasks.engine.constraint import masks
from tasks.engine.constraint.compiler import Compiler
from tasks.engine.constraint.tokens import Tokens
from tasks.engine.text.tokenizer import load_tokenizer
from tasks.errors import InvalidRequest
from tasks.messages.constraint import Constraint
from tests.tiny_tokenizers import byte_level, save

if TYPE_CHECKING:
    from mlx_lm.tokenizer_utils import TokenizerWrapper

    from tasks.engine.constraint.grammar import Grammar

#: A random text goes on in each string, so that few answers would end without a liking for what closes.
CLOSING, CLOSES = '"}],', 0.5
MOST_TOKENS = 300
#: It takes a second to find all that cannot be enforced in the largest ones.
MOST_BYTES = 30_000


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TokenizerWrapper:
    """Bytes, and a few words."""
    folder = save(byte_level(), tmp_path_factory.mktemp("tokenizer"), tokenizer_class="PreTrainedTokenizerFast")
    return load_tokenizer(folder, trust_remote_code=False, ends=(), template=None)


def compiled(compiler: Compiler, schema: object, *, strict: bool = True) -> Grammar | str:
    """The schema's grammar, or why there is none."""
    try:
        return compiler.compile(Constraint(kind="json_schema", value=json.dumps(schema), strict=strict))
    except InvalidRequest as error:
        return str(error)


def said_at_random(grammar: Grammar, tokenizer: TokenizerWrapper, draw: random.Random) -> str | None:
    """A whole answer of this grammar; ``None`` where it has not ended by then."""
    closing = set(tokenizer.convert_tokens_to_ids(list(CLOSING)))
    matcher, ids = grammar.matcher(), list[int]()
    while not matcher.complete and len(ids) < MOST_TOKENS:
        bits = masks.fill([matcher], len(tokenizer))[0].view(np.uint8)
        allowed = np.flatnonzero(np.unpackbits(bits, bitorder="little")[: len(tokenizer)]).tolist()
        assert not matcher.error
        if set(allowed) & set(tokenizer.eos_token_ids):
            return str(tokenizer.decode(ids))
        closes = [token_id for token_id in allowed if token_id in closing]
        ids.append(draw.choice(closes if closes and draw.random() < CLOSES else allowed))
        matcher.take(ids[-1])
    return str(tokenizer.decode(ids)) if matcher.complete else None


def test_each_is_refused_by_its_place_or_answered_validly(tokenizer: TokenizerWrapper) -> None:
    """What cannot be enforced is one error with a JSON pointer and a remedy, or most often can be left out, with a warning; every
    other answer is valid by jsonschema.
    """
    compiler = Compiler(lambda: Tokens(tokenizer, len(tokenizer)))
    became: Counter[str] = Counter()
    folder = Path(str(resources.files("check_jsonschema"))) / "builtin_schemas"
    for number, schema in enumerate(read(folder, Counter())):
        grammar = compiled(compiler, schema)
        if isinstance(grammar, str):
            assert grammar.startswith("response_format: #")
            assert "; " in grammar
            became["refused"] += 1
            if len(json.dumps(schema)) < MOST_BYTES:
                lenient = compiled(compiler, schema, strict=False)
                became["left out"] += not isinstance(lenient, str) and bool(lenient.warnings)
            continue
        validator = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)(schema)
        for seed in range(3):
            said = said_at_random(grammar, tokenizer, random.Random(f"{number} {seed}"))
            if said is not None:
                validator.validate(json.loads(said))
            became["cut off" if said is None else "valid"] += 1
    assert became["valid"] >= 10
    assert became["refused"] >= became["left out"] >= 5
