"""Loads adapters that we wrote with peft: python peft_check.py DIR

DIR/list.json: [{name, base, ids}]; DIR/{name} is the adapter's folder. Writes DIR/{name}.f32, the logits of ids, and prints
as JSON by name what peft found missing from the file.
"""
import json
import os
import sys
import warnings

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
from transformers.utils import logging

logging.disable_progress_bar()
torch.set_num_threads(1)
root = sys.argv[1]
said = {}
for case in json.load(open(os.path.join(root, "list.json"))):
    base = AutoModelForCausalLM.from_pretrained(case["base"], dtype=torch.float32, attn_implementation="eager")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(base, os.path.join(root, case["name"])).eval()
    said[case["name"]] = [str(w.message)[:300] for w in caught if "missing adapter keys" in str(w.message)]
    with torch.no_grad():
        logits = model(torch.tensor([case["ids"]])).logits[0]
    logits.numpy().astype("<f4").tofile(os.path.join(root, case["name"] + ".f32"))
print(json.dumps(said))
