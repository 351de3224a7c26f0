"""What a request asks of a chat template reaches it under the names that it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper
from transformers import PreTrainedTokenizerFast

from tasks.client.request.parameters import parse
from tasks.engine.text.template import ChatTemplate, Options
from tasks.errors import InvalidRequest
from tests import tiny_tokenizers

if TYPE_CHECKING:
    from collections.abc import Sequence

USER = {"role": "user", "content": "1+1?"}
EFFORT = "effort {{ reasoning_effort }}"
THINKING = "{{ enable_thinking is defined and enable_thinking }}"
DEEPSEEK = "{{ thinking is defined and thinking }}"
MINIMAX = "{{ thinking_mode if thinking_mode in ['enabled', 'disabled'] else 'other' }}"
#: As Qwen3 writes what an assistant thought, and as gpt-oss does.
QWEN = "{% for m in messages %}{{ m.reasoning_content }}|{{ m.content }};{% endfor %}"
GPT_OSS = "{% for m in messages %}{{ m.thinking }}|{{ m.content }};{% endfor %}"


def template_of(source: str, tool_source: str = "", *, added: Sequence[str] = ()) -> ChatTemplate:
    fast: Any = PreTrainedTokenizerFast
    made = tiny_tokenizers.byte_level()
    made.add_tokens(list(added))
    hf = fast(tokenizer_object=made, chat_template=source or None)
    return ChatTemplate(TokenizerWrapper(hf), source, "it has none", tool_source)


@pytest.mark.parametrize(
    ("source", "options", "effort", "text"),
    [
        (EFFORT, {}, "low", "effort low"),
        (EFFORT, {"reasoning_effort": "high"}, "low", "effort high"),
        (THINKING, {}, "none", "False"),
        (THINKING, {}, "high", "True"),
        (DEEPSEEK, {}, "none", "False"),
        (DEEPSEEK, {}, "low", "True"),
        (DEEPSEEK, {"enable_thinking": True}, None, "True"),
        (DEEPSEEK, {"enable_thinking": True, "thinking": False}, None, "False"),
        (f"{EFFORT} {THINKING}", {}, "none", "effort none False"),
        (MINIMAX, {}, "none", "disabled"),
        (MINIMAX, {}, "high", "enabled"),
        (MINIMAX, {"enable_thinking": False}, None, "disabled"),
        (MINIMAX, {"enable_thinking": False, "thinking_mode": "adaptive"}, None, "other"),
        (MINIMAX, {}, None, "other"),
        ("{% generation %}x{% endgeneration %}" + EFFORT, {}, "low", "xeffort low"),
    ],
)
def test_how_much_to_think(source: str, options: dict[str, Any], effort: str | None, text: str) -> None:
    """By the template's own name for it; what the request says in the template's own words goes before."""
    assert template_of(f"{source}{{% if messages %}}{{% endif %}}").render([USER], Options(options, effort)) == text


@pytest.mark.parametrize("name", ["chat_template", "conversations", "messages", "self", "tokenize", "tools"])
def test_what_a_request_cannot_set(name: str) -> None:
    """A request says these in fields of their own, or not at all."""
    with pytest.raises(
        InvalidRequest, match=rf"^chat_template_kwargs\.{name}: cannot be set by a request; leave it out$"
    ):
        template_of("{{ messages }}").render([USER], Options({name: "x"}, None))


#: Templates of models that also see: for parts alone, and for either form of a content.
PARTS = (
    "{% for m in messages %}{{ m.role }}:{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %};"
    "{% endfor %}"
)
EITHER = (
    "{% for m in messages %}{{ m.role }}:{% if m.content is string %}{{ m.content }}{% else %}?{% endif %};{% endfor %}"
)


#: For parts from users, and for text from everyone else.
USERS_PARTS = (
    "{% for m in messages %}{{ m.role }}:{% if m.role == 'user' %}{{ m.content[0].text }}{% else %}{{ m.content }}{% endif %};"
    "{% endfor %}"
)


@pytest.mark.parametrize("source", [PARTS, EITHER, USERS_PARTS])
def test_a_template_for_parts_alone_is_given_parts(source: str) -> None:
    """It would leave the text out without a word; one that takes text is given that."""
    told = [{"role": "system", "content": "be brief"}, USER]
    assert template_of(source).render(told, Options()) == "system:be brief;user:1+1?;"


@pytest.mark.parametrize("markers", [(), ("<think>", "</think>")])
def test_a_template_that_is_told_nothing_does_what_its_authors_chose(markers: tuple[str, ...]) -> None:
    """mlx-lm's wrapper would have EXAONE 4 think, and a model whose markers are text not think, whatever they do unasked."""
    source = "{% if enable_thinking is not defined %}as its authors chose{% endif %}{% if messages %}{% endif %}"
    assert template_of(source, added=markers).render([USER], Options()) == "as its authors chose"


