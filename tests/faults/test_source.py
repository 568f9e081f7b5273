"""The slow upstream is a proper one: whole, in ranges, with a strong tag."""

import aiohttp
import pytest

from tests.faults.source import PIECE_BYTES, slow_source


@pytest.mark.asyncio
async def test_it_serves_whole_and_from_an_offset_on_with_a_strong_tag():
    content = bytes(range(256)) * (PIECE_BYTES // 128)
    async with slow_source() as source, aiohttp.ClientSession() as http:
        source.contents["x"] = content
        async with http.get(f"{source.url}/x") as whole:
            assert (whole.status, await whole.read()) == (200, content)
        async with http.get(f"{source.url}/x", headers={"Range": "bytes=100-"}) as rest:
            assert (rest.status, await rest.read()) == (206, content[100:])
            assert rest.headers["Content-Range"] == f"bytes 100-{len(content) - 1}/{len(content)}"
        async with http.get(f"{source.url}/x", headers={"Range": "bytes=5-9"}) as part:
            assert await part.read() == content[5:10]
        assert whole.headers["ETag"] == rest.headers["ETag"]
        assert whole.headers["ETag"].startswith('"')
