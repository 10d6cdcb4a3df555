"""Train the small digit classifier used by the demo and export it to ONNX.

Writes, next to this script:
  digits.onnx         images f32 [N, 1, 8, 8] in 0..1  ->  logits f32 [N, 10]
  heldout_images.npy  u8 [M, 8, 8], images that took no part in training
  heldout_labels.npy  u8 [M], the digit each one shows

The result depends only on SEED and on the package versions in
requirements.txt, so a second run on the same machine writes the same bytes.
"""

import os

# One thread keeps the order of floating-point sums fixed. This has to be set
# before numpy loads its linear algebra library.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

SEED = 20240
HIDDEN = 96  # units in the hidden layer
COPIES = 20  # distorted copies of each training image
EPOCHS = 30
MIN_ACCURACY = 0.97
OUT = Path(__file__).resolve().parent


def check(ok, message):
    """Like assert, but it also works under `python -O`."""
    if not ok:
        raise SystemExit(f"FAILED: {message}")


def to_u8(levels):
    """Pixel levels 0..16 -> bytes 0..255, as the demo stores them."""
    return np.round(levels * (255.0 / 16.0)).astype(np.uint8)


def split(levels, labels):
    """Stratified split, one third held out, with no image in both parts."""
    train_x, held_x, train_y, held_y = train_test_split(
        levels, labels, test_size=1 / 3, stratify=labels, random_state=SEED
    )
    seen = {image.tobytes() for image in train_x}
    fresh = np.array([image.tobytes() not in seen for image in held_x])
    print(f"held-out images dropped as duplicates: {np.count_nonzero(~fresh)}")
    held_x, held_y = held_x[fresh], held_y[fresh]
    held = {image.tobytes() for image in held_x}
    check(not (seen & held), "an image is in both splits")
    return train_x, train_y, held_x, held_y


def distort(images, rng):
    """Shift each image by up to one pixel and scale it by up to 10 %.

    The two axes are independent and linear in the pixels, so each is an 8x8
    matrix per image: row i says where output pixel i samples the input, with
    linear interpolation. Fractional shifts blur a little, which is also what
    smooth upscaling in the demo does. What falls outside is background.
    """

    def axis_matrices():
        n = len(images)
        scale = rng.uniform(0.9, 1.1, (n, 1))
        shift = rng.uniform(-1.0, 1.0, (n, 1))
        position = (np.arange(8) - 3.5 - shift) / scale + 3.5
        return np.maximum(0.0, 1.0 - abs(position[:, :, None] - np.arange(8)))

    rows, columns = axis_matrices(), axis_matrices()
    return rows @ images @ columns.transpose(0, 2, 1)


def train(images, labels):
    """Fit one hidden layer on the originals and their distorted copies.

    The number of epochs is fixed and nothing here looks at the held-out
    images, so they stay an honest test.
    """
    rng = np.random.default_rng(SEED)
    x = np.concatenate([images] + [distort(images, rng) for _ in range(COPIES)])
    y = np.tile(labels, COPIES + 1)
    model = MLPClassifier(
        hidden_layer_sizes=(HIDDEN,),
        alpha=1e-3,
        batch_size=128,
        max_iter=EPOCHS,
        n_iter_no_change=EPOCHS,  # never stop early
        random_state=SEED,
    )
    with warnings.catch_warnings():
        # Stopping after EPOCHS is intended here.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x.reshape(len(x), 64), y)
    return model


def trainer_logits(model, images):
    """The network in plain numpy: what the exported graph has to compute."""
    hidden = images.reshape(len(images), 64) @ model.coefs_[0] + model.intercepts_[0]
    return np.maximum(hidden, 0.0) @ model.coefs_[1] + model.intercepts_[1]


