"""The embedded default: handwritten digits that need no download."""

import numpy as np

from pyrovae.data.base import Data
from pyrovae.data.labels import as_labels
from pyrovae.data.partition import by_fractions


class Digits(Data):
    """The 1,797 handwritten digits of scikit-learn: 8 x 8 pixels of 17 grey levels, divided by 16; labels 0 to 9.

    Source: E. Alpaydin and C. Kaynak, "Optical recognition of handwritten digits" (UCI, 1998), its test part.

    >>> Digits(binarize="dynamic")
    Digits: 1,347 train, 180 validation, 270 test, event shape (8, 8), binarize=dynamic

    Args:
        binarize: ``none``, ``dynamic`` (drawn anew at each use), ``fixed`` or ``fixed(SEED)`` (drawn once), or
            ``threshold`` (1 from 0.5 on).
        validation: the fraction of the data that is set aside for validation.
        test: the fraction of the data that is set aside for testing.
        split_seed: fixes which datum goes where.

    Raises:
        InputError: for an unknown ``binarize``, and for fractions that leave a part empty.
    """

    def __init__(self, *, binarize: str = "none", validation: float = 0.1, test: float = 0.15, split_seed: int = 0) -> None:
        from sklearn.datasets import load_digits  # takes a second to import

        images, labels = map(np.asarray, load_digits(return_X_y=True))
        x = images.reshape(-1, 8, 8) / 16
        partition = by_fractions(len(x), validation, test, split_seed)
        super().__init__(x, partition, labels=as_labels(labels, len(x), "labels"), binarize=binarize)

    @property
    def name(self) -> str:
        return "Digits"
