"""A network that is cut, and says nothing of it."""

import ctypes
import socket
import struct

SO_ATTACH_FILTER = 26  # socket(7)


def sever(sock: socket.socket) -> None:
    """Let no packet come in to this connection any more: its peer hears nothing, not even that it is closed."""
    drop = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))  # classic BPF: `ret 0`
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", 1, ctypes.addressof(drop)))


def given_up() -> tuple[socket.socket, socket.socket]:
    """A connection that its kernel gives up in a moment (ETIMEDOUT), as it does with one that answers no probe, and its far end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1)
    sever(far)
    near.sendall(b"?")
    return near, far
