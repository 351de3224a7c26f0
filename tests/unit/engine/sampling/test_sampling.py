"""Sampling a batch of mixed rows: each gets what its own parameters ask for, as mlx-lm's samplers would give it alone."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from random import Random
from typing import cast

import mlx.core as mx
import pytest
from mlx_lm.sample_utils import make_logits_processors, make_sampler

from tasks.engine.sampling.barred import Barred
from tasks.engine.sampling.sampler import BatchSampler, check_sampling
from tasks.engine.sampling.scores import LOWEST_LOGPROB
from tasks.errors import InvalidRequest
from tasks.messages.engine import Sampling

VOCABULARY = 600  # more than two blocks of a draw, and no multiple of one
GREEDY = Sampling(temperature=0.0)
MIXED = [
    Sampling(),
    Sampling(temperature=0.7),
    Sampling(temperature=1.5, top_k=12),
    Sampling(top_p=0.8),
    Sampling(temperature=0.6, top_p=0.95),
    Sampling(temperature=2.0, min_p=0.1),
    Sampling(top_k=40, top_p=0.6),
    Sampling(temperature=1.3, top_k=30, top_p=0.9, min_p=0.02),
    Sampling(top_k=5000),
    Sampling(temperature=1.2, top_p=0.999),
]


def normal(rows: int, seed: int = 3, spread: float = 2.5) -> mx.array:
    return mx.random.normal((rows, VOCABULARY), key=mx.random.key(seed)) * spread


def sampler_of(rows: list[Sampling], prompt: list[int] | None = None, entropy: int = 1) -> BatchSampler:
    sampler = BatchSampler(VOCABULARY, str, entropy=Random(entropy))
    for uid, sampling in enumerate(rows):
        sampler.add(uid, sampling, prompt or [1], [])
    return sampler


def tokens_of(sampler: BatchSampler, uids: list[int], logits: mx.array) -> list[int]:
    return [draw.token for draw in sampler.sample(uids, logits).read(uids)]


def chi_square(ours: list[int], theirs: list[int]) -> tuple[float, int]:
    """Pearson's statistic for two samples of one size, and its degrees of freedom; rare tokens are one class."""
    table: dict[int, list[int]] = {}
    for which, tokens in enumerate((ours, theirs)):
        for token in tokens:
            table.setdefault(token, [0, 0])[which] += 1
    classes = [counts for counts in table.values() if sum(counts) >= 10]
    rest = [sum(counts[which] for counts in table.values() if sum(counts) < 10) for which in (0, 1)]
    classes += [rest] if sum(rest) else []
    return sum((a - b) ** 2 / (a + b) for a, b in classes), len(classes) - 1


def test_a_mixed_batch_is_distributed_as_mlx_lms_samplers() -> None:
    """Ten kinds of rows in one batch, two thousand draws of each: a chi-square test cannot tell them from mlx-lm's."""
    copies, rounds = 200, 10
    kinds = MIXED * copies
    uids = list(range(len(kinds)))
    logits = normal(1)
    logprobs = logits - mx.logsumexp(logits)
    sampler = sampler_of(kinds)
    drawn: list[int] = []
    for _ in range(rounds):
        drawn += tokens_of(sampler, uids, mx.broadcast_to(logits, (len(kinds), VOCABULARY)))
    mx.random.seed(11)
    for kind, sampling in enumerate(MIXED):
        theirs = make_sampler(
            temp=sampling.temperature,
            top_p=sampling.top_p,
            min_p=sampling.min_p,
            top_k=sampling.top_k if sampling.top_k < VOCABULARY else 0,
        )(mx.broadcast_to(logprobs, (copies * rounds, VOCABULARY)))
        statistic, freedom = chi_square(drawn[kind :: len(MIXED)], cast("list[int]", theirs.tolist()))
        assert freedom >= 3
        # The mean and four standard deviations of the distribution: about one in ten thousand.
        assert statistic < freedom + 4 * (2 * freedom) ** 0.5, sampling


