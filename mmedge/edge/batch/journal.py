"""The journal of a batch: what was asked for, what it was made from, what came out; when, where and by whom.

SQLite in WAL mode, one file a shard, written by the batch's own process alone. Every call commits before it returns, so
that a process which is killed loses nothing that it was told.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from mmedge import __version__
from mmedge.edge.strips import Strip
from mmedge.errors import OutputError

VERSION = 1
State = Literal["running", "prepared", "done", "failed"]
TABLES = """
CREATE TABLE scenes(
    id TEXT PRIMARY KEY, state TEXT NOT NULL, wish TEXT NOT NULL,
    inputs TEXT NOT NULL, outputs TEXT NOT NULL, record TEXT NOT NULL, reason TEXT NOT NULL);
CREATE TABLE strips(scene TEXT, bottom INTEGER, end INTEGER, sha256 TEXT, PRIMARY KEY(scene, end));
CREATE TABLE runs(
    run INTEGER PRIMARY KEY, host TEXT, pid INTEGER, version TEXT, started REAL, ended REAL, outcome TEXT);
CREATE TABLE attempts(
    attempt INTEGER PRIMARY KEY, scene TEXT, run INTEGER REFERENCES runs, worker INTEGER, resumed_from_row INTEGER,
    started REAL, ended REAL, outcome TEXT, reason TEXT);
"""


@dataclass(frozen=True, slots=True)
class InputFact:
    """What a file was: its name, size, modification time, and the hex sha256 of its bytes where that is known.

    `size` -1: it was not there.
    """

    name: str
    size: int
    mtime_ns: int
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The last thing that is known of a scene.

    `wish` is the digest of the model and the options; `outputs` the checksum of each file by name, empty as long as
    none was ever complete. `prepared`: its files were complete, their publication may have begun.
    """

    id: str
    state: State
    wish: str
    inputs: tuple[InputFact, ...]
    outputs: Mapping[str, str]
    record: Mapping[str, Any]
    reason: str


