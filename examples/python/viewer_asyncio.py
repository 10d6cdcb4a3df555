"""As `viewer.py`, in an event loop: no thread waits, and other tasks run meanwhile."""

import asyncio

import tensorbus


async def view(bus: tensorbus.Bus) -> None:
    """Show each frame."""
    async with bus.async_subscriber("camera") as subscriber:
        async for message in subscriber:
            print(message.sequence, message.first.numpy().mean(), flush=True)


async def tick() -> None:
    """Do something else."""
    for second in range(1000):
        print(f"second {second}", flush=True)
        await asyncio.sleep(1)


async def main() -> None:
    """Do both until the clock stops."""
    with tensorbus.Bus() as bus:
        viewing = asyncio.create_task(view(bus))
        await tick()
        viewing.cancel()


asyncio.run(main())
