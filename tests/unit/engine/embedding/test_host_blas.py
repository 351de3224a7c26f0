"""Texts shared out among threads, each of which has a BLAS of one thread meanwhile."""

from __future__ import annotations

import threading

import numpy as np
from threadpoolctl import ThreadpoolController

from tasks.engine.embedding.host_blas import HostBlas


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in ThreadpoolController().select(user_api="blas").info()]


def test_each_text_is_computed_once_by_threads_whose_blas_has_one() -> None:
    """As many texts as threads: they are shared out, the BLAS keeps out of it, and has its threads again afterwards."""
    blas = HostBlas()
    blas.start()
    before = blas_threads()
    seen: list[tuple[range, list[int]]] = []
    blas.share(lambda start, end: seen.append((range(start, end), blas_threads())), 2 * blas.threads)
    assert sorted(text for texts, _ in seen for text in texts) == list(range(2 * blas.threads))
    assert all(len(texts) == 2 for texts, _ in seen)
    assert {count for _, counts in seen for count in counts} == {1}
    assert blas_threads() == before
    assert blas.threads == max(before)


def test_a_text_alone_has_all_threads_of_the_blas() -> None:
    """With fewer texts than threads, the caller computes them, and the BLAS divides each product."""
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        blas = HostBlas()
        blas.start()
        seen: list[tuple[int, int, list[int], threading.Thread]] = []
        blas.share(lambda *part: seen.append((*part, blas_threads(), threading.current_thread())), 1)
    assert [(start, end, thread) for start, end, _, thread in seen] == [(0, 1, threading.current_thread())]
    assert max(seen[0][2]) == 2
    assert np.ones((2, 2)).dot(np.ones((2, 2))).tolist() == [[2, 2], [2, 2]]
