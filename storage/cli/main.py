"""kthena-downloader: downloads a model into a directory, verifies one, or reports what a download would do.

Each error has its exit code in `storage.codes`; SIGTERM ends the program with 143.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from threading import Thread
from time import sleep
from typing import TYPE_CHECKING, Any, Final, NoReturn

from storage.cli.display import FORMS, make_display
from storage.cli.dry_run import dry_run_text
from storage.codes import CODES
from storage.errors import ConfigError, StorageError, UsageError
from storage.memory import memory_size
from storage.printable import printable
from storage.request.config import Config, boolean
from storage.request.download import Action, DownloadRequest
from storage.request.source import parse_source
from storage.request.target import check_target
from storage.supervisor.job import Job
from storage.supervisor.limits import Limits
from storage.supervisor.observer import Silent
from storage.supervisor.spawn import start as start_worker
from storage.supervisor.worker_process import GRACE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from storage.supervisor.spawn import Start

__all__ = ["main"]

PROGRAM: Final = "kthena-downloader"
_EPILOG: Final = """\
sources:
  hf://namespace/repo[@revision] or namespace/repo[@revision], s3://bucket/prefix, obs://bucket/prefix,
  pvc://claim/path (the mounted directory /claim/path)

environment:
  HF_AUTH_TOKEN, HF_ENDPOINT, HF_REVISION, ACCESS_KEY, SECRET_KEY, SESSION_TOKEN, ENDPOINT, AWS_REGION,
  S3_ADDRESSING_STYLE (auto, virtual, path), S3_ANONYMOUS, AWS_CA_BUNDLE; without ACCESS_KEY, the AWS default chain;
  DOWNLOAD_REPLACE (true: as --replace)

exit codes, each with the codes that error lines end in:
  0    done
