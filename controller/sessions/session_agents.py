"""What the agents are told of key sessions: to have them, to forget them, and how they fare."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from controller import limits
from controller.agents import configuration
from controller.agents.agents import Agent, AgentFailed, Agents, ended, interrupted, refusal, waiting, withdrawn
from controller.network.graph import Graph
from controller.sessions.application_answers import Words
from controller.sessions.key_session import MASTER, KeySession, Pair, SessionError


class SessionAgents:
    """The agents of the nodes of sessions, as far as they can be reached. Thread-safe."""

    def __init__(self, graph: Graph, agents: Agents, words: Words) -> None:
        self._graph = graph
        self._agents = agents
        self._words = words

    def configure(
        self,
        session: KeySession,
        names: Iterable[str],
        *,
        without_ksid_at: Iterable[str] = (),
    ) -> None:
        """Tell nodes of the path, all at once, what they are to have of the session; AgentFailed."""
        documents = session.to_nodes()
        agents = self.reachable(names)
        missing = sorted(set(names) - set(agents))
        if missing:
            raise AgentFailed(missing[0], "it cannot be reached")
        for name in without_ksid_at:
            documents[name] = configuration.without_application(documents[name], session.ksid)
        self._agents.configure({agent: documents[name] for name, agent in agents.items() if documents[name]})

    def configure_anew(self, session: KeySession, node: str) -> None:
        """Tell a node that may have something else of the session what it is to have; AgentFailed."""
        self.configure(session, [node], without_ksid_at=[node])
        if node in session.nodes.values():
            self.put_application(session, node)

    def tell_bandwidth(self, session: KeySession) -> None:
        """Tell nodes of the path that can be reached what the session needs of the links there; AgentFailed."""
        documents = {name: configuration.bandwidths(document) for name, document in session.to_nodes().items()}
        agents = self.reachable(documents)
        self._agents.configure({agent: documents[name] for name, agent in agents.items() if documents[name]})

    def put_application(self, session: KeySession, node: str) -> None:
        """Have an end's application be as it is to be; AgentFailed."""
        agent = self.reachable([node]).get(node)
        if agent is None:
            raise AgentFailed(node, "it cannot be reached")
        wanted = configuration.application_of(session.to_nodes()[node], session.ksid)
        assert wanted is not None  # noqa: S101 - it is an end
        self._agents.put_application(agent, wanted)

    def has(self, session: KeySession, node: str, document: Mapping[str, object]) -> bool:
        """Whether a node of the path, as `document` (qkd_node) shows it, has all that it is to have of the session."""
        return configuration.is_complete(document, session.to_nodes()[node])

    def lacks_application(self, session: KeySession, node: str) -> bool:
        """Whether that node can be asked, and does not have the session's application; AgentFailed."""
        agent = self.reachable([node]).get(node)
        return agent is not None and not self._agents.application(agent, session.ksid)

    def remove(self, resources: Mapping[str, Sequence[str]]) -> set[str]:
        """Delete resources below qkd_node, by node; the names of those that said that it is done."""
        agents = self.reachable(resources)
        return set(agents) - self._agents.remove({agent: resources[name] for name, agent in agents.items()})

    def refuse(self, node: str, pair: Pair, requests: Sequence[str], error: SessionError, *, implicit: bool) -> None:
        """Have a node whose applications wait with those requests know why there is no session."""
        document = refusal(
            *pair, implicit=implicit, requests=requests, status=error.status, message=str(error), facts=error.facts
        )
        self._words.say(node, _about(pair, implicit, requests), document, for_s=limits.ASKED_S)

    def await_other(self, node: str, pair: Pair, requests: Sequence[str], *, implicit: bool) -> None:
        """Have a node whose applications wait with those requests know that the other side is awaited."""
        document = waiting(*pair, implicit=implicit, requests=requests)
        self._words.say(node, _about(pair, implicit, requests), document, for_s=limits.ASKED_S)

    def confirm_end(self, node: str, ksid: str) -> None:
        """Have a node that told of an application's end know that it need not tell of it again."""
        self._words.say(node, (ksid, "ended"), ended(ksid), for_s=limits.ASKED_S)

    def confirm_withdrawal(self, node: str, pair: Pair, request: str) -> None:
        """Have a node that took a registration back know that it need not tell of that again."""
        self._words.say(node, (pair, "withdrawn"), withdrawn(*pair, request=request), for_s=limits.ASKED_S)

    def interrupt(self, session: KeySession) -> None:
        """Have the master's node, which makes the keys, know how the path fares."""
        document = interrupted(session.ksid, session.interruption, session.down)
        self._words.say(session.nodes[MASTER], session.ksid, document)

    def forget(self, session: KeySession) -> None:
        """The session is over: nobody need know how it fares."""
        self._words.forget(session.nodes[MASTER], session.ksid)

    def later(self, node: str, step: Callable[..., None], *arguments: object, **named: object) -> bool:
        """Have `step` done by a thread, for that node; False if too much waits for it already."""
        return self._agents.later(node, step, *arguments, **named)

    def on_the_way_s(self, names: Iterable[str]) -> float:
        """Seconds that the round trips of a call to the farthest of those nodes take."""
        return max((self._agents.on_the_way_s(agent) for agent in self.reachable(names).values()), default=0.0)

    def reachable(self, names: Iterable[str]) -> dict[str, Agent]:
        """The agents of those nodes that can be reached now."""
        return {name: node.agent for name, node in self._graph.reachable(names).items()}


def _about(pair: Pair, implicit: bool, requests: Sequence[str]) -> tuple[object, ...]:
    return (pair, implicit, *requests)
