"""Many scenes to many maps: what is up to date is left alone, what fails does not stop the rest, what was done stays.

In the output folder `.mmedge/` holds a lock, a journal and the strips of unfinished large maps, one of each a shard.
The order of every scene: its beginning is journalled, its files are written as parts, their checksums are journalled,
the files are renamed, its end is journalled. Wherever a process is killed, the next batch knows what is left to do.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmedge.bundle import Bundle, open_bundle
from mmedge.edge.batch.crew import Crew, Lost, Worker
from mmedge.edge.batch.crew_local import LocalCrew
from mmedge.edge.batch.folder import BatchFolder
from mmedge.edge.batch.fresh import Verdict, judge, look, wish
from mmedge.edge.batch.journal import Journal
from mmedge.edge.batch.lock import Lock
from mmedge.edge.batch.orders import BatchOptions, check_template, request_for, share_threads
from mmedge.edge.batch.summary import Result, Summary
from mmedge.edge.batch.worker import Advanced, Done, Failed, Message, Prepared, Task
from mmedge.edge.batch.worklist import Work, find_work, without_maps
from mmedge.edge.request import Request
from mmedge.edge.strips import Strip
from mmedge.errors import MMEdgeError
from mmedge.geo_io.maps.outputs import plan_outputs, refuse_existing
from mmedge.geo_io.maps.publication import finish_publication, remove_parts

POLL_S = 0.25

Report = Callable[[Result], None]
Tick = Callable[[Sequence[Worker]], None]


def _silent(*_: object) -> None:
    return None


def batch(
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    pattern: Sequence[str] = (),
    how: BatchOptions | None = None,
    report: Report = _silent,
    **wishes: Any,
) -> Summary:
    """Map many scenes from Python: `batch("scenes", "maps", available=("sar", "optical"))`.

    `wishes` are fields of `Request`, those of all scenes; `how` the work is done changes no map. `report` is called
    with every finished scene. Raises an MMEdgeError for a mistake that concerns every scene; one that concerns some is
    in the summary.
    """
    given = [inputs] if isinstance(inputs, (str, Path)) else inputs
    request = Request(scene=None, **wishes)
    bundle = open_bundle(request.model)
    patterns = [pattern] if isinstance(pattern, str) else pattern
    works = find_work([str(i) for i in given], patterns=patterns, sensors=bundle.order).works
    return run_batch(works, Path(out), request, how or BatchOptions(), report=report)


def run_batch(
    works: Sequence[Work],
    out: Path,
    template: Request,
    options: BatchOptions,
    *,
    report: Report = _silent,
    tick: Tick = _silent,
) -> Summary:
    """Map scenes into a folder. `template` is what all of them have in common; `tick` sees the workers now and then."""
    start = time.monotonic()
    bundle = open_bundle(template.model)
    template = share_threads(check_template(template, bundle), options)
    mine = [work for work in without_maps(works, out) if work.id in options.shard]
    with BatchFolder(out, options.shard) as folder:
        crew = _crew(template, options, folder, len(mine))
        running = _Batch(mine, folder, bundle, template, options, crew, report)
        try:
            running.go(tick)
        finally:
            running.stop()
    return replace(running.summary(), seconds=time.monotonic() - start)


def _crew(template: Request, options: BatchOptions, folder: BatchFolder, scenes: int) -> Crew:
    if options.engine == "ray":
        from mmedge.edge.batch.crew_ray import RayCrew

        return RayCrew(template, options, fence=folder.fence, scenes=scenes)
    return LocalCrew(template, options.workers or 1, timeout_s=options.timeout_s, hold=(folder.lock.fd,))


class _Batch:
    """A batch that is running."""

    def __init__(
        self,
        works: Sequence[Work],
        folder: BatchFolder,
        bundle: Bundle,
        template: Request,
        options: BatchOptions,
        crew: Crew,
        report: Report,
    ) -> None:
        self._queue, self._folder, self._bundle = deque(works), folder, bundle
        self._template, self._options, self._crew, self._report = template, options, crew, report
        self._journal: Journal = folder.journal
        self._lock: Lock = folder.lock
        self._works = {work.id: work for work in works}
        self._why: dict[str, str] = {}
        self._attempt: dict[str, int] = {}
        self._tries: Counter[str] = Counter()
        self._count: Counter[str] = Counter()
        self._failed: list[Result] = []
        self._stopping = False

    def go(self, tick: Tick) -> None:
        """Until every scene has its result, or one has failed and that is enough."""
        while not self._stopping:
            self._hand_out()
            if not self._queue and not self._busy():
                return
            for worker, message in self._crew.events(POLL_S):
                self._hear(worker, message)
            self._lock.beat()
            tick(self._crew.workers)

    def stop(self) -> None:
        """End the workers; leave nothing half-written of what they were doing."""
        tasks = [worker.task for worker in self._busy() if worker.task]
        self._crew.stop()
        for task in tasks:
            self._settle(task)

    def _busy(self) -> list[Worker]:
        return [worker for worker in self._crew.workers if worker.task]

    def summary(self) -> Summary:
        seen = self._count["done"] + self._count["skipped"] + len(self._failed)
        return Summary(
            out=self._folder.out,
            done=self._count["done"],
            skipped=self._count["skipped"],
            failed=tuple(self._failed),
            left=len(self._works) - seen,
            warnings=self._count["warnings"],
            seconds=0.0,
        )

    def _hand_out(self) -> None:
        while self._queue and self._crew.has_room and not self._stopping:
            work = self._queue.popleft()
            try:
                task = self._task(work)
            except MMEdgeError as err:
                self._journal.refuse(work.id, str(err))
                self._give_up(work.id, str(err), err.hint)
                continue
            if task:
                self._begin(self._crew.idle(), task)
            self._lock.beat()

    def _task(self, work: Work) -> Task | None:
        """What a worker has to do for a scene; None where its map is up to date."""
        request = request_for(work, self._folder.out, self._template)
        outputs = plan_outputs(request.output or self._folder.out, probs=request.probs)
        self._recover(work.id, request)
        files, wished, entry = (
            tuple(work.files(request.options)),
            wish(request, self._bundle),
            self._journal.entry(work.id),
        )
        verdict = judge(entry, wished, files, outputs, checksums=self._options.checksums)
        if verdict.why is None and not self._template.overwrite:
            self._skip(work.id, outputs.map, verdict)
            return None
        ours = entry is not None and bool(entry.outputs)
        refuse_existing(outputs, overwrite=ours or self._template.overwrite, inputs=files)
        self._why[work.id] = verdict.why or "--overwrite"
        going_on = verdict.inputs is not None and entry is not None and entry.state != "done"
        return Task(
            id=work.id,
            request=replace(request, overwrite=True),
            files=files,
            inputs=look(files, checksums=self._options.checksums),
            wish=wished,
            strips_path=self._folder.strips(work.id),
            strips=tuple(self._journal.strips(work.id)) if going_on else (),
            strips_from_px=self._options.strips_from_px,
        )

    def _begin(self, worker: Worker, task: Task) -> None:
        self._tries[task.id] += 1
        self._attempt[task.id] = self._journal.begin(
            task.id, task.wish, task.inputs, worker=worker.pid, kept=task.strips
        )
        worker.give(task)

    def _skip(self, scene: str, target: Path, verdict: Verdict) -> None:
        if verdict.inputs:
            self._journal.refresh(scene, verdict.inputs)
        self._folder.strips(scene).unlink(missing_ok=True)
        self._count["skipped"] += 1
        self._report(Result(id=scene, status="skipped", map=target))

    def _hear(self, worker: Worker, message: Message | Lost) -> None:
        if isinstance(message, Lost):
            if worker.task:
                task = worker.release()
                if self._settle(task):
                    self._done(worker, task, ())
                else:
                    self._fail(task, Failed(reason=message.reason, hint=message.hint, again=True))
        elif isinstance(message, Advanced):
            worker.progress = message.done, message.total
        elif worker.task is None:
            return  # it says that it is ready
        elif isinstance(message, Strip):
            self._journal.add_strip(worker.task.id, message)
        elif isinstance(message, Prepared):
            self._prepare(worker.task.id, message)
            worker.publish()
        elif isinstance(message, Done):
            task = worker.release()
            self._journal.done(task.id, self._attempt[task.id])
            self._done(worker, task, message.warnings)
        elif isinstance(message, Failed):
            self._fail(worker.release(), message)

    def _prepare(self, scene: str, message: Prepared) -> None:
        entry = self._journal.entry(scene)
        for name in (entry.outputs.keys() if entry else set()) - message.outputs.keys():
            (self._folder.out / name).unlink(missing_ok=True)  # of a map with other options, such as probabilities
        self._journal.prepare(scene, message.inputs, message.outputs, message.record)

    def _done(self, worker: Worker, task: Task, warnings: tuple[str, ...]) -> None:
        self._folder.strips(task.id).unlink(missing_ok=True)
        entry = self._journal.entry(task.id)
        self._count["done"] += 1
        self._count["warnings"] += len(warnings)
        self._report(
            Result(
                id=task.id,
                status="done",
                map=self._target(task.id),
                why=self._why[task.id],
                attempts=self._tries[task.id],
                seconds=time.monotonic() - worker.since,
                warnings=warnings,
                record=dict(entry.record) if entry else {},
            )
        )

    def _fail(self, task: Task, failed: Failed) -> None:
        reason = f"{failed.reason}\n{failed.detail}".strip()
        self._journal.fail(task.id, reason, self._attempt[task.id])
        if failed.again and self._tries[task.id] <= self._options.retries:
            self._queue.append(self._works[task.id])
        else:
            self._give_up(task.id, failed.reason, failed.hint)

    def _give_up(self, scene: str, reason: str, hint: str) -> None:
        result = Result(
            id=scene,
            status="failed",
            map=self._target(scene),
            why=self._why.get(scene, ""),
            reason=reason,
            hint=hint,
            attempts=self._tries[scene],
        )
        self._failed.append(result)
        self._stopping = self._options.fail_fast
        self._report(result)

    def _recover(self, scene: str, request: Request) -> None:
        """Bring to its end what a batch that was killed had left of a scene, or remove it."""
        entry = self._journal.entry(scene)
        if entry is not None and entry.state in ("running", "prepared"):
            self._finish(scene, request)

    def _settle(self, task: Task) -> bool:
        """The worker of a scene is gone. True where the scene was complete, and is published now."""
        return self._finish(task.id, task.request, self._attempt[task.id])

    def _finish(self, scene: str, request: Request, attempt: int | None = None) -> bool:
        entry = self._journal.entry(scene)
        outputs = plan_outputs(request.output or self._folder.out, probs=request.probs)
        complete = (
            entry is not None
            and entry.state == "prepared"
            and entry.outputs.keys() == {path.name for path in outputs.paths}
        )
        finished = complete and entry is not None and finish_publication(outputs.paths, entry.outputs)
        if finished:
            self._journal.done(scene, attempt)
        remove_parts(outputs)
        return finished

    def _target(self, scene: str) -> Path:
        return self._folder.out / f"{scene}_map.tif"
