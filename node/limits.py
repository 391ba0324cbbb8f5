"""What keeps the node process alive: how many may work and wait at once, and for how many seconds.

A party that does not answer holds what waits for it. So each kind of waiting has fewer places than the port has
threads, each party has fewer places than there are in all, and whoever finds none is refused at once. The inequalities
between these numbers are asserted in tests/unit/node/test_node_limits.py.
"""

from __future__ import annotations

from mtls.liveness import DEAD_S, SILENCE_S

# A request is answered within so many seconds, and round trips. GS QKD 014 clients give up after 5 or 10 s. What other
# parties do for it has its deadline, too: each has less time than the party that asked it (see mtls/deadline.py).
ANSWER_S = 4.0
# Of the longest in the network: the slave's node, the controller and what it configures, the way, the keys' relay.
ROUND_TRIPS = 12
# Less than that is too little to make keys: what would be taken for them would be lost. Over several links it is more.
LEAST_S = 0.2
LINK_S = 0.01  # what a relay takes for each link at least, beside the round trip to the next node

# The KME's port. A session that is being opened, or led over more paths, holds a thread until the controller has done
# so.
KME_THREADS = 96
REQUESTS_PER_SAE = 24  # with the threads at a time; more of one SAE wait, and hold up no other SAE
OPENINGS = 48
OPENINGS_PER_SAE = 16
OPENING_S = 15.0  # for the controller to configure all nodes of the path; a request for keys has less time
STANDARD_OPENING_S = 1.0  # a controller that knows only the standard never says that it waits for the other side
LOOK_S = 0.2  # between two looks at whether the controller that was asked is still there
LED_PART = 0.75  # of the time for a request: who waits for its session to be led over more paths makes keys in the rest
MOST_PENDING = 1000  # applications of which the controller has been told and says nothing yet
# Of one SAE of this node, and of what one other node has called for. The controller has bounds for each node.
SESSIONS_PER_PARTY = 1500
HALF_OPEN_PER_PARTY = 400  # registrations that wait for their other side
HALF_OPEN_S = 30.0  # after so long the controller has dropped them

# The port of GS QKD 004. A chunk that the other side is about to make is waited for in a thread.
STREAM_THREADS = 48
STREAM_REQUESTS_PER_SAE = 12
STREAM_CONNECTIONS = 512
STREAM_CONNECTIONS_PER_SAE = 128
STREAM_TIMEOUT_S = 30.0  # the longest Timeout of an application
STREAMS_PER_SAE = 64  # that it has begun, and that this node keeps
STREAM_IDLE_S = 3600.0  # after which a stream that nobody uses is forgotten

# The agent's port. A relay holds a thread until the next node has answered. Were there no thread for what waits for
# nobody, two nodes that relay to each other could wait for each other.
AGENT_THREADS = 96
REQUESTS_PER_NODE = 24  # of a node, or of a controller
LISTENERS = 32  # of event streams, none of which holds a thread
RELAYS = 32
RELAYS_PER_NODE = 8  # that come from it, and that go on to it
CLAIMS = 4  # first nodes that wait here for what they relay to come; more are told at once that it has not come
CLAIM_S = 1.0  # and once more when the chain of relays says that it has come
REST_S = 0.05  # for parts of a key that are not needed, but would show whether the paths that they come over are right
PARTS_BYTES_PER_NODE = 2 << 20  # of keys that are relayed at once, which that node has sent and nobody has claimed

# A first node tells others in threads of their own what they need while a key is on its way: the last one by what it
# knows the key; in mode `parallel` all of them what to do. Where no place is left, it tells them one after the other.
CHECKS = KME_THREADS
CHECKS_PER_NODE = 16  # to a node that does not answer, also of requests that have failed meanwhile

# A first node asks the nodes of a path one after the other for their neighbours; each has so many seconds.
NEIGHBOURS_S = 3.0

# Connections to each other node that are kept. More callers than the node serves at once would wait there.
CONNECTIONS_PER_NODE = REQUESTS_PER_NODE

