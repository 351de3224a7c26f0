"""Constrained decoding: which tokens a row may draw, by a grammar, with llguidance.

A request has a :class:`tasks.messages.constraint.Constraint`. This is its way through the engine:

1. **Compile**, on a thread of the intake: ``ModelRunner.grammar(submit, prompt)`` turns the constraint into a :class:`Grammar`
   (:mod:`~tasks.engine.constraint.compiler`, which keeps the last ones by their text). What cannot be enforced is an
   ``InvalidRequest`` here, before the request joins the batch. :mod:`~tasks.engine.constraint.source` is the one place that
   writes grammars: every kind becomes one grammar in llguidance's own notation. A thought in front of an answer, with its budget,
   is a part of it (:mod:`~tasks.engine.constraint.lead`), and not a detector beside it.
   :mod:`~tasks.engine.constraint.schema` says what of a JSON Schema cannot be enforced, and where.
2. **Match**: the sampler has a :class:`Matcher` for each constrained row, by the row's uid. It is made of the grammar and of
   the ids that are known when the row joins the batch, so nothing has to be saved for a resume: a crash in the middle of a
   string, or of a character, is a replay of the ids.
3. **Fill**: while the device computes the logits, the host asks the matchers for their masks, one bit for each token
   (:mod:`~tasks.engine.constraint.masks`). Where the next step is launched before the last one is read, the last one is read
   first if a row of the batch is constrained: only the sampling waits for it, the model does not. Elsewhere the device may be
   the step's own thread, so another thread asks: others wait for the part of a slow mask that is longer than the model's step.
4. **Apply**: one operation of MLX's over the constrained rows alone, after bias and penalties and before everything that
   looks at probabilities. llguidance's own helper is a kernel of Metal's; this is the same on Metal, CUDA and the CPU.
5. **Advance**: as a step is read, each matcher takes its row's token. A row whose grammar is complete ends with ``stop``,
   without a step for the end token. A matcher that fails ends its row with an error: llguidance allows the end token after an
   error, which would be an answer that is cut off and looks finished.

What a step may cost is bounded (:data:`tasks.engine.constraint.grammar.LIMITS`); a grammar that needs more fails its own
request.
"""
