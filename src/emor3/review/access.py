"""Who may talk to the local page: requests under our own names, from our own pages, by whoever has the session's token.

A page anywhere on the web can have a browser send requests to 127.0.0.1, also under a name of its own that it points
there (DNS rebinding); and every user of a shared machine can reach it. So the name of the host must be ours, an origin
must be that of the page, and the token that the command printed must come in a cookie, and in every form.
"""

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from secrets import compare_digest
from urllib.parse import urlsplit

LOCAL = ("127.0.0.1", "localhost", "::1")
COOKIE = "emor3-review-{}"
"""Name of the cookie, by port: browsers hold cookies of all ports of a host together."""


@dataclass(frozen=True)
class Access:
    """What the requests of one session must have."""

    host: str
    """The address that the server listens on."""
    port: int
    token: str

    @property
    def cookie(self) -> str:
        """Name of this session's cookie."""
        return COOKIE.format(self.port)

    def refusal(self, headers: Mapping[str, str]) -> str | None:
        """Why a request is refused whatever it asks for; None if it is not.

        The port may be another one, as that of a tunnel by ssh is.
        """
        host = headers.get("Host", "")
        if not self._is_ours(_name_of(f"//{host}")):
            return "this server does not go by that name"
        origin = headers.get("Origin")
        if origin is not None and origin != f"http://{host}":
            return "this request comes from another page"
        return None

    def holds(self, headers: Mapping[str, str]) -> bool:
        """Whether a request has the session's cookie."""
        try:
            sent = SimpleCookie(headers.get("Cookie", "")).get(self.cookie)
        except CookieError:
            return False
        return sent is not None and self.is_token(sent.value)

    def is_token(self, given: str) -> bool:
        """Whether a text is the session's token, in a time that tells nothing of it."""
        return compare_digest(given.encode(errors="replace"), self.token.encode())

    def _is_ours(self, name: str) -> bool:
        if name in (*LOCAL, self.host.lower()):
            return True
        if self.host in LOCAL:
            return False
        return _is_address(name) or name in (socket.gethostname().lower(), socket.getfqdn().lower())


def _name_of(address: str) -> str:
    """The host's name in an address, without port and brackets; "" for a malformed one."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    """Whether a name is a number, which nobody can point elsewhere."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
