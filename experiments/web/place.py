"""Where a page is served: a place of this machine, taken at once, so that what is wrong with it shows before anything
is loaded."""

import errno
import ipaddress
import socket

from freemask.errors import UserError

OWN = "127.0.0.1"
WHO = f"host={OWN} is this machine alone, host=0.0.0.0 everybody who reaches it"


def is_own(host: str) -> bool:
    """Whether nobody on another machine is answered there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_number(host: str) -> bool:
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def taken(host: str, port: int) -> socket.socket:
    """Bound, and not listening yet."""
    if not 0 <= port <= 65535:
        raise UserError("this is no port", came=f"port={port}", expected="0 (any that is free) to 65535")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except (OSError, UnicodeError) as error:  # a name of odd letters cannot even be asked for
        came = f"host={host}: {getattr(error, 'strerror', None) or error}"
        raise UserError(
            "no machine has this name", came=came, expected="a name or number of this machine", todo=WHO
        ) from error
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise _cannot(host, port, error) from error
    return bound


def _cannot(host: str, port: int, error: OSError) -> UserError:
    came = f"host={host} port={port}: {error.strerror or error}"
    if error.errno == errno.EADDRNOTAVAIL:
        expected = "a name or number of this machine"
        return UserError("this is no place of this machine", came=came, expected=expected, todo=WHO)
    todo = "port=0 takes any that is free"
    return UserError("the page cannot be served there", came=came, expected="a port that is free", todo=todo)


def address(host: str, bound: socket.socket) -> str:
    """As a browser is told it. A place that stands for all of this machine's is no address: there its name is."""
    name = socket.gethostname() if host in ("0.0.0.0", "::") else host
    return f"http://{f'[{name}]' if ':' in name else name}:{bound.getsockname()[1]}/"
