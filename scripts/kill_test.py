"""Kill a real batch at random moments until it is done, and compare what it made with what an undisturbed one makes.

    python scripts/kill_test.py --kills 50 --seed 1 --report docs/results/kill_test.json

Scenes are crops of the example, a file per sensor, some sensors missing; one is large enough for strips. A round begins
in an empty folder, or (every second one) in a folder of maps that were made with other options and have to be replaced.
The batch, one of its workers or all of them at once are killed with SIGKILL, at a random moment or (two times of five)
when the first of a random scene's files has just got its final name. After every kill: each file under a final
name is, byte for byte, the one it should be or the one it was before; nothing that was done is undone. After every
round: the outputs are those of the undisturbed run, no part file is left, nothing was mapped again after it was done.
Exits 1 where any of this does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

from mmedge import __version__
from mmedge.edge.device import cpu_name, threads_available

ROOT = Path(__file__).parents[1]
START = "from mmedge.cli.app import main; main()"
MISSING = {"tile_2": "sar", "tile_4": "elevation", "tile_5": "optical"}
PATTERN = "{id}_{sensor}.tif"
SCENES = ("large", *(f"tile_{i}" for i in range(6)))


def crop(source: Path, target: Path, window: Window, repeat: int = 1) -> None:
    """Cut a window out of a raster; `repeat`: mirrored, so many times in both directions."""
    with rasterio.open(source) as src:
        data = src.read(window=window)
        if repeat > 1:
            data = np.pad(data, ((0, 0), *((0, (repeat - 1) * n) for n in data.shape[1:])), mode="symmetric")
        profile = {**src.profile, "height": data.shape[1], "width": data.shape[2]}
        profile["transform"] = src.window_transform(window)
        with rasterio.open(target, "w", **profile) as out:
            out.write(data)
            out.descriptions, out.scales, out.offsets = src.descriptions, src.scales, src.offsets


def make_scenes(folder: Path, large: int) -> None:
    """Six small scenes and one of `large` times the example's side."""
    folder.mkdir()
    for i in range(6):
        for sensor in ("optical", "sar", "elevation"):
            if MISSING.get(f"tile_{i}") != sensor:
                window = Window(16 * i, 8 * i, 128, 96)
                crop(ROOT / "examples/chile" / f"{sensor}.tif", folder / f"tile_{i}_{sensor}.tif", window)
    for sensor in ("optical", "sar"):
        target = folder / f"large_{sensor}.tif"
        crop(ROOT / "examples/chile" / f"{sensor}.tif", target, Window(0, 0, 224, 224), large)


@dataclass
class Trial:
    """One batch command, and what has become of it so far."""

    scenes: Path
    out: Path
    model: str
    workers: int
    rng: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    moments: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    parts: int = 0
    resumed: int = 0
    recovered: int = 0
    rounds: int = 0
    complaints: list[str] = field(default_factory=list)

    def start(self, *more: str, out: Path | None = None) -> subprocess.Popen[bytes]:
        told = ["batch", str(self.scenes), "--pattern", PATTERN, "-o", str(out or self.out), "-m", self.model]
        told += ["--workers", str(self.workers), "--threads", "1", "--strips-from", "0.1", "-q", *more]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
        silent = subprocess.DEVNULL
        return subprocess.Popen([sys.executable, "-c", START, *told], env=environment, stdout=silent, stderr=silent)

    def check(self, right: dict[str, bytes], old: dict[str, bytes]) -> None:
        """What holds at any moment: no file under a final name is half one thing and half another."""
        for name, content in outputs(self.out).items():
            if content not in (right.get(name), old.get(name)):
                self.complaints.append(f"round {self.rounds}: `{name}` is neither the new nor the old file")


def outputs(folder: Path) -> dict[str, bytes]:
    """The files under final names."""
    found = folder.iterdir() if folder.exists() else ()
    return {path.name: path.read_bytes() for path in found if path.is_file() and path.suffix != ".part"}


