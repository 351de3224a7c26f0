"""What is wrong with a call."""

from __future__ import annotations

import pytest

from tasks.engine.tools.functions import Functions
from tasks.engine.tools.region import Call
from tasks.messages.tools import Function, Tools

PRICES = Functions(
    Tools(
        functions=(
            Function(
                name="pay",
                parameters={
                    "type": "object",
                    "properties": {"price": {"type": ["number", "string"], "multipleOf": 0.01}},
                },
            ),
        )
    )
)


@pytest.mark.parametrize("price", ["19.99", "0.07", "1.10", "3", "-0.29", "1e300", '"free"'])
def test_a_multiple_is_one_of_decimal_numbers(price: str) -> None:
    """An amount with two decimals fits ``multipleOf: 0.01``, which its binary fraction does not."""
    assert PRICES.problem(Call("pay", f'{{"price": {price}}}')) == ""


@pytest.mark.parametrize("price", ["19.995", "1e-3", "1e999"])
def test_no_multiple_is_named(price: str) -> None:
    """A number that is no multiple is a mismatch, and so is one that is infinite in Python."""
    problem = PRICES.problem(Call("pay", f'{{"price": {price}}}'))
    assert problem == "the arguments of 'pay' do not match its schema: ['price']: multipleOf is not met"