class Journal:
    """An open journal; a context manager. Raises OutputError where it is damaged or cannot be written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._errors():
            self._db = sqlite3.connect(path, isolation_level=None, timeout=30)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._create()

    def __enter__(self) -> Journal:
        with self._transaction() as db:
            db.execute("UPDATE runs SET outcome = 'killed' WHERE outcome IS NULL")
            db.execute("UPDATE attempts SET outcome = 'killed' WHERE outcome IS NULL")
            values = socket.gethostname(), os.getpid(), __version__, time.time()
            self._run = db.execute("INSERT INTO runs(host, pid, version, started) VALUES(?,?,?,?)", values).lastrowid
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        outcome = "ended" if err is None else f"stopped: {err!r}"
        try:
            with self._transaction() as db:
                db.execute("UPDATE attempts SET ended=?, outcome='stopped' WHERE outcome IS NULL", (time.time(),))
                db.execute("UPDATE runs SET ended=?, outcome=? WHERE run=?", (time.time(), outcome, self._run))
        finally:
            self._db.close()

    def entry(self, scene: str) -> Entry | None:
        """What is known of a scene."""
        with self._errors():
            row = self._db.execute("SELECT * FROM scenes WHERE id=?", (scene,)).fetchone()
        return _entry(row) if row else None

    def entries(self) -> list[Entry]:
        """What is known of every scene."""
        with self._errors():
            return [_entry(row) for row in self._db.execute("SELECT * FROM scenes ORDER BY id")]

    def strips(self, scene: str) -> list[Strip]:
        """The finished strips of a scene, from the top."""
        with self._errors():
            rows = self._db.execute("SELECT bottom, end, sha256 FROM strips WHERE scene=? ORDER BY end", (scene,))
            return [Strip(*row) for row in rows]

    def begin(self, scene: str, wish: str, inputs: Sequence[InputFact], *, worker: int, kept: Sequence[Strip]) -> int:
        """A worker begins with a scene, below the strips that are kept; returns the number of the attempt."""
        row = kept[-1].bottom if kept else 0
        with self._transaction() as db:
            db.execute(
                "INSERT INTO scenes VALUES(?,'running',?,?,'{}','{}','') ON CONFLICT(id) DO UPDATE SET "
                "state='running', wish=excluded.wish, inputs=excluded.inputs, reason=''",
                (scene, wish, _dumps([asdict(fact) for fact in inputs])),
            )
            db.execute("DELETE FROM strips WHERE scene=? AND end>?", (scene, kept[-1].end if kept else -1))
            values = (scene, self._run, worker, row, time.time())
            return int(
                db.execute(
                    "INSERT INTO attempts(scene, run, worker, resumed_from_row, started) VALUES(?,?,?,?,?)", values
                ).lastrowid
                or 0
            )

    def add_strip(self, scene: str, strip: Strip) -> None:
        """A strip is on the disk."""
        with self._transaction() as db:
            db.execute("DELETE FROM strips WHERE scene=? AND end>=?", (scene, strip.end))
            db.execute("INSERT INTO strips VALUES(?,?,?,?)", (scene, strip.bottom, strip.end, strip.sha256))

    def prepare(
        self, scene: str, inputs: Sequence[InputFact], outputs: Mapping[str, str], record: Mapping[str, Any]
    ) -> None:
        """Every file of a scene is complete as its part; from now on it may be published."""
        facts = _dumps([asdict(fact) for fact in inputs])
        with self._transaction() as db:
            db.execute(
                "UPDATE scenes SET state='prepared', inputs=?, outputs=?, record=? WHERE id=?",
                (facts, _dumps(outputs), _dumps(record), scene),
            )

    def done(self, scene: str, attempt: int | None = None) -> None:
        """Every file of a scene is in place."""
        with self._transaction() as db:
            db.execute("UPDATE scenes SET state='done', reason='' WHERE id=?", (scene,))
            db.execute("DELETE FROM strips WHERE scene=?", (scene,))
            if attempt is not None:
                self._end(attempt, "done", "")

    def refresh(self, scene: str, inputs: Sequence[InputFact]) -> None:
        """The files of a scene were touched, but hold what they held."""
        with self._transaction() as db:
            db.execute("UPDATE scenes SET inputs=? WHERE id=?", (_dumps([asdict(fact) for fact in inputs]), scene))

    def fail(self, scene: str, reason: str, attempt: int) -> None:
        """A scene could not be mapped. Its strips stay: another attempt goes on from them."""
        with self._transaction() as db:
            db.execute("UPDATE scenes SET state='failed', reason=? WHERE id=?", (reason, scene))
            self._end(attempt, "failed", reason)

    def refuse(self, scene: str, reason: str) -> None:
        """A scene was not even begun; a map that it has already is what it was."""
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO scenes VALUES(?,'failed','','[]','{}','{}','')", (scene,))
            db.execute("UPDATE scenes SET reason=? WHERE id=?", (reason, scene))

    def adopt(self, other: Path) -> None:
        """Take over what another journal of the folder knows of scenes that this one has never heard of."""
        with self._errors():
            self._db.execute("ATTACH ? AS other", (str(other),))
            try:
                self._db.execute("INSERT OR IGNORE INTO scenes SELECT * FROM other.scenes WHERE state='done'")
            finally:
                self._db.execute("DETACH other")

    def _end(self, attempt: int, outcome: str, reason: str) -> None:
        values = (time.time(), outcome, reason, attempt)
        self._db.execute("UPDATE attempts SET ended=?, outcome=?, reason=? WHERE attempt=?", values)

    def _create(self) -> None:
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found == 0:
            self._db.executescript(f"BEGIN; {TABLES} PRAGMA user_version={VERSION}; COMMIT;")
        elif found != VERSION:
            raise OutputError(
                f"`{self._path}` is a journal of version {found}, this mmedge writes {VERSION}",
                hint="give another --out, or run the mmedge that wrote it",
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as err:
            raise OutputError(
                f"cannot use the journal `{self._path}`: {err}",
                hint="free disk space and run the same command again; what is done is not done again",
            ) from err


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _entry(row: Sequence[Any]) -> Entry:
    scene, state, wish, inputs, outputs, record, reason = row
    return Entry(
        id=scene,
        state=state,
        wish=wish,
        inputs=tuple(InputFact(**fact) for fact in json.loads(inputs)),
        outputs=json.loads(outputs),
        record=json.loads(record),
        reason=reason,
    )
