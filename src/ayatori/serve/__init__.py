"""A model on HTTP for trying it out: pages and programs of this machine ask, the model answers."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import ipaddress
import logging
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from ayatori.errors import AyatoriError

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from ayatori.model import Model

__all__ = ["make_app", "serve"]

NEEDED = ("starlette", "uvicorn", "python_multipart")
SHUTDOWN_SECONDS = 3  # for answers under way, after Ctrl-C


def serve(
    run: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    net: str | None = None,
    device: str = "auto",
    max_rows: int = 1000,
    max_megabytes: int = 32,
) -> None:
    """Answer HTTP with the model of ``run`` until Ctrl-C.

    ``port`` 0 takes a free one. ``max_rows`` and ``max_megabytes`` (10**6 bytes) bound each request.

    Raises AyatoriError with one sentence where the extra is not installed, the address cannot be had, or
    ``run`` holds no model.
    """
    _check(max_rows, max_megabytes)
    import uvicorn
    from rich.console import Console

    from ayatori.data.beside import names_beside
    from ayatori.model_files import load_model

    with _listen(host, port) as listening:
        model = load_model(run, net, device)
        if model.schema.kind in ("scans", "series") and (wanted := names_beside(model.schema)):
            raise AyatoriError(
                f"{model.schema.kind} must stand alone to be served, however the model looks at columns "
                f"({', '.join(wanted[:5])}) beside them; ayatori predict takes a table that names the files"
            )
        address, port = listening.getsockname()[:2]
        local = ipaddress.ip_address(address).is_loopback
        app = make_app(model, max_rows=max_rows, max_bytes=max_megabytes * 10**6, local=local)
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
        where = f"http://{f'[{address}]' if ':' in address else address}:{port}"
        said = f"model {model.name} of {run} on {where} (Ctrl-C ends it)"
        Console(highlight=False, soft_wrap=True).print(said, markup=False)
        # who still waits at the end is told so, and the terminal need not be
        logging.getLogger("uvicorn.error").addFilter(lambda record: "Cancel" not in str(record.msg))
        for name in ("python_multipart", "PIL"):  # what is wrong with a request is said to who sent it
            logging.getLogger(name).setLevel(logging.CRITICAL)

        class Server(uvicorn.Server):
            async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
                await super().shutdown(sockets)
                for connection in list(self.server_state.connections):  # who came while it ended
                    connection.transport.abort()
                await asyncio.sleep(0)  # they close at the loop's next turn

        with contextlib.suppress(KeyboardInterrupt):  # uvicorn has ended calmly, and raises it again
            Server(config).run(sockets=[listening])


def make_app(model: Model, *, max_rows: int, max_bytes: int, local: bool = True) -> Starlette:
    """The application that answers with ``model``, to be run with its lifespan.

    ``local``: whether only requests that call this machine localhost or a loopback address are answered.
    """
    _check(max_rows, max_bytes)
    from ayatori.serve.app import build
    from ayatori.serve.limits import Limits

    return build(model, Limits(max_rows, max_bytes), local)


def _check(rows: int, size: int) -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise AyatoriError(
            f"serve needs {', '.join(NEEDED)}, however {missing[0]} is not installed; "
            "install it by: pip install 'ayatori[serve]'"
        )
    if rows < 1 or size < 1:
        raise AyatoriError(f"the limits of a request must be at least 1, however: {rows} rows, size {size}")


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens there."""
    if not 0 <= port < 2**16:
        raise AyatoriError(f"the port must be a number from 0 to 65535, however: {port}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:  # a name may have no spelling in ASCII
        reason = getattr(error, "strerror", None) or str(error)
        raise AyatoriError(
            f"port {port} of {host} must be free to listen on, however: {reason}; choose another with --port"
        ) from None
