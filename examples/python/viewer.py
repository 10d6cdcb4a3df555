"""Shows what it receives from a camera: `camera.py`, or the Rust example `publisher`."""

import tensorbus

with tensorbus.Bus() as bus, bus.subscriber("camera") as subscriber:
    for message in subscriber:
        # The publisher's bytes, mapped read-only. They stay as long as the array.
        frame = message.first.numpy()
        print(message.sequence, frame.shape, frame.dtype, frame.mean(), message.metadata, flush=True)
