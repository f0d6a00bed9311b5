"""The language of what people read. Source texts are English; catalogues are gettext ``.po`` files.

``_("text")`` translates; ``use("zh")`` chooses; the default is English, unchanged. Only the command line and the
demo translate: logs, records and `--json` stay English, since machines and colleagues elsewhere read them.

Errors are raised in English by modules that know no language (a driver must not import this). :func:`explain`
translates them when they reach a person: the catalogue holds the *template* of each clause (between "; "), e.g.
``"no driver named {}"``, and a clause that fits one is put into the translation, ``{}`` (or ``{0}``, ``{1}``, where
the order differs) being what stood in the holes. A test collects the templates from the source.

The ``.po`` file is read as it is and compiled in memory (300 entries: some ms, and only for a language other than
English): no binary file to keep in step with it, no build step, and a translator can edit it on the line PC.
Limits: no message contexts, no fuzzy entries.
"""

from __future__ import annotations

import ast
import gettext
import io
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from edge_agent.errors import ConfigError, DriverError, EdgeAgentError, Problem

_CATALOGUES = {"zh": "zh_CN"}
_LOCALE = Path(__file__).parent / "locale"
_HOLE = re.compile(r"\{[0-5]?\}")  # of a translation; a message has at most six, and {8} may stand in a pattern

_chosen: gettext.NullTranslations = gettext.NullTranslations()
_chosen_language = "en"


def _(text: str) -> str:
    """``text`` in the chosen language; itself where the catalogue has no entry."""
    return _chosen.gettext(text) if text else ""


def ngettext(singular: str, plural: str, n: int) -> str:
    """The form for ``n`` things, in the chosen language."""
    return _chosen.ngettext(singular, plural, n)


def preferred(environ: Mapping[str, str]) -> str:
    """The language that the locale's environment variables ask for: "en" or "zh"."""
    for variable in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        if value := environ.get(variable):
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"


def use(language: str) -> None:
    """Choose the language of this process: "en", "zh". Anything else is English."""
    global _chosen, _chosen_language
    name = _CATALOGUES.get(language)
    _chosen = catalogue(name) if name else gettext.NullTranslations()
    _chosen_language = language if name else "en"
    _templates.cache_clear()


def language() -> str:
    """The chosen language: "en" or "zh"."""
    return _chosen_language


def catalogue(name: str) -> gettext.GNUTranslations:
    """The catalogue of one locale, e.g. "zh_CN"."""
    return gettext.GNUTranslations(io.BytesIO(compile_po(po_path(name).read_text(encoding="utf-8"))))


def po_path(name: str) -> Path:
    """Where the catalogue of one locale lies."""
    return _LOCALE / name / "LC_MESSAGES" / "edge_agent.po"


# --- errors, which are raised in English ----------------------------------------------------------------------


def explain(error: EdgeAgentError) -> str:
    """An error as a person reads it, in the chosen language: the message, then "→ hint" on a line of its own."""
    if isinstance(error, ConfigError):
        return "\n".join(explain_problem(problem) for problem in error.problems)
    message = str(error.args[0]) if error.args else type(error).__name__
    if isinstance(error, DriverError):
        message = f"{error.device}: {translate(message.removeprefix(f'{error.device}: '))}"
    else:
        message = translate(message)
    return f"{message}\n  → {translate(error.hint)}" if error.hint else message


def explain_problem(problem: Problem) -> str:
    """One configuration mistake as a person reads it, in the chosen language."""
    return str(Problem(problem.file, problem.line, problem.key, translate(problem.what), translate(problem.hint)))


def translate(message: str) -> str:
    """A finished English message in the chosen language, clause by clause, as far as the catalogue knows them."""
    if _chosen_language == "en" or not message:
        return message
    if (whole := _(message)) != message:
        return whole
    if "; " in message:
        return "；".join(translate(clause) for clause in message.split("; "))
    for pattern, template in _templates():
        if match := pattern.fullmatch(message):
            return _filled(template, match.groups())
    where, colon, what = message.rpartition(": ")
    return f"{where}{colon}{translate(what)}" if where and what else message


def _filled(template: str, parts: Sequence[str]) -> str:
    """The template with its holes filled; a part of several words may be a message itself."""
    told = [translate(part) if " " in part else part for part in parts]
    return _HOLE.sub(lambda hole: told[int(hole[0][1:-1])], template)


@lru_cache(maxsize=1)
def _templates() -> list[tuple[re.Pattern[str], str]]:
    """Message patterns with their translations, the most literal first."""
    found = []
    for text in _texts():
        literals = text.split("{}")
        if len(literals) > 1:
            pattern = re.compile("(.*?)".join(re.escape(literal) for literal in literals), re.DOTALL)
            found.append((sum(map(len, literals)), pattern, _numbered(_chosen.gettext(text))))
    found.sort(key=lambda item: -item[0])
    return [(pattern, translation) for _weight, pattern, translation in found]


def _texts() -> Iterator[str]:
    entries = getattr(_chosen, "_catalog", {})  # GNUTranslations keeps its entries here and offers no iterator
    yield from (key for key in entries if isinstance(key, str) and key)


def _numbered(template: str) -> str:
    """``{}`` holes of a translation numbered in the order they stand in."""
    count = iter(range(template.count("{}")))
    return re.sub(r"\{\}", lambda _match: f"{{{next(count)}}}", template)


# --- .po → .mo, as the format's manual describes them ---------------------------------------------------------


def read_po(text: str) -> dict[str, str]:
    """Message → translation of a .po file; plural forms joined by NUL, as .mo files hold them."""
    entries: dict[str, str] = {}
    fields: dict[str, str] = {}
    current = ""
    for line in [*text.splitlines(), ""]:
        line = line.strip()
        if line.startswith("#"):
            continue
        if not line:
            if fields.get("msgid") is not None:
                key = "\0".join(fields[name] for name in ("msgid", "msgid_plural") if name in fields)
                entries[key] = "\0".join(value for name, value in fields.items() if name.startswith("msgstr"))
            fields = {}
            continue
        if not line.startswith('"'):
            current, line = line.split(None, 1)
        fields[current] = fields.get(current, "") + str(ast.literal_eval(line))
    return entries


def compile_po(text: str) -> bytes:
    """The .mo form of a .po file. Entries without a translation are left out."""
    entries = sorted((key.encode(), value.encode()) for key, value in read_po(text).items() if value.strip("\0"))
    head, index = 28, 8 * len(entries)
    at = head + 2 * index
    tables: list[list[tuple[int, int]]] = [[], []]
    for column in (0, 1):
        for entry in entries:
            tables[column].append((len(entry[column]), at))
            at += len(entry[column]) + 1
    binary = struct.pack("<7I", 0x950412DE, 0, len(entries), head, head + index, 0, 0)
    binary += b"".join(struct.pack("<2I", *row) for table in tables for row in table)
    return binary + b"".join(entry[column] + b"\0" for column in (0, 1) for entry in entries)
