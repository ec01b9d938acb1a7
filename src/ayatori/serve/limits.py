"""What one request may hold, and how it is refused."""

from __future__ import annotations

from dataclasses import dataclass

from ayatori.records import AyatoriError

NAME_LENGTH = 200


class RequestError(AyatoriError):
    """A request that is not answered, and the HTTP status that goes with the sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """What one request may hold at most."""

    rows: int
    bytes: int


@dataclass(frozen=True)
class Upload:
    """A body, or one file of a form; ``name`` is only ever shown."""

    name: str
    content: bytes


def check_count(rows: int, limits: Limits) -> None:
    """Refuse none, and more than the limit."""
    if not rows:
        raise RequestError(422, "the request must hold at least one row, however it holds none")
    if rows > limits.rows:
        raise RequestError(
            413,
            f"a request must hold at most {limits.rows} rows, however it holds more; send several requests",
        )
