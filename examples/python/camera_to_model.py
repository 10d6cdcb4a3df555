"""Frames go from a camera to a model in another process, which reads them where the camera wrote them.

    pip install . onnxruntime
    python examples/python/camera_to_model.py

The camera holds handwritten digits before its lens, as noisy frames of 480 x 480 pixels; the model is the network in
`examples/digits`, which has seen none of them.
"""

import argparse
import importlib.util
import multiprocessing
from pathlib import Path

import numpy as np

import tensorbus

DIGITS = Path(__file__).parents[1] / "digits"
SIDE = 480
# Each of the 8 x 8 pixels of a digit covers so many of the frame's in each direction.
SCALE = SIDE // 8


def camera(frames: int) -> None:
    """Publish a frame of each digit."""
    digits, labels = np.load(DIGITS / "heldout_images.npy"), np.load(DIGITS / "heldout_labels.npy")
    noise = np.random.default_rng(1).integers(0, 64, (SIDE, SIDE), np.uint8)
    with (
        tensorbus.Bus() as bus,
        # With `block` the camera waits for a model that is slow, and no frame is lost.
        bus.publisher("camera", slot_bytes=SIDE * SIDE, overflow="block", block_timeout=60.0) as publisher,
    ):
        publisher.wait_for_subscribers(1, timeout=60.0)
        for number in range(frames):
            digit = np.kron(digits[number % len(digits)] // 2, np.ones((SCALE, SCALE), np.uint8))
            with publisher.loan((SIDE, SIDE), np.uint8) as frame:
                np.add(digit, noise, out=frame.numpy())
                frame.metadata["drawn"] = int(labels[number % len(labels)])


def model(frames: int) -> None:
    """Say which digit is on each frame."""
    import onnxruntime

    network = onnxruntime.InferenceSession(DIGITS / "digits.onnx", providers=["CPUExecutionProvider"])
    right = 0
    with tensorbus.Bus() as bus, bus.subscriber("camera", overflow="block", block_timeout=60.0) as subscriber:
        for _ in range(frames):
            message = subscriber.recv(timeout=60.0)
            frame = message.first.numpy()
            pixels = frame.reshape(8, SCALE, 8, SCALE).mean((1, 3), dtype=np.float32)
            ink = np.clip((pixels - 31.5) / 127.5, 0, 1)
            (logits,) = network.run(None, {"images": ink[np.newaxis, np.newaxis]})
            seen, drawn = int(np.argmax(logits)), int(message.metadata["drawn"])
            right += seen == drawn
            print(
                f"frame {message.sequence}: a {seen}" + ("" if seen == drawn else f", but it was a {drawn}"), flush=True
            )
    print(f"{right} of {frames} right", flush=True)


def main() -> None:
    """Run both, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100)
    frames = parser.parse_args().frames
    if importlib.util.find_spec("onnxruntime") is None:
        raise SystemExit("the model needs onnxruntime: pip install onnxruntime")
    # Each process opens a bus of its own; `spawn` gives it nothing of this one.
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=role, args=(frames,)) for role in (model, camera)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    raise SystemExit(max(abs(process.exitcode or 0) for process in processes))


if __name__ == "__main__":
    main()
