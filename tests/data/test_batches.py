"""The order of examples and exact evaluation batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax.data.batches import evaluation_batches, training_batch
from cnn_jax.data.order import epoch_order, epoch_order_on_host
from cnn_jax.data.sources import LabelledImages


def labelled(count: int) -> LabelledImages:
    """Images that carry their own index in their pixels."""
    index = np.arange(count)
    images = np.stack([index // 256, index % 256], axis=-1).astype(np.uint8)[:, None, None, :]
    return LabelledImages(
        images, (index % 3).astype(np.int32), ("a", "b", "c"), "test/train", ("train", np.arange(count))
    )


@settings(deadline=None, max_examples=50)
# Few sizes: each is a program that computes its orders.
@given(count=st.sampled_from([1, 2, 7, 50]), batch_size=st.integers(1, 70), seed=st.integers(0, 2**32 - 1))
def test_training_batches_walk_through_whole_epochs(count, batch_size, seed):
    data = labelled(count)
    steps = -(-3 * count // batch_size)
    batches = [training_batch(data, seed=seed, step=s, batch_size=batch_size) for s in range(steps)]
    ids = np.concatenate([b["id"] for b in batches])[: 3 * count]
    epochs = np.concatenate([b["epoch"] for b in batches])[: 3 * count]
    for epoch in range(3):
        assert sorted(ids[epochs == epoch]) == list(range(count))
    for batch in batches:
        assert len(batch["label"]) == batch_size
        np.testing.assert_array_equal(batch["image"], data.images[batch["id"]])
        np.testing.assert_array_equal(batch["label"], data.labels[batch["id"]])
        assert batch["mask"].tolist() == [1.0] * batch_size


def test_the_sequence_of_examples_does_not_depend_on_the_batch_size():
    data = labelled(37)
    sequences = []
    for batch_size in (1, 6, 37, 111):
        batches = [training_batch(data, seed=5, step=s, batch_size=batch_size) for s in range(111 // batch_size)]
        sequences.append(np.concatenate([b["id"] for b in batches])[:108])
    for other in sequences[1:]:
        np.testing.assert_array_equal(other, sequences[0])


def test_epochs_and_seeds_have_different_orders():
    keys = [jax.random.key(seed) for seed in range(3)]
    orders = {tuple(epoch_order(key, epoch, examples=100).tolist()) for key in keys for epoch in jnp.arange(3)}
    assert len(orders) == 9


@pytest.mark.parametrize("batch_size", [1, 7, 64, 10_000])
@pytest.mark.parametrize("multiple_of", [1, 8])
def test_evaluation_counts_each_example_once(batch_size, multiple_of):
    data = labelled(360)
    batches = list(evaluation_batches(data, batch_size=batch_size, multiple_of=multiple_of))
    assert len({batch["image"].shape for batch in batches}) == 1
    assert all(len(batch["mask"]) % multiple_of == 0 for batch in batches)
    real = np.concatenate([batch["image"][batch["mask"] > 0] for batch in batches])
    np.testing.assert_array_equal(real, data.images)
    # A large batch size must not make a batch of padding.
    assert max(len(batch["mask"]) for batch in batches) < 360 + multiple_of


@pytest.mark.parametrize("examples", [1, 2, 3, 1000, 1626])
def test_the_host_computes_the_order_of_the_device(examples):
    for seed, epoch in [(0, 0), (0, 1), (7, 2), (2**32 - 1, 0), (123_456_789, 2**31 - 1)]:
        device = epoch_order(jax.random.key(np.uint32(seed)), jnp.int32(epoch), examples=examples)
        host = epoch_order_on_host(seed, epoch, examples)
        np.testing.assert_array_equal(host, device)
        assert host.dtype == device.dtype
