"""The thread rule, and that it is held only for a while."""

import threading

import pytest
import torch

import flatprobe as fp
from flatprobe.utils.threads import SMALL, one_thread, thread_count, thread_rule


def test_closed_form_small_dense_networks_take_one_thread() -> None:
    with thread_count(3):
        assert thread_rule(10, 64, "dense") == 1
        assert thread_rule(SMALL // 64, 64, "dense") == 3
        assert thread_rule(SMALL // 64 - 1, 64, "dense") == 1
        assert thread_rule(10, 64, "convolutional") == 3


def test_property_the_count_is_restored_even_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), thread_count(before + 1):
        raise KeyError
    assert torch.get_num_threads() == before


def test_training_follows_the_rule_and_records_it() -> None:
    data = fp.LabelledData(torch.rand(8, 4), torch.arange(8) % 2)
    with thread_count(2):
        small = fp.train(fp.models.mlp((4,), widths=(3,), classes=2), data, epochs=1)
        given = fp.train(fp.models.mlp((4,), widths=(3,), classes=2), data, epochs=1, threads=2)
    assert small.settings["environment"]["threads"] == 1
    assert given.settings["environment"]["threads"] == 2


def test_measurements_that_overlap_restore_the_number_before_the_first() -> None:
    """The first one ends while the second runs, in another thread of Python, which begins with one thread of torch."""
    began, ended = threading.Event(), threading.Event()
    found = []

    def second() -> None:
        with one_thread(), one_thread():
            began.set()
            ended.wait(10)
        found.append(torch.get_num_threads())

    with thread_count(3):
        other = threading.Thread(target=second)
        with one_thread():
            other.start()
            began.wait(10)
        assert torch.get_num_threads() == 3
        ended.set()
        other.join()
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
    assert found == [3]
