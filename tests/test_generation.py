"""Generation end to end: batches, prompts, streams, limits, and the exact likelihood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tests.conftest import mixed_table

from omnifill import api
from omnifill.errors import RequestError
from omnifill.form.encode import encode_records
from omnifill.form.layout import Former, schema_order
from omnifill.form.vocabulary import END, MISSING
from omnifill.generate import autoregressive
from omnifill.generate.filters import TEXT_MIN_P
from omnifill.generate.tables import frame_columns
from omnifill.generate.wishes import Wish, build

TEXT = "".join(
    f"{word} {other} 春眠不覺曉。 Grüße 👩‍👩‍👧 {n}\n"
    for n, (word, other) in enumerate([("the", "sea"), ("a", "hill"), ("no", "sound")] * 60)
)


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> api.Model:
    """A model of one text, with a context much shorter than what it is asked for."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "poem.txt").write_text(TEXT, encoding="utf-8")
    recipe = {"model": {"size": "nano", "context": 24}, "train": {"eval_every": 50}}
    return api.train(folder / "poem.txt", folder / "run", steps=60, recipe=recipe)


def test_streamed_equals_whole(writer: api.Model, model: api.Model) -> None:
    for seed in range(4):
        whole = writer.generate(1, seed=seed, max_tokens=90)["text"][0]
        pieces = list(writer.stream(seed=seed, max_tokens=90))
        assert "".join(pieces) == whole
        assert "�" not in whole
        prompted = writer.generate(1, prompt="the 春", seed=seed, max_tokens=40)["text"][0]
        assert prompted == "the 春" + "".join(writer.stream(prompt="the 春", seed=seed,
                                                             max_tokens=40))  # fmt: skip
    assert len(list(writer.stream(seed=0, max_tokens=90))) > 3
    given = {"kind": "tea"}
    whole = model.generate(1, given=given, want=["note"], seed=2, no_missing=["note"])["note"][0]
    assert whole == "".join(model.stream(given=given, want="note", seed=2))


def test_a_text_goes_on_past_the_context_and_stays_valid(writer: api.Model) -> None:
    assert writer.run.network.config.context == 24
    made = writer.generate(3, seed=1, max_tokens=400, temperature=1.3)["text"]
    for text in made:
        assert len(text) > 200
        text.encode("utf-8")
        assert "�" not in text


def test_a_prompt_longer_than_the_context_is_continued(writer: api.Model) -> None:
    prompt = TEXT[:2000]
    made = writer.generate(2, prompt=prompt, seed=3, max_tokens=20)["text"]
    assert all(t.startswith(prompt) and len(t) > len(prompt) for t in made)
    short = writer.generate(1, prompt=prompt, seed=3, max_tokens=20)["text"][0]
    assert short == made[0]


def test_prompts_of_any_text_stand_at_the_beginning(model: api.Model) -> None:
    for prompt in ["", "warm", "<bos>", "热 🍵", "an unseen wörd"]:
        made = model.generate(2, prompt=prompt, want=["note"], seed=1)
        assert made["note"].str.startswith(prompt).all()


def test_max_tokens_cuts_at_a_whole_character(writer: api.Model) -> None:
    for limit in range(1, 12):
        for text in writer.generate(4, seed=limit, max_tokens=limit)["text"]:
            text.encode("utf-8")
            assert "�" not in text


def test_stop_strings_end_a_text_and_are_not_shown(writer: api.Model) -> None:
    plain = writer.generate(1, seed=0, max_tokens=120)["text"][0]
    stop = plain[10:12]
    cut = writer.generate(1, seed=0, max_tokens=120, stop=[stop])["text"][0]
    assert cut == plain[: plain.index(stop)]
    assert cut == "".join(writer.stream(seed=0, max_tokens=120, stop=[stop]))
    assert "".join(writer.stream(seed=0, max_tokens=120, stop=["\x00never"])) == plain


def test_no_run_of_tokens_repeats_when_asked(writer: api.Model) -> None:
    text = writer.generate(1, seed=0, max_tokens=120, temperature=0, no_repeat_ngram=3)["text"][0]
    codec = writer.run.vocabulary["text"].codec
    codes = codec.encode_many([text])[0].tolist()
    runs = [tuple(codes[i : i + 6]) for i in range(len(codes) - 5)]
    assert len(runs) - len(set(runs)) <= len(runs) // 10
    loops = writer.generate(1, seed=0, max_tokens=120, temperature=0)["text"][0]
    assert len(set(loops)) <= len(set(text)) or loops != text


