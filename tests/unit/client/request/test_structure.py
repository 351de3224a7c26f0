"""What a producer checks of a constraint: shape, size and dialect, without a grammar engine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable  # noqa: TC003  (pydantic looks it up)
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, NewType

import jsonschema
import pydantic
import pytest
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, NaiveDatetime, TypeAdapter, ValidationError, field_validator

from tasks.client.answers.values import ValueResult
from tasks.client.request.parameters import parse
from tasks.client.request.structure import MAX_CHOICE_TEXTS, MAX_CONSTRAINT_BYTES, parsed
from tasks.errors import InvalidRequest
from tasks.messages.constraint import Constraint
from tests.support import ROOT


def constraint(**values: Any) -> Constraint | None:
    return parse({"prompt": "p", **values}).constraint()


def schema_format(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, **more}}


class Place(BaseModel):
    default: str | None = None


class Person(BaseModel):
    name: str
    places: list[Place] = []

    @field_validator("name")
    @classmethod
    def _is_short(cls, value: str) -> str:
        if len(value) > 3:
            raise ValueError("a long name")
        return value


class Callback(BaseModel):
    call: Callable[[], None]


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    when: date | None = None


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    name: str


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


class Invoice(BaseModel):
    total: Annotated[Decimal, Field(max_digits=5, decimal_places=2)]
    link: HttpUrl
    tags: set[str] = set()
    numbers: dict[int, str] = {}
    words: dict[Annotated[str, Field(pattern="^[a-z]+$")], int] = {}


class Described(BaseModel):
    """Says itself what it is."""

    a: int

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:  # type: ignore[override]
        return {"type": "object"}


AccountId = NewType("AccountId", int)
BILL = {"total": "19.99", "link": "https://a-1.example:80/b?c"}


class Exact(BaseModel):
    """Takes no text for a date, but in JSON."""

    model_config = ConfigDict(strict=True)

    when: date
    colour: Colour


@pytest.mark.parametrize(
    ("kind", "data", "value"),
    [
        (Person, {"name": "Ann"}, Person(name="Ann")),
        (list[Person], [{"name": "Ann"}], [Person(name="Ann")]),
        (Person | None, None, None),
        (Person | int, 3, 3),
        (Point, {"x": 1, "when": "2024-02-29"}, Point(1, date(2024, 2, 29))),
        (Exact, {"when": "2024-02-29", "colour": "red"}, Exact(when=date(2024, 2, 29), colour=Colour.RED)),
        (Colour, "red", Colour.RED),
        (Literal["a", "b"], "a", "a"),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (TypeAdapter(tuple[int, str]), [1, "a"], (1, "a")),
        (AccountId, 3, 3),
        (list[Pet], [{"kind": "dog", "name": "Rex"}], [Dog(name="Rex")]),
        (set[str], ["a", "a"], {"a"}),
        (NaiveDatetime, "2024-01-31T23:59:59", datetime(2024, 1, 31, 23, 59, 59)),  # noqa: DTZ001
        (Annotated[Decimal, Field(decimal_places=2)], 19.5, Decimal("19.5")),
        (Invoice, BILL, Invoice.model_validate_json(json.dumps(BILL))),
        (Described, {"a": 1}, Described(a=1)),
    ],
    ids=str,
)
def test_a_type_is_its_schema_and_answers_are_of_it(kind: Any, data: Any, value: Any) -> None:
    """Models, dataclasses, lists, alternatives, enumerations: the data is valid by the schema that is sent."""
    found = constraint(response_format=kind)
    assert found is not None
    jsonschema.validate(data, json.loads(found.value))
    stored = StoredValue({"text": "", "parsed": data})
    assert stored.parsed(kind) == value
    stored.response_model = kind
    assert stored.get()["parsed"] == stored.parsed() == value


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (Pet, {"name": "Rex"}),
        (Decimal, "much"),
        (Annotated[Decimal, Field(ge=Decimal("1.5"))], 1),
        (NaiveDatetime, "2024-01-31T23:59:59Z"),
        (NaiveDatetime, "2024-04-31T23:59:59"),
        (Annotated[Decimal, Field(decimal_places=2)], 0.003),
        (Invoice, {**BILL, "total": "19.999"}),
        (Invoice, {**BILL, "total": "1000"}),
        (Invoice, {**BILL, "link": "mailto:a@b.example"}),
        (Invoice, {**BILL, "numbers": {"one": "a"}}),
        (Invoice, {**BILL, "words": {"A": 1}}),
    ],
    ids=str,
)
def test_what_a_type_does_not_take_is_invalid_by_its_schema(kind: Any, data: Any) -> None:
    """Also where pydantic's own schema says less than pydantic checks."""
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_json(json.dumps(data))
    found = constraint(response_format=kind)
    assert found is not None
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, json.loads(found.value))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("PastDate", "9000-01-31"),
        ("FutureDate", "1999-01-31"),
        ("PastDatetime", "9000-01-31T23:59:59Z"),
        ("FutureDatetime", "1999-01-31T23:59:59Z"),
        ("Json", "five"),
        ("Base64Str", "/w=="),  # a byte that is no UTF-8
        ("FilePath", "/nowhere/a"),
        ("DirectoryPath", "/nowhere/"),
        ("ImportString", "nowhere.a"),
    ],
)
def test_what_a_schema_cannot_say(name: str, data: str) -> None:
    """The types of docs/structured.md that are narrower than any schema: what they refuse is that error, and nothing else."""
    kind = pydantic.Json[int] if name == "Json" else getattr(pydantic, name)
    found = constraint(response_format=kind)
    assert found is not None
    jsonschema.validate(data, json.loads(found.value))
    with pytest.raises(ValidationError):
        StoredValue({"text": json.dumps(data), "parsed": data}).parsed(kind)
    page = (ROOT / "docs" / "structured.md").read_text(encoding="utf-8").partition("No JSON Schema says")[2]
    assert f"`{name}" in page.partition("\n\n")[0]