def parts(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.part"))


def look(out: Path, question: str) -> list[tuple[object, ...]]:
    """Ask a copy of the journal, so that the look is no part of the experiment."""
    journal = out / ".mmedge" / "1-of-1.sqlite"
    if not journal.exists():
        return []
    with tempfile.TemporaryDirectory() as copy:
        for path in journal.parent.glob(f"{journal.name}*"):
            if not path.name.endswith("-shm"):
                shutil.copy(path, copy)
        database = sqlite3.connect(Path(copy) / journal.name)
        try:
            return database.execute(question).fetchall()
        except sqlite3.OperationalError:  # killed before its tables were there
            return []
        finally:
            database.close()


def done(out: Path) -> set[object]:
    return {row[0] for row in look(out, "SELECT id FROM scenes WHERE state='done'")}


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []


def strike(trial: Trial, process: subprocess.Popen[bytes]) -> None:
    """Kill the batch, a worker, or all of them."""
    workers = children(process.pid)
    choice = trial.rng.choices(("batch", "worker", "all"), (6, 3, 2))[0]
    if choice == "worker" and not workers:
        choice = "batch"
    victims = {"batch": [process.pid], "worker": workers[:1], "all": [*workers, process.pid]}[choice]
    if choice == "worker":
        victims = [trial.rng.choice(workers)]
    for pid in victims:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    trial.kills[choice] += 1
    process.wait()
    print(f"round {trial.rounds}, kill {trial.kills.total()}: {choice}", file=sys.stderr, flush=True)


def await_moment(trial: Trial, process: subprocess.Popen[bytes], length_s: float) -> int | None:
    """Sleep until the moment to kill has come; the exit code where the batch ended before."""
    if trial.rng.random() < 0.6:
        try:
            return process.wait(trial.rng.uniform(0, length_s))
        except subprocess.TimeoutExpired:
            trial.moments["random"] += 1
            return None
    first = trial.out / f"{trial.rng.choice(SCENES)}_map_confidence.tif"
    before = inode(first)
    while inode(first) in (before, 0):
        if process.poll() is not None:
            return process.returncode
    trial.moments["first file renamed"] += 1
    return None


def inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def disturbed(trial: Trial, kills: int, length_s: float, right: dict[str, bytes], old: dict[str, bytes]) -> None:
    """One round: the same command until it ends well, killed on its way up to `kills` times."""
    trial.rounds += 1
    known: set[object] = set()
    while True:
        process = trial.start()
        code: int | None = process.wait(600) if not kills else await_moment(trial, process, length_s)
        if code is None:
            strike(trial, process)
            kills, code = kills - 1, None
            trial.parts += len(parts(trial.out))
            trial.states.update(str(row[0]) for row in look(trial.out, "SELECT state FROM scenes"))
        trial.check(right, old)
        now = done(trial.out)
        if trial.rounds % 2 and not known <= now:
            trial.complaints.append(f"round {trial.rounds}: {sorted(map(str, known - now))} were done, and are not")
        known = now
        if code == 0:
            return
        if code not in (None, 1):
            trial.complaints.append(f"round {trial.rounds}: exit code {code}")
            return


def conclude(trial: Trial, right: dict[str, bytes]) -> None:
    """What holds at the end of a round."""
    made = outputs(trial.out)
    differing = sorted(name for name in right.keys() | made.keys() if right.get(name) != made.get(name))
    if differing:
        trial.complaints.append(f"round {trial.rounds}: {differing} differ from the undisturbed run")
    if parts(trial.out):
        trial.complaints.append(f"round {trial.rounds}: part files are left: {parts(trial.out)}")
    if look(trial.out, "PRAGMA integrity_check") != [("ok",)]:
        trial.complaints.append(f"round {trial.rounds}: the journal is damaged")
    if look(trial.out, "SELECT id FROM scenes WHERE state<>'done'") or look(trial.out, "SELECT scene FROM strips"):
        trial.complaints.append(f"round {trial.rounds}: the journal does not say that all is done")
    again = "SELECT a.scene FROM attempts a JOIN attempts b ON a.scene=b.scene AND a.attempt>b.attempt"
    since = look(trial.out, "SELECT coalesce(max(run), 0) FROM runs WHERE outcome='prelude'")
    twice = look(trial.out, f"{again} WHERE b.outcome='done' AND b.run>{since[0][0] if since else 0}")
    if twice:
        trial.complaints.append(f"round {trial.rounds}: {twice} were mapped again after they were done")
    trial.resumed += len(look(trial.out, "SELECT 1 FROM attempts WHERE resumed_from_row>0"))
    unfinished = (
        "SELECT 1 FROM scenes s WHERE NOT EXISTS(SELECT 1 FROM attempts a WHERE a.scene=s.id AND outcome='done'"
    )
    trial.recovered += len(look(trial.out, f"{unfinished} AND a.run>{since[0][0] if since else 0})"))


def prelude(trial: Trial) -> dict[str, bytes]:
    """Maps of other options in the folder, which the round has to replace."""
    if trial.start("--available", "optical,sar").wait() not in (0, 1):
        raise SystemExit("the maps that are to be replaced cannot be made")
    database = sqlite3.connect(trial.out / ".mmedge" / "1-of-1.sqlite")
    with database:
        database.execute("UPDATE runs SET outcome='prelude'")
    database.close()
    return outputs(trial.out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--each", type=int, default=5, help="kills a round, at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", default="mamol-terra")
    parser.add_argument("--large", type=int, default=5, help="side of the large scene, in sides of the example")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--report", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill_test_") as folder:
        report = experiment(args, Path(folder))
    text = json.dumps(report, indent=1)
    print(text)
    if args.report:
        args.report.parent.mkdir(parents=True, exist_ok=True)
        args.report.write_text(text + "\n", encoding="utf-8")
    sys.exit(1 if report["complaints"] else 0)


def experiment(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    make_scenes(folder / "scenes", args.large)
    rng = random.Random(args.seed)
    trial = Trial(folder / "scenes", folder / "maps", args.model, args.workers, rng)
    began = time.monotonic()
    if trial.start(out=folder / "right").wait() != 0:
        raise SystemExit("the undisturbed batch fails")
    length_s, right = time.monotonic() - began, outputs(folder / "right")
    while (left := args.kills - trial.kills.total()) > 0:
        shutil.rmtree(trial.out, ignore_errors=True)
        old = prelude(trial) if trial.rounds % 2 else {}
        disturbed(trial, min(left, args.each), length_s, right, old)
        conclude(trial, right)
    return {
        "schema": "mmedge.kill_test/1",
        "mmedge": __version__,
        "model": Path(args.model).name,
        "machine": f"{cpu_name()}, {threads_available()} cores",
        "seed": args.seed,
        "scenes": len(SCENES),
        "files": len(right),
        "undisturbed_s": round(length_s, 1),
        "kills": trial.kills.total(),
        "killed": dict(trial.kills),
        "when": dict(trial.moments),
        "rounds": trial.rounds,
        "states_of_scenes_at_kills": dict(trial.states),
        "part_files_at_kills": trial.parts,
        "attempts_resumed_from_strips": trial.resumed,
        "publications_finished_by_a_later_run": trial.recovered,
        "complaints": trial.complaints,
    }


if __name__ == "__main__":
    main()
