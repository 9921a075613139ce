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
_SHORTEST_KEY = 8  # characters; a shorter value (`none`, `EMPTY`) is no key


def clean_text(text: str) -> str:
    """Text that UTF-8 can hold; what it cannot becomes `?`."""
    return text.encode("utf-8", "replace").decode("utf-8")


def public_url(url: str) -> str:
    """The address without user, password and signature: the same file has the same one tomorrow."""
    parts = urlsplit(url)
    query = [(k, v) for k, v in parse_qsl(parts.query, keep_blank_values=True) if not _SIGNATURES.match(k)]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, urlencode(query), ""))


def without_secrets(text: str) -> str:
    """The text with every address in it made public."""
    return _URL.sub(lambda match: public_url(match.group()), text)


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
        return _ADDRESS.sub("", text)


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
        if _KEY_VARIABLE.search(name):
            text = cut_key(text, value)
    return clean_text(without_key(text))
