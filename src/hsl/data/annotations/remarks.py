"""What is true of some annotations and stops nothing."""

from collections import Counter, defaultdict

_MOST_NAMED = 3


class Remarks:
    """Counted by kind, the first few named."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.places: dict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, where: str) -> None:
        """Count one; ``kind`` is what is said, after the number."""
        self.counts[kind] += 1
        places = self.places[kind]
        if len(places) < _MOST_NAMED and where not in places:
            places.append(where)

    def sentences(self) -> list[str]:
        """One of each kind."""
        return [
            f"{number} {kind}, as in {', '.join(f'`{place}`' for place in self.places[kind])}."
            for kind, number in sorted(self.counts.items())
        ]
