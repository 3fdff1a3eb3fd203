"""Loads what we wrote with transformers and peft: python transformers_check.py DIR

DIR holds folders with base/, lora/ (an adapter for it), merged/ (the two made one by us) and ids.json. Prints, as JSON by
folder, the largest difference of logits between base with adapter and merged, and writes merged's to logits.f32.
"""
import json
import os
import sys
import warnings

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

warnings.filterwarnings("ignore")


def load(path):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def logits(model, ids):
    with torch.no_grad():
        return model(ids).logits[0]


out = {}
root = sys.argv[1]
for name in sorted(os.listdir(root)):
    path = os.path.join(root, name)
    with open(os.path.join(path, "ids.json")) as f:
        ids = torch.tensor([json.load(f)])
    adapted = logits(PeftModel.from_pretrained(load(os.path.join(path, "base")), os.path.join(path, "lora")).eval(), ids)
    merged = logits(load(os.path.join(path, "merged")), ids)
    merged.numpy().astype("<f4").tofile(os.path.join(path, "logits.f32"))
    out[name] = (adapted - merged).abs().max().item()
print(json.dumps(out))