def test_temperature_zero_is_the_same_for_every_seed(model: api.Model) -> None:
    a, b = (model.generate(3, seed=s, temperature=0) for s in (1, 2))
    pd.testing.assert_frame_equal(a, b)


def test_what_is_drawn_follows_the_likelihood_that_score_states(model: api.Model) -> None:
    """Frequencies of a category, drawn 4,000 times, against its stated probabilities."""
    made = model.generate(4000, seed=11, want=["kind"])["kind"]
    counts = made.fillna("(blank)").value_counts()
    for value in ["tea", "咖啡", "ماء", None]:
        one = pd.DataFrame({"kind": [value]}, dtype=object)
        stated = float(np.exp(model.score(one)["kind"][0]))
        share = counts.get("(blank)" if value is None else value, 0) / 4000
        assert abs(share - stated) < 4 * np.sqrt(stated * (1 - stated) / 4000) + 1e-4


def test_probabilities_of_all_values_of_a_slot_add_up_to_one(model: api.Model) -> None:
    """The softmax of loss, score and sampling runs over what the grammar allows and no more."""
    table = mixed_table(6, seed=2)
    shard, _ = encode_records(model.run.vocabulary, frame_columns(model.run, table))
    batch = Former(model.run.vocabulary).records(
        shard, np.arange(6), schema_order(6, model.run.vocabulary)
    )
    net, columns = model.run.network, model.run.objective.columns
    with torch.no_grad():
        hidden = net(batch.ids, batch.field, batch.coord, model.run.objective.mask)
        nats = model.run.objective.nats(net, batch).view(batch.ids.shape)
    for row, slot in (batch.weight > 0).nonzero().tolist():
        allow = batch.allow[row, slot]
        block = int(columns.row_block[allow])
        scores = columns.scores(net, hidden[row, slot][None], block, allow[None])
        column = columns.column_of(batch.target[row, slot][None], block)
        assert torch.isfinite(scores[0, column])
        stated = -scores.log_softmax(dim=1)[0, column]
        torch.testing.assert_close(nats[row, slot][None], stated, rtol=1e-4, atol=1e-4)


def test_what_goes_in_comes_out_of_the_vocabulary(model: api.Model) -> None:
    table = mixed_table(40, seed=8)
    columns = frame_columns(model.run, table)
    vocabulary = model.run.vocabulary
    shard, cuts = encode_records(vocabulary, columns)
    assert not any(cuts.fields.values())
    for row in range(40):
        at = int(shard.starts[row])
        for field, size in zip(vocabulary.fields, shard.lens[row], strict=True):
            ids = np.asarray(shard.ids[at : at + size])
            at += int(size)
            value = columns[field.name][row]
            decoded = vocabulary.decode(field.name, ids[ids != END])
            if value is None:
                assert decoded is None and (ids == MISSING).all()
            elif field.name in ("kind", "note"):  # numbers and dates are quantised
                assert decoded == value


def test_long_texts_of_records_are_cut_and_counted(tmp_path: Path) -> None:
    table = pd.DataFrame({"a": ["x " * 400, "y"] * 15, "b": ["p", "q " * 300] * 15})
    model = api.train(table, tmp_path / "r", steps=2,
                      recipe={"model": {"size": "nano", "context": 60}})  # fmt: skip
    notes = model.run.folder.read_state()["notes"]
    assert any("cut to fit 60 tokens" in note for note in notes)


@pytest.mark.parametrize("bad", [{"num": 0}, {"max_tokens": 0}, {"seed": -1}])
def test_numbers_out_of_range_are_refused(model: api.Model, bad: dict[str, int]) -> None:
    with pytest.raises(RequestError, match="must be"):
        build(model.run, Wish(**bad))


def test_named_tasks_train_only_on_what_is_wanted(table_csv: Path, tmp_path: Path) -> None:
    model = api.train(table_csv, tmp_path / "r", steps=3, given=["note"], want=["kind"],
                      recipe={"model": {"size": "nano"}})  # fmt: skip
    assert model.generate(2, given={"note": "warm"}, want=["kind"]).shape == (2, 2)
    assert model.run.recipe.form.tasks[0].want == ["kind"]


