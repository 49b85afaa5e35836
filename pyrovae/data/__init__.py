"""Data sets with a seeded split into parts and a stated binarisation, one a file.

``Digits`` is embedded, ``MNIST`` and ``FashionMNIST`` are fetched once, ``Array`` and ``Images`` read a user's files. A
set of one's own is a subclass of ``Data`` that hands it a source and a partition.
"""

from pyrovae.data.array import Array
from pyrovae.data.base import Data
from pyrovae.data.binarize import Binarize
from pyrovae.data.digits import Digits
from pyrovae.data.images import Images
from pyrovae.data.lazy import Source
from pyrovae.data.mnist import MNIST, FashionMNIST
from pyrovae.data.partition import Partition, by_fractions, with_official_test
from pyrovae.data.split import Split

__all__ = [
    "MNIST",
    "Array",
    "Binarize",
    "Data",
    "Digits",
    "FashionMNIST",
    "Images",
    "Partition",
    "Source",
    "Split",
    "by_fractions",
    "with_official_test",
]