def test_constraints() -> None:
    """Each field is the constraint that the engine gets; ``strict`` is the default, and ``text`` is none."""
    assert constraint() is None
    assert constraint(response_format={"type": "text"}) is None
    assert constraint(response_format={"type": "json_object"}) == Constraint(kind="json_object")
    assert constraint(response_format=schema_format({"type": "null"})) == Constraint(
        kind="json_schema", value='{"type":"null"}', strict=True
    )
    lenient = constraint(response_format=schema_format(True, strict=False, description=None))
    assert lenient == Constraint(kind="json_schema", value="true", strict=False)
    assert constraint(regex="a+") == Constraint(kind="regex", value="a+")
    assert constraint(choice=("a", "b")) == Constraint(kind="choice", value='["a","b"]')
    assert constraint(grammar='start: "a"') == Constraint(kind="lark", value='start: "a"')


class Account(BaseModel):
    balance: Decimal
    rates: list[Decimal] = []
    note: Any = None


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (
            Account,
            '{"balance": 1234567890.12345678901234567890, "rates": [0.1, -1.00000000000000000001E+3]}',
            Account.model_construct(
                balance=Decimal("1234567890.12345678901234567890"),
                rates=[Decimal("0.1"), Decimal("-1.00000000000000000001E+3")],
                note=None,
            ),
        ),
        (dict[str, Decimal], '{"a": 0.30000000000000000001}', {"a": Decimal("0.30000000000000000001")}),
        (float, "0.30000000000000000001", 0.3),
        (Any, "0.30000000000000000001", 0.3),
        (Account, '{"balance": 0.5, "note": 0.30000000000000000001}', Account(balance=Decimal("0.5"), note=0.3)),
        (Decimal, "0.1", Decimal("0.1")),
    ],
    ids=str,
)
def test_a_decimal_has_all_digits_of_the_answer(kind: Any, text: str, value: Any) -> None:
    """And what is no decimal stays a number."""
    stored = StoredValue({"text": text, "parsed": parsed(text, "stop")})
    assert repr(stored.parsed(kind)) == repr(value)


