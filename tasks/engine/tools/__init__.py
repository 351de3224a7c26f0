"""Calls of functions in a model's text.

Each family of models writes calls in a syntax of its own. :mod:`~tasks.engine.tools.syntaxes` lists them, by the names that
mlx-lm gives its parsers, which find out what a model has. A :class:`~tasks.engine.tools.region.Region` reads one run of calls,
from behind its start marker to its end: :mod:`~tasks.engine.tools.sequence` where the arguments are JSON,
:mod:`~tasks.engine.tools.tagged`, :mod:`~tasks.engine.tools.braces` and :mod:`~tasks.engine.tools.pythonic` where they are not.
:class:`~tasks.engine.tools.splitter.Splitter` takes an answer apart into text and calls, and
:class:`~tasks.engine.tools.functions.Functions` checks each call. mlx-lm's own parsers are not used where they are wrong on
valid calls: where a string has an end marker in it, where a block has two calls, or a schema has ``anyOf``.
"""
