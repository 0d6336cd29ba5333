"""Folders, archives and idx files are tables of a row for each picture."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from omnifill.data.infer import infer_schema
from omnifill.data.inspect import inspect_data, render
from omnifill.data.profile import profile
from omnifill.data.source import open_source
from omnifill.data.stage import rows_at_once, stage
from omnifill.errors import DataError
from omnifill.recipe import Recipe
from omnifill.settings import DataSettings


def png(value: int, size: int = 4) -> bytes:
    out = io.BytesIO()
    Image.new("L", (size, size), value).save(out, "PNG")
    return out.getvalue()


FILES = {f"{kind}/{i}.png": png(10 * i + (kind == "b")) for kind in "ab" for i in range(20)}


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def rows(path: Path) -> list[tuple[Any, ...]]:
    """All cells, pictures as their bytes."""
    source = open_source(path, DataSettings())
    out = []
    for chunk in source.chunks():
        for row in zip(*chunk.columns.values(), strict=True):
            out.append(tuple(c.load() if hasattr(c, "load") else c for c in row))
    return out


def test_a_folder_and_archives_of_it_hold_the_same_rows(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pictures", FILES)
    expected = [(data, name[0]) for name, data in sorted(FILES.items())]
    assert rows(folder) == expected
    ordered = dict(sorted(FILES.items()))
    assert rows(write_zip(tmp_path / "p.zip", ordered)) == expected
    assert rows(write_tar(tmp_path / "p.tar", ordered)) == expected
    assert rows(write_tar(tmp_path / "p.tar.gz", {f"./all/{n}": d for n, d in ordered.items()}))


def test_large_files_are_held_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordered = dict(sorted(FILES.items()))
    tar = write_tar(tmp_path / "p.tar", ordered)
    table = tmp_path / "p.parquet"
    pd.DataFrame({"image": list(ordered.values())}).to_parquet(table)
    for path, module in ((tar, "folder"), (table, "parquet")):
        before = rows(path)
        assert len(list(open_source(path, DataSettings()).chunks())) == 1
        with monkeypatch.context() as patch:
            patch.setattr(f"omnifill.data.{module}.MOST_HELD", 5 * len(png(0)))
            sizes = [len(chunk) for chunk in open_source(path, DataSettings()).chunks()]
            assert len(sizes) > 4 and max(sizes) <= 8 and sum(sizes) == 40
            assert rows(path) == before


def test_bytes_that_are_no_picture_are_left_out_by_name(tmp_path: Path) -> None:
    cells = [png(i) for i in range(120)]
    cells[70] = b"junk"
    pd.DataFrame({"image": cells}).to_parquet(tmp_path / "t.parquet")
    source = open_source(tmp_path / "t.parquet", DataSettings())
    recipe = Recipe()
    found = profile(source, recipe)
    staged = stage(source, infer_schema(found, recipe), recipe, tmp_path / "staged", None)
    assert sum(staged.rows.values()) == 119
    assert any("t.parquet:71" in note and "begins with b'junk'" in note for note in staged.notes)


def test_metadata_beside_the_files_adds_columns(tmp_path: Path) -> None:
    table = "file_name,caption\n" + "".join(f"{n},the {n}\n" for n in FILES if n != "a/3.png")
    files = FILES | {"metadata.csv": table.encode()}
    inside = {f"top/{name}": data for name, data in files.items()}
    for path in (write_folder(tmp_path / "f", files), write_zip(tmp_path / "f.zip", files),
                 write_tar(tmp_path / "g.tgz", inside)):  # fmt: skip
        source = open_source(path, DataSettings())
        assert source.names == ["image", "label", "caption"]
        assert any("1 file does" in note for note in source.notes)
        found = {row[2]: row[:2] for row in rows(path)}
        assert found["the b/7.png"] == (FILES["b/7.png"], "b")
        assert found[None] == (FILES["a/3.png"], "a")


@pytest.mark.parametrize(
    ("table", "message"),
    [("name,caption\na/1.png,x\n", "no column 'file_name'"),
     ("file_name,caption\nz/1.png,x\n", r"metadata\.csv:2: there is no file 'z/1\.png'"),
     ("file_name,caption\na/1.png,x\na/1.png,y\n", r":3: 'a/1\.png' has a row already"),
     ("file_name,caption\na/1.png\n", ":2: 1 cell where the header has 2"),
     ("file_name,image\na/1.png,x\n", "rename it"),
     ("file_name,c,c\na/1.png,x,y\n", "twice")],
)  # fmt: skip
def test_metadata_that_does_not_fit_is_refused_by_line(
    tmp_path: Path, table: str, message: str
) -> None:
    folder = write_folder(tmp_path / "f", FILES | {"metadata.csv": table.encode()})
    with pytest.raises(DataError, match=message):
        open_source(folder, DataSettings())


@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "/x.png", "C:/x.png", "..\\x.png"])
def test_an_archive_with_names_that_lead_out_of_it_is_refused(tmp_path: Path, name: str) -> None:
    for path in (write_zip(tmp_path / "z.zip", {name: png(1)}),
                 write_tar(tmp_path / "t.tar", {name: png(1)})):  # fmt: skip
        with pytest.raises(DataError, match="outside of the archive"):
            open_source(path, DataSettings())


def test_an_archive_of_a_folders_content_is_read(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tgz", {f"./{name}": data for name, data in FILES.items()})
    with tarfile.open(path, "w:gz") as archive:
        archive.add(write_folder(tmp_path / "f", FILES | {"12:30.png": png(3)}), ".")
    assert len(rows(path)) == 41


def test_names_with_the_other_slash_are_in_folders_too(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "z.zip", {n.replace("/", "\\"): d for n, d in FILES.items()})
    assert {row[1] for row in rows(path)} == {"a", "b"}


def test_linked_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "f", {"a/1.png": png(1)})
    try:
        (folder / "b").symlink_to(write_folder(tmp_path / "g", {"2.png": png(2)}))
    except OSError:
        pytest.skip("no links here")
    assert [row[1] for row in rows(folder)] == ["a", "b"]
    (folder / "a" / "again").symlink_to(folder)
    with pytest.raises(DataError, match="a link to a folder that holds it"):
        open_source(folder, DataSettings())


def test_paths_in_metadata_stay_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(5))
    table = "file_name,mask\n" + "".join(f"{n},../secret.png\n" for n in FILES)
    folder = write_folder(tmp_path / "f", FILES | {"metadata.csv": table.encode()})
    with pytest.raises(DataError, match="points outside"):
        inspect_data(folder, Recipe())


def test_folders_that_are_joined_keep_their_labels(tmp_path: Path) -> None:
    for name in "pq":
        files = {f"{i % 3}/{i}.png": png(i) for i in range(9)}
        write_folder(tmp_path / name, files | {"x.md": b""})
    settings = DataSettings(union=True)
    source = open_source([tmp_path / "p", tmp_path / "q"], settings)
    assert source.types["label"][0] == "category" and len(source.notes) == 2


def test_names_that_only_look_like_pictures_can_be_texts(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("url,n\n" + "".join(f"http://x/{i}.png,{i}\n" for i in range(30)))
    with pytest.raises(DataError, match="--field url:text"):
        inspect_data(path, Recipe())
    text = Recipe().with_values(**{"schema.fields.url.type": "text"})
    assert inspect_data(path, text).schema["url"].type == "text"


def test_a_column_of_pictures_and_something_else_names_the_row(tmp_path: Path) -> None:
    cells: list[Any] = [np.zeros((4, 4), np.uint8)] * 9 + ["none"]
    with pytest.raises(DataError, match="DataFrame:10, column 'p', none: is not a picture"):
        inspect_data(pd.DataFrame({"p": cells, "n": range(10)}), Recipe())


def test_links_in_an_archive_are_never_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(7))
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.png")
        archive.addfile(link)
    with pytest.raises(DataError, match="holds no pictures"):
        open_source(path, DataSettings())


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    for path in (write_tar(tmp_path / "t.tar.gz", FILES), write_zip(tmp_path / "z.zip", FILES)):
        path.write_bytes(path.read_bytes()[:-900])
        with pytest.raises(DataError, match="cannot be unpacked"):
            open_source(path, DataSettings())


@pytest.mark.parametrize(
    ("files", "message"),
    [({}, "holds no pictures"), ({"a.csv": b"x\n1\n"}, r"give its tables or texts: .*a\.csv"),
     ({"train-images-idx3-ubyte.gz": b""}, "name the one with the pictures")],
)  # fmt: skip
def test_a_folder_without_pictures_says_what_to_do(
    tmp_path: Path, files: dict[str, bytes], message: str
) -> None:
    (tmp_path / "f").mkdir()
    with pytest.raises(DataError, match=message):
        open_source(write_folder(tmp_path / "f", files), DataSettings())


def test_one_picture_alone_is_no_data(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    with pytest.raises(DataError, match="give the folder"):
        open_source(tmp_path / "a.png", DataSettings())
    with pytest.raises(DataError, match="below one folder"):
        open_source([tmp_path, tmp_path], DataSettings())


def write_idx(path: Path, array: np.ndarray) -> Path:
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    data = head + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_idx_files_are_pictures_with_their_labels(tmp_path: Path) -> None:
    pictures = np.arange(6 * 4 * 3).reshape(6, 4, 3) % 251
    path = write_idx(tmp_path / "train-images-idx3-ubyte.gz", pictures)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.array([3, 1, 4, 1, 5, 9]))
    found = rows(path)
    np.testing.assert_array_equal(np.stack([row[0] for row in found]), pictures)
    assert [row[1] for row in found] == ["3", "1", "4", "1", "5", "9"]
    source = open_source(path, DataSettings())
    schema = infer_schema(profile(source, Recipe()), Recipe())
    assert [(f.name, f.type) for f in schema.fields] == [("image", "image"), ("label", "category")]
    assert schema["image"].options == {"height": 4, "width": 3, "mode": "L"}


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "is no idx file"), (b"\0\0\x0d\x03" + b"\0" * 12, "is no idx file of bytes"),
     (b"\0\0\x08\x03\0\0", "cut off within its header"),
     (struct.pack(">BBBB3I", 0, 0, 8, 3, 2, 2, 2) + b"1234", "should hold 8 bytes"),
     (struct.pack(">BBBB3I", 0, 0, 8, 3, 2**31, 2**31, 9), "more than 8 GiB"),
     (struct.pack(">BBBB1I", 0, 0, 8, 1, 4) + b"1234", "holds labels"),
     (struct.pack(">BBBB2I", 0, 0, 8, 2, 2, 2) + b"1234", "no pictures")],
)  # fmt: skip
def test_broken_idx_files_are_named(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x-images-idx3-ubyte"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message):
        list(open_source(path, DataSettings()).chunks())


def test_labels_of_another_number_are_refused(tmp_path: Path) -> None:
    path = write_idx(tmp_path / "t-images-idx3-ubyte", np.zeros((4, 2, 2)))
    write_idx(tmp_path / "t-labels-idx1-ubyte", np.zeros(3))
    with pytest.raises(DataError, match="has 3 labels for 4 pictures"):
        open_source(path, DataSettings())


def test_few_broken_files_are_left_out_by_name_and_many_stop(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "f", FILES | {"a/bad.png": b"no", "b/cut.png": png(1)[:40]})
    shown = render(inspect_data(folder, Recipe()))
    assert "a/bad.png is no picture" in shown and "b/cut.png is a broken PNG file" in shown
    assert "4.8% of the files cannot be read; `train` stops at more than 1.0%" in shown
    source = open_source(folder, DataSettings())
    schema = infer_schema(profile(source, Recipe()), Recipe())
    with pytest.raises(DataError, match=r"2 of 42 files cannot be read(.|\n)*a/bad\.png"):
        stage(source, schema, Recipe(), tmp_path / "s")
    patient = Recipe().with_values(**{"data.broken": 0.05})
    staged = stage(source, schema, patient, tmp_path / "s2")
    assert sum(staged.rows.values()) == 40
    assert any("2 rows are left out" in note and "b/cut.png" in note for note in staged.notes)


def test_broken_files_may_all_stand_in_one_folder(tmp_path: Path) -> None:
    few = {f"a/{i:03}.png": b"no" for i in range(15)} | {f"b/{i}.png": png(i) for i in range(250)}
    source = open_source(write_folder(tmp_path / "f", few), DataSettings())
    recipe = Recipe().with_values(**{"data.broken": 0.06})
    schema = infer_schema(profile(source, recipe), recipe)
    assert sum(stage(source, schema, recipe, tmp_path / "s").rows.values()) == 250


def test_large_values_come_in_small_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(write_folder(tmp_path / "f", FILES), DataSettings())
    schema = infer_schema(profile(source, Recipe()), Recipe())
    assert rows_at_once(schema) == 8192
    whole = stage(source, schema, Recipe(), tmp_path / "a")
    monkeypatch.setattr("omnifill.data.stage.AT_ONCE", 20 * 16)
    assert rows_at_once(schema) == 20
    pieces = stage(source, schema, Recipe(), tmp_path / "b")
    for part in ("train", "valid", "test"):
        columns: list[dict[str, list[Any]]] = [{}, {}]
        for staged, out in zip((whole, pieces), columns, strict=True):
            for chunk in staged.chunks(part):
                for name, values in chunk.items():
                    out.setdefault(name, []).extend(values)
        assert columns[0] == columns[1]


def test_pictures_of_which_none_can_be_read_are_an_error(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "f", {"a.png": b"no", "b.png": b"no"})
    with pytest.raises(DataError, match=r"none of 2 files can be read"):
        inspect_data(folder, Recipe())


def test_mixed_sizes_get_the_usual_one_and_large_ones_are_scaled(tmp_path: Path) -> None:
    files = {f"{i}.png": png(i, 4 + 4 * (i % 3)) for i in range(9)} | {"x.png": png(1, 300)}
    source = open_source(write_folder(tmp_path / "f", files), DataSettings())
    options = infer_schema(profile(source, Recipe()), Recipe())["image"].options
    assert options == {"height": 8, "width": 8, "mode": "L"}
    large = open_source(write_folder(tmp_path / "g", {"a.png": png(1, 300), "b.png": png(2, 300)}),
                        DataSettings())  # fmt: skip
    assert infer_schema(profile(large, Recipe()), Recipe())["image"].options["width"] == 64
