"""What the processes that prepare run: a scan to a row. It imports no torch and no pandas: each would wait."""

from __future__ import annotations

import numpy as np

from nidl_neuro.preparation import Preparation
from nidl_neuro.store import Item, Row


class Make:
    """Item -> Row, by a preparation; it can be pickled."""

    def __init__(self, preparation: Preparation) -> None:
        self.preparation = preparation

    def __call__(self, item: Item) -> Row:
        made = self.preparation.prepare(item.source.load(), item.source.name)
        return Row(made.array.astype(np.float32, copy=False), made.record.to_dict(), made.mask)
