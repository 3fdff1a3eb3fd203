"""Right answers for the building blocks of preference losses: DPO, ORPO, KTO and GRPO by autograd (torch, transformers, peft; f32).

usage: make_preference.py ../fixtures/golden OUT.safetensors
The model is golden/base-llama with lora-regex-targets' adapter. ids, labels [4,S]: two pairs, chosen then rejected; -100 is
not counted. policy, reference: each sequence's log-probability. {loss}.loss, {loss}.grad.{name}: the loss and its gradients.
"""
import os
import sys

import torch
import torch.nn.functional as F
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

root, out = sys.argv[1:]
torch.set_num_threads(1)
torch.manual_seed(5)
base = AutoModelForCausalLM.from_pretrained(os.path.join(root, "base-llama"), dtype=torch.float32, attn_implementation="eager")
model = PeftModel.from_pretrained(base, os.path.join(root, "lora-regex-targets", "adapter"), is_trainable=True)
ids = torch.randint(3, 160, (4, 13))
labels = ids.clone()
for row, (prompt, length) in enumerate([(4, 13), (4, 9), (6, 11), (6, 13)]):
    labels[row, :prompt] = -100
    labels[row, length:] = -100
mask = (labels[:, 1:] != -100).float()
BETA, ADVANTAGE, LAMBDA = 0.3, torch.tensor([1.0, -0.5, 0.25, -0.75]), 0.2


def tokens():
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    return -F.cross_entropy(logits.transpose(1, 2), labels[:, 1:].clamp_min(0), reduction="none") * mask


with torch.no_grad(), model.disable_adapter(): ref = tokens()


def dpo(lp):
    ratio = (lp - ref).sum(1)
    return -F.logsigmoid(BETA * (ratio[0::2] - ratio[1::2])).mean()


def orpo(lp):
    mean = lp.sum(1) / mask.sum(1)
    odds = mean - torch.log1p(-mean.exp())
    return -mean[0::2].mean() - LAMBDA * F.logsigmoid(odds[0::2] - odds[1::2]).mean()


def kto(lp):
    ratio = BETA * (lp - ref).sum(1)
    return torch.cat([1 - torch.sigmoid(ratio[0::2]), 1 - torch.sigmoid(-ratio[1::2])]).mean()


def grpo(lp):
    policy = torch.exp(lp - lp.detach()) * ADVANTAGE[:, None]
    d = ref - lp
    return -(((policy - 0.04 * (d.exp() - d - 1)) * mask).sum(1) / mask.sum(1)).mean()


found = dict(ids=ids.int(), labels=labels.int(), reference=ref.sum(1), policy=tokens().sum(1).detach())
for loss in (dpo, orpo, kto, grpo):
    model.zero_grad()
    value = loss(tokens())
    value.backward()
    found[f"{loss.__name__}.loss"] = value.detach().reshape(1)
    for n, p in model.named_parameters():
        if p.requires_grad:
            found[f"{loss.__name__}.grad.{n.replace('base_model.model.', '').replace('.default', '')}"] = p.grad.clone()
save_file({k: v.contiguous() for k, v in found.items()}, out)
print(len(found))
