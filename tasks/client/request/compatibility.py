"""Fields that other clients send: which of them change nothing and are dropped, and what to do instead of the others."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tasks.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

_TOOLS = "use tools and tool_choice"
_SCHEMA = 'use response_format={"type": "json_schema", "json_schema": {"name": …, "schema": …}}'
_STRUCTURE = "use response_format, regex, choice or grammar"
_SEVERAL = "send the request several times, as a group"
_MAX_TOKENS = "use max_tokens"
_STOP = "use stop, with texts"
_TEMPLATE = "use chat_template_kwargs"
_THINKING = "use enable_thinking, which the templates of many models read, or thinking_budget, in tokens"
_SYSTEM = 'send it as the first message, {"role": "system", "content": …}'
_OPENING = "an option of the client, not of a request; leave it out"
_MEMORY = "an operator's setting of the model; leave it out"
_CACHED = "prompts are cached without it; leave it out"
_NOT_BEGUN = "an answer cannot be begun for the model; use prompt instead of messages"
_ROUTED = "the fleet chooses the worker; leave it out"

#: Fields that are known elsewhere, and what to do instead.
INSTEAD = {
    # OpenAI's
    "stream": "every request streams; leave it out and read result.stream()",
    "n": "send the request n times, as a group",
    "best_of": _SEVERAL,
    "functions": _TOOLS,
    "function_call": _TOOLS,
    "modalities": "only text is supported; leave it out",
    "audio": "only text is supported; leave it out",
    "prediction": "predicted output is not supported; leave it out",
    "reasoning": "use reasoning_effort",
    "verbosity": "not supported; leave it out, or send the wish as a message",
    "service_tier": "use apply_async(..., priority=0, 5 or 9)",
    "store": "answers are stored for a time that the operator sets; leave it out",
    "stream_options": "every stream ends with the usage; leave it out",
    "web_search_options": "not supported; leave it out",
    "echo": "the prompt is never repeated; leave it out",
    "suffix": "not supported; use a prompt in the form that the model was trained to complete",
    "input": "use messages or prompt",
    "instructions": _SYSTEM,
    "max_output_tokens": _MAX_TOKENS,
    "max_tool_calls": "your program makes the calls; leave it out",
    "previous_response_id": "send the whole conversation as messages",
    "conversation": "send the whole conversation as messages",
    "extra_body": "give its fields beside the others, and leave it out",
    "extra_headers": _OPENING,
    "extra_query": _OPENING,
    "timeout": "use apply_async(..., time_limit=seconds) or deadline",
    "max_retries": _OPENING,
    # vLLM's, mlx-lm's and Transformers'
    "stop_token_ids": _STOP,
    "ignore_eos": "use logit_bias={end token's id: -100}",
    "min_tokens": "not supported; leave it out",
    "length_penalty": "beam search is not supported; leave it out",
    "use_beam_search": "beam search is not supported; leave it out",
    "num_beams": "beam search is not supported; leave it out",
    "num_return_sequences": _SEVERAL,
    "skip_special_tokens": "special tokens are never text; leave it out",
    "include_stop_str_in_output": "a stop string is never emitted; leave it out",
    "return_full_text": "the prompt is never repeated; leave it out",
    "guided_json": _SCHEMA,
    "guided_regex": "use regex",
    "guided_choice": "use choice",
    "guided_grammar": "use grammar, in Lark's notation",
    "structured_outputs": _STRUCTURE,
    "max_new_tokens": _MAX_TOKENS,
    "max_length": "use max_tokens, for the answer alone",
    "max_time": "use apply_async(..., soft_time_limit=seconds) or deadline",
    "max_input_tokens": "no prompt is cut; send a shorter one",
    "min_new_tokens": "not supported; leave it out",
    "no_repeat_ngram_size": "use repetition_penalty",
    "pad_token_id": "no prompt is padded; leave it out",
    "top_n_tokens": "use logprobs=True, with top_logprobs",
    "do_sample": "use temperature=0 for greedy decoding",
    "stop_sequences": "use stop",
    "eos_token_id": _STOP,
    "stop_token": _STOP,
    "enable_thinking": "use True or False; it goes to the chat template",
    "thinking": _THINKING,
    "thinking_config": _THINKING,
    "thinking_token_budget": "use thinking_budget",
    "typical_p": "not supported; use top_p or min_p",
    "xtc_probability": "not supported; use min_p",
    "logit_processors": "use logit_bias or the penalties",
    "logits_processors": "use logit_bias or the penalties",
    "sampler": "use temperature, top_p, top_k and min_p",
    "draft_model": "speculative decoding is not supported; leave it out",
    "max_kv_size": _MEMORY,
    "kv_bits": _MEMORY,
    "add_generation_prompt": _NOT_BEGUN,
    "continue_final_message": _NOT_BEGUN,
    "add_special_tokens": "the tokenizer adds what the model needs; leave it out",
    "spaces_between_special_tokens": "special tokens are never text; leave it out",
    "include_reasoning": "a thought is apart from the answer; leave it out",
    "return_token_ids": "chunks have ids; leave it out",
    "return_tokens_as_token_ids": "chunks have ids; leave it out",
    "prompt_logprobs": "logprobs are of the answer alone; leave it out",
    "truncate_prompt_tokens": "no prompt is cut; send a shorter one",
    "allowed_token_ids": "use choice, regex or grammar",
    "bad_words": "use logit_bias={token id: -100}",
    "chat_template": "a model has its own; use prompt for text without one",
    "documents": "send their text as a message",
    "request_id": "use apply_async(..., task_id=…)",
    # llama.cpp's and Ollama's
    "options": "give its fields beside the others, and leave it out",
    "system": _SYSTEM,
    "template": _TEMPLATE,
    "raw": "use prompt for text without a chat template",
    "format": _SCHEMA,
    "images": "only text is supported; leave it out",
    "think": _THINKING,
    "num_predict": _MAX_TOKENS,
    "n_predict": _MAX_TOKENS,
    "num_ctx": _MEMORY,
    "repeat_penalty": "use repetition_penalty",
    "repeat_last_n": "use repetition_context_size",
    "keep_alive": "use keep_alive_s, in seconds",
    "json_schema": _SCHEMA,
    "mirostat": "not supported; use top_p or min_p",
    "tfs_z": "not supported; use top_p or min_p",
    "top_a": "not supported; use top_p or min_p",
    "dry_multiplier": "not supported; use repetition_penalty",
    "n_probs": "use logprobs=True, with top_logprobs",
    "cache_prompt": _CACHED,
    # Anthropic's, Google's, Mistral's and OpenRouter's
    "contents": "use messages",
    "response_mime_type": _SCHEMA,
    "response_schema": _SCHEMA,
    "system_prompt": _SYSTEM,
    "random_seed": "use seed",
    "safe_prompt": "not supported; send the wish as a message",
    "models": "use model, with one name",
    "provider": _ROUTED,
    "route": _ROUTED,
    "plugins": "not supported; leave it out",
    "transforms": "no prompt is cut; leave it out",
    "usage": "every answer has its usage; leave it out",
}

#: Values that ask for what happens anyway. A request with one of them is the same request without it.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "stream": (False,),
    "n": (1,),
    "best_of": (1,),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "verbosity": ("medium",),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "echo": (False,),
    "suffix": ("",),
    "extra_body": ({},),
    "extra_headers": ({},),
    "extra_query": ({},),
    "stop_token_ids": ([],),
    "ignore_eos": (False,),
    "min_tokens": (0,),
    "length_penalty": (1,),
    "use_beam_search": (False,),
    "num_beams": (1,),
    "num_return_sequences": (1,),
    "skip_special_tokens": (True,),
    "include_stop_str_in_output": (False,),
    "return_full_text": (False,),
    "stop_sequences": ([],),
    "typical_p": (1,),
    "xtc_probability": (0,),
    "mirostat": (0,),
    "options": ({},),
    "raw": (False,),
    "images": ([],),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "spaces_between_special_tokens": (True, False),
    "include_reasoning": (True,),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "bad_words": ([],),
    "documents": ([],),
    "tfs_z": (1,),
    "top_a": (0,),
    "dry_multiplier": (0,),
    "n_probs": (0,),
    "cache_prompt": (True,),
    "safe_prompt": (False,),
    "plugins": ([],),
    "transforms": ([],),
    "usage": ({"include": True}, {"include": False}),
    "reasoning": ({},),
    # PHP writes an empty object so.
    "logit_bias": ([],),
    "metadata": ([],),
    "chat_template_kwargs": ([],),
}
#: The parts of ``stream_options`` that change nothing: every stream ends with the usage, and none is padded.
_STREAM_OPTIONS = {"include_usage": (True, False, None), "include_obfuscation": (False, None)}
#: What changes nothing where there are no tools.
_WITHOUT_TOOLS: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
}
#: Fields of OpenAI's interface over HTTP that mean something there and nothing here.
IGNORED: Mapping[str, str] = MappingProxyType(
    {
        "store": "every answer is kept for `result_ttl_s`",
        "prompt_cache_retention": "prompts are cached without it",
        "safety_identifier": "there is no check for abuse",
        "verbosity": "no model here knows it",
    }
)
#: Hints for a service's caches and its watch on abuse.
_HINTS = ("prompt_cache_retention", "safety_identifier")


def without_neutral(values: dict[str, Any]) -> dict[str, Any]:
    """The keywords without what changes nothing, and with what is only called by another name.

    ``max_completion_tokens`` is ``max_tokens``, ``user`` goes into ``metadata``, and ``enable_thinking`` to the chat template.

    Raises:
        InvalidRequest: two names of one thing have different values.
    """
    kept = {name: value for name, value in values.items() if not _is_neutral(name, value)}
    if not kept.get("tools"):
        kept = {
            name: value
            for name, value in kept.items()
            if not (name in _WITHOUT_TOOLS and _is_one_of(value, _WITHOUT_TOOLS[name]))
        }
    if "max_completion_tokens" in kept:
        most = kept.pop("max_completion_tokens")
        if kept.setdefault("max_tokens", most) != most:
            raise InvalidRequest(
                f"max_completion_tokens={most!r:.60} and max_tokens={kept['max_tokens']!r:.60}: use only max_tokens"
            )
    if isinstance(thinks := kept.get("enable_thinking"), bool) and isinstance(
        told := kept.get("chat_template_kwargs", {}), dict
    ):
        if told.get("enable_thinking") not in (None, thinks):
            raise InvalidRequest(
                f"enable_thinking={thinks} and chat_template_kwargs['enable_thinking']={told['enable_thinking']!r:.60}: "
                "use only enable_thinking"
            )
        del kept["enable_thinking"]
        kept["chat_template_kwargs"] = {**told, "enable_thinking": thinks}
    if "user" in kept and isinstance(kept.get("metadata", {}), dict):
        kept["metadata"] = {"user": kept.pop("user"), **kept.get("metadata", {})}
    return kept


def _is_neutral(name: str, value: Any) -> bool:
    if name in _HINTS:
        return isinstance(value, str)
    if name == "stream_options":
        return isinstance(value, dict) and all(
            _is_one_of(inner, _STREAM_OPTIONS.get(key, ())) for key, inner in value.items()
        )
    return name in NEUTRAL and _is_one_of(value, NEUTRAL[name])


def _is_one_of(value: Any, values: tuple[Any, ...]) -> bool:
    """Whether it is one of these; ``True`` is not 1 here."""
    return any(value == neutral and isinstance(value, bool) == isinstance(neutral, bool) for neutral in values)