def test_a_stop_string_ends_a_text_at_once(writer: api.Model, monkeypatch: Any) -> None:
    whole = writer.generate(3, prompt="the", max_tokens=60, seed=4)["text"].tolist()
    stop = whole[0][6:8]
    chosen = []
    real = autoregressive.Autoregressive._choose

    def counted(self: Any, *args: Any) -> Any:
        chosen.append(1)
        return real(self, *args)

    monkeypatch.setattr(autoregressive.Autoregressive, "_choose", counted)
    cut = writer.generate(3, prompt="the", max_tokens=60, seed=4, stop=[stop])["text"].tolist()
    for before, after in zip(whole, cut, strict=True):
        assert after == "the" + before[3:].partition(stop)[0]
    del chosen[:]
    alone = writer.generate(1, prompt="the", max_tokens=60, seed=4, stop=[stop])["text"][0]
    assert alone == cut[0] and len(chosen) < 30


def test_a_given_number_out_of_range_is_said_to_be_moved(model: api.Model) -> None:
    with pytest.warns(UserWarning, match=r"field 'size': 1 given value outside"):
        row = model.generate(1, given={"size": 1e9}, want=["kind"])
    assert row["size"][0] == 1e9


def test_a_given_text_that_is_far_too_long_is_told_of(model: api.Model) -> None:
    with pytest.warns(UserWarning, match=r"'note': the given text has \d+ tokens, and its last"):
        model.generate(1, given={"note": "warm kalt " * 5000}, want=["kind"])


def test_texts_that_must_be_in_view_whole_are_cut_with_a_warning(tmp_path: Path) -> None:
    table = pd.DataFrame({"a": ["tea for two"] * 30, "b": ["two for tea"] * 30})
    table["kind"] = ["x", "y"] * 15
    fields = {"a": {"type": "text"}, "b": {"type": "text"}}
    recipe = {"model": {"size": "nano"}, "schema": {"fields": fields}}
    two = api.train(table, tmp_path / "run", steps=2, recipe=recipe)
    far = "tea for two and " * 400
    with pytest.warns(UserWarning, match=r"cut to fit the \d+ tokens .* in view: 1 of field 'a'"):
        two.generate(1, given={"a": far}, want=["kind"])
    with pytest.warns(UserWarning, match=r"cut to fit the \d+ tokens .* in view: 1 of field 'b'"):
        two.probabilities(pd.DataFrame({"a": ["tea"], "b": [far]}), "kind")
    assert np.isfinite(two.score(pd.DataFrame({"a": [far], "b": [far]}))["row"][0])


def test_texts_alone_have_their_tail_cut_by_default(model: api.Model, writer: api.Model) -> None:
    def texts(**sampling: float) -> list[str]:
        table = writer.generate(6, prompt="the", max_tokens=30, seed=2, **sampling)
        return [str(text) for text in table["text"]]

    assert texts() == texts(min_p=TEXT_MIN_P) != texts(min_p=0.0)
    plain = model.generate(40, want=["kind", "size"], seed=2)
    pd.testing.assert_frame_equal(plain, model.generate(40, want=["kind", "size"], seed=2, min_p=0))


def test_what_is_given_later_is_cleaned_as_the_training_rows_were(model: api.Model) -> None:
    neat = pd.DataFrame({"kind": ["tea", "咖啡"], "note": ["warm kalt", "Grüße"]})
    loose = pd.DataFrame({"kind": [" tea", "咖啡 "], "note": ["warm  kalt ", "Gru\u0308\u00dfe"]})
    pd.testing.assert_frame_equal(model.score(neat), model.score(loose))
    pd.testing.assert_frame_equal(
        model.generate(3, given={"kind": "tea"}), model.generate(3, given={"kind": "tea "})
    )
    holes = loose.assign(size=None)
    filled = model.fill(holes)
    assert filled[["kind", "note"]].equals(loose) and filled["size"].notna().all()


def test_a_prompt_is_cleaned_as_training_was_and_keeps_its_white_space(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("The Rain in the Sun. É. " * 90, encoding="utf-8")
    recipe = {"model": {"size": "nano"}, "data": {"clean": {"lower": True}}}
    book = api.train(tmp_path / "book.txt", tmp_path / "book", steps=2, recipe=recipe)
    request = build(book.run, Wish(prompt="  The E\u0301 "))
    assert request.prompt == "  the é "
