"""A file behind a URL, of which only the asked-for ranges are fetched."""

from __future__ import annotations

import http.client
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.message import Message
from functools import cache
from http import HTTPStatus
from typing import IO, Any
from urllib.parse import urljoin, urlsplit

from willfit.checkpoints.source import Forbidden, NotFound, Unreachable, reason
from willfit.errors import BadInput

#: Seconds that a connection may be silent, and that one answer may take in all.
_SILENCE_S = 15.0
_ANSWER_S = 120.0
_MAX_REDIRECTS = 6
#: Of one file no more than this is fetched, whatever its header claims.
_MAX_BYTES = 256 * 2**20
#: Read-ahead: most safetensors headers fit into the first window, most GGUF headers into five.
_FIRST_WINDOW = 2**18
_LAST_WINDOW = 2**23


class RemoteFile:
    """A file served over HTTP or HTTPS, read by range requests with read-ahead.

    Parameters
    ----------
    url
        Where it is.
    name
        How to name it in an error; the URL without its query by default.
    headers
        Sent to the URL's own host only, never to where it redirects: this is where a token belongs.
    locked_hint
        What to do if the server denies access.
    """

    def __init__(
        self,
        url: str,
        name: str = "",
        headers: dict[str, str] | None = None,
        locked_hint: str = "it needs a token",
    ) -> None:
        self.name = name or url.partition("?")[0]
        self.size: int | None = None
        self._url = url
        self._private = headers or {}
        self._locked_hint = locked_hint
        self._origin = _origin(url, self.name)
        self._target = url  # where redirects led to: the next range is asked for there
        self._start = 0
        self._window = b""
        self._step = _FIRST_WINDOW
        self.fetched = 0

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on, fewer only where the file ends.

        Raises
        ------
        BadInput
            If the server is unreachable (`Unreachable`), refuses (`Forbidden`), has no such file
            (`NotFound`), or answers with something that contradicts itself.
        """
        inside = offset - self._start
        if inside >= 0 and inside + length <= len(self._window):
            return self._window[inside : inside + length]
        if self.size is not None:
            length = max(0, min(length, self.size - offset))
        if length == 0:
            return b""
        have = self._window[inside:] if 0 <= inside < len(self._window) else b""
        want = max(length - len(have), self._step)
        if self.size is not None:
            want = min(want, self.size - offset - len(have))
        self._window = have + self._fetch(offset + len(have), want) if want else have
        self._start = offset
        self._step = min(self._step * 2, _LAST_WINDOW)
        return self._window[:length]

    def close(self) -> None:
        """Drop what was read ahead."""
        self._window = b""

    def _fetch(self, start: int, length: int) -> bytes:
        if self.fetched + length > _MAX_BYTES:
            raise BadInput(
                f"{self.name}: more than {_MAX_BYTES // 2**20} MiB would have to be fetched for its header"
            )
        try:
            return self._request(start, length)
        except (Unreachable, Forbidden) as error:
            if isinstance(error, Forbidden) and self._target == self._url:
                raise
            time.sleep(0.3)  # one retry: a dropped connection, or a signed address that has expired
            self._target = self._url
            return self._request(start, length)

    def _request(self, start: int, length: int) -> bytes:
        deadline = time.monotonic() + _ANSWER_S
        with self._open(start, length) as answer:
            if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                total = answer.headers.get("Content-Range", "").removeprefix("bytes */")
                self._note_size(int(total) if total.isdecimal() and len(total) < 20 else start)
                return b""
            if answer.headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
                raise BadInput(f"{self.name}: the server sent it compressed, which it was asked not to")
            if answer.status == HTTPStatus.PARTIAL_CONTENT:
                expected = self._content_range(answer.headers, start, length)
                data = self._body(answer.file, expected, deadline)
                if len(data) < expected:
                    raise Unreachable(
                        f"{self.name}: the connection closed after {len(data)} of {expected} bytes"
                    )
                return data
            if answer.status == HTTPStatus.OK:  # no ranges here: read through to what is needed, then hang up
                total = answer.headers.get("Content-Length", "")
                if total.isdecimal() and len(total) < 20:
                    self._note_size(int(total))
                if start + length > _MAX_BYTES:
                    raise BadInput(f"{self.name}: the server does not support range requests")
                return self._body(answer.file, start + length, deadline)[start:]
            raise self._refused(answer.status)

    def _content_range(self, headers: Message, start: int, length: int) -> int:
        unit, _, rest = headers.get("Content-Range", "").strip().partition(" ")
        span, _, total = rest.partition("/")
        first, _, last = span.partition("-")
        numbers = [first, last] if total == "*" else [first, last, total]
        if unit.lower() != "bytes" or not all(n.isdecimal() and len(n) < 20 for n in numbers):
            raise BadInput(f"{self.name}: the server sent no valid Content-Range")
        begin, end = int(first), int(last) + 1
        if begin != start or not start < end <= start + length or (total != "*" and end > int(total)):
            raise BadInput(f"{self.name}: the server sent another range than it was asked for")
        if total != "*":
            self._note_size(int(total))
            if end < min(start + length, int(total)):
                raise BadInput(f"{self.name}: the server sent less than the range it was asked for")
        return end - start

    def _note_size(self, size: int) -> None:
        if self.size is not None and self.size != size:
            raise BadInput(
                f"{self.name} changed while it was read, or the server contradicts itself about its size"
            )
        self.size = size

    def _body(self, body: IO[bytes], length: int, deadline: float) -> bytes:
        parts = []
        missing = length
        try:
            while missing and (part := body.read(min(missing, 2**17))):
                parts.append(part)
                missing -= len(part)
                self.fetched += len(part)
                if time.monotonic() > deadline:
                    raise Unreachable(f"{self.name}: the server is too slow")
        except (http.client.HTTPException, OSError) as error:
            raise Unreachable(f"cannot read {self.name}: {reason(error)}") from None
        return b"".join(parts)

    def _open(self, start: int, length: int) -> _Answer:
        url = self._target
        for _ in range(_MAX_REDIRECTS):
            headers = {
                "Range": f"bytes={start}-{start + length - 1}",
                "Accept-Encoding": "identity",
                "User-Agent": "willfit",
            }
            if _origin(url, self.name) == self._origin:
                headers.update(self._private)
            answer = _get(url, headers, self.name)
            if answer.status not in (301, 302, 303, 307, 308):
                self._target = url
                return answer
            with answer:
                location = answer.headers.get("Location", "")
            if not location:
                raise BadInput(f"{self.name}: the server redirects to nowhere")
            try:
                url = urljoin(url, location)
            except ValueError:
                raise BadInput(f"{self.name}: the server redirects to an address that is none") from None
        raise BadInput(f"{self.name}: the server redirects more than {_MAX_REDIRECTS} times")

    def _refused(self, status: int) -> BadInput:
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return Forbidden(f"{self.name}: access denied (HTTP {status})", self._locked_hint)
        if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            return NotFound(f"{self.name}: not found (HTTP {status})", "check the spelling")
        if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return Unreachable(f"{self.name}: the server answers HTTP {status}", "try again later")
        return BadInput(f"{self.name}: the server answers HTTP {status}")


@dataclass(frozen=True, slots=True)
class _Answer:
    """Status, headers and the still unread body of a response."""

    status: int
    headers: Message
    file: Any

    def __enter__(self) -> _Answer:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Redirects are followed by `RemoteFile`, which decides what each host may see."""

    def redirect_request(self, *args: object, **kwargs: object) -> None:
        return None


