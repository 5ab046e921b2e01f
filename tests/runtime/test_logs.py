"""The log's lines: one each, whatever is in a message."""

from __future__ import annotations

import io
import json
import logging

import pytest

from exporter.logs import configure
from storage.printable import printable

pytestmark = pytest.mark.unit

ORDERS = "\x1b[31mred\x07\x9b2J\u202e\u2028\r\n\x7f"
SHOWN = r"\x1b[31mred\x07\x9b2J\u202e\u2028\r\n\x7f"


def logged(monkeypatch: pytest.MonkeyPatch, form: str, *, fails: bool = False) -> str:
    """Return what is written of a message, and of an exception that says the same."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure(form=form, level="info")
        try:
            raise ValueError(ORDERS)
        except ValueError as error:
            logging.getLogger("a").info("größe 模型 %s", ORDERS, exc_info=error if fails else None)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    return stream.getvalue()


def test_a_line_of_text_gives_the_terminal_no_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control characters are shown as in Python; letters of all languages stay."""
    assert logged(monkeypatch, "text").endswith(f" INFO    a: größe 模型 {SHOWN}\n")


def test_nor_does_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has its own lines, and no others."""
    text = logged(monkeypatch, "text", fails=True)

    assert all(line.isprintable() for line in text.split("\n"))
    assert text.split("\n")[1] == "Traceback (most recent call last):"
    assert "\\x1b[31mred" in text.split("\n")[-3]


@pytest.mark.parametrize("fails", [False, True])
def test_nor_does_json(monkeypatch: pytest.MonkeyPatch, *, fails: bool) -> None:
    """Which means the same when it is read."""
    text = logged(monkeypatch, "json", fails=fails)

    assert text.removesuffix("\n").isprintable()
    assert json.loads(text)["message"] == f"größe 模型 {ORDERS}"


def test_what_can_be_printed_stays() -> None:
    """Spaces, backslashes and what is written in two halves, too."""
    assert printable("a b\\n ä 模 👩‍🚀") == "a b\\n ä 模 👩‍🚀"
