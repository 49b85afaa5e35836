"""Accuracy of a nearest-neighbour classifier of labels in latent space."""

import numpy as np
from torch import Tensor

Labelled = Tensor | np.ndarray


def nearest_neighbour_accuracy(
    train_means: Labelled, train_labels: Labelled, test_means: Labelled, test_labels: Labelled, neighbours: int = 5
) -> float:
    """Compute the accuracy on test data of a vote of the nearest training data, in Euclidean distance.

    Args:
        train_means: points in latent space, shape ``(N, D)``.
        train_labels: their labels, shape ``(N,)``.
        test_means: shape ``(M, D)``.
        test_labels: shape ``(M,)``.
        neighbours: the number of neighbours that vote.

    Returns:
        A number from 0 to 1.
    """
    from sklearn.neighbors import KNeighborsClassifier  # takes a second to import

    classifier = KNeighborsClassifier(neighbours).fit(np.asarray(train_means), np.asarray(train_labels))
    return float(classifier.score(np.asarray(test_means), np.asarray(test_labels)))
