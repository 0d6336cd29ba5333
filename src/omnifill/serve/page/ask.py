"""What was chosen on the page, as a request, and as the same request elsewhere. No Gradio here."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

GIVEN, WANTED, OUT = "given", "wanted", "out"
NUMBERS = ("n", "seed", "temperature", "top_p", "top_k", "min_p", "max_tokens", "candidates",
           "guidance", "steps")  # fmt: skip
LINES = ("stop", "aims")
FLAGS = {"aims": "--aim"}
"""Options of the command that are called otherwise than the API's fields."""
ENDINGS = {"image": "png", "audio": "wav"}


@dataclass
class Asked:
    """One request of the page."""

    model: str
    modes: dict[str, str]
    """Field -> given, wanted or left out."""
    values: dict[str, Any]
    """Of given fields, as the API takes them."""
    settings: dict[str, Any] = field(default_factory=dict)
    prompt: str = ""
    suffix: str = ""

    def wants(self) -> list[str]:
        return [name for name, mode in self.modes.items() if mode == WANTED]

    def given(self) -> dict[str, Any]:
        return {name: self.values.get(name) for name, mode in self.modes.items() if mode == GIVEN}

    def body(self) -> dict[str, Any]:
        """Of POST /v1/records; what was left empty is left out."""
        out: dict[str, Any] = {"model": self.model, "given": self.given(), "want": self.wants()}
        for name in NUMBERS:
            value = self.settings.get(name)
            if value is not None:
                out[name] = value
        for name in LINES:
            lines = [line for line in (self.settings.get(name) or "").splitlines() if line]
            out |= {name: lines} if lines else {}
        out |= {"prompt": self.prompt} if self.prompt else {}
        out |= {"suffix": self.suffix} if self.suffix else {}
        out |= {"logprobs": 0} if self.settings.get("logprobs") else {}
        return out


def default_modes(about: Mapping[str, Any]) -> dict[str, str]:
    """As the model's first task has it; without one, every field is wanted."""
    names = [one["name"] for one in about["fields"]]
    if not about["tasks"]:
        return dict.fromkeys(names, WANTED)
    task = about["tasks"][0]
    return {n: GIVEN if n in task["given"] else WANTED if n in task["want"] else OUT
            for n in names}  # fmt: skip


def _is_media(value: Any) -> bool:
    return isinstance(value, dict) and "data" in value


def as_command(body: Mapping[str, Any], kinds: Mapping[str, str], cannot: str) -> str:
    """`omnifill generate …`. `kinds`: types of the fields; `cannot`: what is said instead where the
    command line cannot say the same."""
    words = ["omnifill", "generate", body["model"]]
    for name, value in body["given"].items():
        if _is_media(value):
            item = f"{name}=@{name}.{ENDINGS.get(kinds[name], 'bin')}"
        else:
            item = f"{name}={value}"
        if not _reads_as(item, name, value, kinds):
            return cannot
        words += ["--given", item]
    if body["want"]:
        line = _in_one_line(body["want"], kinds)
        if line is None:
            return cannot
        words += ["--want", line]
    for name, value in body.items():
        if name in ("model", "given", "want", "logprobs"):
            continue
        flag = "-n" if name == "n" else FLAGS.get(name, f"--{name.replace('_', '-')}")
        for one in value if isinstance(value, list) else [value]:
            words += [flag, str(one)]
    return shlex.join(words)


def _reads_as(item: str, name: str, value: Any, kinds: Mapping[str, str]) -> bool:
    """Whether the command line takes `item` for this value of this field: it has no word for blank,
    reads a file where a value begins with @, and takes the longest name that fits."""
    if value is None or (isinstance(value, str) and value.startswith("@")):
        return False
    return name == max((one for one in kinds if item.startswith(f"{one}=")), key=len)


def _in_one_line(names: list[str], kinds: Mapping[str, str]) -> str | None:
    """Names as --want takes them: cells of CSV without spaces around them, or one name alone as it
    is. None: it cannot tell these."""
    if len(names) == 1:
        return names[0]
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
        file = io.StringIO()
        csv.writer(file, quoting=quoting, lineterminator="").writerow(names)
        line = file.getvalue()
        read = [cell.strip() for cell in next(csv.reader([line], skipinitialspace=True))]
        if read == names and line not in kinds:  # a line that is a field's name is that field alone
            return line
    return None


def as_python(body: Mapping[str, Any], kinds: Mapping[str, str]) -> str:
    """The library's call."""
    given = []
    for name, value in body["given"].items():
        if _is_media(value):
            value = f'open("{name}.{ENDINGS.get(kinds[name], "bin")}", "rb").read()'
        else:
            value = repr(value)
        given.append(f"{name!r}: {value}")
    lines = [f"    {body.get('n', 1)},"]
    lines += [f"    given={{{', '.join(given)}}},"] if given else []
    lines += [f"    want={body['want']!r},"]
    lines += [f"    {name}={value!r}," for name, value in body.items()
              if name not in ("model", "given", "want", "n", "logprobs")]  # fmt: skip
    call = "\n".join(lines)
    return (f"import omnifill\n\nmodel = omnifill.load({body['model']!r})\n"
            f"print(model.generate(\n{call}\n))")  # fmt: skip


def as_curl(body: Mapping[str, Any], where: str, has_key: bool) -> str:
    """The API's request; bytes of a picture or sound are left for whoever sends it."""
    given = {n: {"data": "…base64…"} if _is_media(v) else v for n, v in body["given"].items()}
    text = json.dumps({**body, "given": given}, ensure_ascii=False)
    key = ' \\\n  -H "Authorization: Bearer $OMNIFILL_API_KEY"' if has_key else ""
    return (f"curl {where}/v1/records{key} \\\n  -H 'Content-Type: application/json' \\\n"
            f"  -d {shlex.quote(text)}")  # fmt: skip
