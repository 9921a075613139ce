"""What the licence of a sample's media allows, as far as its name says it; of any other text nothing.

`with_terms` fills the columns `commercial_use` and `derivatives` of a listing from `licence`, so that a
screen can judge by them (`configs/screens/commercial.yaml`). No text of a licence is read and no advice is
given: a licence allows what is asked here under conditions of its own, such as naming the author.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Terms:
    """What a licence allows.

    Attributes:
        commercial_use: to use the media commercially; None: not known.
        derivatives: to share what was made of them, as clips and crops are; None: not known.
    """

    commercial_use: bool | None = None
    derivatives: bool | None = None


# Columns of a listing that say it, and whether minors are seen, true or false; a list may have them itself.
TRUTHS: Final = ("commercial_use", "derivatives", "shows_minors")
UNKNOWN: Final = Terms()
ALL: Final = Terms(commercial_use=True, derivatives=True)
RESEARCH: Final = Terms(commercial_use=False)

# Names in words (`words_of`), what they allow, and where that is said.
NAMED: Final[Sequence[tuple[Sequence[str], Terms, str]]] = (
    (("cc0", "cc0 1 0"), ALL, "https://creativecommons.org/publicdomain/zero/1.0/"),
    (
        ("public domain", "public domain 1 0", "cc pdm", "cc pdm 1 0"),
        ALL,
        "https://creativecommons.org/publicdomain/mark/1.0/",
    ),
    (("cc pddc",), ALL, "https://spdx.org/licenses/CC-PDDC.html"),
    (("mit",), ALL, "https://spdx.org/licenses/MIT.html"),
    (("apache 2", "apache 2 0"), ALL, "https://spdx.org/licenses/Apache-2.0.html"),
    (("odc by", "odc by 1 0"), ALL, "https://opendatacommons.org/licenses/by/1-0/"),
)
# Creative Commons: "cc by" and some of these, each once. https://creativecommons.org/share-your-work/cclicenses/
ELEMENTS: Final[Mapping[str, str]] = {
    "nc": "not for commercial use",
    "nd": "what was made of it may not be shared",
    "sa": "what was made of it is shared under the same licence",
}
RESEARCH_ONLY: Final = "research only"  # how such terms begin

# How the names are also written: their words, and one for each.
_ALSO: Final = (
    ("creative commons", "cc"),
    ("open data commons", "odc"),
    ("non commercial", "nc"),
    ("noncommercial", "nc"),
    ("no derivatives", "nd"),
    ("noderivatives", "nd"),
    ("no derivs", "nd"),
    ("noderivs", "nd"),
    ("share alike", "sa"),
    ("sharealike", "sa"),
    ("attribution", "by"),
    ("public domain mark", "public domain"),
    ("cc zero", "cc0"),
    ("cc 0", "cc0"),
)
_MEANT: Final = re.compile(
    r"\b(the|public licen[cs]e|licen[cs]e|licensed|version|international|unported|generic|universal)\b"
)
_ADDRESS: Final = re.compile(
    r"(?:https?://)?(?:www\.)?creativecommons\.org/(licenses|publicdomain)/([a-z-]+)/(\d\.\d)(?:/([a-z]{2,3}))?"
    r"(?:/(?:deed|legalcode)[\w.-]*)?/?",
    re.IGNORECASE,
)
# Whose law a version of before 4.0 was written for. https://creativecommons.org/licenses/list.en
_PORTED: Final = (
    "ar at au az be bg br ca ch cl cn co cr cz de dk ec ee eg es fi fr gb ge gr gt hk hr hu ie igo il in it "
    "jp kr lu mk mt mx my nl no nz pe ph pl pr pt ro rs se sg si th tw ug uk us ve vn za"
)
_CC: Final = re.compile(rf"cc by((?: (?:nc|nd|sa))*)(?: \d(?: \d)?(?: (?:{'|'.join(_PORTED.split())}))?)?")


def words_of(licence: str) -> str:
    """The words of a licence's name, one way of writing it: `CC-BY-4.0` and `CC BY 4.0` are `cc by 4 0`."""
    if (address := _ADDRESS.fullmatch(licence.strip())) is not None:
        kind, name, version, country = address.groups()
        name = {"zero": "cc0", "mark": "public domain"}.get(name.lower(), "") if kind != "licenses" else name
        prefix = "" if kind != "licenses" else "cc "
        licence = f"{prefix}{name} {version} {country or ''}"
    text = re.sub(r"[^a-z0-9]+", " ", licence.lower()).strip()
    text = re.sub(r"\bv(?=\d)", "", text)
    for also, word in _ALSO:
        text = re.sub(rf"\b{also}\b", word, text)
    return " ".join(_MEANT.sub(" ", text).split())


def terms_of(licence: str | None) -> Terms:
    """What a licence allows; of a text that is none of those known here nothing.

    Args:
        licence: an SPDX identifier or name, as lists write it, the address of a Creative Commons licence, or
            terms that begin with `research only`; upper and lower case, blanks and punctuation are alike.
    """
    if licence is None:
        return UNKNOWN
    words = words_of(licence)
    if words.startswith(RESEARCH_ONLY):
        return RESEARCH
    # A remark in brackets behind it says whose: "public domain (NASA)".
    is_remarked = re.fullmatch(r"\s*public domain\s*\([^()]*\)\s*", licence, re.IGNORECASE) is not None
    words = "public domain" if is_remarked else words
    for names, terms, _ in NAMED:
        if words in names:
            return terms
    if (cc := _CC.fullmatch(words)) is not None:
        elements: Sequence[str] = cc[1].split()
        is_licence = len(set(elements)) == len(elements) and not {"nd", "sa"} <= set(elements)
        if is_licence:
            return Terms(commercial_use="nc" not in elements, derivatives="nd" not in elements)
    return UNKNOWN


def with_terms(listed: pa.Table) -> pa.Table:
    """Rows of a listing, `commercial_use` and `derivatives` filled from `licence` where they are null."""
    encoded = listed["licence"].combine_chunks().dictionary_encode()
    found = [terms_of(licence) for licence in encoded.dictionary.to_pylist()]
    for name in ("commercial_use", "derivatives"):
        values = pa.array([getattr(terms, name) for terms in found], pa.bool_()).take(encoded.indices)
        at = listed.schema.get_field_index(name)
        listed = listed.set_column(at, listed.schema.field(at), pc.coalesce(listed[name], values))
    return listed
