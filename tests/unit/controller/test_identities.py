"""Which qkdn_id is whose."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.network.identities import Identities
from controller.network.store import FileStore
from ietf.yang import Refusal


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FileStore]:
    """The controller's."""
    made = FileStore(tmp_path / "controller.db")
    Identities(made, {}).check("a", "A")
    yield made
    made.close()


@pytest.mark.parametrize(("name", "shown"), [("b", "A"), ("a", "B")], ids=["another's", "another"])
def test_id_is_bound_to_the_name_in_the_certificate_for_good(store, name, shown):
    """Over restarts, and while its owner is away."""
    with pytest.raises(Refusal, match="expected"):
        Identities(store, {}).check(name, shown)


def test_node_shows_its_id_as_often_as_it_likes(store):
    """And others their own."""
    identities = Identities(store, {})
    identities.check("a", "A")
    identities.check("b", "B")


def test_id_of_a_node_that_the_operator_removed_is_free(store):
    """A device may get another name."""
    identities = Identities(store, {})
    identities.forget("a")
    identities.check("b", "A")


def test_id_that_is_declared_is_its_nodes_whoever_comes_first(store):
    """Or a hostile node would keep one out that has not come yet; what it once took, it has to give back."""
    identities = Identities(store, {"b": "B", "c": "A"})
    for name, shown in (("d", "B"), ("a", "A")):
        with pytest.raises(Refusal, match="expected another ID than node"):
            identities.check(name, shown)

    identities.check("b", "B")
    identities.check("c", "A")
