"""A network whose far end refuses datagrams as a host does on which nobody listens: by ICMP, and as late as the
way there and back takes. Needs a raw socket."""

import contextlib
import functools
import socket
import struct
import time

from proxy import Proxy


def may_refuse():
    """Whether this process can send ICMP."""
    with contextlib.suppress(PermissionError), socket.socket(socket.AF_INET, socket.SOCK_RAW,
                                                             socket.IPPROTO_ICMP):
        return True
    return False


def _checksum(packet):
    packet += b"\0" * (len(packet) % 2)
    total = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def port_unreachable(sender, receiver):
    """The ICMP message (RFC 792) about a UDP datagram between these two, each a host and a port."""
    udp = struct.pack("!HHHH", sender[1], receiver[1], 8, 0)
    inner = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0,
                        socket.inet_aton(sender[0]), socket.inet_aton(receiver[0]))
    message = struct.pack("!BBHI", 3, 3, 0, 0) + inner + udp
    return message[:2] + struct.pack("!H", _checksum(message)) + message[4:]


class RefusingProxy(Proxy):
    """While `refusing` is set, or for the first client alone where that is "first", what comes is refused."""

    def __init__(self, *arguments, refusing=False, **options):
        self.refusing = refusing
        self.refused = []  # the bytes of what was
        super().__init__(*arguments, **options)

    def _send_up(self, client, payload):
        first = client is next(iter(self._clients.values()))
        if not self.refusing or (self.refusing == "first" and not first):
            super()._send_up(client, payload)
            return
        self.refused.append(payload)
        # As long as it took to get there.
        self._at(time.monotonic() + self.way_back, functools.partial(self._refuse, client.address))

    @property
    def way_back(self):
        """Seconds that a refusal takes."""
        return self._dice["down"]._faults.delay_ms / 1000  # pylint: disable=protected-access

    def _refuse(self, address):
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
            raw.sendto(port_unreachable(address, (self.host, self.port)), (address[0], 0))
