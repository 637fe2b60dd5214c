"""What a batch keeps in its output folder beside the maps: `.mmedge/`, with a lock, a journal and strips a shard."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

from mmedge.edge.batch.fence import Fence
from mmedge.edge.batch.journal import Journal
from mmedge.edge.batch.lock import DRAIN_S, Lock, refuse_held
from mmedge.edge.batch.worklist import Shard
from mmedge.errors import OutputError

NAME = ".mmedge"


class BatchFolder:
    """An output folder that is ours as long as the `with` block lasts. OutputError where it cannot be."""

    lock: Lock
    journal: Journal

    def __init__(self, out: Path, shard: Shard) -> None:
        self.out, self._shard, self._own = out, shard, out / NAME
        self._strips = self._own / f"strips-{shard}"
        self.fence = Fence(self._own / f"{shard}.workers")
        self._stack = ExitStack()

    def __enter__(self) -> BatchFolder:
        try:
            self._strips.mkdir(parents=True, exist_ok=True)
            self.lock = self._stack.enter_context(Lock(self._own / f"{self._shard}.lock"))
            refuse_held(self._of_other_counts(".lock"))
            for path in (self.fence.path, *self._of_other_counts(".workers")):
                Fence(path).refuse_held(DRAIN_S)
        except OSError as err:
            self._stack.close()
            raise OutputError(f"cannot write in `{self.out}`: {err.strerror}", hint="--out FOLDER elsewhere") from err
        except BaseException:
            self._stack.close()
            raise
        self._open_journal()
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.__exit__(kind, err, tb)

    def strips(self, scene: str) -> Path:
        """Where the strips of an unfinished scene lie."""
        return self._strips / f"{scene}.part"

    def _open_journal(self) -> None:
        try:
            self.journal = self._stack.enter_context(Journal(self._own / f"{self._shard}.sqlite"))
            for other in self._of_other_counts(".sqlite"):
                self.journal.adopt(other)
            for path in self._strips.iterdir():
                if not self.journal.strips(path.name.removesuffix(".part")):
                    path.unlink()
        except BaseException:
            self._stack.close()
            raise

    def _of_other_counts(self, suffix: str) -> list[Path]:
        """Files of batches that cut the work into another number of parts: any scene may be theirs."""
        found = sorted(self._own.glob(f"*-of-*{suffix}"))
        return [path for path in found if not path.stem.endswith(f"-of-{self._shard.count}")]


@contextmanager
def peek(out: Path, shard: Shard) -> Iterator[Journal | None]:
    """A copy of the journal, for a look that leaves no trace; None where there is none."""
    journal = out / NAME / f"{shard}.sqlite"
    if not journal.exists():
        yield None
        return
    with TemporaryDirectory() as copy:
        for path in journal.parent.glob(f"{journal.name}*"):
            if not path.name.endswith("-shm"):
                shutil.copy(path, copy)
        with Journal(Path(copy) / journal.name) as opened:
            yield opened
