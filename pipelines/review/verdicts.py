"""What `screen --dry-run` prints: which verdicts a screen would change, and by which rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from manifests.screen import Difference

NAMED = 3  # samples of each rule


def difference_lines(screen: str, difference: Difference) -> Iterator[str]:
    """A line of counts, then one for each reason that samples would get or lose, the most frequent first."""
    yield (
        f"screen {screen} would keep {difference.kept_after} of {difference.rows} "
        f"({difference.kept_before} are kept): drop {len(difference.to_drop)} that are kept, "
        f"keep {len(difference.to_keep)} that are dropped"
    )
    yield from _of_reasons("+", difference.broken)
    yield from _of_reasons("-", difference.fulfilled)
    yield "nothing was written" if difference.broken or difference.fulfilled else "no verdict would change"


def _of_reasons(sign: str, samples: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for reason, names in sorted(samples.items(), key=lambda item: (-len(item[1]), item[0])):
        more = ", ..." if len(names) > NAMED else ""
        yield f"{sign} {reason}: {len(names)} ({', '.join(names[:NAMED])}{more})"
