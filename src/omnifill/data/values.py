"""Raw cells <-> canonical values, by the type of their field.

Canonical: text and category str; number int or float; datetime int, microseconds since 1970
(UTC, or the clock's own time where none is named); image and audio bytes (see
`omnifill.data.image` and `audio`); None for a blank.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from omnifill.data.media import MediaFile, load_cell
from omnifill.errors import DataError, RecipeError, ValueRefused
from omnifill.schema import MEDIA, FieldSpec

NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?")
COMMA = re.compile(r"([+-]?\d+),(\d+)")
"""A number whose decimals stand behind a comma, if it is not one of thousands."""
IDENTIFIER = re.compile(r"[+-]?0\d+")
"""Digits with a leading zero, such as a postcode: no number, or the zero would be lost."""
EXACT = 2**53
LONGEST = 32_000_000
"""Characters of the longest text that one cell may hold."""
EPOCH = datetime.datetime(1970, 1, 1)
MICROSECOND = datetime.timedelta(microseconds=1)
FORMATS = (
    "%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S.%fZ",
    "%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%d %H:%M:%S%z", "%Y-%m-%dT%H:%M:%S.%f%z",
    "%Y-%m-%d %H:%M:%S.%f%z", "%Y-%m-%dT%H:%M%z", "%Y/%m/%d", "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M", "%d.%m.%Y", "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S", "%m/%d/%Y", "%d/%m/%Y",
    "%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%d/%m/%Y %H:%M:%S", "%d-%m-%Y",
    "%m-%d-%Y", "%d %b %Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y", "%d-%b-%Y", "%d-%b-%y",
    "%Y年%m月%d日", "%Y%m%dT%H%M%S", "%H:%M:%S", "%H:%M",
)  # fmt: skip
"""Spellings of dates and times that are recognised, the first that fits all cells wins."""
MARKS = {
    "", "?", "na", "n/a", "nan", "null", "none", "-", "--", ".", "nil", "missing", "unknown",
    "#n/a",
}  # fmt: skip
"""Spellings of a blank, in small letters, recognised only in columns of numbers or dates."""
ALLOWED = {
    "number": "a number such as 12, -3.5 or 1e6",
    "datetime": "a date or time written as {format}",
}


def parse_number(text: str) -> int | float | None:
    """A number, or None if the text is none that can be kept exactly."""
    text = text.strip()
    if not NUMBER.fullmatch(text) or IDENTIFIER.fullmatch(text):
        return None
    try:
        whole = int(text)
    except ValueError:
        value = float(text)
        return value if math.isfinite(value) else None
    return whole if abs(whole) <= EXACT else None


def with_point(text: str) -> str:
    """'1,5' -> '1.5'; anything else as it is."""
    text = text.strip()
    return text.replace(",", ".") if COMMA.fullmatch(text) else text


def parse_datetime(text: str, format_: str) -> int | None:
    """Microseconds since 1970, or None if the text is not of that format."""
    try:
        moment = datetime.datetime.strptime(text.strip(), format_)
    except (ValueError, OverflowError):
        return None
    return micros(moment)


def micros(moment: datetime.datetime | datetime.date) -> int:
    """Microseconds since 1970; a time zone is converted to UTC."""
    if not isinstance(moment, datetime.datetime):
        moment = datetime.datetime(moment.year, moment.month, moment.day)
    if moment.tzinfo is not None:
        moment = moment.astimezone(datetime.UTC).replace(tzinfo=None)
    return (moment - EPOCH) // MICROSECOND


def parse_many(
    field: FieldSpec, cells: Sequence[Any], where: Callable[[int], str], advice: str,
    folder: Path | None = None, broken: dict[int, str] | None = None,
) -> list[Any]:  # fmt: skip
    """Raw cells -> canonical values; DataError says where a cell does not fit its field, and that
    it be corrected or else the `advice`.

    A spelling of a blank is one here, too, where training saw none or another. `folder`: where
    paths of pictures go on from. `broken`: takes row -> why for those that cannot be read, which
    are blank then, instead of the error.
    """
    if field.type in MEDIA:
        return _parse_media(field, cells, where, folder, broken)
    parse = _parser(field)
    marks = set(field.blank_marks)
    out: list[Any] = []
    for i, cell in enumerate(cells):
        if cell is None or (marks and isinstance(cell, str) and cell.strip() in marks):
            out.append(None)
            continue
        value = parse(cell)
        if value is None and not (field.type in ALLOWED and _is_mark(cell)):
            way = f"; correct it, or {advice.format(field.name)}" if field.type in ALLOWED else ""
            raise DataError(f"{where(i)}: {refusal(field, cell)}{way}")
        out.append(value)
    return out


def _parse_media(
    field: FieldSpec, cells: Sequence[Any], where: Callable[[int], str], folder: Path | None,
    broken: dict[int, str] | None,
) -> list[Any]:  # fmt: skip
    parse = _parser(field, folder)
    out: list[Any] = []
    for i, cell in enumerate(cells):
        try:
            out.append(None if cell is None else parse(cell))
        except ValueRefused as error:
            if broken is None:
                raise DataError(f"{where(i)}: {_called(cell)}{error}") from None
            broken[i] = f"{_called(cell)}{error}"
            out.append(None)
    return out


def _called(cell: Any) -> str:
    """The name of a file that a cell holds, before what is wrong with it; nothing for a value."""
    return f"{cell} " if isinstance(cell, (str, Path, MediaFile)) else ""


def _is_mark(cell: Any) -> bool:
    return isinstance(cell, str) and cell.strip().lower() in MARKS


def parse_value(field: FieldSpec, value: Any) -> Any:
    """One value that a user gives; ValueRefused if it does not fit."""
    if value is None or (isinstance(value, float) and value != value):
        return None
    try:
        parsed = _parser(field)(value)
    except ValueRefused as error:
        raise ValueRefused(f"field {field.name!r}: {_called(value)}{error}") from None
    if parsed is None:
        raise ValueRefused(f"field {field.name!r}: {refusal(field, value)}")
    return parsed


def refusal(field: FieldSpec, cell: Any) -> str:
    """Why a value does not fit and what does."""
    if field.type not in ALLOWED:
        return unfit_text(str(cell))
    allowed = ALLOWED[field.type].format(format=field.options.get("format", "ISO 8601"))
    return f"{str(cell)[:60]!r} is not {allowed}"


def unfit_text(text: str) -> str:
    """Why a text cannot be read, or nothing if it can."""
    if len(text) > LONGEST:
        return (
            f"a text of {len(text):,} characters, and {LONGEST:,} are the most; cut it, or give "
            f"it as a text file of its own"
        )
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            bad = ascii(text[error.start])
            return f"{bad} at character {error.start + 1} is half a surrogate pair; remove it"
    return ""


def _parser(field: FieldSpec, folder: Path | None = None) -> Callable[[Any], Any]:
    if field.type == "image":
        from omnifill.data.image import to_pixels

        shape = media_shape(field)
        return lambda cell: to_pixels(load_cell(cell, folder), shape)
    if field.type == "audio":
        from omnifill.data.audio import to_samples

        sound = media_shape(field)
        return lambda cell: to_samples(load_cell(cell, folder), sound)
    if field.type == "number" and field.options.get("decimal_comma"):
        return lambda cell: _number(with_point(cell) if isinstance(cell, str) else cell)
    if field.type == "number":
        return _number
    if field.type == "datetime":
        format_ = str(field.options.get("format", ""))
        return lambda cell: _datetime(cell, format_)
    return _string


def media_shape(field: FieldSpec) -> Any:
    """The `ImageShape` or `SoundShape` of a field; RecipeError names it and the option."""
    from omnifill.data.audio import SoundShape
    from omnifill.data.image import ImageShape

    try:
        return (ImageShape if field.type == "image" else SoundShape).of(field.options)
    except RecipeError as error:  # a shape does not know its field's name
        raise RecipeError(str(error).replace("NAME", field.name)) from None


def _number(cell: Any) -> int | float | None:
    if isinstance(cell, bool):
        return int(cell)
    if isinstance(cell, int):
        return cell if abs(cell) <= EXACT else None
    if isinstance(cell, float):
        return cell if math.isfinite(cell) else None
    if isinstance(cell, str):
        return parse_number(cell)
    try:
        return float(cell)
    except (TypeError, ValueError):
        return None


def _datetime(cell: Any, format_: str) -> int | None:
    if isinstance(cell, (datetime.datetime, datetime.date)):
        return micros(cell.to_pydatetime() if isinstance(cell, pd.Timestamp) else cell)
    if not isinstance(cell, str):
        return None
    if format_:
        found = parse_datetime(cell, format_)
        if found is not None:
            return found
    try:
        return micros(datetime.datetime.fromisoformat(cell.strip()))
    except ValueError:
        return None


def _string(cell: Any) -> str | None:
    if isinstance(cell, str):
        return None if unfit_text(cell) else cell
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < EXACT:
        return str(int(cell))
    if isinstance(cell, (datetime.datetime, datetime.date)):
        return cell.isoformat()
    return str(cell)


def to_native(field: FieldSpec, value: Any) -> Any:
    """Canonical -> the Python type, or the spelling, of the source."""
    if value is None:
        return None
    if field.type == "number":
        digits = field.options.get("digits")
        shown = float(f"{value:.{digits}g}") if digits else value
        return int(shown) if field.native == "int" else float(shown)
    if field.type == "datetime":
        return _moment(field, int(value))
    if field.type == "image":
        from omnifill.data.image import to_image

        return to_image(value, media_shape(field))
    if field.type == "audio":
        from omnifill.data.audio import to_sound

        return to_sound(value, media_shape(field))
    if field.native == "bool":
        return value == "True"
    if field.native == "int":
        return int(value)
    if field.native == "float":
        return float(value)
    return value


def _moment(field: FieldSpec, value: int) -> Any:
    try:
        moment = EPOCH + value * MICROSECOND
    except OverflowError:
        moment = datetime.datetime.max if value > 0 else datetime.datetime.min
    zone = field.options.get("time_zone")
    if field.native == "datetime":
        stamp = pd.Timestamp(moment)
        return stamp if zone is None else stamp.tz_localize("UTC").tz_convert(str(zone))
    if field.native == "date":
        return moment.date()
    format_ = str(field.options.get("format", ""))
    if not format_:
        return moment.isoformat()
    if "%z" in format_:
        return _zoned(moment, format_, str(zone or "+00:00"))
    # Not every C library pads the years before 1000 that %Y is read with.
    return moment.strftime(format_.replace("%Y", f"{moment.year:04d}"))


def _zoned(moment: datetime.datetime, format_: str, zone: str) -> str:
    """A moment of UTC at the offset `zone`, spelled like it: +0200, +02:00 or Z."""
    away = datetime.timedelta()
    if zone != "Z":
        digits = zone.replace(":", "")
        away = datetime.timedelta(hours=int(digits[1:3]), minutes=int(digits[3:5]))
        away = -away if zone.startswith("-") else away
    with suppress(OverflowError):
        moment += away
    return moment.strftime(format_.replace("%Y", f"{moment.year:04d}").replace("%z", zone))


def to_text(field: FieldSpec, value: Any) -> str:
    """A native value as a CSV cell: numbers keep their decimals, blanks are empty."""
    if value is None or value is pd.NA or value is pd.NaT or value != value:
        return ""
    if field.type == "image":
        return f"(picture of {field.options['width']} × {field.options['height']})"
    if field.type == "audio":
        return f"(sound of {len(value.samples) / value.rate:.2f} s)"
    if field.type == "number":
        decimals = field.options.get("decimals")
        shown = (
            f"{value:.{decimals}f}"
            if decimals
            else (str(int(value)) if field.native == "int" else repr(float(value)))
        )
        return shown.replace(".", ",") if field.options.get("decimal_comma") else shown
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    return str(value)
