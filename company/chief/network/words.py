"""What the state of each port means, and what mends it (pure)."""

from __future__ import annotations

from company import network_views as nv
from company.chief.network.contact import names_only_private
from company.chief.network.ground import Ground
from company.config import format_duration
from company.views import ReasonView
from p2p.dht.reachability import Port, State
from p2p.net.addresses import join_address, split_address

OPEN = {
    "udp": "Other nodes of the network find this one.",
    "rpc": "Other companies connect directly.",
    "http": "Other machines reach the web page and the tracker.",
}
CLOSED = {
    "udp": "This node asks others and is asked by nobody; offers are still found and published.",
    "rpc": "Other companies reach this one through a relay, more slowly.",
    "http": "Nobody but this machine uses the page; nothing else needs it.",
}
SKEW_FAIL_S = 600.0  # past ten minutes other nodes throw our packets away
KINDS = {"udp": "udp", "rpc": "tcp", "http": "tcp"}


def port_views(ground: Ground, listens: dict[Port, str]) -> list[nv.PortView]:
    """One line per port. ``listens``: where the chief listens, "" for nowhere."""
    return [_port_view(ground, port, address) for port, address in listens.items()]


def _port_view(ground: Ground, port: Port, address: str) -> nv.PortView:
    verdict, witnesses = ground.report.ports.get(port, ("unknown", 0))
    if not address:
        return nv.PortView(
            port=port, address="", verdict="not-asked", consequence="It is switched off.", fix="company start --dht ADDR:PORT"
        )
    if port == "http" and address.startswith(("127.", "[::1]", "localhost")):
        return nv.PortView(
            port=port, address=address, verdict="not-asked", consequence="Only this machine reaches the page, as it was started."
        )
    if verdict == "closed":
        number = split_address(address)[1]
        fix = f"let {KINDS[port]} port {number} through this machine's firewall, and forward it to this machine in your router"
        return nv.PortView(port=port, address=address, verdict=verdict, witnesses=witnesses, consequence=CLOSED[port], fix=fix)
    if verdict == "open":
        return nv.PortView(port=port, address=address, verdict=verdict, witnesses=witnesses, consequence=OPEN[port])
    text = "No other company has tried yet."
    return nv.PortView(port=port, address=address, verdict=verdict, witnesses=witnesses, consequence=text)


def state_of(ground: Ground) -> State:
    """As witnesses said. Nodes that answer and cannot be witnesses, since nobody can dial them, do not make us offline."""
    state = ground.report.state
    return "unknown" if state == "offline" and ground.directory.status().peers else state


def skew_text(skew_s: float) -> str:
    """How far other companies' clocks are from this machine's."""
    return f"{format_duration(abs(skew_s))} {'ahead of' if skew_s > 0 else 'behind'} this machine's"


def state_reason(ground: Ground) -> ReasonView | None:
    """The state of the chief in the network, in a sentence, with what can be done; nil where all is well."""
    state, directory = state_of(ground), ground.directory.status()
    if directory.skew_s is not None and abs(directory.skew_s) > SKEW_FAIL_S and not directory.peers:
        text = f"No other company answers: their clocks are {skew_text(directory.skew_s)}, and packets of another time are thrown away."
        actions = [{"label": "set this machine's clock, if it is the one that is wrong", "cli": "timedatectl set-ntp true"}]
        return ReasonView(code="clock-differs", text=text, facts={"skew_s": round(directory.skew_s)}, actions=actions)
    if state == "public":
        return None
    known = [company.contact for company in ground.known if company.contact.endpoints]
    if state in ("unknown", "offline") and known and not ground.allow_private and all(map(names_only_private, known)):
        text = "The companies heard of name private addresses only, which this chief does not dial: its network is taken for a public one."
        actions = [{"label": "if they are on a network of your own", "cli": "company start --allow-private"}]
        return ReasonView(code="only-private", text=text, facts={"companies": len(known)}, actions=actions)
    if state == "unknown":
        return ReasonView(code="reachability-unknown", text="No other company has been asked yet whether it can reach this one.")
    if state == "offline":
        actions = [
            {"label": "name a node that is known", "cli": "company network bootstrap add HOST:PORT"},
            {"label": "or a tracker", "cli": "company start --tracker URL"},
        ]
        return ReasonView(code="network-offline", text="No other company answers: nothing can be lent or borrowed.", actions=actions)
    relays = [join_address(r.host, r.port) for r in ground.relays]
    if ground.report.is_open("rpc"):
        text = "UDP from outside does not arrive here: other nodes cannot ask this one; lending and borrowing go on."
    elif relays:
        text = f"Other companies cannot dial this one; they reach it through {' and '.join(relays)}."
    else:
        text = "Other companies cannot dial this one, and no relay is kept yet: it can borrow, and not lend."
    action = {"label": "open the ports that are closed", "cli": "company network status", "href": "/network"}
    return ReasonView(code="outbound-only", text=text, facts={"relays": relays}, actions=[action])
