"""Publishes frames as a camera would, ten a second for 100 seconds. Run `viewer.py` beside it, or the Rust example."""

import time

import numpy as np

import tensorbus

# A gradient from left to right.
gradient = np.linspace(0, 127, 640).astype(np.uint8)[:, np.newaxis]

with tensorbus.Bus() as bus, bus.publisher("camera", slot_bytes=480 * 640 * 3) as publisher:
    for number in range(1000):
        with publisher.loan((480, 640, 3), np.uint8) as frame:
            # Written where subscribers read it. The array goes at once: what is published must not be written any more.
            np.add(gradient, number % 128, out=frame.numpy())
            frame.metadata["exposure_ms"] = 8.25
        print(f"frame {number}", flush=True)
        time.sleep(0.1)
