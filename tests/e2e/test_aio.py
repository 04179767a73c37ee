"""The asynchronous client on trio and on asyncio."""

from __future__ import annotations

from contextlib import aclosing

import anyio
import pytest

import company.aio
from tests.support import call_samples as samples
from tests.support.company_processes import RunningCompany


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_calls_and_maps_in_tasks(company: RunningCompany, backend: str) -> None:
    async def main() -> tuple[list[int], list[int]]:
        found: list[int] = []
        async with company_aio.executor(company.client) as ex:
            with pytest.raises(ZeroDivisionError):
                await ex.run(samples.divide, 1, 0)

            async def one(i: int) -> None:
                found.append(await ex.run(samples.square, i))

            async with anyio.create_task_group() as group:
                for i in range(5):
                    group.start_soon(one, i)
            async with aclosing(ex.map(samples.square, range(50))) as results:
                mapped = [value async for value in results]
        return sorted(found), mapped

    found, mapped = anyio.run(main, backend=backend)
    assert found == [0, 1, 4, 9, 16]
    assert mapped == [i * i for i in range(50)]


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_leaving_by_a_time_limit_leaves_nothing_behind(company: RunningCompany, backend: str) -> None:
    async def main() -> bool:
        with anyio.move_on_after(0.5) as scope:
            async with company_aio.executor(company.client) as ex:
                await ex.run(samples.slow, 5.0)
        return scope.cancelled_caught

    assert anyio.run(main, backend=backend)


company_aio = company.aio
