"""Accuracy of a linear classifier of labels in latent space."""

import numpy as np

from pyrovae.evaluation.latent.nearest_neighbours import Labelled


def linear_probe(train_means: Labelled, train_labels: Labelled, test_means: Labelled, test_labels: Labelled) -> float:
    """Compute the accuracy on test data of logistic regression of labels on points in latent space.

    Each dimension is divided by its standard deviation over the training data before, so that the penalty on the weights,
    scikit-learn's own, is the same for a space and for the space stretched.

    Args:
        train_means: points in latent space, shape ``(N, D)``.
        train_labels: their labels, shape ``(N,)``, of at least two kinds.
        test_means: shape ``(M, D)``.
        test_labels: shape ``(M,)``.

    Returns:
        A number from 0 to 1.

    References:
        | Understanding intermediate layers using linear classifier probes (Alain & Bengio, 2017)
        | https://arxiv.org/abs/1610.01644
    """
    from sklearn.linear_model import LogisticRegression  # takes a second to import
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    classifier.fit(np.asarray(train_means), np.asarray(train_labels))
    return float(classifier.score(np.asarray(test_means), np.asarray(test_labels)))
