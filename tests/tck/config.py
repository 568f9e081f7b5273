"""The kit's configuration: which address, which ids, how long to wait. Written as `junit-platform.properties`."""

from dataclasses import dataclass

from tests.tck import script

AGENT_ID = "did:web:under-test.example"  # the participant id of the system under test
AUTHORIZATION = "Bearer tck"  # sent with every request of the kit; the scripted identity maps it to `script.KIT`
DSP_PATH = "/dsp/2025-1"  # the base of the protocol endpoints below the root of the protocol listener
NEGOTIATIONS_PATH = "/tck/negotiations"  # the two initiate routes, which only the test tree has
TRANSFERS_PATH = "/tck/transfers"
WAIT_SECONDS = 10  # per awaited step. The kit reads seconds, whatever its own samples suggest


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports on 127.0.0.1: the protocol listener and the initiate routes of the system under test, and the kit's own."""

    protocol: int
    initiate: int
    kit: int

    @property
    def kit_address(self) -> str:
        """The kit's base address as a counterparty. It must not have a path: the kit matches whole paths."""
        return f"http://127.0.0.1:{self.kit}"


def settings(ports: Ports) -> dict[str, str]:
    """Return every key that the kit reads, with its value."""
    root, initiate = f"http://127.0.0.1:{ports.protocol}", f"http://127.0.0.1:{ports.initiate}"
    connector = "dataspacetck.dsp.connector"
    fixed = {
        "dataspacetck.launcher": "org.eclipse.dataspacetck.dsp.system.DspSystemLauncher",
        "dataspacetck.ansi": "false",
        "dataspacetck.debug": "false",
        "dataspacetck.host": "127.0.0.1",
        "dataspacetck.port": str(ports.kit),
        "dataspacetck.callback.address": ports.kit_address,
        "dataspacetck.dsp.default.wait": str(WAIT_SECONDS),
        f"{connector}.agent.id": AGENT_ID,
        f"{connector}.http.url": root + DSP_PATH,
        f"{connector}.http.base.url": root,
        f"{connector}.http.headers.authorization": AUTHORIZATION,
        f"{connector}.negotiation.initiate.url": initiate + NEGOTIATIONS_PATH,
        f"{connector}.transfer.initiate.url": initiate + TRANSFERS_PATH,
    }
    return fixed | _ids()


def _ids() -> dict[str, str]:
    """Return the ids of each test: the method's name in upper case, an underscore, the field."""
    ids: dict[str, str] = {}
    for group, numbers in (("CAT", script.CAT), ("CN", script.CN), ("CN_C", script.CN_C), ("TP", script.TP), ("TP_C", script.TP_C)):
        for number in numbers:
            key, subject = f"{group}_{number.replace('-', '_')}", script.subject(group, number)
            if group.startswith("TP"):
                ids |= {f"{key}_AGREEMENTID": subject, f"{key}_FORMAT": script.FORMAT}
            else:
                ids[f"{key}_DATASETID"] = subject
            if group == "CN":  # CN_C has no such key: the kit makes up `offer` + the dataset's id
                ids[f"{key}_OFFERID"] = script.offer_id(subject)
    return ids


def properties(values: dict[str, str]) -> str:
    """Return `values` in Java's properties format (a backslash would begin an escape, so it is doubled)."""
    return "".join(f"{key}={value}\n" for key, value in ((k, v.replace("\\", "\\\\")) for k, v in values.items()))