def test_a_wrong_temperature_would_be_noticed() -> None:
    """The chi-square test has the power to tell a temperature of 1 from one of 1.15."""
    uids = list(range(6000))
    logits = mx.broadcast_to(normal(1), (6000, VOCABULARY))
    ours = tokens_of(sampler_of([Sampling()] * 6000), uids, logits)
    theirs = tokens_of(sampler_of([Sampling(temperature=1.15)] * 6000, entropy=2), uids, logits)
    statistic, freedom = chi_square(ours, theirs)
    assert statistic > freedom + 4 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_greedy_rows_take_the_likeliest_token(dtype: mx.Dtype) -> None:
    """Temperature 0, a temperature that is next to nothing and top_k 1 are the argmax, in company and alone."""
    logits = normal(4).astype(dtype)
    best = cast("list[int]", mx.argmax(logits, axis=-1).tolist())
    greedy = [GREEDY, Sampling(temperature=1e-9), Sampling(top_k=1), GREEDY]
    assert tokens_of(sampler_of(greedy), [0, 1, 2, 3], logits) == best
    mixed = [*greedy[:3], Sampling(temperature=1.0)]
    assert tokens_of(sampler_of(mixed), [0, 1, 2, 3], logits)[:3] == best[:3]


def test_an_all_greedy_batch_costs_one_argmax() -> None:
    """No other operation stands between the logits and the tokens of a batch of greedy rows."""
    logits = normal(3)
    mx.eval(logits)
    assert operations(sampler_of([GREEDY] * 3).sample([0, 1, 2], logits).tokens) == ["ArgReduce", "Squeeze"]


def operations(array: mx.array) -> list[str]:
    """The operations that lead from evaluated arrays to this one."""
    graph: list[str] = []

    class Graph:
        def write(self, text: str) -> None:
            graph.append(text)

    mx.export_to_dot(Graph(), array)
    return re.findall(r'label ="(\w+)", shape=rectangle', "".join(graph))


@pytest.mark.parametrize("temperature", [1.1e-5, 1e300])
def test_extreme_temperatures_draw_from_what_the_filters_keep(temperature: float) -> None:
    """A tiny temperature is all but greedy, a huge one is uniform over the tokens that are kept."""
    logits = normal(1)
    best = cast("list[int]", mx.argsort(-logits[0])[:5].tolist())
    uids = list(range(400))
    sampler = sampler_of([Sampling(temperature=temperature, top_k=5)] * 400)
    tokens = tokens_of(sampler, uids, mx.broadcast_to(logits, (400, VOCABULARY)))
    assert set(tokens) == set(best[:1] if temperature < 1 else best)


def test_the_callers_logits_stay_as_they_are() -> None:
    """Bias and penalties of some rows do not write into the array that was handed in."""
    logits = normal(2)
    before = logits.tolist()
    sampler = sampler_of([GREEDY, Sampling(temperature=0.0, logit_bias={5: 50.0}, repetition_penalty=1.5)])
    assert tokens_of(sampler, [0, 1], logits)[1] == 5
    assert logits.tolist() == before


def test_a_seeded_row_draws_the_same_alone_and_in_company() -> None:
    """Neither its place in the batch nor its neighbours' parameters change what a seeded row draws."""
    seeded = Sampling(temperature=1.2, top_k=50, top_p=0.9, seed=42)
    steps = [normal(1, seed=n) for n in range(12)]
    alone = sampler_of([seeded])
    expected = [tokens_of(alone, [0], logits)[0] for logits in steps]
    company = sampler_of([*MIXED, seeded])
    last = len(MIXED)
    got = []
    for n, logits in enumerate(steps):
        # The company changes as it goes: rows leave, and the seeded row changes its place.
        uids = [last, *range(n % 7)] if n % 2 else [*range(n % 7), last]
        batch = mx.concatenate([logits if uid == last else normal(1, seed=99) for uid in uids])
        got.append(dict(zip(uids, tokens_of(company, uids, batch), strict=True))[last])
    assert got == expected
    assert len(set(expected)) > 6


