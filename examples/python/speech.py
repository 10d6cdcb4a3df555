"""Finds speech in audio: blocks of sound on one topic, the segments in which somebody speaks on another.

    apt install espeak-ng                              # speaks the sentences
    pip install . onnxruntime
    pip install --no-deps silero-vad                   # a model of 2 MB; it would bring PyTorch, which is not needed
    python examples/python/speech.py

Three processes: a microphone, a detector, and this one, which prints what was found beside what was spoken.
"""

import importlib.util
import io
import multiprocessing
import shutil
import subprocess
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt

import tensorbus

RATE = 16_000
# The model takes blocks of 32 ms, and the end of the one before.
BLOCK, CONTEXT = 512, 64
SENTENCES = ["The quick brown fox jumps over the lazy dog.", "Nobody has said a word for two seconds."]
PAUSE = 2.0
# Speech begins above the one and ends after this many blocks below the other.
BEGINS, ENDS, QUIET_BLOCKS = 0.5, 0.35, 4

Samples = npt.NDArray[np.float32]


def speak(sentence: str) -> Samples:
    """A sentence as samples."""
    spoken = subprocess.run(["espeak-ng", "--stdout", sentence], check=True, stdout=subprocess.PIPE).stdout
    with wave.open(io.BytesIO(spoken)) as file:
        rate, samples = file.getframerate(), np.frombuffer(file.readframes(1 << 24), np.int16)
    times = np.arange(0, len(samples) / rate, 1 / RATE)
    return np.interp(times, np.arange(len(samples)) / rate, samples / 32768).astype(np.float32)


def recording() -> tuple[Samples, list[tuple[float, float]]]:
    """Pauses with sentences between them, and when each is spoken."""
    hiss = np.random.default_rng(1).normal(0, 1e-3, 1 << 20).astype(np.float32)
    pause = hiss[: int(PAUSE * RATE)]
    parts, spoken, length = [pause], [], len(pause)
    for sentence in map(speak, SENTENCES):
        spoken.append((length / RATE, (length + len(sentence)) / RATE))
        parts += [sentence, pause]
        length += len(sentence) + len(pause)
    return np.concatenate(parts), spoken


def microphone(samples: Samples) -> None:
    """Publish the recording, block by block."""
    with (
        tensorbus.Bus() as bus,
        bus.publisher("audio", slots=32, slot_bytes=BLOCK * 4, depth=16, overflow="block", block_timeout=60.0) as audio,
    ):
        audio.wait_for_subscribers(1, timeout=60.0)
        blocks = len(samples) // BLOCK
        for number in range(blocks):
            with audio.loan(BLOCK, np.float32) as block:
                block.numpy()[:] = samples[number * BLOCK : (number + 1) * BLOCK]
                block.metadata["last"] = number == blocks - 1


def detector() -> None:
    """Read blocks, and publish the beginning and the end of each segment of speech, in seconds."""
    import onnxruntime

    model = onnxruntime.InferenceSession(model_file(), providers=["CPUExecutionProvider"])
    heard, state = np.zeros((1, CONTEXT + BLOCK), np.float32), np.zeros((2, 1, 128), np.float32)
    rate = np.array(RATE, np.int64)
    with (
        tensorbus.Bus() as bus,
        bus.publisher("speech", overflow="block", block_timeout=60.0) as speech,
        bus.subscriber("audio", depth=16, overflow="block", block_timeout=60.0) as audio,
    ):
        begin, quiet, is_last = None, 0, False
        for message in audio:
            heard[:, :CONTEXT] = heard[:, BLOCK:]
            heard[:, CONTEXT:] = message.first.numpy()
            probability, state = model.run(None, {"input": heard, "state": state, "sr": rate})
            is_last = bool(message.metadata["last"])
            quiet = quiet + 1 if probability[0, 0] < ENDS else 0
            if begin is None and probability[0, 0] >= BEGINS:
                begin = message.sequence
            elif begin is not None and (quiet == QUIET_BLOCKS or is_last):
                end = message.sequence + 1 - quiet
                speech.publish(np.array([begin, end]) * (BLOCK / RATE), metadata={"end": False})
                begin = None
            if is_last:
                break
        speech.publish(np.empty(0), metadata={"end": True})


def model_file() -> Path:
    """The model that the package silero-vad brings; the package itself is not imported."""
    package = importlib.util.find_spec("silero_vad")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "data" / "silero_vad.onnx"


def main() -> None:
    """Start the others and print what they find."""
    if shutil.which("espeak-ng") is None:
        raise SystemExit("nobody speaks: install espeak-ng, such as by `apt install espeak-ng`")
    for module, install in [("onnxruntime", "onnxruntime"), ("silero_vad", "--no-deps silero-vad")]:
        if importlib.util.find_spec(module) is None:
            raise SystemExit(f"the detector needs {module}: pip install {install}")
    samples, spoken = recording()
    for begin, end in spoken:
        print(f"spoken from {begin:.2f} to {end:.2f} s", flush=True)
    # Each process opens a bus of its own; `spawn` gives it nothing of this one.
    spawn = multiprocessing.get_context("spawn")
    with tensorbus.Bus() as bus, bus.subscriber("speech", overflow="block", block_timeout=60.0) as speech:
        processes = [spawn.Process(target=detector), spawn.Process(target=microphone, args=(samples,))]
        for process in processes:
            process.start()
        while not (message := speech.recv(timeout=60.0)).metadata["end"]:
            begin, end = message.first.numpy()
            print(f"heard from {begin:.2f} to {end:.2f} s", flush=True)
        for process in processes:
            process.join()
    raise SystemExit(max(abs(process.exitcode or 0) for process in processes))


if __name__ == "__main__":
    main()
