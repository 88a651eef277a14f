"""Templates in the paths of a config: `{date:%Y-%m-%d}` and `{env:NAME}`, and nothing else. Reads no config.

A variable at the beginning of a path may be a path of its own, such as the folder of all dumps. Anywhere else it is one
plain name: no value leads a path out of the folder that stands before it.
"""

import glob
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from string import Formatter

_FORMS = "{date:%Y-%m-%d} and {env:NAME} as the only templates, and {{ for a brace"

_OF_A_DATE = "YymdjbBaAGVuwUW%"
"""Directives of strftime that a day without a time has, and that mean the same everywhere."""
_NAME = re.compile(r"[A-Za-z0-9._=-]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CREDENTIAL = re.compile(r"SECRET|TOKEN|PASSW|CREDENTIAL|SIGNATURE|KEY$|SAS$", re.IGNORECASE)
"""Names of variables that a path, which logs and records show, must not hold."""
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f*?\[\]{}]")
"""In a value: control characters, patterns and templates."""

_FOREIGN = (
    (r"\$([A-Za-z_]\w*)", r"{env:\1}"),
    (r"^~(?=/)", "{env:HOME}"),
    (r"%Y(?:\W?%[md])*", r"{date:\g<0>}"),
)
"""What shells and strftime would make something of, and the template that does."""


@dataclass(frozen=True, slots=True)
class _Piece:
    before: str
    """Text that stands for itself."""
    kind: str | None
    """"date", "env", or None at the end of the text."""
    spec: str


def has_date(text: str) -> bool:
    """Whether a date is to be filled in.

    Raises
    ------
    ValueError
        As `filled`.
    """
    return any(piece.kind == "date" for piece in _pieces(text))


def filled(text: str, day: date, environment: Mapping[str, str]) -> str:
    """`text` with its templates filled in.

    Raises
    ------
    ValueError
        A template that is none, or a variable that is missing or cannot be part of a path.
    """
    path = ""
    for piece in _pieces(text):
        path += piece.before
        if piece.kind == "date":
            path += day.strftime(piece.spec)
        elif piece.kind == "env":
            path += _value(piece.spec, environment, at_the_beginning=path in ("", "file://"))
    return path


def meant_otherwise(text: str) -> str | None:
    """What people write for a variable or a date, and what stands for itself here: what it is, and what they mean."""
    plain = "{}".join(piece.before for piece in _pieces(text))
    for pattern, template in _FOREIGN:
        found = re.search(pattern, plain)
        if found is not None:
            return f"{found[0]} stands for itself; expected {found.expand(template)}, if that is meant."
    return None


def pattern_of(text: str, environment: Mapping[str, str]) -> str:
    """A pattern of files that matches what `text` is on any day."""
    pattern = ""
    for piece in _pieces(text):
        pattern += glob.escape(piece.before)
        if piece.kind == "date":
            # The date may hold slashes, which one `*` does not match.
            pattern += "/".join("*" for _ in piece.spec.split("/"))
        elif piece.kind == "env":
            pattern += glob.escape(environment[piece.spec])
    return pattern


def escaped(text: str) -> str:
    """A template that is filled in to `text`."""
    return text.replace("{", "{{").replace("}", "}}")


def _pieces(text: str) -> Iterator[_Piece]:
    try:
        parsed = list(Formatter().parse(text))
    except ValueError:
        raise ValueError(f"is {text!r}; expected {_FORMS}.") from None
    for before, kind, spec, conversion in parsed:
        if kind is not None:
            _require_template(text, kind, spec or "", conversion)
        yield _Piece(before, kind, spec or "")


def _require_template(text: str, kind: str, spec: str, conversion: str | None) -> None:
    if kind not in ("date", "env") or conversion or "{" in spec:
        hint = f" Did you mean {{env:{kind}}}?" if _VARIABLE.fullmatch(kind) and kind.isupper() else ""
        raise ValueError(f"is {text!r}; expected {_FORMS}.{hint}")
    if kind == "date":
        _require_date_format(spec)
    elif not _VARIABLE.fullmatch(spec):
        raise ValueError(f"is {text!r}; expected the name of a variable in {{env:NAME}}.")
    elif _CREDENTIAL.search(spec):
        raise ValueError(
            f"asks for the variable {spec}, which by its name is a credential; expected none, because logs and records "
            "show paths. Use another variable."
        )


def _require_date_format(spec: str) -> None:
    directives = re.findall(r"%(.?)", spec)
    unknown = next((letter for letter in directives if letter not in [*_OF_A_DATE]), None)
    if unknown is not None:
        raise ValueError(
            f"has %{unknown} in {{date:{spec}}}; expected directives of a day: %Y %m %d, or %y %j %b %B %a %A %G %V."
        )
    if not set(directives) - {"%"}:
        raise ValueError(f"has no %Y, %m or %d in {{date:{spec}}}; expected a format such as {{date:%Y-%m-%d}}.")


def _value(name: str, environment: Mapping[str, str], *, at_the_beginning: bool) -> str:
    value = environment.get(name)
    if not value:
        state = "not set" if value is None else "empty"
        raise ValueError(
            f"needs the environment variable {name}, which is {state}; expected a value. "
            "Set it where the command is called: schedulers begin with an empty environment."
        )
    if _UNUSABLE.search(value) or ".." in value.split("/"):
        raise ValueError(
            f"takes {value!r} from the environment variable {name}; expected a path without .., wildcards, braces and "
            "control characters."
        )
    if not at_the_beginning and not (_NAME.fullmatch(value) and value != "."):
        raise ValueError(
            f"takes {value!r} from the environment variable {name}; expected one name of letters, digits and . _ = -, "
            "because it does not stand at the beginning of the path."
        )
    return value
