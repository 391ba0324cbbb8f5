"""Sessions that a request for keys calls for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.support.followed import QOS
from tests.support.waiting import until


def test_request_for_keys_opens_an_implicit_session_for_both_sides(world):
    """Nobody registers; both nodes say that the session is implicit, in either order."""
    answer = world.implicit("a", "d")

    assert answer.status == 200
    assert world.session(answer.ksid)["implicit"] is True
    pair = world.pair("a", "d")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(world.nodes["a"].ask, pair, "master", implicit=True)
        assert until(lambda: pair in world.waiting())
        world.nodes["d"].registrations.announce(*pair, QOS)
        assert asked.result(10).status == 200


def test_node_that_lost_its_implicit_session_is_told_of_it_again(world):
    """The same KSID, and nobody else hears of it twice."""
    pair = world.pair("a", "b")
    first = world.implicit("a", "b", pair)
    world.session(first.ksid)
    world.nodes["a"].datastore.end_app(first.ksid)
    told = len(world.nodes["b"].told)

    again = world.implicit("a", "b", pair)

    assert again.ksid == first.ksid
    assert world.nodes["a"].told[-1] == ("+", "app", first.ksid)
    assert [entry for entry in world.nodes["b"].told[told:] if entry[1] == "app"] == []


def test_implicit_session_that_its_end_has_lost_is_over(alone):
    """Its word of the end was lost with a controller: configured again, it would be taken for one that never idles."""
    alone.start_with_nodes()
    lost, registered = alone.implicit("a", "d").ksid, alone.open("a", "d")["ksid"]
    alone.session(lost)
    alone.process.kill()
    for ksid in (lost, registered):
        alone.nodes["a"].datastore.end_app(ksid)
    told = len(alone.nodes["a"].told)

    alone.start().wait_ready(20)

    assert until(lambda: all(alone.nodes[n].sessions.get(registered) for n in "ad"))
    assert until(lambda: list(alone.open_sessions()) == [registered])
    assert until(lambda: alone.nodes["d"].sessions.get(lost) is None)
    assert ("+", "app", lost) not in alone.nodes["a"].told[told:]


def test_implicit_session_gives_way_to_one_that_both_sides_register(world):
    """The old KSID is removed before the nodes hear of the new one."""
    pair = world.pair("a", "b")
    old = world.implicit("a", "b", pair).ksid
    world.session(old)
    world.nodes["b"].ask(pair, "slave")

    new = world.nodes["a"].ask(pair, "master").ksid

    told = [entry for entry in world.nodes["a"].told if entry[1] == "app"]
    assert told[-2:] == [("-", "app", old), ("+", "app", new)]
    world.session(new)
    assert world.implicit("a", "b", pair).ksid == new


def test_implicit_session_beside_a_registration_that_waits(world):
    """A slave that runs our software and a master that does not: the master gets its keys."""
    pair = world.pair("a", "b")
    assert world.nodes["b"].ask(pair, "slave").status == 202

    assert world.implicit("a", "b", pair).status == 200


def test_implicit_session_passes_admission(admitting):
    """It is refused like any other where the network cannot carry it."""
    admitting.set(admission="eq1")

    refused = admitting.implicit("a", "d")

    assert (refused.status, refused.detail("cause"), refused.detail("qc")) == (503, "refused", "cd")
    assert admitting.implicit("a", "c").status == 200
