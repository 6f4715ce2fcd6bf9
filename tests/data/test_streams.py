"""Threads process a stream in order and only a little ahead."""

import itertools
import time

import pytest

from nanogpt.data import streams
from nanogpt.data.streams import OrderedPool, in_batches


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(threads):
    def work(number):
        time.sleep(0.002 * (number % 3))
        return -number

    with OrderedPool(threads) as pool:
        assert list(pool.in_order(work, range(40))) == [-number for number in range(40)]


def test_an_endless_stream_is_read_a_few_items_ahead():
    read = []
    items = (read.append(number) or number for number in itertools.count())
    with OrderedPool(2) as pool:
        results = pool.in_order(str, items)
        assert [next(results) for _ in range(3)] == ["0", "1", "2"]
    assert len(read) < 10


def test_an_error_in_a_thread_is_raised_to_the_consumer():
    with OrderedPool(2) as pool, pytest.raises(ZeroDivisionError):
        list(pool.in_order(lambda number: 1 // (number - 3), range(10)))


def test_batches_end_at_the_first_item_that_fills_them(monkeypatch):
    monkeypatch.setattr(streams, "BATCH", 5)
    items = ["aa", "b", "cc", "ddddddd", "", "e"]
    assert list(in_batches(items, len)) == [["aa", "b", "cc"], ["ddddddd"], ["", "e"]]
    assert list(in_batches([], len)) == []
