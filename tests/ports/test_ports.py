import socket

from tests.free_ports import free_block, free_ports


def test_ports_are_different_and_can_be_listened_on():
    ports = free_ports(5)
    assert len(set(ports)) == 5
    for port in ports:
        with socket.socket() as one:
            one.bind(("127.0.0.1", port))


def test_a_block_lies_in_a_row_and_passes_over_what_is_taken():
    first = free_block(3)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first + 4))
        taken.listen()
        for start in (free_block(4), free_block(4)):
            assert taken.getsockname()[1] not in range(start, start + 4)
