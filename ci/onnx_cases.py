"""Writes cases beside those of the ONNX standard, with what ONNX Runtime gives for them.

They are forms of operators that the standard's own leave out, mostly of older versions.
Argument: the directory for them.
"""

import pathlib
import shutil
import sys
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state as errors

Array = np.ndarray
OUT = pathlib.Path(sys.argv[1])
RANDOM = np.random.default_rng(7)
BOOL, F32, I8, U8, I32, I64 = (
    getattr(TensorProto, name) for name in ["BOOL", "FLOAT", "INT8", "UINT8", "INT32", "INT64"]
)


def numbers(*shape: int) -> Array:
    """Numbers around 0."""
    return RANDOM.standard_normal(shape).astype(np.float32)


def write(
    name: str,
    opset: int,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, Array],
    outputs: dict[str, int],
    constants: dict[str, Array] | None = None,
) -> None:
    """A case: nodes, inputs by name, names of outputs with their types, constants by name."""

    def info(name: str, dtype: int, shape: list[None] | None) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, dtype, shape)

    def dtype(array: Array) -> int:
        return helper.np_dtype_to_tensor_dtype(array.dtype)

    shapes = {key: [None] * array.ndim for key, array in inputs.items()}
    graph = helper.make_graph(
        nodes,
        name,
        [info(key, dtype(array), shapes[key]) for key, array in inputs.items()],
        [info(key, kind, None) for key, kind in outputs.items()],
        [numpy_helper.from_array(array, key) for key, array in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        expected = session.run(list(outputs), inputs)
    except (
        errors.Fail,
        errors.InvalidArgument,
        errors.InvalidGraph,
        errors.NotImplemented,
        errors.RuntimeException,
    ) as e:
        print("left out:", name, str(e).splitlines()[0][:150])
        return
    data = OUT / name / "test_data_set_0"
    data.mkdir(parents=True)
    onnx.save(model, OUT / name / "model.onnx")
    for what, arrays in [("input", inputs.values()), ("output", expected)]:
        for index, array in enumerate(arrays):
            tensor = numpy_helper.from_array(np.asarray(array))
            (data / f"{what}_{index}.pb").write_bytes(tensor.SerializeToString())


def one(
    name: str,
    opset: int,
    operator: str,
    inputs: dict[str, Array],
    outputs: dict[str, int] | None = None,
    constants: dict[str, Array] | None = None,
    **attributes: Any,
) -> None:
    """A case of one node, whose inputs are the case's inputs and constants."""
    outputs = outputs or {"y": F32}
    names = [*inputs, *(constants or {})]
    node = helper.make_node(operator, names, list(outputs), **attributes)
    write(name, opset, [node], inputs, outputs, constants)


def softmax() -> None:
    """Softmax and LogSoftmax, which changed with opset 13."""
    for operator in ["Softmax", "LogSoftmax"]:
        for opset in [7, 11, 12, 13, 17]:
            for axis in [None, 0, 1, 2] + ([-1, -2] if opset >= 11 else []):
                attributes = {} if axis is None else {"axis": axis}
                name = f"{operator.lower()}_opset{opset}_axis_{'default' if axis is None else axis}"
                one(name.replace("-", "minus"), opset, operator, {"x": numbers(2, 3, 4)}, **attributes)


def truth() -> None:
    """What is true when numbers become truth values."""
    arrays = {
        "f32": np.array([0, -0.0, 0.5, -0.2, np.nan, np.inf, 3], np.float32),
        "i32": np.array([0, 5, -1, 1 << 30], np.int32),
        "i64": np.array([0, 5, -1], np.int64),
        "u8": np.array([0, 5, 255], np.uint8),
        "i8": np.array([0, 5, -1], np.int8),
        "bool": np.array([True, False]),
    }
    for name, array in arrays.items():
        one(f"cast_{name}_to_bool", 13, "Cast", {"x": array}, {"y": BOOL}, to=BOOL)
        nodes = [
            helper.make_node("Cast", ["x"], ["b"], to=BOOL),
            helper.make_node("Not", ["b"], ["n"]),
            helper.make_node("Cast", ["b"], ["y"], to=F32),
        ]
        write(f"cast_{name}_to_bool_and_on", 13, nodes, {"x": array}, {"n": BOOL, "y": F32})
    like = {"x": arrays["f32"], "like": arrays["bool"]}
    one("castlike_bool", 15, "CastLike", like, {"y": BOOL})
    one("castlike_i32", 15, "CastLike", {"x": arrays["f32"][:4], "like": arrays["i32"]}, {"y": I32})


def extremes() -> None:
    """Places of extremes, signs, lengths."""
    arrays = {"f32": np.array([[2, 7, 7], [1, 1, 0]], np.float32), "i32": np.array([[2, 7, 7], [1, 1, 0]], np.int32)}
    for operator in ["ArgMax", "ArgMin"]:
        for kind, array in arrays.items():
            for axis in [0, 1, -1]:
                for keep in [0, 1]:
                    for last in [0, 1]:
                        name = f"{operator.lower()}_{kind}_axis_{axis}_keep_{keep}_last_{last}".replace("-", "minus")
                        attributes = {"axis": axis, "keepdims": keep, "select_last_index": last}
                        one(name, 13, operator, {"x": array}, {"y": I64}, **attributes)
    one("sign_f32", 13, "Sign", {"x": np.array([-2, -0.0, 0, 3, np.inf, -np.inf], np.float32)})
    one("sign_i32", 13, "Sign", {"x": np.array([-2, 0, 3], np.int32)}, {"y": I32})
    for p in [1, 2]:
        one(f"lpnormalization_{p}", 13, "LpNormalization", {"x": numbers(3, 4)}, p=p, axis=0)


def products() -> None:
    """Products of matrices and vectors, also of whole numbers."""
    for rank in [1, 2, 3, 4]:
        shape = [2, 3, 4, 5][4 - rank :]
        one(f"matmul_{rank}d_by_constant_vector", 13, "MatMul", {"a": numbers(*shape)}, constants={"b": numbers(5)})
        one(f"matmul_{rank}d_by_vector", 13, "MatMul", {"a": numbers(*shape), "b": numbers(5)})
        one(
            f"matmul_vector_by_{rank}d",
            13,
            "MatMul",
            {"a": numbers(shape[-2] if rank > 1 else 5), "b": numbers(*shape)},
        )
    for equation, shapes in [
        ("ij,jk->ik", [(2, 3), (3, 4)]),
        ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]),
        ("bhid,bhjd->bhij", [(1, 2, 3, 4), (1, 2, 5, 4)]),
        ("ij->ji", [(2, 3)]),
        ("ij->i", [(2, 3)]),
        ("i,i->", [(4,), (4,)]),
        ("ii->i", [(3, 3)]),
        ("...ij,...jk->...ik", [(2, 3, 4), (2, 4, 5)]),
    ]:
        inputs = {f"x{index}": numbers(*shape) for index, shape in enumerate(shapes)}
        name = "einsum_" + "".join(c if c.isalpha() else "_" for c in equation)
        one(name, 13, "Einsum", inputs, equation=equation)
    a, b = RANDOM.integers(0, 255, (2, 3, 4), np.uint8), RANDOM.integers(-128, 127, (4, 5), np.int8)
    one("matmulinteger", 10, "MatMulInteger", {"a": a}, {"y": I32}, {"b": b})
    zeros = {"b": b, "a_zero": np.array(7, np.uint8), "b_zero": np.array(-3, np.int8)}
    one("matmulinteger_zero_points", 10, "MatMulInteger", {"a": a}, {"y": I32}, zeros)
    zeros["b_zero"] = np.array([1, 2, 3, 4, 5], np.int8)
    one("matmulinteger_zero_points_by_column", 10, "MatMulInteger", {"a": a}, {"y": I32}, zeros)
    x = {"x": RANDOM.integers(0, 255, (1, 2, 5, 5), np.uint8)}
    w = {"w": RANDOM.integers(0, 255, (3, 2, 3, 3), np.uint8), "x_zero": np.array(7, np.uint8)}
    one("convinteger", 10, "ConvInteger", x, {"y": I32}, w, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    for opset in [9, 11, 13]:
        one(
            f"gemm_opset{opset}",
            opset,
            "Gemm",
            {"a": numbers(4, 2), "b": numbers(3, 4), "c": numbers(3)},
            transA=1,
            transB=1,
        )


def layers() -> None:
    """Layers of networks."""
    for axis in [-1, 1]:
        shape = (5,) if axis == -1 else (4, 5)
        constants = {"scale": numbers(*shape), "bias": numbers(*shape)}
        one(
            f"layernormalization_axis_{axis}".replace("-", "minus"),
            17,
            "LayerNormalization",
            {"x": numbers(3, 4, 5)},
            None,
            constants,
            axis=axis,
        )
    for direction, count in [("forward", 1), ("reverse", 1), ("bidirectional", 2)]:
        weights = {"w": numbers(count, 9, 4), "r": numbers(count, 9, 3), "b": numbers(count, 18)}
        outputs = {"y": F32, "h": F32}
        attributes = {"hidden_size": 3, "direction": direction}
        one(
            f"gru_{direction}",
            14,
            "GRU",
            {"x": numbers(5, 2, 4)},
            outputs,
            weights,
            linear_before_reset=1,
            **attributes,
        )
        weights = {"w": numbers(count, 12, 4), "r": numbers(count, 12, 3), "b": numbers(count, 24)}
        one(f"lstm_{direction}", 14, "LSTM", {"x": numbers(5, 2, 4)}, {**outputs, "c": F32}, weights, **attributes)
    lengths = {"w": numbers(1, 12, 4), "r": numbers(1, 12, 3), "b": numbers(1, 24), "l": np.array([5, 2], np.int32)}
    one("lstm_lengths", 14, "LSTM", {"x": numbers(5, 2, 4)}, {"y": F32, "h": F32}, lengths, hidden_size=3)
    for opset in [9, 14, 15]:
        names = ["scale", "bias", "mean"]
        constants = {**{name: numbers(3) for name in names}, "variance": np.abs(numbers(3)) + 0.5}
        one(
            f"batchnormalization_opset{opset}", opset, "BatchNormalization", {"x": numbers(2, 3, 4, 4)}, None, constants
        )
    one(
        "instancenormalization",
        9,
        "InstanceNormalization",
        {"x": numbers(2, 3, 4, 4)},
        None,
        {"s": numbers(3), "b": numbers(3)},
    )
    for opset in [7, 10, 12, 13]:
        constants = {} if opset < 12 else {"ratio": np.array(0.3, np.float32)}
        attributes = {"ratio": 0.3} if opset < 12 else {}
        one(f"dropout_opset{opset}", opset, "Dropout", {"x": numbers(3, 4)}, None, constants, **attributes)
    one("prelu_opset9", 9, "PRelu", {"x": numbers(2, 3, 4)}, None, {"slope": numbers(3, 1)})


def windows() -> None:
    """Convolutions and pools, and how they are padded."""
    x = {"x": numbers(1, 2, 7, 6)}
    for opset in [8, 11, 13]:
        for pad in ["SAME_UPPER", "SAME_LOWER", "VALID"]:
            name = f"{pad.lower()}_opset{opset}"
            even = {"auto_pad": pad, "kernel_shape": [2, 3], "strides": [2, 1]}
            one(f"conv_{name}", opset, "Conv", x, None, {"w": numbers(3, 2, 2, 3)}, **even)
            one(f"maxpool_{name}", opset, "MaxPool", x, **even)
            one(f"averagepool_{name}", opset, "AveragePool", x, **even)
            one(f"averagepool_counted_{name}", opset, "AveragePool", x, count_include_pad=1, **even)
        one(f"maxpool_no_strides_opset{opset}", opset, "MaxPool", x, kernel_shape=[3, 2])
        one(f"averagepool_no_strides_opset{opset}", opset, "AveragePool", x, kernel_shape=[3, 2], pads=[1, 0, 1, 1])
        if opset >= 10:
            one(f"maxpool_ceil_opset{opset}", opset, "MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
            one(
                f"averagepool_ceil_opset{opset}",
                opset,
                "AveragePool",
                x,
                kernel_shape=[3, 3],
                strides=[2, 2],
                ceil_mode=1,
            )
            pads = {
                "kernel_shape": [3, 3],
                "strides": [2, 2],
                "ceil_mode": 1,
                "pads": [1, 1, 1, 1],
                "count_include_pad": 1,
            }
            one(f"averagepool_ceil_counted_opset{opset}", opset, "AveragePool", x, **pads)
        w = {"w": numbers(2, 3, 3, 3)}
        plain = {"kernel_shape": [3, 3], "strides": [2, 2]}
        one(f"convtranspose_opset{opset}", opset, "ConvTranspose", x, None, w, **plain)
        one(
            f"convtranspose_padded_opset{opset}",
            opset,
            "ConvTranspose",
            x,
            None,
            w,
            pads=[1, 1, 0, 1],
            output_padding=[1, 0],
            **plain,
        )
        one(f"convtranspose_same_opset{opset}", opset, "ConvTranspose", x, None, w, auto_pad="SAME_UPPER", **plain)
        groups = {"w": numbers(2, 3, 3, 3)}
        one(f"convtranspose_groups_opset{opset}", opset, "ConvTranspose", x, None, groups, group=2, **plain)
        one(
            f"conv_dilated_opset{opset}",
            opset,
            "Conv",
            x,
            None,
            {"w": numbers(4, 1, 2, 2)},
            group=2,
            dilations=[2, 3],
            kernel_shape=[2, 2],
        )
        one(
            f"conv_1d_opset{opset}",
            opset,
            "Conv",
            {"x": numbers(1, 2, 9)},
            None,
            {"w": numbers(3, 2, 4)},
            kernel_shape=[4],
            strides=[2],
            pads=[1, 2],
        )


def sizes() -> None:
    """Images that are resized."""
    x = {"x": numbers(1, 1, 4, 5)}
    modes = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]
    for coordinates in modes:
        for what, size in [("half", [1, 1, 0.5, 0.6]), ("double", [1, 1, 2, 3]), ("odd", [1, 1, 1.7, 2.3])]:
            constants = {"roi": np.array([], np.float32), "scales": np.array(size, np.float32)}
            whole = {**constants, "scales": np.array([], np.float32)}
            to = np.array([int(a * b) for a, b in zip(x["x"].shape, size, strict=True)], np.int64)
            for mode in ["linear", "nearest"] + (["cubic"] if what == "double" else []):
                rounding = (
                    ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"] if mode == "nearest" else ["floor"]
                )
                for nearest in rounding:
                    name = f"resize_{mode}_{coordinates}_{what}" + (f"_{nearest}" if mode == "nearest" else "")
                    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
                    if mode == "nearest":
                        attributes["nearest_mode"] = nearest
                    for opset in [11, 13]:
                        one(f"{name}_opset{opset}", opset, "Resize", x, None, constants, **attributes)
                        one(
                            f"{name}_sizes_opset{opset}", opset, "Resize", x, None, {**whole, "sizes": to}, **attributes
                        )
    one("resize_opset10", 10, "Resize", x, None, {"scales": np.array([1, 1, 2, 2], np.float32)}, mode="nearest")
    for mode in ["nearest", "linear"]:
        one(
            f"upsample_{mode}_opset9", 9, "Upsample", x, None, {"scales": np.array([1, 1, 2, 3], np.float32)}, mode=mode
        )
        one(f"upsample_{mode}_opset7", 7, "Upsample", x, scales=[1.0, 1.0, 2.0, 3.0], mode=mode)


def shapes() -> None:
    """Operators that move, cut and sum elements."""
    x = {"x": numbers(3, 4, 5)}
    far = (1 << 63) - 1
    one("slice_opset9", 9, "Slice", x, starts=[1, 0], ends=[far, -1], axes=[0, 2])
    bounds = {"starts": np.array([-1, 4], np.int64), "ends": np.array([-far, 0], np.int64)}
    rest = {"axes": np.array([0, 2], np.int64), "steps": np.array([-1, -2], np.int64)}
    one("slice_backwards", 13, "Slice", x, None, {**bounds, **rest})
    for mode in ["constant", "reflect", "edge"]:
        one(f"pad_{mode}_opset10", 10, "Pad", x, mode=mode, pads=[1, 0, 2, 0, 1, 1])
        one(f"pad_{mode}_opset13", 13, "Pad", x, None, {"pads": np.array([1, 0, 2, 0, 1, 1], np.int64)}, mode=mode)
    one(
        "pad_crops",
        13,
        "Pad",
        x,
        None,
        {"pads": np.array([-1, 0, 0, 0, -1, 1], np.int64), "value": np.array(2, np.float32)},
    )
    for opset in [9, 10, 11]:
        top = {"y": F32, "i": I64}
        if opset == 9:
            one("topk_opset9", 9, "TopK", x, top, k=2, axis=1)
        else:
            one(f"topk_opset{opset}", opset, "TopK", x, top, {"k": np.array([2], np.int64)}, axis=1)
    two = {"y0": F32, "y1": F32}
    one("split_opset7", 7, "Split", x, two, axis=1, split=[1, 3])
    one("split_equal_opset11", 11, "Split", x, two, axis=1)
    one("split_opset13", 13, "Split", x, two, {"split": np.array([2, 3], np.int64)}, axis=2)
    one("split_uneven_opset18", 18, "Split", x, two, axis=2, num_outputs=2)
    for operator in [
        f"Reduce{name}" for name in ["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSumExp"]
    ]:
        one(f"{operator.lower()}_opset11", 11, operator, x, axes=[0, -1], keepdims=0)
        one(f"{operator.lower()}_all_opset11", 11, operator, x, keepdims=0)
        opset = 13 if operator == "ReduceSum" else 18
        for noop in [0, 1]:
            none = {"axes": np.array([], np.int64)}
            one(f"{operator.lower()}_no_axes_{noop}", opset, operator, x, None, none, noop_with_empty_axes=noop)
    one("clip_opset6", 6 + 1, "Clip", x, min=-0.5, max=0.5)
    one("clip_opset11", 11, "Clip", x, None, {"min": np.array(-0.5, np.float32)})
    one("squeeze_opset11", 11, "Squeeze", {"x": numbers(1, 3, 1)}, axes=[0, -1])
    one("unsqueeze_opset11", 11, "Unsqueeze", {"x": numbers(3)}, axes=[0, -1])
    one("flatten_minus", 13, "Flatten", x, axis=-1)
    one(
        "onehot",
        11,
        "OneHot",
        {"x": np.array([[0, 2], [-1, 9]], np.int64)},
        None,
        {"depth": np.array(3, np.int64), "values": np.array([0, 1], np.float32)},
        axis=1,
    )
    one(
        "range_down",
        11,
        "Range",
        {"a": np.array(7, np.int64), "b": np.array(-2, np.int64), "d": np.array(-3, np.int64)},
        {"y": I64},
    )
    one("gather_negative", 11, "Gather", x, None, {"i": np.array([[-1, 0], [2, -3]], np.int64)}, axis=0)
    one(
        "scatternd_add",
        16,
        "ScatterND",
        x,
        None,
        {"i": np.array([[0], [0]], np.int64), "u": numbers(2, 4, 5)},
        reduction="add",
    )
    one("trilu_above", 14, "Trilu", x, None, {"k": np.array(-1, np.int64)}, upper=0)
    one("cumsum", 14, "CumSum", x, None, {"axis": np.array(-1, np.int64)}, exclusive=1, reverse=1)
    one("tile", 13, "Tile", x, None, {"r": np.array([2, 1, 3], np.int64)})
    one("expand", 13, "Expand", {"x": numbers(3, 1)}, None, {"shape": np.array([2, 1, 6], np.int64)})


def arithmetic() -> None:
    """Operators of one element at a time."""
    whole = {"a": np.array([7, -7, 7, -7, 0], np.int32), "b": np.array([2, 2, -2, -2, 5], np.int32)}
    for operator in ["Add", "Sub", "Mul", "Div", "Mod", "Max", "Min"]:
        opset = 13
        one(f"{operator.lower()}_i32", opset, operator, whole, {"y": I32})
        wide = {key: array.astype(np.int64) for key, array in whole.items()}
        one(f"{operator.lower()}_i64", opset, operator, wide, {"y": I64})
    floats = {"a": np.array([7.5, -7.5, 7.5, -7.5], np.float32), "b": np.array([2, 2, -2, -2], np.float32)}
    one("mod_f32", 13, "Mod", floats, fmod=1)
    one("pow_f32", 13, "Pow", {"a": np.abs(numbers(4)), "b": numbers(4)})
    one("pow_i32", 13, "Pow", {"a": np.array([2, -3], np.int32), "b": np.array([3, 2], np.int32)}, {"y": I32})
    one("round", 11, "Round", {"x": np.array([0.5, 1.5, 2.5, -0.5, -1.5, 2.4], np.float32)})
    for operator in ["Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"]:
        one(f"{operator.lower()}_i64", 16, operator, {"a": np.array([1, 2, 3]), "b": np.array([3, 2, 1])}, {"y": BOOL})
    flags = {"a": np.array([True, True, False]), "b": np.array([True, False, False])}
    for operator in ["And", "Or", "Xor", "Equal"]:
        one(f"{operator.lower()}_bool", 13, operator, flags, {"y": BOOL})
    special = {"x": np.array([np.nan, np.inf, -np.inf, 0], np.float32)}
    one("isnan", 13, "IsNaN", special, {"y": BOOL})
    one("isinf", 10, "IsInf", special, {"y": BOOL})
    x = {"x": np.array([2.5, -2.5, 2.9, -2.9], np.float32)}
    for kind, name in [(I32, "i32"), (I64, "i64"), (I8, "i8")]:
        one(f"cast_f32_to_{name}", 13, "Cast", x, {"y": kind}, to=kind)
    one("where", 9, "Where", {"c": np.array([[True], [False]]), "a": numbers(2, 3), "b": numbers(3)})


def quantized() -> None:
    """Numbers as bytes and back."""
    x = numbers(2, 3, 3)
    scale = np.array([0.05, 0.1, 0.02], np.float32)
    zero = np.array([0, 10, 200], np.uint8)
    one("quantizelinear_default_axis", 13, "QuantizeLinear", {"x": x}, {"y": U8}, {"s": scale, "z": zero})
    one("quantizelinear_last_axis", 13, "QuantizeLinear", {"x": x}, {"y": U8}, {"s": scale, "z": zero}, axis=-1)
    one("quantizelinear", 13, "QuantizeLinear", {"x": x}, {"y": U8}, {"s": scale[0], "z": zero[1]})
    one(
        "quantizelinear_1d",
        13,
        "QuantizeLinear",
        {"x": x[0, 0]},
        {"y": I8},
        {"s": scale[0], "z": np.array(-3, np.int8)},
    )
    q = RANDOM.integers(0, 255, (2, 3, 3), np.uint8)
    one("dequantizelinear_default_axis", 13, "DequantizeLinear", {"x": q}, None, {"s": scale, "z": zero})
    one("dequantizelinear_last_axis", 13, "DequantizeLinear", {"x": q}, None, {"s": scale, "z": zero}, axis=-1)
    one("dequantizelinear", 10, "DequantizeLinear", {"x": q}, None, {"s": scale[0], "z": zero[1]})
    one("dynamicquantizelinear", 11, "DynamicQuantizeLinear", {"x": x}, {"y": U8, "s": F32, "z": U8})


shutil.rmtree(OUT, ignore_errors=True)
for part in [softmax, truth, extremes, products, layers, windows, sizes, shapes, arithmetic, quantized]:
    part()
print(len(list(OUT.iterdir())), "cases in", OUT)