@pytest.mark.parametrize("source", ["hello", "{% broken", ""])
def test_a_template_that_knows_no_such_thing(source: str) -> None:
    """It is refused, and not passed over without a word."""
    with pytest.raises(InvalidRequest, match="reasoning_effort='low': the model's chat template knows no such thing"):
        template_of(source or "x").render([USER], Options(effort="low"))


def test_a_template_that_leaves_out_the_conversation_is_refused() -> None:
    """The model would answer to the template alone."""
    with pytest.raises(InvalidRequest, match="leaves out all that they say: it is not a template of conversations"):
        template_of("hello").render([USER], Options())


def test_conversations_with_tools_may_have_a_template_of_their_own() -> None:
    """As in transformers: a ``tool_use`` template is for these, beside a default one that knows no tools, or alone."""
    tools = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
    plain = "{% for m in messages %}{{ m.content }}{% endfor %}"
    with_tools = "{% for t in tools %}{{ t.function.name }};{% endfor %}" + plain
    template = template_of(plain, with_tools)
    assert template.render([USER], Options()) == "1+1?"
    assert template.render([USER], Options(tools=tools)) == "add;1+1?"
    alone = template_of("", with_tools)
    assert alone.render([USER], Options(tools=tools)) == "add;1+1?"
    with pytest.raises(InvalidRequest, match="messages: it has none"):
        alone.render([USER], Options())
    with pytest.raises(InvalidRequest, match="tools: the model's chat template leaves them out"):
        template_of(plain).render([USER], Options(tools=tools))


CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
CALLED: list[dict[str, Any]] = [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}]
RESULT = {"role": "tool", "tool_call_id": "c1", "content": 'it is "2"\n'}
#: What is said, and behind all of it the calls.
CONTENTS = (
    "{% for t in tools or [] %}{{ t.function.name }}:{% endfor %}"
    "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"
)
CALLS = (
    "{% for m in messages %}{% for c in m.tool_calls %}{{ c.function.name }}({{ c.function.arguments.a }}){% endfor %}"
    "{% endfor %}"
)
#: A template that knows calls, and no results.
NO_RESULTS = (
    "{% for m in messages %}{% if m.role != 'tool' %}{{ m.content }}{% for c in m.tool_calls %}{{ c.function.name }}{% endfor %}"
    "{% endif %};{% endfor %}"
)


@pytest.mark.parametrize("told", [[USER, RESULT, USER], [*CALLED, RESULT]])
def test_results_that_a_template_leaves_out_are_refused(told: list[dict[str, Any]]) -> None:
    """A template that knows no role ``tool`` passes over them without a word; one that escapes them has them."""
    with pytest.raises(InvalidRequest, match="leaves out messages of the role 'tool'; say it in a message of the user"):
        template_of(NO_RESULTS).render(told, Options())
    escaping = "{% for m in messages %}{% if m.role == 'tool' %}{{ m.content | tojson }}{% endif %}{% endfor %}"
    assert '"it is \\"2\\"\\n"' in template_of(NO_RESULTS + escaping).render(told, Options())