@pytest.mark.parametrize("vocabulary", [VOCABULARY, 49152])
def test_a_seed_draws_the_same_in_every_batch_size(vocabulary: int) -> None:
    """A row alone, one of two and one of sixteen: the same logits and the same seed give the same tokens, for all parameters."""
    steps = [mx.random.normal((1, vocabulary), key=mx.random.key(n)) * 2.5 for n in range(6)]
    drawn: dict[int, list[list[int]]] = {}
    for size in (1, 2, 16):
        for sampling in MIXED:
            sampler = BatchSampler(vocabulary, str)
            for uid in range(size):
                sampler.add(uid, replace(sampling, seed=1000 * uid), [1], [])
            batches = [mx.broadcast_to(logits, (size, vocabulary)) for logits in steps]
            drawn.setdefault(size, []).append([tokens_of(sampler, list(range(size)), batch)[0] for batch in batches])
    assert drawn[1] == drawn[2] == drawn[16]
    assert len({tuple(tokens) for tokens in drawn[1]}) > 5


ASKING = Sampling(seed=1, logprobs=True, top_logprobs=3)


@pytest.mark.parametrize("sampling", [GREEDY, *MIXED, ASKING, Sampling(seed=2, repetition_penalty=1.3)])
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_row_whose_logits_are_no_numbers_is_told_from_the_others(sampling: Sampling, broken: float) -> None:
    """However it is drawn from; its neighbours draw what they draw without it."""
    logits = normal(3)
    spoilt = mx.array(logits)
    spoilt[1] = broken
    uids = [0, 1, 2]
    sound, unsound = (sampler_of([sampling] * 3).sample(uids, array).read(uids) for array in (logits, spoilt))
    assert [draw.sound for draw in sound] == [True] * 3
    assert [draw.sound for draw in unsound] == [True, False, True]
    assert [draw.token for draw in unsound][::2] == [draw.token for draw in sound][::2]


@pytest.mark.parametrize("on_host", [False, True])
@pytest.mark.parametrize("sampling", [GREEDY, MIXED[0], ASKING, Sampling(temperature=0.0, logit_bias={3: -100.0})])
def test_one_number_that_is_none_is_enough(sampling: Sampling, on_host: bool) -> None:
    """Wherever it stands in a row: the token that would be drawn may be any, with a likelihood that means nothing."""
    for broken, place in ((math.nan, 0), (math.nan, VOCABULARY - 1), (math.inf, 7)):
        logits = normal(2)
        logits[1, place] = broken
        sampler = BatchSampler(VOCABULARY, str, on_host=on_host)
        for uid in range(2):
            sampler.add(uid, sampling, [1], [])
        assert [draw.sound for draw in sampler.sample([0, 1], logits).read([0, 1])] == [True, False]


@pytest.mark.parametrize(
    "extreme",
    [
        Sampling(temperature=1e-300),
        Sampling(temperature=1e300),
        Sampling(repetition_penalty=1e-300),
        Sampling(repetition_penalty=1e300),
        Sampling(logit_bias={64: -1e30, 65: 1e30}),
        Sampling(temperature=0.0, presence_penalty=2.0, frequency_penalty=-2.0, logit_bias={3: -1e38}),
    ],
)
def test_extreme_parameters_keep_logprobs_finite(extreme: Sampling) -> None:
    """A request's own numbers make no infinity: of a token that cannot come the log-probability is OpenAI's -9999."""
    logits = normal(1)
    logits[0, : VOCABULARY - 10] = -math.inf
    sampler = sampler_of([replace(extreme, seed=1, logprobs=True, top_logprobs=20)], prompt=list(range(VOCABULARY)))
    for _ in range(3):
        (draw,) = sampler.sample([0], logits).read([0])
        assert draw.sound
        assert draw.logprob is not None
        scores = [draw.logprob.logprob, *(score for _, _, score in draw.logprob.top)]
        assert all(LOWEST_LOGPROB <= score <= 1e-6 for score in scores), scores


