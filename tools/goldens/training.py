"""Loss, optimisers and schedules of the recipes, each from the library whose name it carries."""
import bitsandbytes as bnb
import bitsandbytes.backends.cpu.ops as cpu
import torch
import torch.nn.functional as F
from peft.optimizers import create_loraplus_optimizer
from transformers import get_scheduler
from transformers.optimization import Adafactor
from transformers.trainer_pt_utils import get_parameter_names


def nearest(x, code, absmax_out, out, blocksize):
    """bitsandbytes' own generic code (nearest value): its C code for the CPU looks up in a coarser table than its CUDA code."""
    bytes_, absmax = torch.ops.bitsandbytes.quantize_blockwise(x.double(), code.double(), blocksize)
    out.copy_(bytes_)
    absmax_out.copy_(absmax)


cpu._quant_blockwise_fp32_direct = nearest


def backward(model, micro, t):
    """Gradients of the mean over all trained tokens of all micro-batches; returns each one's logits and the loss."""
    micro = list(micro)
    count = sum(int((labels[:, 1:] != -100).sum()) for _, _, labels in micro)
    outs, total = [], 0.0
    for ids, mask, labels in micro:
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        x, y = logits[:, :-1].reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1)
        loss = F.cross_entropy(x, y, ignore_index=-100, reduction="sum", label_smoothing=t.get("label_smoothing", 0.0))
        if t.get("z_loss"): loss = loss + t["z_loss"] * (torch.logsumexp(x, -1)[y != -100] ** 2).sum()
        (loss / count).backward()
        outs.append(logits)
        total = total + loss.detach() / count
    return outs, total


def optimizer(model, t):
    """The recipe's optimiser and schedule."""
    params = [p for p in model.parameters() if p.requires_grad]
    k = dict(lr=t["lr"], weight_decay=t["weight_decay"])
    adam = dict(k, betas=tuple(t["betas"]), eps=t["eps"])
    name = t["optimizer"]
    if t.get("lora_plus"):
        opt = create_loraplus_optimizer(model, torch.optim.AdamW, lr=t["lr"], loraplus_lr_ratio=t["lora_plus"],
                                        loraplus_weight_decay=t["weight_decay"], betas=tuple(t["betas"]), eps=t["eps"])
    elif t.get("decay_vectors") is False:
        # transformers' Trainer, get_decay_parameter_names
        patterns = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
        decayed = set(get_parameter_names(model, [torch.nn.LayerNorm], patterns))
        named = dict(model.named_parameters())
        opt = torch.optim.AdamW([dict(params=[p for n, p in named.items() if n in decayed]),
                                 dict(params=[p for n, p in named.items() if n not in decayed], weight_decay=0.0)], **adam)
    elif name == "adamw_torch": opt = torch.optim.AdamW(params, **adam)
    elif name == "adamw_8bit":
        # transformers' Trainer keeps the moments of embeddings in f32
        for m in model.modules():
            if isinstance(m, torch.nn.Embedding):
                bnb.optim.GlobalOptimManager.get_instance().register_module_override(m, "weight", dict(optim_bits=32))
        opt = bnb.optim.AdamW8bit(params, **adam)
    elif name == "sgd": opt = torch.optim.SGD(params, momentum=t["momentum"], **k)
    elif name == "lion_32bit": opt = bnb.optim.Lion32bit(params, betas=tuple(t["betas"]), **k)
    elif name == "adafactor": opt = Adafactor(params, scale_parameter=False, relative_step=False, **k)
    else: raise ValueError(name)
    return opt, get_scheduler(t["schedule"], opt, num_warmup_steps=t["warmup"], num_training_steps=t["steps"],
                              scheduler_specific_kwargs=t.get("schedule_args"))