def test_calls_that_a_template_leaves_out_are_refused() -> None:
    """Also where the description of the function has its name."""
    tools = [{"type": "function", "function": CALL["function"]}]
    with pytest.raises(InvalidRequest, match="leaves out tool_calls; send what was called as content"):
        template_of(CONTENTS).render([*CALLED, RESULT], Options(tools=tools))


def test_an_assistant_that_says_nothing_beside_its_calls() -> None:
    """Qwen3's first template puts its content behind other text."""
    joining = "{% for m in messages %}{{ '' + m.content if m.role == 'assistant' }}{% endfor %}"
    rendered = template_of(joining + CONTENTS + CALLS).render([*CALLED, RESULT], Options())
    assert rendered == f"user:1+1?;assistant:;tool:{RESULT['content']};add(2)"


SECOND = {"id": "c2", "type": "function", "function": {"name": "add", "arguments": {"a": 3}}}
BOTH: list[dict[str, Any]] = [USER, {"role": "assistant", "content": "So:", "tool_calls": [CALL, SECOND]}]
RESULTS = [
    {"role": "tool", "tool_call_id": "c2", "content": "3+"},
    {"role": "tool", "tool_call_id": "c1", "content": "2+"},
]
FIRST_CALL = (
    "{% for m in messages %}{{ m.content }};{% if m.tool_calls %}"
    "{{ m.tool_calls[0].function.name }}({{ m.tool_calls[0].function.arguments.a }});{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(
    "source",
    [
        FIRST_CALL,
        "{% for m in messages if m.tool_calls and m.tool_calls | length > 1 %}{{ raise_exception('one') }}{% endfor %}"
        + FIRST_CALL,
    ],
    ids=["passes over the second", "refuses a second"],
)
def test_calls_at_once_come_one_by_one_where_the_template_knows_one(source: str) -> None:
    """Each with its own result behind it; where the results are not all there, it is an error."""
    template = template_of(source)
    assert template.render([*BOTH, *RESULTS, USER], Options()) == "1+1?;So:;add(2);2+;;add(3);3+;1+1?;"
    for told in ([*BOTH, RESULTS[0]], [*BOTH, RESULTS[0], RESULTS[0]]):
        with pytest.raises(InvalidRequest, match=r"leaves out tool_calls|chat template refuses"):
            template.render(told, Options())


def test_calls_at_once_stay_together_where_the_template_knows_that() -> None:
    """Also where their text is in no message."""
    told = [USER, {**BOTH[1], "content": None}, *RESULTS]
    rendered = template_of(CONTENTS + CALLS).render(told, Options())
    assert rendered == "user:1+1?;assistant:;tool:3+;tool:2+;add(2)add(3)"


@pytest.mark.parametrize("source", [QWEN, GPT_OSS])
@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_what_an_assistant_thought(source: str, name: str) -> None:
    """It reaches the template under its own name for it, whichever name a client has."""
    told = parse({"messages": [USER, {"role": "assistant", "content": "2", name: "hm"}, USER]}).conversation()
    assert told is not None
    assert "hm|2;" in template_of(source).render(told, Options())


def test_a_thought_is_an_assistants() -> None:
    """Nobody else thinks, and a thought counts for the bound of a prompt."""
    with pytest.raises(InvalidRequest, match="reasoning_content"):
        parse({"messages": [{**USER, "reasoning_content": "hm"}]})
    thought = {"role": "assistant", "content": "2", "reasoning_content": "hm"}
    assert parse({"messages": [thought]}).prompt_bytes == 3


def test_an_effort_needs_a_template() -> None:
    """A raw prompt has none, so nobody would hear of it."""
    with pytest.raises(InvalidRequest, match="send messages"):
        parse({"prompt": "x", "reasoning_effort": "low"})