def export(model, path):
    """Flatten -> Gemm -> Relu -> Gemm, with a free batch dimension."""
    weights = {
        "w1": model.coefs_[0],
        "b1": model.intercepts_[0],
        "w2": model.coefs_[1],
        "b2": model.intercepts_[1],
    }
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["images"], ["pixels"], axis=1),
            helper.make_node("Gemm", ["pixels", "w1", "b1"], ["sum1"]),
            helper.make_node("Relu", ["sum1"], ["hidden"]),
            helper.make_node("Gemm", ["hidden", "w2", "b2"], ["logits"]),
        ],
        "digits",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        [
            numpy_helper.from_array(value.astype(np.float32), name)
            for name, value in weights.items()
        ],
    )
    # Old format and operator versions, so that most runtimes can load it.
    proto = helper.make_model(
        graph,
        producer_name="digits-example",
        ir_version=8,
        opset_imports=[helper.make_opsetid("", 13)],
    )
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def demo_round_trip(images_u8, factor):
    """Upscale bilinearly, round to bytes, box-average back to 8x8 bytes.

    Nearest-neighbour upscaling needs no such check: averaging its equal
    pixels gives the original bytes back.
    """
    position = (np.arange(8 * factor) + 0.5) / factor - 0.5
    position = np.clip(position, 0, 7)  # repeat the edge pixels
    matrix = np.maximum(0.0, 1.0 - abs(position[:, None] - np.arange(8)))
    big = np.round(matrix @ images_u8 @ matrix.T)
    small = big.reshape(-1, 8, factor, 8, factor).mean(axis=(2, 4))
    return np.round(small).astype(np.uint8)


def verify(model, path, held_levels, held_u8, labels):
    """Run the exported file in onnxruntime against trainer and labels."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )

    def run(images, batch):
        x = images.reshape(-1, 1, 8, 8).astype(np.float32)
        parts = [
            session.run(["logits"], {"images": x[i : i + batch]})[0]
            for i in range(0, len(x), batch)
        ]
        return np.concatenate(parts)

    def report(name, predicted):
        accuracy = np.mean(predicted == labels)
        print(f"accuracy, {name}: {accuracy:.4f}")
        check(accuracy >= MIN_ACCURACY, f"{name}: below {MIN_ACCURACY}")

    images = held_levels / 16.0
    count = len(images)
    predicted = model.predict(images.reshape(count, 64))
    report("trainer", predicted)
    expected = trainer_logits(model, images)
    for batch in (1, 7, count):
        logits = run(images, batch)
        check(logits.shape == (count, 10), "wrong output shape")
        check(np.allclose(logits, expected, atol=1e-3), "logits differ from trainer")
        check((logits.argmax(1) == predicted).all(), "labels differ from trainer")
        report(f"onnx, batch {batch}", logits.argmax(1))

    report("onnx, from u8", run(held_u8 / 255.0, count).argmax(1))
    for factor in (4, 16, 40):
        back = demo_round_trip(held_u8, factor)
        name = f"onnx, bilinear x{factor} and back"
        report(name, run(back / 255.0, count).argmax(1))


def main():
    print(f"seed: {SEED}")
    digits = load_digits()
    train_x, train_y, held_x, held_y = split(digits.images, digits.target)
    print(f"training images: {len(train_x)}, held out: {len(held_x)}")

    model = train(train_x / 16.0, train_y)
    export(model, OUT / "digits.onnx")
    held_u8 = to_u8(held_x)
    for name, array in (
        ("heldout_images.npy", held_u8),
        ("heldout_labels.npy", held_y.astype(np.uint8)),
    ):
        with open(OUT / name, "wb") as file:
            array = np.ascontiguousarray(array)
            np.lib.format.write_array(file, array, version=(1, 0))

    # Check the files as written, not the arrays they came from.
    stored_images = np.load(OUT / "heldout_images.npy")
    stored_labels = np.load(OUT / "heldout_labels.npy")
    check((stored_images == held_u8).all(), "stored images differ")
    verify(model, OUT / "digits.onnx", held_x, stored_images, stored_labels)


if __name__ == "__main__":
    main()
