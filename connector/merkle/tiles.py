"""Trees as static files (C2SP tlog-tiles v0.1.0): tiles of 256 hashes, their paths, and bundles of entries. Pure.

Tile (level, index) holds the nodes (8·level, 256·index) and the 255 after it. The last tile of a level is partial while the
tree grows; a full one never changes. `CheckedTiles` is how a reader trusts them: the partial tiles together give the root, and
every full one gives one hash of the tile above it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256

from connector.errors import ProofRefused
from connector.merkle.tree import EMPTY, HASH_BYTES, SIZE_MAX, Nodes, frontier_at, leaf_hash, root_of
from connector.values import Value

HEIGHT = 8
WIDTH = 1 << HEIGHT
TILE_BYTES = WIDTH * HASH_BYTES
LEVEL_MAX = 63  # what a path may say; a tree of SIZE_MAX leaves has tiles up to level 7
ENTRIES = -1  # the level of entry bundles, which stand beside the tiles of level 0
ENTRY_BYTES_MAX = 2**16 - 1  # a bundle has uint16 lengths
LENGTH_BYTES = 2
PATH = re.compile(r"tile/(entries|0|[1-9][0-9]?)/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")
SOME_HASH = bytes(HASH_BYTES)


class Tile(Value, order=True):
    """Names one tile, or one bundle at level ENTRIES. `width` is how many hashes or entries it has, 256 if it is full.

    Raises ProofRefused with `tile-level`, `tile-index` or `tile-width`.
    """

    level: int
    index: int
    width: int = WIDTH

    def __post_init__(self) -> None:
        if not ENTRIES <= self.level <= LEVEL_MAX:
            raise ProofRefused(f"a tile's level is from 0 to {LEVEL_MAX}", "tile-level")
        if not 0 <= self.index <= SIZE_MAX:
            raise ProofRefused("a tile's index is from 0 to 2^63 - 1", "tile-index")
        if not 1 <= self.width <= WIDTH:
            raise ProofRefused(f"a tile's width is from 1 to {WIDTH}", "tile-width")

    @property
    def full(self) -> bool:
        return self.width == WIDTH

    @property
    def path(self) -> str:
        """`tile/<level>/<index>[.p/<width>]`; the index in groups of three digits: 1234067 is `x001/x234/067`."""
        rest, last = divmod(self.index, 1000)
        name = f"{last:03d}"
        while rest:
            rest, group = divmod(rest, 1000)
            name = f"x{group:03d}/{name}"
        level = "entries" if self.level == ENTRIES else str(self.level)
        return f"tile/{level}/{name}{'' if self.full else f'.p/{self.width}'}"


def read_path(path: str) -> Tile:
    """Read the path of a tile in its only spelling. Raises ProofRefused(`tile-path`) and as Tile does."""
    found = PATH.fullmatch(path)
    if found is None:
        raise ProofRefused("a tile's path is `tile/<level>/<index in groups of three digits>[.p/<width>]`", "tile-path")
    level, index, width = found.groups()
    tile = Tile(
        ENTRIES if level == "entries" else int(level),
        int(index.replace("/x", "").replace("/", "").replace("x", "")),
        WIDTH if width is None else int(width),
    )
    if tile.path != path:  # leading groups of zeros, or `.p/256`
        raise ProofRefused("the tile's path is not in its only spelling", "tile-path")
    return tile


def tile_of(level: int, index: int, size: int) -> Tile:
    """The tile at this place in a tree of `size` leaves, as wide as it is there. Raises ProofRefused(`tile-outside`) if it has none."""
    width = min((size >> HEIGHT * max(level, 0)) - index * WIDTH, WIDTH)
    if width < 1 or index < 0:
        raise ProofRefused(f"a tree of {size} leaves has no tile {index} at level {level}", "tile-outside")
    return Tile(level, index, width)


def tiles_between(old: int, size: int) -> Iterator[Tile]:
    """The tiles that a tree of `size` leaves has and that of its first `old` leaves has not, the lowest level first. A tile that grew
    wider counts as another. From 0: all tiles."""
    level = 0
    while (hashes := size >> HEIGHT * level) > 0:
        before = old >> HEIGHT * level
        if hashes > before:
            for index in range(before // WIDTH, (hashes - 1) // WIDTH + 1):
                yield tile_of(level, index, size)
        level += 1


def edge(size: int) -> tuple[Tile, ...]:
    """The partial tiles of a tree, the lowest level first. Their hashes alone give its root, and its root gives each of them."""
    found, level = [], 0
    while (hashes := size >> HEIGHT * level) > 0:
        if hashes % WIDTH:
            found.append(tile_of(level, hashes // WIDTH, size))
        level += 1
    return tuple(found)


def read_tile(tile: Tile, data: bytes) -> tuple[bytes, ...]:
    """The hashes in a tile. Raises ProofRefused(`tile-length`) if there are not as many as its width says. Nothing about them is proven."""
    if len(data) != tile.width * HASH_BYTES:
        raise ProofRefused(f"the tile of {tile.width} hashes has {len(data)} bytes", "tile-length")
    return tuple(data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES))


def write_tile(tile: Tile, nodes: Nodes) -> bytes:
    """The bytes of a tile, from stored nodes."""
    first = tile.index * WIDTH
    return b"".join(nodes(HEIGHT * tile.level, index) for index in range(first, first + tile.width))


def top(data: bytes) -> bytes:
    """The hash over all hashes of a tile: for a full one, what stands for it in the tile above."""
    hashes = [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]
    if len(hashes) & (len(hashes) - 1):
        return root_of(hashes)
    while len(data) > HASH_BYTES:  # each two hashes lie beside each other as `node_hash` wants them
        data = b"".join([sha256(b"\1" + data[at : at + 2 * HASH_BYTES]).digest() for at in range(0, len(data), 2 * HASH_BYTES)])
    return data or EMPTY


def nodes_from(size: int, read: Callable[[Tile], bytes]) -> Nodes:
    """The nodes of a tree of `size` leaves, out of its tiles: `read` gives the bytes of one, and may keep them at hand.

    A node raises ProofRefused(`tile-outside`, `tile-length`), and what `read` raises.
    """

    def node(level: int, index: int) -> bytes:
        tile_level, height = divmod(level, HEIGHT)
        first = index << height
        tile = tile_of(tile_level, first // WIDTH, size)
        start, end = first % WIDTH, first % WIDTH + (1 << height)
        data = read(tile)
        if len(data) != tile.width * HASH_BYTES:
            raise ProofRefused(f"the tile of {tile.width} hashes has {len(data)} bytes", "tile-length")
        if end > tile.width:
            raise ProofRefused(f"a tree of {size} leaves has no node {index} at level {level}", "tile-outside")
        return top(data[start * HASH_BYTES : end * HASH_BYTES])

    return node


def needed(size: int, prove: Callable[[Nodes], object]) -> tuple[Tile, ...]:
    """The tiles that a proof is made of, in order: `needed(n, lambda nodes: inclusion(i, n, nodes))`."""
    found: set[Tile] = set()

    def node(level: int, index: int) -> bytes:
        tile_level, height = divmod(level, HEIGHT)
        found.add(tile_of(tile_level, (index << height) // WIDTH, size))
        return SOME_HASH

    prove(node)
    return tuple(sorted(found))


def over(first: int, end: int, size: int) -> tuple[Tile, ...]:
    """The tiles of level 0 with the hashes of the leaves [first, end). Raises ProofRefused(`tile-outside`) if there are not so many."""
    if not 0 <= first <= end <= size:
        raise ProofRefused(f"a tree of {size} leaves does not have the leaves {first} to {end}", "tile-outside")
    return tuple(tile_of(0, index, size) for index in range(first // WIDTH, -(-end // WIDTH) if end > first else first // WIDTH))


class CheckedTiles:
    """The tiles of one tree that have been checked against its root, from a source that nobody trusts.

    First `enter` with the tiles of `edge(size)`. Then `way` names what has to be taken for a tile, from the top down. Tiles above level 0
    are kept (8 KiB for each 16 GiB of content in 256 KiB leaves); those of level 0 are handed back and forgotten.
    """

    def __init__(self, size: int, root: bytes) -> None:
        self.size = size
        self._root = root
        self._kept: dict[Tile, bytes] = {}

    def enter(self, data: Mapping[Tile, bytes]) -> None:
        """Take the partial tiles. Raises ProofRefused with `tile-missing`, `tile-length` or `tile-root` (they give another root)."""
        partial = edge(self.size)
        if missing := [tile for tile in partial if tile not in data]:
            raise ProofRefused(f"without `{missing[0].path}` the root cannot be computed", "tile-missing")
        if frontier_at(self.size, nodes_from(self.size, data.__getitem__)).root != self._root:
            raise ProofRefused("the partial tiles give another root than the checkpoint's", "tile-root")
        self._kept.update((tile, data[tile]) for tile in partial)

    def way(self, tile: Tile) -> tuple[Tile, ...]:
        """What has still to be taken, in this order, before `tile` counts, itself included. Raises ProofRefused with `tile-level`,
        `tile-outside`, or `tile-order` (the partial tiles have not been entered)."""
        if tile.level == ENTRIES:
            raise ProofRefused("a bundle of entries is checked against its tile, not against the root", "tile-level")
        found: list[Tile] = []
        at = tile_of(tile.level, tile.index, self.size)
        while at not in self._kept:
            if not at.full:
                raise ProofRefused("the partial tiles have to be entered first", "tile-order")
            found.append(at)
            at = self._above(at)
        return tuple(reversed(found))

    def take(self, tile: Tile, data: bytes) -> bytes:
        """Check the bytes of a tile, and give them back. Raises ProofRefused with `tile-level`, `tile-outside`, `tile-order` (the one above
        has not been taken), `tile-length` or `tile-mismatch` (it is not the one that the tree has here)."""
        if tile != tile_of(tile.level, tile.index, self.size):
            raise ProofRefused(f"a tree of {self.size} leaves has no `{tile.path}`", "tile-outside")
        if len(data) != tile.width * HASH_BYTES:
            raise ProofRefused(f"the tile of {tile.width} hashes has {len(data)} bytes", "tile-length")
        if self.way(tile)[:-1]:
            raise ProofRefused(f"the tile above `{tile.path}` has not been taken", "tile-order")
        if tile.full:
            at = tile.index % WIDTH * HASH_BYTES
            expected, found = self._kept[self._above(tile)][at : at + HASH_BYTES], top(data)
        else:
            expected, found = self._kept[tile], data
        if found != expected:
            raise ProofRefused(f"`{tile.path}` is not the tile that this tree has", "tile-mismatch")
        if tile.level:
            self._kept[tile] = data
        return data

    def _above(self, tile: Tile) -> Tile:
        return tile_of(tile.level + 1, tile.index // WIDTH, self.size)


def write_bundle(entries: Sequence[bytes]) -> bytes:
    """A bundle of 1 to 256 entries. Raises ProofRefused with `bundle-count` or `entry-length`."""
    if not 1 <= len(entries) <= WIDTH:
        raise ProofRefused(f"a bundle has from 1 to {WIDTH} entries, not {len(entries)}", "bundle-count")
    for entry in entries:
        if len(entry) > ENTRY_BYTES_MAX:
            raise ProofRefused(f"an entry has {len(entry)} bytes, at most {ENTRY_BYTES_MAX} can stand in a bundle", "entry-length")
    return b"".join(len(entry).to_bytes(LENGTH_BYTES, "big") + entry for entry in entries)


def read_bundle(tile: Tile, data: bytes) -> tuple[bytes, ...]:
    """The entries of a bundle. Raises ProofRefused with `bundle-short` (it ends within one) or `bundle-count` (there are not as many as
    its width says). Nothing about them is proven."""
    entries: list[bytes] = []
    at = 0
    while at < len(data):
        start = at + LENGTH_BYTES
        end = start + int.from_bytes(data[at:start], "big")
        if start > len(data) or end > len(data):
            raise ProofRefused("the bundle ends within an entry", "bundle-short")
        if len(entries) == tile.width:
            raise ProofRefused(f"the bundle has more than {tile.width} entries", "bundle-count")
        entries.append(data[start:end])
        at = end
    if len(entries) != tile.width:
        raise ProofRefused(f"the bundle has {len(entries)} entries, not {tile.width}", "bundle-count")
    return tuple(entries)


def verify_bundle(bundle: Tile, data: bytes, leaves: bytes) -> tuple[bytes, ...]:
    """The entries of a bundle that hash to `leaves`, the bytes of the checked tile of level 0 beside it.

    Raises ProofRefused as `read_bundle` does, with `tile-length`, and with `bundle-mismatch` for the first entry that is another.
    """
    entries, hashes = read_bundle(bundle, data), read_tile(bundle, leaves)
    for place, (entry, expected) in enumerate(zip(entries, hashes, strict=True)):
        if leaf_hash(entry) != expected:
            raise ProofRefused(f"entry {bundle.index * WIDTH + place} is not the one in the tree", "bundle-mismatch")
    return entries