def test_numpy_chooses_what_the_device_does() -> None:
    """On a device that does not work on its own numpy adjusts logits and finds the greatest: the draws are the same ones."""
    logits = normal(4)
    logits[1] = math.nan
    kinds = [*PENALISED, *(replace(kind, seed=n) for n, kind in enumerate(MIXED)), ASKING]
    for kind in kinds:
        device, host = (
            BatchSampler(VOCABULARY, str, barred=Barred(first=(5,)), on_host=on_host) for on_host in (False, True)
        )
        for sampler in (device, host):
            for uid, sampling in enumerate((kind, kind, GREEDY, replace(GREEDY, logit_bias={3: 9.0, 5: 90.0}))):
                sampler.add(uid, sampling, [1], [])
        for _ in range(3):
            theirs, ours = (sampler.sample([0, 1, 2, 3], logits).read([0, 1, 2, 3]) for sampler in (device, host))
            for mine, other in zip(ours, theirs, strict=True):
                assert mine.sound == other.sound
                if mine.sound:
                    assert (mine.token, mine.logprob) == (other.token, other.logprob)


def test_a_resumed_row_goes_on_at_its_position() -> None:
    """A row that is added with the ids of an earlier attempt draws what the uninterrupted one draws next."""
    seeded = Sampling(seed=7, presence_penalty=1.0, frequency_penalty=0.5, repetition_penalty=1.3)
    steps = [normal(1, seed=n) for n in range(20)]
    whole = sampler_of([seeded], prompt=[3, 4, 5])
    expected = [tokens_of(whole, [0], logits)[0] for logits in steps]
    resumed = BatchSampler(VOCABULARY, str)
    resumed.add(9, seeded, [3, 4, 5], expected[:8])
    assert [tokens_of(resumed, [9], logits)[0] for logits in steps[8:]] == expected[8:]


def test_rows_without_a_seed_differ() -> None:
    """Equal unseeded rows draw from one stream of chance, and a new sampler from another."""
    uids = list(range(50))
    logits = mx.broadcast_to(normal(1, spread=1.0), (50, VOCABULARY))
    one, same, other = (sampler_of([Sampling()] * 50, entropy=seed) for seed in (1, 1, 2))
    tokens = tokens_of(one, uids, logits)
    assert len(set(tokens)) > 25
    assert tokens_of(same, uids, logits) == tokens
    assert tokens_of(other, uids, logits) != tokens


def test_barred_tokens_never_come() -> None:
    """One token never, another not at the beginning of an answer, drawn and greedy, along drafts too, and not where the request
    itself has a word on it."""
    best, second, third = 400, 401, 402
    bonus = 40.0 * (mx.arange(VOCABULARY) == best) + 30.0 * (mx.arange(VOCABULARY) == second)
    logits = normal(1) + bonus + 20.0 * (mx.arange(VOCABULARY) == third)
    sampler = BatchSampler(VOCABULARY, str, barred=Barred(always=(best, VOCABULARY), first=(second,)))
    for uid, (sampling, generated) in enumerate(
        [
            (GREEDY, []),
            (Sampling(top_p=0.9), []),
            (GREEDY, [5]),
            (replace(GREEDY, logit_bias={best: 1.0, second: -9.0}), []),
        ]
    ):
        sampler.add(uid, sampling, [1], generated)
    rows = mx.broadcast_to(logits, (4, VOCABULARY))
    assert tokens_of(sampler, [0, 1, 2, 3], rows) == [third, third, second, best]
    assert tokens_of(sampler, [0, 1, 2, 3], rows) == [second, second, second, best]
    sampler.add(4, GREEDY, [1], [])
    drawn = sampler.sample_drafted(sampler.draft([4], [[third, second]]), mx.broadcast_to(logits, (3, VOCABULARY)))
    assert [draw.token for draw in sampler.read(drawn, [4])] == [third, second, second]


