"""Batches made on the device are those made on the host, at any step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.data.batches import training_batch
from cnn_jax.data.resident import check_resident, epoch_orders, epochs_touched, position, resident_batch
from cnn_jax.data.sources import LabelledImages
from cnn_jax.errors import UserError


def labelled(count: int) -> LabelledImages:
    """Images that carry their own index in their pixels."""
    index = np.arange(count)
    images = np.stack([index // 256, index % 256], axis=-1).astype(np.uint8)[:, None, None, :]
    return LabelledImages(
        images, (index % 3).astype(np.int32), ("a", "b", "c"), "test/train", ("train", np.arange(count))
    )


@pytest.mark.parametrize("examples", [1, 2, 37, 65_536, 60_000, 1_281_167, 2**30 - 1])
@pytest.mark.parametrize("batch_size", [1, 128, 60_001, 2**31 - 1])
def test_positions_are_those_of_unbounded_integers(examples, batch_size):
    steps = [0, 1, 2, 390, 65_535, 1_000_003, 2**30 + 7, 2**31 - 1]
    # What an int32 epoch can count, which is all that the host's batches can count too.
    steps = [step for step in steps if step * batch_size // examples < 2**31]
    divide = jax.jit(jax.vmap(functools.partial(position, batch_size=batch_size, examples=examples)))
    epoch, offset = divide(jnp.asarray(steps, jnp.int32))
    expected = [divmod(step * batch_size, examples) for step in steps]
    assert list(zip(epoch.tolist(), offset.tolist())) == expected


@pytest.mark.parametrize(("count", "batch_size"), [(37, 6), (37, 37), (5, 12), (50, 49)])
def test_a_batch_from_the_device_is_the_one_from_the_host(count, batch_size):
    data, seed, steps = labelled(count), 2**32 - 1, 4
    key = jax.random.key(seed)
    resident = {"image": jnp.asarray(data.images), "label": jnp.asarray(data.labels)}
    epochs = epochs_touched(steps, batch_size=batch_size, examples=count)
    orders = jax.jit(functools.partial(epoch_orders, epochs=epochs, examples=count))
    batch = jax.jit(functools.partial(resident_batch, batch_size=batch_size))
    for start in range(0, 24, steps):
        first = jnp.int32(start * batch_size // count)
        of_chunk = orders(key, first)
        for step in range(start, start + steps):
            device = batch(resident, of_chunk, first, jnp.int32(step))
            host = training_batch(data, seed=seed, step=step, batch_size=batch_size)
            assert device.keys() == host.keys()
            for name in host:
                assert device[name].dtype == host[name].dtype, name
                np.testing.assert_array_equal(device[name], host[name], err_msg=name)


def test_a_split_too_large_to_count_is_refused():
    check_resident(2**30 - 1)
    with pytest.raises(UserError, match=r"1,073,741,824 examples are too many; set data\.resident=false"):
        check_resident(2**30)