def _get(url: str, headers: dict[str, str], name: str) -> _Answer:
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.HTTPSHandler(context=_tls()))
    try:
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=_SILENCE_S)
        return _Answer(response.status, response.headers, response)
    except urllib.error.HTTPError as error:
        return _Answer(error.code, error.headers, error)
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        if isinstance(error, http.client.InvalidURL) or not isinstance(
            error, OSError | http.client.HTTPException
        ):
            raise BadInput(f"{name} is not an address that can be fetched") from None
        cause = getattr(error, "reason", error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = f"its certificate is not trusted: {cause.verify_message}"
        else:
            why = reason(cause) if isinstance(cause, Exception) else str(cause)
        raise Unreachable(f"cannot reach {urlsplit(url).hostname}: {why}", "check the network") from None


@cache
def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    try:  # some Python builds come without the system's certificates
        import certifi
    except ImportError:
        return context
    context.load_verify_locations(certifi.where())
    return context


def _origin(url: str, name: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(url)
        scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
        port = parts.port or {"http": 80, "https": 443}.get(scheme, 0)
    except ValueError:
        raise BadInput(f"{name} is not an address that can be fetched") from None
    if scheme not in ("http", "https") or not host:
        raise BadInput(f"{name} leads to an address that is neither http nor https")
    return scheme, host, port