def test_a_grammar_goes_before_barred_tokens() -> None:
    """A row that may draw nothing else than barred tokens draws the likeliest of them, and its logits are numbers."""
    place = mx.arange(VOCABULARY)
    logits = mx.where(place == 9, 0.5, mx.where(place == 7, 0.0, -math.inf))[None]
    for on_host in (False, True):
        sampler = BatchSampler(VOCABULARY, str, barred=Barred(always=(7, 9)), on_host=on_host)
        for uid, sampling in enumerate((GREEDY, Sampling(top_k=1))):
            sampler.add(uid, sampling, [1], [])
        drawn = sampler.sample([0, 1], mx.broadcast_to(logits, (2, VOCABULARY))).read([0, 1])
        assert [(draw.token, draw.sound) for draw in drawn] == [(9, True)] * 2


PENALISED = [
    Sampling(temperature=0.0, logprobs=True, presence_penalty=1.5),
    Sampling(temperature=0.0, logprobs=True, frequency_penalty=-0.7),
    Sampling(temperature=0.0, logprobs=True, repetition_penalty=1.4, repetition_context_size=4),
    Sampling(temperature=0.0, logprobs=True, repetition_penalty=0.8, repetition_context_size=1),
    Sampling(
        temperature=0.0,
        logprobs=True,
        presence_penalty=0.4,
        frequency_penalty=0.9,
        repetition_penalty=1.2,
        repetition_context_size=500,
        logit_bias={7: 2.0, 8: -100.0},
    ),
    Sampling(temperature=0.0, logprobs=True, logit_bias={9: 1.5}),
    Sampling(temperature=0.0, logprobs=True),
]


def expected_logprob(sampling: Sampling, prompt: list[int], said: list[int], logits: mx.array) -> tuple[int, float]:
    """What mlx-lm's processors make of it, given the text so far, with penalties over the answer alone."""
    bias = make_logits_processors(logit_bias=sampling.logit_bias)
    repeat = make_logits_processors(
        repetition_penalty=sampling.repetition_penalty, repetition_context_size=sampling.repetition_context_size
    )
    count = make_logits_processors(
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        presence_context_size=1000,
        frequency_context_size=1000,
    )
    logits = mx.array(logits)
    for context, processors in (([*prompt, *said], bias + repeat), (said, count)):
        for processor in processors:
            logits = processor(mx.array(context, dtype=mx.int32), logits)
    token = cast("int", mx.argmax(logits).item())
    return token, cast("float", (logits[0, token] - mx.logsumexp(logits)).item())


def test_penalties_are_mlx_lms_while_rows_come_and_go() -> None:
    """Step by step, with rows that join late and leave early and unread tokens, penalised logits equal mlx-lm's."""
    prompt = [3, 3, 11, 12]
    steps = 14
    # Few tokens stand out, so that they come again and again.
    logits = [normal(1, seed=100 + n, spread=0.3) + 4 * (mx.arange(VOCABULARY) < 6) for n in range(steps)]
    present = {uid: range(uid % 3, steps - uid % 4) for uid in range(len(PENALISED))}
    sampler = BatchSampler(VOCABULARY, str)
    drawn = []
    for step in range(steps):
        for uid, span in present.items():
            if span.start == step:
                sampler.add(uid, PENALISED[uid], prompt, [])
            if span.stop == step:
                sampler.remove(uid)
        uids = [uid for uid, span in present.items() if step in span]
        drawn.append((uids, sampler.sample(uids, mx.concatenate([logits[step]] * len(uids)))))
        drawn[-1][1].launch()
    said: dict[int, list[int]] = {uid: [] for uid in present}
    for step, (uids, batch) in enumerate(drawn):
        for draw in batch.read(uids):
            token, logprob = expected_logprob(PENALISED[draw.uid], prompt, said[draw.uid], logits[step])
            assert draw.token == token
            assert draw.logprob is not None
            assert draw.logprob.logprob == pytest.approx(logprob, abs=1e-4)
            said[draw.uid].append(token)
    assert all(len(set(tokens)) < len(tokens) for tokens in said.values())


