"""Jobs are neither lost nor done twice, whoever dies; on SQLite, and on PostgreSQL where it is."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from omnifill.errors import RequestError
from omnifill.serve.store import ATTEMPTS, JOBS, META, Conflict, Store

BODY = [{"path": "/v1/records", "body": {"n": i}} for i in range(3)]


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a cluster of its own."""
    if shutil.which("initdb") is None:
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("postgres")
    who: dict[str, Any] = {}
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # it does not run as root
        who = {"user": "nobody"}
        shutil.chown(folder, "nobody")
        for parent in folder.parents[:3]:
            parent.chmod(parent.stat().st_mode | 0o011)
    data = folder / "data"
    made = ["initdb", "-D", str(data), "-U", "test", "--auth=trust", "--no-sync"]
    subprocess.run(made, check=True, capture_output=True, cwd=folder, **who)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} -F"
    log = folder / "log"
    command = ["pg_ctl", "-D", str(data), "-w"]
    subprocess.run([*command, "-o", options, "-l", str(log), "start"], check=True, cwd=folder,
                   stdout=subprocess.DEVNULL, **who)  # fmt: skip
    yield f"postgresql+psycopg://test@127.0.0.1:{port}/postgres"
    subprocess.run([*command, "-m", "fast", "stop"], check=True, cwd=folder,
                   stdout=subprocess.DEVNULL, **who)  # fmt: skip


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    else:
        url = request.getfixturevalue("postgres")
    store = Store(url)
    yield store
    META.drop_all(store.engine)
    store.close()


def expire(store: Store) -> None:
    """As if every holder had been silent for long."""
    with store.engine.begin() as db:
        db.execute(update(JOBS).values(lease=0.0))


def test_a_job_from_beginning_to_end(store: Store) -> None:
    id_, new = store.add(BODY, "me", None)
    assert new and store.waiting() == 1
    held = store.claim()
    assert held is not None and held.id == id_ and held.body == BODY and not held.done
    assert store.claim() is None  # somebody has it
    for number in (2, 0, 1):
        assert store.put(held, number, f"line {number}")
    assert store.finish(held) and store.waiting() == 0
    about = store.about(id_, "me")
    assert about is not None and about["state"] == "done" and about["finished"] == 3
    assert store.result(id_) == b"line 0\nline 1\nline 2\n"
    assert about["sha256"] == hashlib.sha256(store.result(id_)).hexdigest()
    assert not store.put(held, 0, "late") and not store.fail(held, "late")


def test_who_was_thought_dead_cannot_write(store: Store) -> None:
    id_, _ = store.add(BODY, "me", None)
    first = store.claim()
    assert first is not None and store.put(first, 0, "of the first")
    assert store.keep(first)
    expire(store)
    second = store.claim()
    assert second is not None and second.token > first.token and second.done == {0}
    assert not store.put(first, 1, "too late") and not store.finish(first)
    assert not store.keep(first) and not store.leave(first)
    assert store.put(second, 1, "b") and store.put(second, 2, "c") and store.finish(second)
    assert store.result(id_) == b"of the first\nb\nc\n"


def test_what_is_given_back_is_taken_at_once_and_tokens_only_grow(store: Store) -> None:
    store.add(BODY, "me", None)
    tokens = []
    for _ in range(2 * ATTEMPTS):  # to be told to go is no failure
        held = store.claim()
        assert held is not None and store.leave(held)
        tokens.append(held.token)
    assert tokens == sorted(set(tokens))


def test_a_job_that_kills_its_workers_is_given_up(store: Store) -> None:
    id_, _ = store.add(BODY, "me", None)
    for _ in range(ATTEMPTS):
        assert store.claim() is not None
        expire(store)
    assert store.claim() is None
    about = store.about(id_, "me")
    assert about is not None and about["state"] == "failed" and str(ATTEMPTS) in about["error"]


def test_one_key_is_one_job(store: Store) -> None:
    ids: list[tuple[str, bool]] = []
    threads = [threading.Thread(target=lambda: ids.append(store.add(BODY, "me", "k")))
               for _ in range(8)]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id_ for id_, _ in ids}) == 1 and sum(new for _, new in ids) == 1
    with pytest.raises(Conflict):
        store.add(BODY[:1], "me", "k")
    assert store.add(BODY[:1], "you", "k")[1]


def test_others_do_not_see_it_and_what_is_over_stays(store: Store) -> None:
    id_, _ = store.add(BODY, "me", None)
    assert store.about(id_, "you") is None and store.listed("you", 10) == []
    assert not store.cancel(id_, "you")
    held = store.claim()
    assert held is not None and store.cancel(id_, "me")
    assert not store.put(held, 0, "x") and not store.finish(held)
    assert store.cancel(id_, "me")  # again
    about = store.about(id_, "me")
    assert about is not None and about["state"] == "cancelled" and store.claim() is None


def test_what_is_over_can_be_forgotten_and_nothing_else(store: Store) -> None:
    id_, _ = store.add(BODY, "me", "key")
    held = store.claim()
    assert held is not None and not store.remove(id_, "me")
    for number in range(len(BODY)):
        store.put(held, number, "{}")
    store.finish(held)
    assert not store.remove(id_, "you") and store.result(id_)
    assert store.remove(id_, "me") and not store.remove(id_, "me")
    assert store.about(id_, "me") is None and store.result(id_) == b""
    assert store.add(BODY, "me", "key") != (id_, False)  # the key is free again


def test_whoever_dies_each_job_is_done_once(store: Store) -> None:
    """Four workers that die at random moments, at forty jobs."""
    ids = [store.add(BODY, "me", None)[0] for _ in range(40)]
    clock = threading.Lock()

    def work(seed: int) -> None:
        chance = random.Random(seed)
        while store.waiting():
            held = store.claim()
            if held is None:
                with clock:
                    if chance.random() < 0.2:  # the time of the dead goes by
                        expire(store)
                continue
            for number in range(len(held.body)):
                if number in held.done:
                    continue
                if chance.random() < 0.05:
                    break  # dead, and its lease with it
                if not store.put(held, number, f"{held.id} {number}"):
                    break
            else:
                store.finish(held)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for id_ in ids:
        about = store.about(id_, "me")
        assert about is not None and about["state"] in ("done", "failed")
        if about["state"] == "done":
            assert about["finished"] == 3
            assert store.result(id_) == "".join(f"{id_} {i}\n" for i in range(3)).encode()
            assert about["sha256"] == hashlib.sha256(store.result(id_)).hexdigest()
    assert sum(store.about(id_, "me")["state"] == "done" for id_ in ids) > 30  # type: ignore[index]


def test_a_database_that_cannot_be_opened_is_one_message(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path / 'no' / 'where.sqlite'}", "postgresql+nothing://x", "x"):
        with pytest.raises(RequestError, match="--jobs"):
            Store(url)
