"""Instructions reach the model, whatever roles its chat template knows."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tasks.engine.text.roles import Roles
from tasks.errors import InvalidRequest
from tests.tiny_tokenizers import byte_level

LINE = "[{{ m['role'] }}]{{ m['content'] | trim }}\n"
LOOP = "{% for m in messages %}"
KNOWN = "m['role'] in ['system', 'user', 'assistant']"
END = "{% endfor %}"


def _refuse(why: str) -> str:
    return "{{ raise_exception('" + why + "') }}{% endif %}"


#: As models have them: each writes a role and its text on a line of their own.
TEMPLATES = {
    "any role": LOOP + LINE + END,
    "leaves others out": LOOP + "{% if " + KNOWN + " %}" + LINE + "{% endif %}" + END,
    "refuses others": LOOP + "{% if not " + KNOWN + " %}" + _refuse("unknown role") + LINE + END,
    "fails at others": LOOP + "{% set n = {'system': 1, 'user': 2, 'assistant': 3}[m['role']] + 1 %}" + LINE + END,
    "knows developer": LOOP + "{% if m['role'] == 'developer' %}#{% endif %}" + LINE + END,
    "speaks of developers": "Made by a developer.\n" + LOOP + LINE + END,
    "one system, first": (
        LOOP
        + "{% if m['role'] == 'system' and not loop.first %}"
        + _refuse("system must be first")
        + ("{% if " + KNOWN + " %}" + LINE + "{% endif %}" + END)
    ),
    "no system": LOOP + "{% if m['role'] not in ['user', 'assistant'] %}" + _refuse("no system role") + LINE + END,
    "system left out": LOOP + "{% if m['role'] in ['user', 'assistant'] %}" + LINE + "{% endif %}" + END,
}
ALTERNATES = (
    "{% set told = messages[1:] if messages[0]['role'] == 'system' else messages %}{% for m in told %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    + LINE
    + "{% endfor %}"
)


@cache
def _tokenizer() -> Any:
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=byte_level())


def render(template: str, *told: tuple[str, str]) -> str:
    """The conversation, by a template of transformers' kind."""

    def apply(messages: list[dict[str, Any]]) -> str:
        return str(_tokenizer().apply_chat_template(messages, chat_template=template, tokenize=False))

    return Roles(template).render(apply, [{"role": role, "content": content} for role, content in told])


@pytest.mark.parametrize("template", [name for name in TEMPLATES if name not in ("no system", "system left out")])
def test_a_developer_message_is_a_system_message_where_the_template_has_no_other_word(template: str) -> None:
    """Also where the template would write any role down: the model has never seen this one."""
    said = render(TEMPLATES[template], ("developer", " be brief "), ("user", "hi"))
    if template == "knows developer":
        assert said == "#[developer]be brief\n[user]hi\n"
    else:
        assert said == render(TEMPLATES[template], ("system", "be brief"), ("user", "hi"))
        assert "[system]be brief\n" in said


@pytest.mark.parametrize("template", ["no system", "system left out"])
@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_template_without_instructions_is_given_them_by_the_user(template: str, role: str) -> None:
    """Before the first words of the user, as templates that do it themselves have it."""
    said = render(TEMPLATES[template], (role, "be brief"), ("user", "hi"), ("assistant", "yes?"), ("user", "go"))
    assert said == "[user]be brief\n\nhi\n[assistant]yes?\n[user]go\n"


@pytest.mark.parametrize("template", TEMPLATES)
def test_no_instruction_of_several_is_lost(template: str) -> None:
    """Wherever they stand; what users and assistants say stays in order."""
    told = (
        ("system", "one"),
        ("developer", "two"),
        ("user", "hi"),
        ("assistant", "yes?"),
        ("system", "three"),
        ("user", "go"),
    )
    said = render(TEMPLATES[template], *told)
    assert all(said.count(content) == 1 for _, content in told)
    assert said.index("hi") < said.index("yes?") < said.index("go")


def test_what_an_instruction_says_does_not_hide_that_it_is_left_out() -> None:
    """A word that the user says too is no sign of it."""
    said = render(TEMPLATES["leaves others out"], ("developer", "hi"), ("user", "hi"))
    assert said.count("hi") == 2


def test_an_instruction_in_other_letters_is_not_lost() -> None:
    """A template may write everything in capitals."""
    template = LOOP + "[{{ m['role'] }}]{{ m['content'] | upper }}\n" + END
    assert render(template, ("system", "be brief"), ("user", "hi")) == "[system]BE BRIEF\n[user]HI\n"


def test_an_instruction_that_nothing_can_carry_is_an_error() -> None:
    """It names the role."""
    with pytest.raises(InvalidRequest, match=r"leaves out messages of the role 'developer'"):
        render(TEMPLATES["system left out"], ("developer", "be brief"), ("assistant", "hi"))


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ("uu", r"roles must alternate \(messages\[0\] and messages\[1\] are both from 'user': join them"),
        ("suauu", r"messages\[3\] and messages\[4\] are both from 'user'"),
        ("duaa", r"messages\[2\] and messages\[3\] are both from 'assistant'"),
        ("a", r"messages\[0\] is the first, and from 'assistant': begin with one from 'user'"),
    ],
)
def test_roles_that_do_not_alternate_are_named(told: str, says: str) -> None:
    """Where a template insists, the error has its words, the place, and what to do."""
    roles = {"s": "system", "d": "developer", "u": "user", "a": "assistant"}
    with pytest.raises(InvalidRequest, match=says):
        render(ALTERNATES, *((roles[name], "x") for name in told))


def test_the_roles_are_named_where_instructions_had_to_go_elsewhere_first() -> None:
    """A template that takes no system message either: its last word is about what is left to do."""
    template = "{% if messages[0]['role'] == 'system' %}" + _refuse("no system role") + ALTERNATES
    with pytest.raises(
        InvalidRequest, match=r"roles must alternate \(messages\[1\] and messages\[2\] are both from 'user'"
    ):
        render(template, ("system", "x"), ("user", "y"), ("user", "z"))


def test_a_template_that_is_a_program_is_given_the_roles_as_they_are() -> None:
    """Nothing can be read from it; what it leaves out is found by trying."""

    def known(messages: list[dict[str, Any]]) -> str:
        return "".join(
            f"{message['role']}:{message['content']};" for message in messages if message["role"] != "system"
        )

    roles = Roles("")
    assert roles.render(known, [{"role": "developer", "content": "x"}, {"role": "user", "content": "y"}]) == (
        "developer:x;user:y;"
    )
    assert roles.render(known, [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]) == "user:x\n\ny;"


def test_conversations_of_one_shape_are_tried_once() -> None:
    """What was found for some roles is kept, within a bound."""
    rendered: list[int] = []

    def count(messages: list[dict[str, Any]]) -> str:
        rendered.append(len(messages))
        return " ".join(str(message["content"]) for message in messages)

    roles = Roles("system")
    for at in range(3):
        roles.render(count, [{"role": "system", "content": f"{at}"}, {"role": "user", "content": "hi"}])
    assert len(rendered) == 4
    for at in range(2, 1100):
        roles.render(count, [{"role": "system", "content": "x"}] * at)
    assert len(roles._ways) <= 1024
