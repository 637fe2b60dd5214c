"""Which errors say that there was no memory."""

from __future__ import annotations

import errno

import pytest

from mmedge.edge.memory import ran_out
from mmedge.errors import ReadError


@pytest.mark.parametrize(
    "err",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("can't start new thread"),
        RuntimeError("Check 'false' failed at src/inference:\nstd::bad_alloc"),
    ],
)
def test_memory_runs_out_in_many_words(err: Exception) -> None:
    assert ran_out(err)
    wrapped = ReadError("`scene.tif` cannot be read", hint="")
    wrapped.__cause__ = err
    assert ran_out(wrapped)


@pytest.mark.parametrize("err", [OSError(errno.ENOSPC, "No space left"), ReadError("`a.tif` is cut off", hint="")])
def test_other_errors_do_not_say_so(err: Exception) -> None:
    assert not ran_out(err)
