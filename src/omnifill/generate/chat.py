"""Messages as a checkpoint's chat template writes them.

A template is a program of somebody else's, so it runs in a process of its own (`generate.sandbox`)
and sees nothing but the messages and a few names. What a user says never becomes a control token,
though the template's own text does.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omnifill.artifact import LoadedRun, RunFolder
from omnifill.codecs.pretrained import PretrainedCodec, Templated
from omnifill.errors import RequestError, RunError, check_kind
from omnifill.generate.sandbox import SANDBOX
from omnifill.model.hf import default_template
from omnifill.types import Codec

TEMPLATE, TOKENS = "chat_template.jinja", "tokenizer_config.json"
ORIGIN = "origin"
"""Folder of an imported run with the files that came with it."""
SAID = ("The first of them", "1, 2, 3", "你好 ")
"""Texts that a template is tried with."""
Messages = Sequence[Mapping[str, Any]]


def templated(run: LoadedRun, messages: Messages) -> Templated:
    """The text of a conversation, up to where the answer begins. RequestError for messages that
    are none, for a run without a template, and for a template that cannot be run."""
    check_messages(messages)
    source, names = template_of(run)
    codec = run.vocabulary.fields[0].codec
    assert isinstance(codec, PretrainedCodec), "only an imported run has a template"
    for message in messages:
        control = codec.control_in(message["role"]) or codec.control_in(message["content"])
        if control:
            raise RequestError(f"prompt: a message holds {control!r}, which is a control token of "
                               f"this checkpoint; leave it out")  # fmt: skip
    return Templated(render(source, messages, names))


def turns_before(run: LoadedRun) -> int | None:
    """How many texts are given before the one that is wanted, where they always are; None, where
    there are other tasks, or more than one is wanted."""
    if len(run.schema.fields) == 1 or run.network.config.memory:
        return 0
    tasks = run.recipe.form.tasks
    return len(tasks[0].given) if len(tasks) == 1 and len(tasks[0].want) == 1 else None


def write_turns(folder: RunFolder, codec: Codec, turns: int) -> Callable[[str], str]:
    """Write the chat template that lays out messages as training laid out texts, one behind the
    other; what it makes of so many that say the same. RunError where no template can."""
    tree = folder.read_json(TOKENS) if (folder.path / TOKENS).exists() else {}
    tree.pop("chat_template", None)
    begin, end, lead = str(tree.get("bos_token", "")), str(tree.get("eos_token", "")), ""
    if isinstance(codec, PretrainedCodec):
        if not codec.ends:
            raise RunError("no chat template can be written: the base names no token that ends a "
                           "text (eos_token_id)")  # fmt: skip
        named = codec.tokenizer.id_to_token
        begin = "" if codec.bos is None else named(codec.bos) or ""
        end = named(codec.ends[0]) or ""
        lead = _lead(codec, begin, end)
    each = f"{{{{ {json.dumps(lead)} + m['content'] + {json.dumps(end)} }}}}"
    said = f"{{% for m in messages %}}{each}{{% endfor %}}"
    folder.write(TEMPLATE, f"{{{{ {json.dumps(begin)} }}}}{said}" if begin else said)
    folder.write(TOKENS, json.dumps(tree, indent=1, ensure_ascii=False))
    return lambda text: begin + (lead + text + end) * turns


def _lead(codec: PretrainedCodec, begin: str, end: str) -> str:
    """What stands before a text in a template, so that it has the tokens there that it has alone:
    some tokenizers put a space before the first word of all, and of no other."""
    for lead in ("", " "):
        told = [codec.encode(Templated(begin + (lead + text + end) * 2)) for text in SAID]
        alone = [[*codec.encode(text), codec.ends[0]] * 2 for text in SAID]
        if [some.tolist() for some in told] == alone:
            return lead
    raise RunError("no chat template can lay out messages as training did: behind another text, "
                   "this tokenizer reads a text otherwise than alone")  # fmt: skip


def check_messages(messages: Any) -> None:
    """RequestError unless it is a list of roles and what they say."""
    check_kind("prompt", messages, Sequence, "text, or a list of messages")
    if not messages:
        raise RequestError("prompt: there is no message")
    for number, message in enumerate(messages, 1):
        keys = set(message) if isinstance(message, Mapping) else set()
        if keys != {"role", "content"} or not all(isinstance(v, str) for v in message.values()):
            raise RequestError(f"prompt: message {number} must be {{'role': …, 'content': …}}, "
                               f"both text, not {repr(message)[:100]}")  # fmt: skip


def template_of(run: LoadedRun) -> tuple[str, dict[str, Any]]:
    """The template's text, and the names of tokens that it may use. RequestError where a run has
    none."""
    folder = run.folder.path / ORIGIN
    tree: Any = {}
    if (folder / TOKENS).exists():
        tree = run.folder.read_json(f"{ORIGIN}/{TOKENS}")
    names = {}
    for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
        value = tree.get(name)
        names[name] = value.get("content") if isinstance(value, dict) else value
    if (folder / TEMPLATE).exists():
        return run.folder.read(f"{ORIGIN}/{TEMPLATE}"), names
    source = default_template(tree)
    if source is None:
        raise RequestError("prompt: messages need a chat template, and this run has none; give the "
                           "prompt as text")  # fmt: skip
    return source, names


def render(source: str, messages: Messages, names: Mapping[str, Any]) -> str:
    """Run a template. RequestError if it cannot be run, does not end, or takes too much."""
    if importlib.util.find_spec("jinja2") is None:
        raise RequestError("a chat template needs the extra `report`: "
                           "pip install 'omnifill[report]'")  # fmt: skip
    values = {
        "messages": [dict(m) for m in messages], "add_generation_prompt": True, "tools": None,
        "documents": None, **names,
    }  # fmt: skip
    out = SANDBOX.ask(template=source, values=values)
    if "error" in out:
        raise RequestError(f"the chat template cannot be used: {out['error']}")
    text: str = out["text"]
    return text
