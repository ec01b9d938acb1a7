"""The application: who may ask, how much, and in which form answers and refusals go out."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import ipaddress
import json
import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment
from python_multipart.multipart import parse_options_header
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ayatori.model import Model
from ayatori.records import AyatoriError, Dataset, Schema
from ayatori.serve.answers import Job, answer_waiting, warm_up
from ayatori.serve.bodies import Media, media_types, read, takes_pictures
from ayatori.serve.describe import facts_of, openapi, page_facts
from ayatori.serve.forms import files_of
from ayatori.serve.limits import Limits, RequestError, Upload

MOST_WAITING = 256  # requests
HELD = 8  # bodies of the largest size that may be in memory at once
BODY_SECONDS = 30.0  # in which a body must have arrived
SENTENCE_LENGTH = 500
PATHS = "/, /health, /openapi.json or /predict"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass
class Desk:
    """A model, the one thread that asks it, and what waits for it."""

    model: Model
    limits: Limits
    thread: ThreadPoolExecutor = field(default_factory=partial(ThreadPoolExecutor, 1, "ayatori-serve"))
    jobs: deque[Job] = field(default_factory=deque)
    waiting: int = 0  # requests
    held: int = 0  # bytes of their bodies


def build(model: Model, limits: Limits, local: bool) -> Starlette:
    """The application; it must be run with its lifespan, which ends the thread."""
    desk = Desk(model, limits)
    warm_up(model)
    page, policy = _page(model, limits)
    document, health = openapi(model, limits), {"status": "ok", **facts_of(model)}

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        desk.thread.shutdown(wait=False, cancel_futures=True)

    async def home(request: Request) -> Response:
        return Response(page, media_type="text/html")

    app = Starlette(
        routes=[
            Route("/", home),
            Route("/health", partial(_fixed, health)),
            Route("/openapi.json", partial(_fixed, document)),
            Route("/predict", partial(_predict, desk), methods=["POST"]),
        ],
        middleware=[Middleware(_guard, policy, local)],
        exception_handlers={HTTPException: _refuse, AyatoriError: _refuse, Exception: _fail},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


async def _fixed(facts: Mapping[str, Any], request: Request) -> Response:
    return _answer(facts)


def _answer(
    facts: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    # plain ASCII, as texts may hold halves of characters
    return Response(json.dumps(facts), status, headers, "application/json")


async def _predict(desk: Desk, request: Request) -> Response:
    """Take the body, wait for the answer; the thread does all that takes long."""
    media = _media(request.headers, desk.model.schema)
    size = request.headers.get("content-length", "0")
    if not size.isdecimal() or len(size) > 15 or int(size) > desk.limits.bytes:
        raise _too_large(desk.limits)
    if desk.waiting >= MOST_WAITING:
        raise _busy(f"{desk.waiting} requests wait")
    desk.waiting += 1
    taken = [0]
    try:
        async with asyncio.timeout(BODY_SECONDS):
            content = b"".join([chunk async for chunk in _body(desk, request, taken)])
        kind = request.headers.get("content-type", "").encode("latin-1", "replace")
        job = Job(partial(_rows, media, content, kind, desk.model.schema, desk.limits), Future())
        desk.jobs.append(job)
        desk.thread.submit(answer_waiting, desk.model, desk.jobs)
        return Response(await asyncio.wrap_future(job.done), media_type="application/json")
    except TimeoutError:
        sentence = f"the body must arrive within {BODY_SECONDS:.0f} seconds, however it did not; send less"
        return _answer({"error": sentence}, 408, {"Connection": "close"})
    except asyncio.CancelledError:  # only ever at the end of the server
        sentence = "the server must run until it answers, however it was ended; start it again"
        return _answer({"error": sentence}, 503, {"Connection": "close"})
    except ClientDisconnect:
        return Response(status_code=400)  # nobody reads it
    finally:
        desk.waiting -= 1
        desk.held -= taken[0]


async def _body(desk: Desk, request: Request, taken: list[int]) -> AsyncGenerator[bytes, None]:
    """The body as it arrives; refused at the first byte too many. ``taken`` [0] is counted up."""
    async for chunk in request.stream():
        taken[0] += len(chunk)
        desk.held += len(chunk)
        if taken[0] > desk.limits.bytes:
            raise _too_large(desk.limits)
        if desk.held > HELD * desk.limits.bytes:
            raise _busy("other large requests wait")
        yield chunk


def _too_large(limits: Limits) -> RequestError:
    return RequestError(
        413, f"a body must have at most {limits.bytes} bytes, however it has more; send several requests"
    )


def _busy(found: str) -> RequestError:
    return RequestError(503, f"this request must wait for others, however {found}; try again in a second")


def _rows(media: Media, content: bytes, kind: bytes, schema: Schema, limits: Limits) -> Dataset:
    if media == "form":
        return read(media, files_of(content, kind, limits), schema, limits)
    return read(media, [Upload("rows.csv" if media == "csv" else "0", content)], schema, limits)


def _media(headers: Headers, schema: Schema) -> Media:
    """What the body is said to be, where the model takes that."""
    kind, options = parse_options_header(headers.get("content-type", "").encode("latin-1", "replace"))
    said = kind.decode("latin-1").strip().lower()
    taken: dict[str, Media] = {"application/json": "json"}
    if takes_pictures(schema):
        taken |= dict.fromkeys(media_types(schema), "picture")
        taken["application/octet-stream"] = "picture"
    elif schema.image is None:
        taken["text/csv"] = "csv"
    if len(taken) > 1:
        taken["multipart/form-data"] = "form"
    if said not in taken:
        known = ", ".join(taken)
        raise RequestError(415, f"Content-Type must be one of {known}, however: '{said[:100]}'")
    charset = options.get(b"charset", b"utf-8").lower()
    if charset not in (b"utf-8", b"utf8", b"us-ascii"):
        raise RequestError(415, "the charset must be utf-8, however it is another; send UTF-8")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestError(
            415, "the body must not be compressed, however Content-Encoding says so; send it plain"
        )
    return taken[said]


async def _refuse(request: Request, error: Exception) -> Response:
    """What the client can mend, in one sentence."""
    if isinstance(error, HTTPException):
        headers = dict(error.headers or {})
        sentence = str(error.detail)
        if error.status_code == 404:
            sentence = f"the path must be {PATHS}, however: '{request.url.path}'"
        elif error.status_code == 405:
            allowed = headers.get("Allow", "another")
            sentence = f"the method must be {allowed} here, however: {request.method}"
        return _answer({"error": _short(sentence)}, error.status_code, headers)
    status = error.status if isinstance(error, RequestError) else 422
    return _answer({"error": _short(str(error))}, status, {"Retry-After": "1"} if status == 503 else None)


def _short(sentence: str) -> str:
    line = " ".join(sentence[: 2 * SENTENCE_LENGTH].split())
    return line if len(line) <= SENTENCE_LENGTH else f"{line[:SENTENCE_LENGTH]} ..."


async def _fail(request: Request, error: Exception) -> Response:
    sentence = "the model should have answered, however it failed; what happened stands where the server runs"
    return _answer({"error": sentence}, 500)


def _guard(app: ASGIApp, policy: str, local: bool) -> ASGIApp:
    """Middleware: only for this machine's own pages and programs, and with strict headers."""
    strict = {**HEADERS, "Content-Security-Policy": policy}

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_strict(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(strict)
            await send(message)

        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        refusal = _foreign(Headers(scope=scope), local)
        answer: Callable[[Scope, Receive, Send], Awaitable[None]] = app
        if refusal:
            answer = _answer({"error": _short(refusal)}, 403)
        await answer(scope, receive, send_strict)

    return guarded


def _foreign(headers: Headers, local: bool) -> str:
    """Why a request is refused, or nothing.

    A page elsewhere can make a browser ask, even by a name of its own that leads to this machine.
    """
    host = headers.get("host", "")
    if local and not _is_local(host):
        return f"the Host must be localhost or a loopback address, however: '{host[:100]}'; open that"
    origin = headers.get("origin")
    if origin is not None and _netloc(origin) != host.lower():
        return f"a page must be this server's own to ask it, however: '{origin[:100]}'"
    return ""


def _netloc(origin: str) -> str:
    """``host:port`` of an origin, in lower case; nothing for what is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _is_local(host: str) -> bool:
    named = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:]+)(:\d{1,5})?", host)
    name = named[1].strip("[]").lower() if named else ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _page(model: Model, limits: Limits) -> tuple[str, str]:
    """The page, and the policy that lets a browser run what stands in it and nothing else."""
    source = (Path(__file__).parent / "page.html.j2").read_text(encoding="utf-8")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
    page = template.render(facts=page_facts(model, limits))
    sources = []
    for tag in ("script", "style"):
        content = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert content is not None
        hashed = base64.b64encode(hashlib.sha256(content[1].encode()).digest()).decode()
        sources.append(f"{tag}-src 'sha256-{hashed}'")
    rest = (
        "img-src blob: data:; media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return page, f"default-src 'none'; {'; '.join(sources)}; {rest}"
