"""Counts what a session's folder holds, by what each file is."""

from collections import Counter

from vitriflow.acquisition.recognise import FileKind, item_of, recognise, sum_of_movie


class Survey:
    """Knows what each file that's there is, as far as names tell; counts them.

    Parameters
    ----------
    item
        ``movie`` or ``micrograph``: EPU leaves the sum of a movie's frames beside it, which in a
        session of movies is only a preview.
    """

    def __init__(self, item: str) -> None:
        self._item = item
        self._kinds: dict[str, FileKind] = {}
        self._sums: set[str] = set()
        self._stacks: dict[str, FileKind] = {}
        self._counts: Counter[FileKind] = Counter()
        self._n_sums: Counter[str] = Counter()

    def add(self, key: str) -> FileKind:
        """Take in a file; what it is."""
        if key not in self._kinds:
            kind = self._kinds[key] = recognise(key).kind
            self._counts[kind] += 1
            if kind == FileKind.MOVIE and self._item == "movie":
                self._n_sums[item_of(key)] += 1
                summed = sum_of_movie(key)
                if summed is not None:
                    self._sums.add(summed)
        return self.kind(key)

    def remove(self, key: str) -> None:
        """A file isn't there any more."""
        kind = self._kinds.pop(key, None)
        kind = self._stacks.pop(key, kind)
        if kind is not None:
            self._counts[kind] -= 1
            if kind == FileKind.MOVIE and self._item == "movie":
                self._n_sums[item_of(key)] -= 1

    def not_a_movie(self, key: str, kind: FileKind) -> None:
        """What looked like a movie is something else, as its mdoc says."""
        known = self._kinds.get(key)
        if known is None or key in self._stacks:
            return
        self._stacks[key] = kind
        self._counts[known] -= 1
        self._counts[kind] += 1
        if known == FileKind.MOVIE and self._item == "movie":
            self._n_sums[item_of(key)] -= 1

    def is_sum(self, key: str) -> bool:
        """Whether a movie lies beside it of which it's only the sum."""
        return item_of(key) in self._sums

    def kind(self, key: str) -> FileKind:
        """What a file is; one that isn't there too."""
        if key in self._stacks:
            return self._stacks[key]
        kind = self._kinds.get(key) or recognise(key).kind
        if kind == FileKind.MOVIE and self._sums and item_of(key) in self._sums:
            return FileKind.PREVIEW
        return kind

    def counts(self) -> dict[str, int]:
        """Files by kind, only those there are."""
        counts = Counter(self._counts)
        sums = sum(self._n_sums[item] for item in self._sums)
        counts[FileKind.MOVIE] -= sums
        counts[FileKind.PREVIEW] += sums
        return {str(kind): number for kind, number in sorted(counts.items()) if number}
