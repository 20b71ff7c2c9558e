"""What the tests of the store prepare rows with; worker processes import it by name."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

from nidl_neuro import contents, writing
from nidl_neuro.errors import ScanError
from nidl_neuro.store import Item, Row, Store

SHAPE = (1, 3, 5, 7)


class Make:
    """Fills arrays with the number in the file; notes which items it was called for."""

    def __init__(self, shape: tuple[int, ...] = SHAPE, bad: tuple[str, ...] = ()) -> None:
        self.shape, self.bad = shape, bad
        self.calls: list[str] = []

    def __call__(self, item: Item) -> Row:
        self.calls.append(item.id)
        if item.id in self.bad:
            raise ScanError(item.path, "it is constant", "Leave it out.")
        assert item.path is not None
        number = int(item.path.read_bytes())
        array = np.full(self.shape, number, "f4")
        mask = np.arange(np.prod(self.shape[1:])).reshape(self.shape[1:]) % (number + 2) == 0
        return Row(array, {"number": number, "of": item.source}, mask)


def exits(item: Item) -> Row:
    os._exit(3)


def prints(item: Item) -> Row:
    print("noise that must not get into the answers")
    return Make()(item)


def fails(item: Item) -> Row:
    raise ZeroDivisionError("a fault of the program")


def slowly(item: Item) -> Row:
    """A row of 40 pages in a file's number, with a line in a log for each."""
    assert item.path is not None
    with (item.path.parent / "log").open("a") as log:
        log.write(f"{item.id}\n")
    time.sleep(0.01)
    return Make((4, 10, 32, 32))(item)


def main(folder: Path, workers: int) -> None:
    """Build the store of the files in a folder, in a process of its own."""
    contents.SETTLED = -(10**18)
    writing.COMMIT = 0.0
    items = [Item(path.stem, "", path) for path in sorted(folder.glob("*.bin"))]
    store = Store.build(folder / "c", items, slowly, {}, workers=workers)
    levels = [int(array.flat[0]) for array in store.rows(range(len(store)))]
    print(store.made, levels == [int(name[1:]) for name in store.ids], store.damaged())


if __name__ == "__main__":
    from store_makes import main as run  # so that workers find `slowly` in a module

    run(Path(sys.argv[1]), int(sys.argv[2]))
