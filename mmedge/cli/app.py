"""`mmedge`: the verbs, and what happens when one of them fails."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from types import FrameType

import typer

from mmedge import __version__
from mmedge.cli import (
    batch,
    bench,
    bundle,
    catalog,
    compile,
    doctor,
    evaluate,
    infer,
    info,
    parity,
    quantize,
    simulate_failure,
    stack,
    train,
    vectorize,
)
from mmedge.errors import MMEdgeError

BUG = 70
# The base of every mistake that typer finds in a command line. Its own click is private, so it is named by a child.
ParserError: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="mmedge",
    help="""Maps from multi-sensor scenes, some of whose sensors failed.

    Example: mmedge infer scene.tif --available sar,optical
    """,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (
    infer,
    batch,
    catalog,
    vectorize,
    stack,
    info,
    train,
    evaluate,
    quantize,
    parity,
    compile,
    bench,
    simulate_failure,
    doctor,
):
    app.command(verb.NAME)(verb.run)
app.add_typer(bundle.group, name=bundle.NAME)


def _version(shown: bool) -> None:
    if shown:
        print(f"mmedge {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    pass


class Stopped(BaseException):
    """SIGINT or SIGTERM: unwinds everything, so that nothing half-written stays."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.name, self.exit_code = signal.Signals(signum).name, 128 + signum


def _stop(signum: int, frame: FrameType | None) -> None:
    raise Stopped(signum)


def main() -> None:
    """The console script. Exit codes: 0 done, 1 gate, 2 usage or input, 3 machine, 70 bug, 130 Ctrl-C, 143 SIGTERM."""
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    """Run one command line; every error becomes one line, a hint and an exit code."""
    try:
        code = app(argv or ["--help"], standalone_mode=False)
    except MMEdgeError as err:
        return _complain(str(err), err.hint, err.exit_code)
    except ParserError as err:
        verb = err.ctx.command_path if getattr(err, "ctx", None) else "mmedge"  # type: ignore[attr-defined]
        return _complain(err.format_message(), f"{verb} --help", 2)  # type: ignore[attr-defined]
    except Stopped as stop:
        return _complain(
            f"stopped by {stop.name}; nothing half-written is left", "run the same command again", stop.exit_code
        )
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as err:  # noqa: BLE001 - the last line of defence: a bug, said as such
        _complain(f"a bug in mmedge: {err!r}", "MMEDGE_TRACEBACK=1 shows where; please report it", BUG)
        return BUG
    return code if isinstance(code, int) else 0


def _complain(message: str, hint: str, code: int) -> int:
    if os.environ.get("MMEDGE_TRACEBACK"):
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    if hint:
        print(f"\nhint: {hint}", file=sys.stderr)
    return code