"""


def _epilog() -> str:
    """Return the end of the help, with every exit code and its errors."""
    exits: dict[int, list[str]] = {}
    for row in CODES.values():
        exits.setdefault(row.exit_code or 1, []).append(row.name)
    lines = [f"  {number:<4} {', '.join(names)}\n" for number, names in sorted(exits.items())]
    return "".join([_EPILOG, *lines, "  143  cancelled, by SIGTERM\n"])


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise UsageError, so that usage errors look like all other errors: one line, with a code."""
        raise UsageError(message)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser from the table of flags."""
    parser = _Parser(
        prog=PROGRAM, description="Bring a model into a directory, whole or not at all.", epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    for flags, options in _FLAGS:
        parser.add_argument(*flags, **options)
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= 7 * 86400:
        raise ValueError
    return seconds


def _memory(text: str) -> int:
    try:
        return memory_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


_FLAGS: Final[tuple[tuple[tuple[str, ...], dict[str, Any]], ...]] = (
    (("-s", "--source"), {"required": True, "metavar": "URI", "help": "where the model is (required)"}),
    (("-o", "--output-dir"), {"required": True, "metavar": "DIR", "help": "where it goes (required)"}),
    (("-w", "--max-workers"), {"type": int, "default": 8, "metavar": "N", "help": "requests at once (default 8)"}),
    (
        ("-c", "--config"),
        {
            "metavar": "JSON",
            "help": "a JSON file, or JSON text, with any of hf_token, hf_endpoint, hf_revision, access_key, secret_key, "
            "endpoint; it wins over the environment. Others can see a text in the list of processes: prefer a file",
        },
    ),
    (("--include",), {"action": "append", "default": [], "metavar": "PATTERN", "help": "only such files (repeatable)"}),
    (("--exclude",), {"action": "append", "default": [], "metavar": "PATTERN", "help": "no such files (repeatable)"}),
    (("--verify",), {"action": "store_true", "help": "check the copy against its manifest and the source"}),
    (("--offline",), {"action": "store_true", "help": "with --verify: do not ask the source"}),
    (
        ("--dry-run",),
        {"action": "store_true", "help": "say what would be fetched and removed, how much, and whether there is room"},
    ),
    (
        ("--replace",),
        {
            "action": "store_true",
            "help": "remove or overwrite files of another source in DIR, and overwrite files that no download put there",
        },
    ),
    (("--anonymous",), {"action": "store_true", "help": "do not sign requests to the object store"}),
    (
        ("--progress",),
        {"choices": FORMS, "default": "auto", "help": "bar, log lines, or events as JSON on standard output (default auto)"},
    ),
    (
        ("--stall-timeout",),
        {"type": _seconds, "default": 60.0, "metavar": "SECONDS", "help": "without a byte for so long, start over (default 60)"},
    ),
    (
        ("--lock-timeout",),
        {"type": _seconds, "metavar": "SECONDS", "help": "wait so long for another download into DIR (default: while it lives)"},
    ),
    (("--retries",), {"type": int, "default": 8, "metavar": "N", "help": "tries in vain before giving up (default 8)"}),
    (
        ("--write-root",),
        {"action": "append", "default": [], "metavar": "DIR", "help": "refuse output directories outside (repeatable)"},
    ),
    (
        ("--worker-memory",),
        {
            "type": _memory, "default": "80Mi", "metavar": "MEMORY",
            "help": "memory limit of the process that downloads (default 80Mi)",
        },
    ),
    (("-v", "--verbose"), {"action": "store_true", "help": "say each file"}),
)  # fmt: skip


def main(
    argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None, *, start: Start = start_worker
) -> int:
    """Run the command with a worker from `start`; return the exit code."""
    try:
        options = build_parser().parse_args(argv)
        request = _request(options, os.environ if environ is None else environ)
        limits = Limits(
            stall_timeout=max(options.stall_timeout, 1.0), restarts=max(options.retries - 1, 0),
            write_roots=request.write_roots,
        )  # fmt: skip
        return _run(request, limits, options, start)
    except StorageError as error:
        return _fail(error)
    except OSError as error:  # only standard output can fail so in this process; the rest happens in the worker
        # Python flushes standard output at exit. To the null device, that cannot fail once more.
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - only its descriptor is needed
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return _fail(StorageError(f"standard output: {error.strerror}"))


def _request(options: argparse.Namespace, environ: Mapping[str, str]) -> DownloadRequest:
    if options.offline and not options.verify:
        raise UsageError("--offline goes with --verify")
    if options.verify and options.dry_run:
        raise UsageError("--verify and --dry-run do not go together")
    action = Action.VERIFY if options.verify else Action.DRY_RUN if options.dry_run else Action.DOWNLOAD
    parse_source(options.source)
    check_target(options.output_dir, options.write_root)
    return DownloadRequest(
        source=options.source, output_dir=options.output_dir, config=_config(options, environ), action=action,
        max_workers=options.max_workers, include=tuple(options.include), exclude=tuple(options.exclude),
        offline=options.offline, replace=options.replace or _is_set(environ, "DOWNLOAD_REPLACE"), write_roots=tuple(options.write_root), lock_timeout=options.lock_timeout,
        read_timeout=min(max(options.stall_timeout / 3, 0.5), 30.0), tries=max(options.retries, 1), follow_parent=True,
        memory=options.worker_memory,
    )  # fmt: skip


def _is_set(environ: Mapping[str, str], variable: str) -> bool:
    text = environ.get(variable, "").strip()
    return bool(text) and boolean(text, variable)


def _config(options: argparse.Namespace, environ: Mapping[str, str]) -> Config:
    # The user of the command controls its environment, too, so credentials may be merged (unlike an API caller's).
    config = Config.from_environ(environ)
    if options.config:
        # JSON text begins with a brace; anything else is a file name.
        text = options.config if options.config.lstrip().startswith("{") else _read(options.config)
        config = config.merged(Config.from_mapping(text, origin="--config"))
    return config.merged(Config(anonymous=True)) if options.anonymous else config


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigError(f"--config {path}: {reason}; it is a file or JSON text that begins with '{{'") from None


def _run(request: DownloadRequest, limits: Limits, options: argparse.Namespace, start: Start) -> int:
    display = make_display(options.progress, verbose=options.verbose)
    plan: dict[str, Any] = {}
    removals: list[Mapping[str, Any]] = []

    def on_event(event: Mapping[str, Any]) -> None:
        if event["event"] == "planned":
            plan.update(event)
            removals.clear()
        elif event["event"] == "removal":
            removals.append(event)
        display.show(event)

    job = Job("cli", parse_source(request.source), request, limits, Silent(), start, on_event)
    received = _cancel_on_signals(job)
    try:
        job.run()
    finally:
        display.close()
    error = job.status().error
    # Also if the download would be refused: the user needs this list to decide about --replace.
    if request.action is Action.DRY_RUN and options.progress != "json" and plan:
        sys.stdout.write(dry_run_text(plan, removals, request.output_dir))
        sys.stdout.flush()
    if error:
        code = _fail(error)
        return 128 + received[0] if received else code
    return 0


def _cancel_on_signals(job: Job) -> list[int]:
    received: list[int] = []

    def end(number: int) -> None:
        job.cancel()
        sleep(GRACE_SECONDS + 1)
        # This process is still running: writing to standard output blocks, because no one reads it.
        job.kill()
        os._exit(128 + number)

    def cancel(number: int, _frame: object) -> None:
        received.append(number)
        # In a thread: the signal may have interrupted the main thread while it held a lock that `cancel` takes.
        Thread(target=end, args=(number,), name="end", daemon=True).start()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, cancel)
    return received


def _fail(error: StorageError) -> int:
    sys.stderr.write(f"{PROGRAM}: error: {printable(' '.join(error.message.split()))} [{error.code}]\n")
    return error.exit_code
