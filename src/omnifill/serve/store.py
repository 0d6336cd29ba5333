"""Where long work is kept: a database of jobs and of what came of their parts.

What was acknowledged is in it, on disk. Whoever works at a job holds a lease on it and a number
that grows with every holder (a fencing token: Kleppmann 2016), so that one who was thought dead
cannot write any more. It runs on SQLite and on PostgreSQL.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    and_,
    create_engine,
    delete,
    event,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from omnifill.errors import RequestError

LEASE = 20.0
"""Seconds after which a holder who says nothing is thought dead."""
ATTEMPTS = 5
"""Holders that a job may have had before it is given up."""
OVER = ("done", "failed", "cancelled")
META = MetaData()
JOBS = Table(
    "omnifill_jobs", META,
    Column("id", String(32), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("key", String(200)),
    Column("asked", String(64), nullable=False),  # SHA-256 of the body
    Column("body", Text, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("total", Integer, nullable=False),
    Column("finished", Integer, nullable=False),
    Column("token", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("lease", Float, nullable=False),
    Column("created", Float, nullable=False),
    Column("changed", Float, nullable=False),
    Column("sha256", String(64)),
    Column("error", Text),
)  # fmt: skip
PARTS = Table(
    "omnifill_parts", META,
    Column("job", String(32), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("line", Text, nullable=False),
)  # fmt: skip
KEYS = Table(  # one job for each key, whoever asks at the same moment
    "omnifill_keys", META,
    Column("owner", String(64), primary_key=True),
    Column("key", String(200), primary_key=True),
    Column("job", String(32), nullable=False),
)  # fmt: skip


@dataclass(frozen=True)
class Held:
    """A job that somebody works at."""

    id: str
    token: int
    body: list[dict[str, Any]]
    done: frozenset[int]
    """Numbers of the parts that are there already."""


class Conflict(Exception):
    """The same key came with another body."""


class Store:
    """The database. Every method may be called from any thread."""

    def __init__(self, url: str) -> None:
        """RequestError if nothing can be opened there."""
        try:
            self.engine = open_engine(url)
            META.create_all(self.engine)
        except Exception as error:  # each driver has its own
            why = str(error).splitlines()[0][:200]
            raise RequestError(f"--jobs: the database cannot be opened ({why})") from None

    @contextmanager
    def _begun(self) -> Iterator[Connection]:
        """A transaction: all of it, or nothing."""
        with self.engine.begin() as connection:
            yield connection

    def add(self, body: list[dict[str, Any]], owner: str, key: str | None) -> tuple[str, bool]:
        """Keep a job -> its id, and whether it is new. Conflict if the key is another body's."""
        text = json.dumps(body, ensure_ascii=False, sort_keys=True)
        asked, number, now = (
            hashlib.sha256(text.encode()).hexdigest(),
            uuid.uuid4().hex,
            time.time(),
        )
        try:
            with self._begun() as db:
                if key is not None:
                    db.execute(insert(KEYS).values(owner=owner, key=key, job=number))
                db.execute(insert(JOBS).values(
                    id=number, owner=owner, key=key, asked=asked, body=text, state="queued",
                    total=len(body), finished=0, token=0, attempts=0,
                    lease=0.0, created=now, changed=now,
                ))  # fmt: skip
            return number, True
        except IntegrityError:  # the key is known
            with self._begun() as db:
                first = db.execute(
                    select(JOBS.c.id, JOBS.c.asked)
                    .join(KEYS, KEYS.c.job == JOBS.c.id)
                    .where(KEYS.c.owner == owner, KEYS.c.key == key)
                ).one()
            if first.asked != asked:
                raise Conflict(first.id) from None
            return str(first.id), False

    def about(self, number: str, owner: str) -> dict[str, Any] | None:
        """What is known of a job, unless it is somebody else's."""
        with self._begun() as db:
            row = db.execute(select(JOBS).where(JOBS.c.id == number, JOBS.c.owner == owner)).first()
        return None if row is None else _shown(row)

    def listed(self, owner: str, most: int) -> list[dict[str, Any]]:
        """The newest jobs."""
        with self._begun() as db:
            rows = db.execute(
                select(JOBS)
                .where(JOBS.c.owner == owner)
                .order_by(JOBS.c.created.desc())
                .limit(most)
            ).all()
        return [_shown(row) for row in rows]

    def waiting(self) -> int:
        """Jobs that are not over."""
        with self._begun() as db:
            return int(db.execute(
                select(func.count()).select_from(JOBS).where(JOBS.c.state.not_in(OVER))
            ).scalar_one())  # fmt: skip

    def cancel(self, number: str, owner: str) -> bool:
        """End a job that is not over; whether there is one."""
        with self._begun() as db:
            db.execute(
                update(JOBS)
                .where(JOBS.c.id == number, JOBS.c.owner == owner, JOBS.c.state.not_in(OVER))
                .values(state="cancelled", changed=time.time())
            )
        return self.about(number, owner) is not None

    def remove(self, number: str, owner: str) -> bool:
        """Forget a job that is over, with what came of it and its key; whether there was one."""
        with self._begun() as db:
            gone = db.execute(
                delete(JOBS)
                .where(JOBS.c.id == number, JOBS.c.owner == owner, JOBS.c.state.in_(OVER))
            ).rowcount  # fmt: skip
            if gone:
                db.execute(delete(PARTS).where(PARTS.c.job == number))
                db.execute(delete(KEYS).where(KEYS.c.job == number))
        return bool(gone)

    # --- for whoever works ----------------------------------------------------------------

    def claim(self) -> Held | None:
        """Take the oldest job that nobody holds, if there is one."""
        now = time.time()
        free = or_(JOBS.c.state == "queued", and_(JOBS.c.state == "running", JOBS.c.lease < now))
        with self._begun() as db:
            row = db.execute(
                select(JOBS.c.id, JOBS.c.token, JOBS.c.attempts).where(free)
                .order_by(JOBS.c.created).limit(1).with_for_update(skip_locked=True)
            ).first()  # fmt: skip
            if row is None:
                return None
            over = row.attempts >= ATTEMPTS
            state = {"state": "failed", "error": f"{ATTEMPTS} workers died at it"} if over else {
                "state": "running", "token": row.token + 1, "attempts": row.attempts + 1,
                "lease": now + LEASE}  # fmt: skip
            taken = db.execute(
                update(JOBS).where(JOBS.c.id == row.id, JOBS.c.token == row.token, free)
                .values(**state, changed=now)
            ).rowcount  # fmt: skip
            if not taken or over:
                return None
            body = db.execute(select(JOBS.c.body).where(JOBS.c.id == row.id)).scalar_one()
            done = db.execute(select(PARTS.c.number).where(PARTS.c.job == row.id)).scalars()
            return Held(row.id, row.token + 1, json.loads(body), frozenset(done))

    def keep(self, held: Held) -> bool:
        """Say that the holder lives; whether the job is still its own."""
        return self._mine(held, lease=time.time() + LEASE)

    def put(self, held: Held, number: int, line: str) -> bool:
        """Keep what came of a part, once; whether the job is still the holder's."""
        now = time.time()
        with self._begun() as db:
            mine = db.execute(
                update(JOBS).where(*_of(held))
                .values(finished=JOBS.c.finished + 1, token=held.token, lease=now + LEASE,
                        changed=now)
            ).rowcount  # fmt: skip
            if mine:
                db.execute(insert(PARTS).values(job=held.id, number=number, line=line))
        return bool(mine)

    def finish(self, held: Held) -> bool:
        """All parts are there: the job is done, and its result has a hash."""
        digest = hashlib.sha256(self.result(held.id)).hexdigest()
        return self._mine(held, state="done", sha256=digest)

    def fail(self, held: Held, why: str) -> bool:
        """It cannot be done."""
        return self._mine(held, state="failed", error=why[:1000])

    def leave(self, held: Held) -> bool:
        """Give it back: whoever comes next goes on at once."""
        return self._mine(held, state="queued", attempts=JOBS.c.attempts - 1, lease=0.0)

    def _mine(self, held: Held, **values: Any) -> bool:
        with self._begun() as db:
            changed = update(JOBS).where(*_of(held)).values(**values, changed=time.time())
            return bool(db.execute(changed).rowcount)

    def result(self, number: str) -> bytes:
        """The lines of all parts that are there, in order."""
        with self._begun() as db:
            lines = db.execute(
                select(PARTS.c.line).where(PARTS.c.job == number).order_by(PARTS.c.number)
            ).scalars()
            return "".join(f"{line}\n" for line in lines).encode()

    def close(self) -> None:
        self.engine.dispose()


def _of(held: Held) -> tuple[Any, ...]:
    return JOBS.c.id == held.id, JOBS.c.token == held.token, JOBS.c.state == "running"


def _shown(row: Any) -> dict[str, Any]:
    return {
        "id": row.id, "object": "job", "state": row.state, "total": row.total,
        "finished": row.finished, "created": int(row.created), "changed": int(row.changed),
        "sha256": row.sha256, "error": row.error,
    }  # fmt: skip


def open_engine(url: str) -> Engine:
    """SQLite writes every commit through to the disk before it says so."""
    if not url.startswith("sqlite"):
        return create_engine(url, pool_size=4, max_overflow=4, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": 30.0})

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # BEGIN is ours to say
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
