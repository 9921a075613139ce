"""Text that comes from outside: bytes that are no UTF-8, addresses that hold secrets."""

from __future__ import annotations

import os
import re
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_ADDRESS = re.compile(r"\S*://\S*")
# Parameters that sign a request or say how long the signature holds (AWS, Google Cloud, Azure, CloudFront).
_SIGNATURES = re.compile(
    r"^(x-amz-.*|x-goog-.*|signature|expires|key-pair-id|policy|awsaccesskeyid|googleaccessid|sig|se|sp|sv|sr|st|spr"
    r"|sk[a-z]*|token|access_token|api_?key)$",
    re.IGNORECASE,
)
_KEY = re.compile(r"\b(bearer\s+|sk-)[\w.~+/*=-]{6,}", re.IGNORECASE)
_KEY_VARIABLE = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)$")
# Control characters (C0 without line feed and tab, DEL, C1), line separators and marks of direction.
_CONTROLS = [*range(9), *range(0xB, 0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, 0x2028, 0x2029]
_CONTROLS += [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_SPELLED = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _CONTROLS}
_SHORTEST_KEY = 8  # characters; a shorter value (`none`, `EMPTY`) is no key


def clean_text(text: str) -> str:
    """Text that UTF-8 can hold; what it cannot becomes `?`."""
    return text.encode("utf-8", "replace").decode("utf-8")


def printable(text: str) -> str:
    """Text for a terminal: what would move its cursor, colour it or turn its direction is spelled out.

    Lines and tabs stay; of a name that must not make a line of its own see `one_line`.
    """
    return text.translate(_SPELLED)


def one_line(text: str) -> str:
    """As `printable`, with line breaks spelled out, too: a name or an address in a sentence."""
    return text.translate(_SPELLED | {ord("\n"): "\\n"})


def public_url(url: str) -> str:
    """The address without user, password and signature: the same file has the same one tomorrow."""
    parts = urlsplit(url)
    query = [(k, v) for k, v in parse_qsl(parts.query, keep_blank_values=True) if not _SIGNATURES.match(k)]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, urlencode(query), ""))


def without_secrets(text: str) -> str:
    """The text with every address in it made public."""
    return _URL.sub(_public, text)


def public_text(text: str) -> str:
    """As `without_secrets`, for a value that may be an address itself, or several chained by `::`."""

    def public(part: str) -> str:
        # An address alone is one whole, whatever blanks and quotes are in it.
        return public_url(part) if _SCHEME.match(part) else without_secrets(part)

    if "://" not in text:
        return text
    try:
        return "::".join(map(public, public(text).split("::")))
    except ValueError:  # one that cannot be taken apart, such as http://[
        return _ADDRESS.sub(_cut_open, text)


def _public(match: re.Match[str]) -> str:
    try:
        return public_url(match.group())
    except ValueError:
        return _cut_open(match)


def _cut_open(match: re.Match[str]) -> str:
    """An address that cannot be taken apart, without whatever may be a user, a password or a query."""
    scheme, _, rest = match.group().rpartition("://")
    return f"{scheme.rpartition('@')[2]}://{rest.rpartition('@')[2].partition('?')[0]}"


def holds_secret(address: str) -> bool:
    """Whether an address, or one of several chained by `::`, has a user, a password or a signature.

    Raises:
        ValueError: one of them cannot be taken apart.
    """
    for part in address.split("::") if "://" in address else ():
        parts = urlsplit(part)
        if "@" in parts.netloc or any(_SIGNATURES.match(name) for name, _ in parse_qsl(parts.query)):
            return True
    return False


def is_key_variable(name: str) -> bool:
    """Whether an environment variable is named like one that holds a key: `..._KEY`, `..._TOKEN`, ..."""
    return bool(_KEY_VARIABLE.search(name))


def cut_key(text: str, key: str) -> str:
    """The text without the key; a word too short to be one (`none`, `EMPTY`) stays."""
    key = key.strip()
    return text.replace(key, "[key]") if len(key) >= _SHORTEST_KEY else text


def without_key(text: str, key: str = "") -> str:
    """The text without the key, and without whatever looks like a key or a part of one."""
    return _KEY.sub("[key]", cut_key(text, key))


def public_message(text: str) -> str:
    """What a command says, without passwords and signatures in addresses and without keys.

    A key is what looks like one, and the value of an environment variable named `..._KEY`, `..._TOKEN`,
    `..._SECRET` or `..._PASSWORD`.
    """
    text = _ADDRESS.sub(lambda address: public_text(address.group()), text)
    for name, value in os.environ.items():
        if is_key_variable(name):
            text = cut_key(text, value)
    return clean_text(without_key(text))