# The shared database. A call is tried twice: the first connection may be one that has died in silence. The server gives
# up first, then the node, so that the server is not still at work on what was asked again.
# There are fewer connections than callers, for a call holds one for a moment: for long only where another session holds
# rows, or the server is silent. So what a node says and collects of its own accord, in UPKEEP_THREADS, has connections
# whatever requests wait for, and requests that take ranges of one QC leave some to others.
DATABASE_CONNECTIONS = 8
DATABASE_UPKEEP = 2
DATABASE_CONNECTIONS_PER_QC = 4
UPKEEP_THREADS = 2  # the one that reports and collects, and the one that counts
DATABASE_WAIT_S = 2.0  # for one of them to be free
DATABASE_REPORT_S = 0.5  # for this node's own report to a server that it has not spoken to yet
DATABASE_LOCK_S = 1.0  # for rows that another session holds
DATABASE_STATEMENT_S = 2.0
DATABASE_TRY_S = 2.2
DATABASE_CALL_S = 3.5  # in all
CATCH_UP_S = 1.0  # who asks for a key that waits, right after the node's start, waits for its first word
DATABASE_IDLE_S = 5.0  # a connection on which nothing moves is probed after this time
DATABASE_CONNECT_S = 3.0  # and round trips
DATABASE_KNOCK_S = 0.1  # until a server that had no place left is asked again, while it is being connected to
# Where one of several servers takes writes: one that is silent is waited for so long, with round trips, and then left
# out for so long, while the others are asked. The least that psycopg waits is 2 s.
DATABASE_ONE_OF_SEVERAL_S = 2.0
DATABASE_SILENT_S = 3.0
# Then it is tried for so long, with round trips, whether anybody is there at all, before it is waited for as above.
DATABASE_TAP_S = 0.3
DATABASE_SEEK_S = 0.5  # until they are asked again while none of them takes writes: each time costs them a handshake
DATABASE_KEPT_S = 30 * 86_400.0  # a connection: who has one depends on nobody that throngs at the server's door
DATABASE_PATIENCE_S = 18.0  # where there is no connection for long: enough for the longest round trips

# A node that is to stop cuts off after this time what still waits for others.
LAST_CALL_S = 1.5

# What a controller is told until it is sure to know: an end or a withdrawal again while it has not confirmed it; to one
# that confirms nothing, until a dead connection would have been noticed. Of slots, what such a connection may have
# swallowed.
SAID_AGAIN_S = 3.0
END_HEARD_S = DEAD_S + SILENCE_S
RETOLD_SLOTS = 30

# Keys that were lost, and of which only the shared database knows what they cost. It is asked for so many at a time,
# and again for those that it does not know, until what was sent to it can arrive no more.
LOST_KEYS_KEPT = 20_000
LOST_KEYS_PER_CALL = 4000
LOST_OPEN_S = DEAD_S + SILENCE_S

DEVICE_PAUSE_S = 0.5  # without a descriptor to spare, QC devices wait for so long
# A QKD device that is asked over GS QKD 014. It is asked in a thread of its QC, and what another node asks about it is
# answered at once. A device that does not answer is asked no sooner than QCs count as down.
DEVICE_ANSWER_S = 4.0
DEVICE_BAD_S = 5.0  # until it is asked again when it has answered with something else than keys
DEVICE_POLL_S = 2.0  # for the node at the other end to say which keys it has laid
KEYS_LATE_S = 5.0  # a device may have a key a little later than its twin
WANTED_S = 5.0  # an end that has not asked for keys for so long does not want any
MOST_OFFERS = 4  # blocks that one end has laid and the other one has not; more keys stay in the device
LAID_KEPT = 500_000  # IDs of keys of devices, none of which is laid twice
SUSPICIONS_KEPT = 16
MAX_HOPS = 64  # of a virtual link
LACKING_S = 10.0  # until a path is looked for again that a session does without, as it has enough others


def relay_s(links: int, round_trip_s: float) -> float:
    """Seconds that it takes at least to relay over so many links; who has less left takes no material for it. PURE."""
    return links * LINK_S + round_trip_s


def answer_s(round_trip_s: float) -> float:
    """Within how many seconds a request is answered, in a network whose longest round trip takes that long. PURE."""
    return ANSWER_S + ROUND_TRIPS * round_trip_s
