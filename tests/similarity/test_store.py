"""What has been computed is kept, and what is not a store is left alone."""

import numpy as np
import pytest

from vtk_cli.errors import UserError
from vtk_cli.similarity.store import Store


def test_what_is_saved_is_found_and_a_torn_file_is_made_again(tmp_path):
    store = Store(tmp_path)
    store.save_arrays("clean", "key", {"logits": np.eye(3)})
    assert np.array_equal(store.arrays("clean", "key")["logits"], np.eye(3))
    file = tmp_path / "clean" / "key.npz"
    file.write_bytes(file.read_bytes()[:-10])
    assert store.arrays("clean", "key") is None
    assert not file.exists()


def test_bits_come_back_as_they_were(tmp_path):
    bits = np.random.default_rng(0).random(21) < 0.5
    Store(tmp_path).save_row("row", {"a": bits, "b": ~bits})
    found = Store(tmp_path).row("row", 21)
    assert np.array_equal(found["a"], bits)
    assert np.array_equal(found["b"], ~bits)
    assert Store(tmp_path).row("other", 21) == {}


@pytest.mark.parametrize("name", ["a-file", "a" * 300])
def test_a_store_that_cannot_be_is_the_users_mistake(name, tmp_path):
    (tmp_path / "a-file").write_text("mine")
    store = Store(tmp_path / name)
    with pytest.raises(UserError):
        store.arrays("clean", "key") or store.save_arrays("clean", "key", {"logits": np.eye(3)})
    with pytest.raises(UserError):
        store.has_room(1)
    assert (tmp_path / "a-file").read_text() == "mine"