def test_a_pydantic_model_is_its_schema_and_closed() -> None:
    """No object of it has properties that its author did not think of; a field may have any name."""
    found = constraint(response_format=Person)
    assert found is not None
    schema = json.loads(found.value)
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Place"]["additionalProperties"] is False
    assert schema["$defs"]["Place"]["properties"]["default"]["default"] is None
    assert schema["properties"]["places"]["default"] == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"response_format": schema_format({"properties": []})},
            "is no JSON Schema: #/properties is a list; use an object",
        ),
        ({"response_format": schema_format([])}, "a schema is an object; send what Model.model_json_schema() gives"),
        ({"response_format": schema_format({"$schema": "urn:x"})}, "use draft 4, 6, 7, 2019-09 or 2020-12"),
        ({"response_format": {"type": "json_schema"}}, "has no json_schema; send"),
        ({"response_format": {"type": "json_object", "json_schema": {"schema": {}}}}, "has a json_schema; send"),
        ({"response_format": {"type": "xml"}}, "response_format['type']='xml'"),
        ({"response_format": BaseModel}, "response_format=BaseModel: no JSON Schema says what it is"),
        ({"response_format": Callback}, "response_format=Callback: no JSON Schema says what it is (Cannot generate"),
        ({"response_format": Person(name="Ann")}, "response_format is an instance of Person: give the class; use a"),
        ({"response_format": Point(1)}, "response_format is an instance of Point: give the class; use a"),
        (
            {"response_format": schema_format(Person)},
            "the class Person is not data: use a value, or .model_json_schema()",
        ),
        (
            {"response_format": schema_format({"minimum": float("nan")})},
            "the schema has a number that is none; JSON has",
        ),
        ({"choice": ["\ud800"]}, "the choice has '\\ud800', one half of a character; send whole text"),
        ({"regex": "\ud800"}, "one half of a character; send whole text"),
        ({"response_format": schema_format({"enum": ["x" * 10_000_000]})}, f"the limit is {MAX_CONSTRAINT_BYTES}"),
        ({"regex": "a" * (MAX_CONSTRAINT_BYTES + 1)}, "send less"),
        ({"regex": ""}, "it is empty"),
        ({"choice": []}, "choice=[]"),
        ({"choice": ["a", "a"]}, "given twice"),
        ({"choice": [str(number) for number in range(MAX_CHOICE_TEXTS + 1)]}, f"give at most {MAX_CHOICE_TEXTS}"),
        ({"grammar": "root ::= [a-z]+"}, "this is GBNF; write it in Lark's notation"),
        ({"regex": "a", "choice": ["b"]}, "regex and choice are set: give one of them"),
        ({"guided_json": {}}, "use response_format="),
    ],
)
def test_bad_input_is_one_error_at_the_producer(values: dict[str, Any], said: str) -> None:
    """It names the field and what to do."""
    with pytest.raises(InvalidRequest) as caught:
        constraint(**values)
    assert said in str(caught.value)


def test_what_was_cut_off_is_no_value() -> None:
    """Neither is what a stop string ended, what is nested more deeply than Python reads, or a number that no float is."""
    assert parsed('{"a": 1}', "stop") == {"a": 1}
    assert parsed('{"a": 1', "length") is None
    assert parsed('{"a": 1', "stop") is None
    assert parsed("[" * 100_000, "stop") is None
    assert parsed('{"a": -1e999}', "stop") is None


class Stored:
    """In the place of Celery's result."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer

    def get(self, timeout: float | None = None) -> dict[str, Any]:
        assert timeout is None
        return self.answer


class StoredValue(ValueResult, Stored):
    """A result that has come."""


def test_an_answer_has_an_instance_of_its_model() -> None:
    """From ``get()`` where this process sent the model, else from ``parsed(model)``; a model's own validators have their say."""
    data = {"name": "Ann"}
    other = StoredValue({"text": "", "parsed": data})
    assert (other.get()["parsed"], other.parsed(), other.parsed(Person)) == (data, data, Person(name="Ann"))
    ours = StoredValue({"text": "", "parsed": data})
    ours.response_model = Person
    assert ours.get()["parsed"] == ours.parsed() == ours.parsed(Person) == Person(name="Ann")
    cut_off = StoredValue({"parsed": None})
    assert cut_off.parsed(Person) is None
    with pytest.raises(ValueError, match="a long name"):
        StoredValue({"parsed": {"name": "Annabel"}}).parsed(Person)
    with pytest.raises(InvalidRequest, match="no response_format of JSON"):
        StoredValue({"text": "a"}).parsed()


def test_a_signature_is_plain_data() -> None:
    """A model in a signature, as in a group or a chain, is its schema."""
    from tasks import generate

    sent = generate.s(prompt="p", response_format=Person).kwargs["response_format"]
    assert json.loads(json.dumps(sent))["json_schema"]["name"] == "Person"


def test_a_producer_loads_no_grammar_engine() -> None:
    """Checking a constraint imports neither llguidance nor jsonschema nor numpy."""
    code = (
        "import sys; from tasks.client.request.parameters import parse; parse({'prompt': 'p', 'regex': 'a'}).constraint(); "
        "print([name for name in ('llguidance', 'jsonschema', 'numpy') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
