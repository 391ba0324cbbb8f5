"""Every number of threads, every bound and every time-out of the controller, and how they keep it alive. PURE.

Each stands here because it leans on others; `tests/unit/controller/test_controller_limits.py` has the inequalities.
Times are in seconds.
"""

from __future__ import annotations

from decisions.parameters import MOST_RATE, TTL

# Calls to agents, without their round trips, which come on top. A call that takes longer counts as failed; a node that
# only sleeps may still do it, later.
CALL_S = 8.0
CALLS = 64  # at a time, in all
CALLS_TO_ONE = 6  # at a time, to one agent
SLOW_S = 2.5  # with so many under way none waits that would wait for longer, nor while the oldest has taken longer
TRIES_OF_AN_EDIT = 10  # of a resource that others change meanwhile

# Opening a key session: nodes on its path have so long in all. Who asked is told before it gives up.
OPENING_S = 3.0
LIT_S = 3.0  # a QC on demand that was lit may be so much later than it should be
RETRY_LIT_S = 1.0  # who waits for it is asked to wait so long at least
BARRED_S = 30.0  # after which one that made no key may be lit again
ASKED_S = 15.0  # how long an application's node waits for the controller at most

# What nodes announce is done by steps, each in a thread.
STEPS = 64  # at a time, in all
STEPS_FOR_ONE = 12  # at a time, for what one node announces
WAITING_FOR_ONE = 500  # steps that wait because that many are under way; what is announced beyond them is refused

# Words to agents that are told again until they are confirmed.
WORDS = 16  # at a time, in all
WORDS_TO_ONE = 4  # at a time, to one agent
KEPT_FOR_ONE = 4000
WORD_AGAIN_S = 1.0

# Key sessions.
SESSIONS_OF_ONE = 3000  # that end at one node, in whatever state, and those that are over and that it has not forgotten
HALF_OPEN_OF_ONE = 1000  # registrations of one node that wait for their other side
OVER_AT_ONE = 10_000  # sessions that are over, of which one node, be it between others, has not forgotten its part
OVER_LATELY = 10_000  # sessions that ended, of which it is known for a while that they may have asked for keys
LEFT_AT_ONE = 16  # virtual links of a session that moved, of which one node has not forgotten its part
REQUESTS_OF_ONE = 16  # of one application, repeated, that wait for an answer
HOLD_S = 4 * CALL_S  # who tells nodes of an open session, and holds it meanwhile, has so long for all of it
HELD_S = 20 * CALL_S  # whoever waits for a key session to be let go waits so long at most: longer is a bug of ours
LINGERS_S = 2.0  # what was begun before a session moved may go on over its old links for so long
LOOK_S = 0.25  # between two looks at all sessions, whether one has to move
AGAIN_S = 3.0  # between two tries to move, to tell, to set
ARRIVED_S = 2 * CALL_S  # what a controller before us had sent has arrived by then
REWEIGHED_AT_ONCE = 4

# Nodes that are followed.
RETRY_S = 0.5  # after a node was lost
TRIES = 50  # a second, in all, at nodes that have never been followed, where there are few
MISBEHAVED_S = 5.0  # after a node said what no node may say
POLL_S = 1.0  # a node that knows only the standard is asked how its links fare so often
DEAF_S = 8.0  # and is lost when it has not answered for so long
STALE_S = 10.0  # a node silent for longer has less to say of the last slots, one slot for each further second
ENDS_OF_ONE = 1000  # of those that a node says it has told in vain, as many are taken at a time
LINKS_OF_ONE = 1024  # physical links that a node may show
REPORTED_SLOTS = TTL.high + 2  # that reports are kept of: Equation 1 looks back over a TTL and one slot
FINE_SLOTS = 256  # see controller/network/reported_slots.py
MAX_BYTES_A_SLOT = MOST_RATE  # of a QC: as many as an operator may ask it for

# Two controllers. Who leads says so to the shared database, and leads for certain as long as that has answered lately.
LEASE_S = 3.0
RENEW_S = 0.5  # between two times that a leader says so
STANDBY_LOOK_S = 0.25  # between two times that a stand-by asks whether it may lead
STORE_CALL_S = 1.0  # one call of the shared database, without its round trips, which come on top
STORE_ROUND_TRIPS = 3
LEASE_ROUND_TRIPS = 8  # of the network's longest, by which the lease is longer
DEFER_S = 3.0  # after the database was away, by which a stand-by leaves a leader to say that it is there
ROUTE_S = 2.0  # without an answer of the shared database, after which a stand-by has switches forward
ANSWERED_S = 1.0  # who asks where nobody leads is to ask again after that

# The operator's interface, and the process.
KEPT_REFUSALS = 100
BIND_S = 5.0  # until the OpenFlow port listens
SWITCHES_S, SWITCHES_LOOK_S = 0.5, 0.01  # until all switches forward, after which nodes are followed in any case
WATCH_S = 0.5  # between two looks whether its threads live
OPERATORS = 32  # requests at a time
OPERATORS_FOR_ONE = 12  # of one party; more of it wait, and hold up no other one
SETTING_S = 3.0  # how long an operator waits until all nodes have taken over what was set

# Texts of others, in characters.
MAX_TEXT = 300
MAX_ID = 256


def lease_s(round_trip_s: float) -> float:
    """How long a controller leads without a further word, in a network with that longest round trip."""
    return LEASE_S + LEASE_ROUND_TRIPS * round_trip_s


def first_retry_s(nodes: int) -> float:
    """Between two tries at a node that has never been followed, one of so many."""
    return min(RETRY_S, nodes / TRIES)