def test_logprobs_come_for_rows_that_ask_and_for_no_others() -> None:
    """The drawn token's log-probability, its text, and as many alternatives as the row wants, the likeliest first."""
    rows = [
        GREEDY,
        Sampling(seed=1, logprobs=True, top_logprobs=3),
        Sampling(temperature=0.0, logprobs=True),
        Sampling(seed=2, temperature=0.5, logprobs=True, top_logprobs=20),
    ]
    logits = normal(4)
    draws = sampler_of(rows).sample([0, 1, 2, 3], logits).read([0, 1, 2, 3])
    logprobs = cast("list[list[float]]", (logits - mx.logsumexp(logits, axis=-1, keepdims=True)).tolist())
    assert draws[0].logprob is None
    for draw, row, alternatives in zip(draws[1:], logprobs[1:], [3, 0, 20], strict=True):
        assert draw.logprob is not None
        assert (draw.logprob.id, draw.logprob.token) == (draw.token, str(draw.token))
        assert draw.logprob.logprob == pytest.approx(row[draw.token], abs=1e-5)
        best = sorted(range(VOCABULARY), key=row.__getitem__, reverse=True)[:alternatives]
        assert [token_id for token_id, _, _ in draw.logprob.top] == best
        assert [score for _, _, score in draw.logprob.top] == pytest.approx([row[place] for place in best], abs=1e-5)


def test_penalties_follow_their_rows_through_the_batch() -> None:
    """Rows that change places or go on with a part of the batch keep what they have said."""
    penalised = Sampling(temperature=0.0, presence_penalty=50.0, repetition_penalty=1.1)
    sampler = sampler_of([penalised] * 3)
    likely = [mx.zeros((1, VOCABULARY)) + 9.0 * (mx.arange(VOCABULARY) // 2 == 10 + row) for row in range(3)]
    said: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for uids in ([0, 1, 2], [2, 0, 1], [0, 2], [1], [0, 1]):
        for uid, token in zip(uids, tokens_of(sampler, uids, mx.concatenate([likely[u] for u in uids])), strict=True):
            said[uid].append(token)
    # Two tokens are likely for each row, and each is said once; then all others are equal, and the first one is next.
    assert said == {0: [20, 21, 0, 1], 1: [22, 23, 0, 1], 2: [24, 25, 0]}


def test_a_neighbours_top_p_leaves_a_rows_top_k_alone() -> None:
    """Of two kept tokens the second is drawn at a high temperature, though it adds nothing to the sum of the weights."""
    logits = mx.zeros((400, VOCABULARY)) - 30.0
    logits[:, 5] = 0.0
    logits[:, 9] = -20.0
    uids = list(range(400))
    sampler = sampler_of([Sampling(temperature=100.0, top_k=2), Sampling(top_k=2, top_p=0.5)] * 200)
    tokens = tokens_of(sampler, uids, logits)
    assert set(tokens[::2]) == {5, 9}
    assert set(tokens[1::2]) == {5}


def test_a_uid_that_comes_back_starts_anew() -> None:
    """A row that left and was added again counts from what it is given, not from what it drew before."""
    penalised = Sampling(temperature=0.0, presence_penalty=2.0)
    sampler = sampler_of([penalised])
    logits = normal(1, spread=0.1) + 1.5 * (mx.arange(VOCABULARY) == 4)
    assert tokens_of(sampler, [0], logits) == [4]
    assert tokens_of(sampler, [0], logits) != [4]
    sampler.remove(0)
    sampler.add(0, penalised, [1], [])
    assert tokens_of(sampler, [0], logits) == [4]


@pytest.mark.parametrize("token_id", [-1, VOCABULARY])
def test_a_bias_for_a_token_that_does_not_exist_is_refused(token_id: int) -> None:
    """The error names the field and the id; it never reaches the device, where it would write past the row."""
    sampling = Sampling(logit_bias={token_id: 1.0})
    with pytest.raises(InvalidRequest, match=rf"logit_bias: no token {token_id}, the model's ids are 0 to 599"):
        check_sampling(sampling, VOCABULARY)
    with pytest.raises(InvalidRequest):
        BatchSampler(VOCABULARY, str).add(0, sampling, [1], [])
