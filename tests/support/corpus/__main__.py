"""`python -m tests.support.corpus FOLDER [WORD ...]` makes the files of the corpus for looking at them."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.corpus.files import make
from tests.support.corpus.recipes import recipes


def main() -> None:
    """Make all files, or those whose names contain one of the words that follow, in a folder."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for one in recipes():
        if len(sys.argv) == 2 or any(word in one.name for word in sys.argv[2:]):
            print(make(one, folder))


if __name__ == "__main__":
    main()
