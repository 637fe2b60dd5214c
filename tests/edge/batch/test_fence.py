"""Who may still write in an output folder: real processes hold their bytes, and are killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mmedge.edge.batch.fence import Fence
from mmedge.errors import OutputError

ROOT = Path(__file__).parents[3]
HOLD = (
    "import sys; from mmedge.edge.batch.fence import Fence; "
    "Fence({!r}).hold({}); print(1, flush=True); sys.stdin.read()"
)


def holder(fence: Fence, number: int) -> subprocess.Popen[str]:
    code = f"from pathlib import PosixPath\n{HOLD.format(fence.path, number)}"
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    return process


def test_a_byte_is_free_when_its_worker_is_gone(tmp_path: Path) -> None:
    fence = Fence(tmp_path / ".mmedge" / "1-of-1.workers")
    assert fence.is_free()  # no cluster has ever worked here
    fence.path.parent.mkdir()
    fence.create()
    with holder(fence, 1) as one, holder(fence, 2) as two:
        assert [fence.is_free(number) for number in (1, 2, 3)] == [False, False, True]
        one.kill()
        one.wait()
        assert [fence.is_free(number) for number in (1, 2)] == [True, False]
        with pytest.raises(OutputError, match="workers of a batch that is gone still write"):
            fence.refuse_held(0.1)
        two.kill()
        two.wait()
        fence.refuse_held(0.1)


def test_a_folder_that_a_worker_does_not_see_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Fence(tmp_path / "elsewhere" / "1-of-1.workers").hold(1)
