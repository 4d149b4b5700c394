"""Answers to requests with an idempotency key, kept in the transaction that carried them out.

They are kept for a day, up to a number and a size; older ones go first.
"""

import sqlite3
import time
from dataclasses import dataclass

from index.errors import CorruptJournal
from index.journal.changes import RequestKey, checksum_of

KEPT_SECONDS = 24 * 3600
MOST_ANSWERS = 10_000
MOST_BYTES = 4 << 20  # of all answers together


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """`content`: SHA-256 of what was asked."""

    content: bytes
    answer: bytes


def find_answer(connection: sqlite3.Connection, name: bytes) -> KeptAnswer | None:
    """Raises CorruptJournal."""
    row = connection.execute(
        "SELECT content, answer, checksum FROM answers WHERE name = ? AND created > ?",
        (name, int(time.time()) - KEPT_SECONDS),
    ).fetchone()
    if row is None:
        return None
    content, answer, checksum = row
    if checksum_of(name, content, answer) != checksum:
        raise CorruptJournal("an answer that was kept is damaged")
    return KeptAnswer(content, answer)


def keep_answer(connection: sqlite3.Connection, key: RequestKey, answer: bytes) -> None:
    """Within the transaction that made the changes; makes room by dropping the oldest."""
    newest = connection.execute(
        "SELECT number, bytes_so_far FROM answers ORDER BY number DESC LIMIT 1"
    ).fetchone()
    number, bytes_so_far = newest or (0, 0)
    row = (
        number + 1,
        key.name,
        key.content,
        answer,
        int(time.time()),
        bytes_so_far + len(answer),
        checksum_of(key.name, key.content, answer),
    )
    connection.execute("DELETE FROM answers WHERE name = ?", (key.name,))  # one that is too old
    connection.execute("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    _drop_oldest(connection, number + 1, bytes_so_far + len(answer))


def _drop_oldest(connection: sqlite3.Connection, newest: int, bytes_so_far: int) -> None:
    too_old, last_to_go = int(time.time()) - KEPT_SECONDS, 0
    query = (
        "SELECT number, created, bytes_so_far - length(answer) FROM answers WHERE number < ? ORDER BY number"
    )
    for number, created, before_it in connection.execute(query, (newest,)):
        if created > too_old and number > newest - MOST_ANSWERS and bytes_so_far - before_it <= MOST_BYTES:
            break
        last_to_go = number
    connection.execute("DELETE FROM answers WHERE number <= ?", (last_to_go,))
