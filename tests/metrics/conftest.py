"""Real scores."""

import numpy as np
import pytest
import sklearn.datasets
import sklearn.linear_model


@pytest.fixture(scope="session")
def digits():
    """Scores of a small logistic regression, float32 [898 10], and the true classes of the held-out half of digits."""
    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    images = images / 16.0
    model = sklearn.linear_model.LogisticRegression(C=0.1, max_iter=500).fit(images[899:], labels[899:])
    return model.decision_function(images[:898]).astype(np.float32), labels[:898].astype(np.int32)
