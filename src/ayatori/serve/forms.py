"""The files of a multipart form."""

from __future__ import annotations

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ayatori.serve.limits import NAME_LENGTH, Limits, RequestError, Upload

FIELDS = 16  # parts beside the files that are wanted


def files_of(content: bytes, kind: bytes, limits: Limits) -> list[Upload]:
    """The files in a form of this Content-Type; its other fields are left out."""
    boundary = parse_options_header(kind)[1].get(b"boundary", b"")
    if not content:
        raise RequestError(400, "the form must hold a file, however the body is empty")
    form = _Form(limits.rows + FIELDS)
    try:
        parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
        parser.write(content)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(400, f"the form must be readable, however: {error}") from None
    if not form.whole:
        raise RequestError(400, "the form must come to its end, however it is cut; send all of it")
    files = [
        Upload((name.decode("utf-8", "replace") or str(at))[-NAME_LENGTH:], bytes(data))
        for at, (name, data) in enumerate(form.files)
    ]
    if not files:
        raise RequestError(400, "the form must hold a file, however it holds none; add one")
    return files


class _Form:
    """Is told the parts of a form one after another."""

    def __init__(self, most: int) -> None:
        self.left = most
        self.files: list[tuple[bytes, bytearray]] = []
        self.whole = False
        self._name, self._value, self._disposition = bytearray(), bytearray(), b""
        self._data: bytearray | None = None  # of the file that is read

    def callbacks(self) -> dict[str, object]:
        names = ("part_begin", "part_data", "header_field", "header_value", "header_end", "headers_finished")
        return {f"on_{name}": getattr(self, name) for name in (*names, "end")}

    def part_begin(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise RequestError(413, "the form must have fewer parts, however it has more; send several forms")
        self._disposition, self._data = b"", None

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._name, self._value = bytearray(), bytearray()

    def headers_finished(self) -> None:
        name = parse_options_header(self._disposition)[1].get(b"filename")
        if name is not None:
            self._data = bytearray()
            self.files.append((name, self._data))

    def part_data(self, data: bytes, start: int, end: int) -> None:
        if self._data is not None:
            self._data += data[start:end]

    def end(self) -> None:
        self.whole = True
