"""Adapters between us and mlx-lm: python mlx_check.py DIR

DIR/list.json: [{name, base, ids, ours, layers, parameters, dora}]; `base` is a model folder.
ours: the adapter in DIR/{name} is ours: mlx-lm loads it. Else mlx-lm makes one (linear_to_lora_layers on the last `layers`
blocks with `parameters`), fills it and saves it there. Either way DIR/{name}.f32 holds mlx-lm's logits of ids.
"""
import json
import os
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map
from mlx_lm.tuner.utils import linear_to_lora_layers, load_adapters
from mlx_lm.utils import load_model

root = sys.argv[1]
mx.random.seed(11)


def create(model, case, path):
    """As mlx-lm's train writes it: trainable parameters, and a config with lora_parameters."""
    model.freeze()
    linear_to_lora_layers(model, case["layers"], case["parameters"], use_dora=case["dora"])
    filled = tree_map(lambda x: x + mx.random.normal(x.shape) * 0.1, model.trainable_parameters())
    model.update(filled)
    os.makedirs(path)
    mx.save_safetensors(os.path.join(path, "adapters.safetensors"), dict(tree_flatten(model.trainable_parameters())))
    config = dict(model=case["base"], fine_tune_type="dora" if case["dora"] else "lora", num_layers=case["layers"],
                  lora_parameters=case["parameters"])
    json.dump(config, open(os.path.join(path, "adapter_config.json"), "w"))


for case in json.load(open(os.path.join(root, "list.json"))):
    model, _ = load_model(Path(case["base"]))
    model.set_dtype(mx.float32)
    path = os.path.join(root, case["name"])
    if case["ours"]:
        load_adapters(model, path)
    else:
        create(model, case, path)
    model.eval()
    logits = model(mx.array([case["ids"]]))[0].astype(mx.float32)
    np.array(logits).astype("<f4").tofile(os.path.join(root, case["name"] + ".f32"))
print(json.dumps({}))
