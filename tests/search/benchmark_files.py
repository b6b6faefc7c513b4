"""Benchmark files in the layouts of NAS-Bench-201, NATS-Bench and NASLib, of three architectures."""

from __future__ import annotations

import bz2
import pickle
import struct
from collections import OrderedDict

import numpy as np

NATS = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|none~0|nor_conv_3x3~1|avg_pool_3x3~2|"
"""The architecture whose accuracies NATS-Bench's own documentation shows."""
SKIPS = "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|"
NONES = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
ARCHS = (NONES, NATS, SKIPS)
ACCURACIES = {NATS: (91.79, 91.76, 91.20), SKIPS: (70.5, 71.5, 72.5), NONES: (10.0, 10.0, 10.0)}
"""cifar10, ori-test, after 200 epochs, of the seeds."""
SEEDS = (777, 888, 999)


def training(arch, epochs, accuracy, splits=("ori-test",), seed=777):
    """One training as the API of NAS-Bench-201 saves it, numbers as numpy's."""
    last = epochs - 1
    return {
        "name": "infer.tiny",
        "net_state_dict": None,
        "train_acc1es": {last: np.float64(99.0)},
        "train_acc5es": None,
        "train_losses": {last: 0.01},
        "train_times": None,
        "arch_config": {"channel": 16, "num_cells": 5, "arch_str": arch, "class_num": 10},
        "params": np.float64(0.802426),
        "flop": 113.95137,
        "seed": seed,
        "epochs": epochs,
        "latency": [0.01],
        "eval_names": list(splits),
        "eval_acc1es": {f"{split}@{epoch}": np.float64(accuracy) for split in splits for epoch in (0, last)}
        | {f"{split}@0": 1.0 for split in splits},
        "eval_losses": {f"{split}@{last}": np.float32(0.5) for split in splits},
        "eval_times": {},
    }


def trainings(arch, epochs):
    """All trainings of an architecture for so many epochs: cifar10, and cifar100 with one seed."""
    drop = 0.0 if epochs == 200 else 5.0
    results = {
        ("cifar10", seed): training(arch, epochs, accuracy - drop, seed=seed)
        for seed, accuracy in zip(SEEDS, ACCURACIES[arch], strict=True)
    }
    results["cifar100", 777] = training(arch, epochs, 40.0, ("x-valid", "x-test", "ori-test"))
    return {
        "arch_index": ARCHS.index(arch),
        "arch_str": arch,
        "all_results": results,
        "dataset_seed": OrderedDict(cifar10=list(SEEDS), cifar100=[777]),
        "clear_net_done": True,
    }


def nasbench201(lengths=("less", "full")):
    """The content of NAS-Bench-201's file; with `12` and `200` that of NATS-Bench's."""
    epochs = {"less": 12, "full": 200, "12": 12, "200": 200}
    infos = {
        index: OrderedDict((length, trainings(arch, epochs[length])) for length in lengths)
        for index, arch in enumerate(ARCHS)
    }
    return {"meta_archs": list(ARCHS), "arch2infos": infos, "evaluated_indexes": set(infos)}


def naslib():
    """The content of one of NASLib's files."""
    return {
        arch: {
            "cifar10-valid": {
                "train_acc1es": [50.0] * 199 + [99.0],
                "eval_acc1es": [np.float64(20.0)] * 199 + [np.float64(mean)],
                "train_losses": [1.0] * 200,
                "eval_losses": [1.0] * 199 + [0.25],
                "cost_info": {"flops": 113.95137, "params": 0.802426, "latency": 0.01, "train_time": 8.0},
            }
        }
        for arch, mean in ((arch, sum(ACCURACIES[arch]) / 3.0) for arch in ARCHS)
    }


def write_nats_folder(folder, archs=ARCHS, protocol=4):
    """NATS-Bench's folder with the files of `archs` alone."""
    folder.mkdir()
    meta = {
        "meta_archs": list(ARCHS),
        "total_archs": 3,
        "arch2infos": None,
        "evaluated_indexes": set(range(3)),
    }
    with bz2.open(folder / "meta.pickle.pbz2", "wb") as file:
        pickle.dump(meta, file, protocol)
    for arch in archs:
        content = OrderedDict((str(epochs), trainings(arch, epochs)) for epochs in (12, 200))
        with bz2.open(folder / f"{ARCHS.index(arch):06d}.pickle.pbz2", "wb") as file:
            pickle.dump(content, file, protocol)
    return folder


def old_numpy(pickled):
    """A pickle as numpy before 2.0 wrote it: the module had another name, one character shorter."""
    renamed = pickled.replace(b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray")
    if renamed != pickled and pickled[2:3] == b"\x95":  # the length of the frame, which is one
        renamed = renamed[:3] + struct.pack("<Q", len(renamed) - 11) + renamed[11:]
    return renamed.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
