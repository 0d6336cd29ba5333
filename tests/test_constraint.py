"""Texts under a schema, an expression or a grammar: always valid, always finished, and nothing else
is changed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import pytest
from pydantic import BaseModel
from tests.test_exchange import tokenizer_of_bytes

from omnifill import api
from omnifill.codecs.pretrained import PretrainedCodec
from omnifill.errors import RequestError
from omnifill.generate import constraint
from omnifill.generate.constraint import parse_rule

TEXT: dict[str, Any] = {"type": "string"}
NODE: dict[str, Any] = {
    "type": "object", "required": ["value"], "additionalProperties": False,
    "properties": {"value": {"type": "integer"},
                   "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
}  # fmt: skip
PERSON: dict[str, Any] = {
    "type": "object", "required": ["name", "age", "tags"], "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "minLength": 2, "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 3},
        "born": {"type": "string", "format": "date"},
    },
}  # fmt: skip
SCHEMAS: dict[str, dict[str, Any]] = {
    "a text": TEXT,
    "one of some": {"enum": ["yes", "no", 3, None, {"a": [1]}]},
    "a number in bounds": {"type": "number", "minimum": -2, "maximum": 7.5},
    "a person": PERSON,
    "nested": {"type": "object", "required": ["who", "all"], "additionalProperties": False,
               "properties": {"who": PERSON, "all": {"type": "array", "items": PERSON,
                                                     "minItems": 2, "maxItems": 2}}},
    "a pattern": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}(-x|-yy)$"},
    "a list of lists": {"type": "array", "minItems": 1, "items": {
        "type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "boolean"}}},
    "a tree": {"$defs": {"node": NODE}, "$ref": "#/$defs/node"},
    "any of two": {"anyOf": [{"type": "object", "required": ["a"], "properties": {"a": TEXT},
                              "additionalProperties": False}, {"type": "integer"}]},
    "other scripts": {"type": "object", "required": ["имя", "名"], "additionalProperties": False,
                      "properties": {"имя": TEXT, "名": {"const": "你好 🙂"}}},
    "a dictionary": {"type": "object", "additionalProperties": {"type": "integer"},
                     "minProperties": 1},
}  # fmt: skip
REGEXES = [r"[0-9]{3}-[a-f]{2}", r"(a|bc)*d", r"(a|b)*c(a|b){20}d",
           r"(yes|no|maybe)( indeed)?", r"(é|你好|🙂){2,3}!"]  # fmt: skip
SUM = 'start: term ("+" term)*\nterm: NUMBER | "(" start ")"\nNUMBER: /[1-9][0-9]*/\n'


def lines() -> pd.DataFrame:
    names = ["Ada", "Böll", "你好", "Zoë 🙂"]
    return pd.DataFrame({
        "kind": [names[i % 4] for i in range(120)],
        "text": [json.dumps({"name": names[i % 4], "age": i, "tags": ["x"] * (i % 3)},
                            ensure_ascii=False) for i in range(120)],
    })  # fmt: skip


@pytest.fixture(scope="module", params=[
    "bpe", *(pytest.param(name, marks=pytest.mark.slow) for name in ("characters", "pretrained")),
])  # fmt: skip
def writer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> api.Model:
    """A model of little training, so that nothing comes out right by itself."""
    kind = "bpe" if request.param == "pretrained" else request.param
    folder = tmp_path_factory.mktemp("writer")
    recipe = {"model": {"size": "nano"}, "schema": {"fields": {"text": {"codec": kind}}}}
    data = lines() if request.param == "characters" else lines()[["text"]]
    model = api.train(data, folder / "run", steps=20, recipe=recipe)
    if request.param != "pretrained":
        return model
    model.export(folder / "hf")
    return api.import_checkpoint(folder / "hf", folder / "in")


def fewest(model: api.Model, **rule: Any) -> int:
    """The least number of tokens, as the refusal of fewer says it."""
    try:
        model.generate(1, max_tokens=1, want=["text"], **rule)
    except RequestError as refused:
        found = re.search(r"give at least (\d+)", str(refused))
        assert found is not None, refused
        return int(found[1])
    return 1


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.slow) if name in ("nested", "a dictionary") else name
    for name in SCHEMAS
])  # fmt: skip
def test_every_text_obeys_its_schema_and_is_finished(writer: api.Model, name: str) -> None:
    schema = SCHEMAS[name]
    least = fewest(writer, schema=schema)
    for room, temperature in ((least, 1.0), (least + 7, 2.0), (300, 1.0), (40 + least, 0.0)):
        made = writer.generate(4, want=["text"], schema=schema, max_tokens=room, seed=3,
                               temperature=temperature)["text"]  # fmt: skip
        for text in made:
            jsonschema.validate(json.loads(text), schema)


@pytest.mark.parametrize("regex", REGEXES)
def test_every_text_matches_its_expression(writer: api.Model, regex: str) -> None:
    least = fewest(writer, regex=regex)
    for room in (least, least + 3, 60):
        for text in writer.generate(6, want=["text"], regex=regex, max_tokens=room, seed=1)["text"]:
            assert re.fullmatch(regex, text)


def test_every_text_is_of_its_grammar(writer: api.Model) -> None:
    for text in writer.generate(8, want=["text"], grammar=SUM, max_tokens=25, seed=2)["text"]:
        assert re.fullmatch(r"[0-9+()]+", text) and eval(text) > 0


def test_a_prompt_stands_before_what_obeys(writer: api.Model) -> None:
    prompt = '{"name": "Ada"} is '
    options: dict[str, Any] = {"prompt": prompt, "schema": PERSON, "max_tokens": 120, "seed": 5}
    made = writer.generate(3, want=["text"], **options)["text"].tolist()
    alone = writer.generate(1, want=["text"], **options)["text"].tolist()
    assert made[:1] == alone, "batched = alone"
    for text in made:
        assert text.startswith(prompt)
        jsonschema.validate(json.loads(text.removeprefix(prompt)), PERSON)
    assert prompt + "".join(writer.stream(want="text", **options)) == made[0], "streamed = whole"


def test_what_is_free_is_as_without_a_rule(writer: api.Model) -> None:
    """An expression that allows all valid texts changes nothing where no others come anyway."""
    if writer.run.schema["text"].codec == "pretrained":
        return
    options: dict[str, Any] = {
        "want": ["text"],
        "max_tokens": 40,
        "seed": 9,
        "no_missing": ["text"],
    }
    free = writer.generate(4, **options)["text"].tolist()
    assert writer.generate(4, regex=r"(.|\n)*", **options)["text"].tolist() == free


class Person(BaseModel):
    name: str
    age: int


def test_schemas_come_as_models_dicts_and_files(
    writer: api.Model, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    made = writer.generate(2, want=["text"], schema=Person, max_tokens=60)["text"]
    for text in made:
        Person.model_validate_json(text)
    (tmp_path / "person.json").write_text(json.dumps(Person.model_json_schema()), encoding="utf-8")
    run = str(writer.run.folder.path)
    code, out, said = command("generate", run, "--want", "text", "--schema",
                              str(tmp_path / "person.json"), "--max-tokens", "60")  # fmt: skip
    assert code == 0, said
    Person.model_validate_json(out)
    code, _, said = command("generate", run, "--grammar", str(tmp_path / "nothing.lark"))
    assert code == 2 and "--grammar" in said and "no such file" in said


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"schema": '{"type": "strin"}'}, "schema: cannot be followed: .*strin"),
    ({"schema": "{"}, "schema: is no JSON"),
    ({"schema": "[1]"}, "schema: must be an object"),
    ({"schema": "false"}, "obeyed by nothing"),
    ({"schema": {"$defs": {"a": {"type": "object", "required": ["x"],
                                 "properties": {"x": {"$ref": "#/$defs/a"}}}},
                 "$ref": "#/$defs/a"}}, "no text of at most 4,096 tokens was found"),
    ({"schema": {"allOf": [{"type": "string"}, {"type": "number"}]}}, "nsatisfiable"),
    ({"schema": {"$ref": "#/nope"}}, "nope"),
    ({"schema": {"type": "string"}, "regex": "a"}, "schema and regex: a text obeys one of them"),
    ({"regex": "("}, "regex: cannot be followed"),
    ({"regex": ""}, "must be text, and not empty"),
    ({"grammar": "start: nothing"}, "grammar: cannot be followed"),
    ({"regex": "a{400}", "max_tokens": 100}, "give at least"),
    ({"regex": "a", "beams": 2}, "leave out choices"),
    ({"regex": "a", "stop": ["x"]}, "leave out choices"),
]  # fmt: skip


@pytest.mark.parametrize("options, message", REFUSED)
def test_what_cannot_be_followed_is_refused(
    writer: api.Model, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        writer.generate(1, want=["text"], **options)


def test_hostile_schemas_are_refused_at_once() -> None:
    deep: Any = {"type": "string"}
    for _ in range(500):
        deep = {"type": "array", "items": deep}
    wide = {"enum": ["x" * 50] * 10_000}
    for schema in (deep, wide):
        with pytest.raises(RequestError, match="at most 200,000 characters and 64 levels"):
            parse_rule(schema)


def test_a_masked_model_or_a_table_without_texts_is_refused(tmp_path: Path) -> None:
    recipe = {"model": {"size": "nano"}, "objective": {"name": "masked"}}
    masked = api.train(lines()[["text"]], tmp_path / "masked", steps=2, recipe=recipe)
    with pytest.raises(RequestError, match="a masked model makes a text as a whole"):
        masked.generate(1, regex="a")
    table = api.train(pd.DataFrame({"a": list("xy") * 40}), tmp_path / "table", steps=2)
    with pytest.raises(RequestError, match="no text is wanted"):
        table.generate(1, regex="a")


def test_an_end_that_the_tokenizer_has_no_token_for() -> None:
    """Checkpoints may have more ids than their tokenizer, and end by one of those."""
    whole = tokenizer_of_bytes()
    tokens = constraint._tokens_of(PretrainedCodec(whole.to_str(), 400, [399]))
    matcher = constraint._matcher(tokens, constraint.Rule("regex", "a{3}"))
    for _ in range(3):
        assert not matcher.is_accepting()
        assert matcher.consume_token(tokens.single[ord("a")])
    assert matcher.is_accepting() and matcher.consume_token(399)
