"""Golden cases for what ../shared/golden does not cover, in its layout but smaller; made by transformers + peft in float32.

usage: make_cases.py tests/fixtures/cases     (torch 2.11, transformers 5.17, peft 0.21, bitsandbytes 0.50; CPU)
Rope: linear, dynamic, yarn, longrope with partial rotary. Adapters: rank and alpha patterns, layers_to_transform, modules
left out, modules_to_save, trained biases, DoRA with a bias, PiSSA, LoftQ. Optimisers and schedules have tests of their own.
PiSSA and LoftQ have no adapter folder: the start is part of what is checked (`start` in case.json), and as the signs of
singular vectors are free, gradients and final weights are not recorded for them.
"""
import json
import math
import os
import sys
import torch
import transformers
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

OUT = sys.argv[1]
torch.use_deterministic_algorithms(True)
ALL7 = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
BASE = dict(vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=256, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2,
            pad_token_id=0, tie_word_embeddings=False)
LONG, SHORT = [1.0, 1.7, 2.9], [1.0, 1.02, 1.05]
rope = lambda kind, **k: dict(rope_parameters=dict(rope_type=kind, rope_theta=10000.0, **k))
# name, architecture, config, LoRA, {gen: greedy tokens, start}
CASES = [
    ("rope-linear", "llama", rope("linear", factor=4.0), {}, {}),
    ("rope-dynamic", "llama", dict(max_position_embeddings=16, **rope("dynamic", factor=2.0)), {}, dict(gen=8)),
    ("rope-yarn", "qwen2", dict(max_position_embeddings=64, **rope("yarn", factor=4.0, original_max_position_embeddings=16)), {}, {}),
    ("phi3-longrope", "phi3", dict(max_position_embeddings=64, original_max_position_embeddings=16, rope_parameters=dict(
        rope_type="longrope", rope_theta=10000.0, long_factor=LONG, short_factor=SHORT, partial_rotary_factor=0.75)),
     dict(target_modules=["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]), dict(gen=8)),
    ("rank-pattern", "llama", {}, dict(rank_pattern={"q_proj": 2, r"layers\.1\..*up_proj": 7}, alpha_pattern={"v_proj": 3, "q_proj": 9}), {}),
    ("layer-subset", "mistral", dict(sliding_window=None), dict(layers_to_transform=[0, 2], exclude_modules=["k_proj"]), {}),
    ("modules-to-save", "llama", {}, dict(target_modules=["q_proj", "v_proj"], modules_to_save=["embed_tokens", "lm_head", "norm"]), {}),
    ("bias-all", "llama", dict(attention_bias=True, mlp_bias=True), dict(target_modules=["q_proj", "down_proj"], bias="all"), {}),
    ("bias-lora-only", "qwen2", {}, dict(bias="lora_only"), {}),
    ("dora-bias", "qwen2", dict(tie_word_embeddings=True), dict(use_dora=True), {}),
    ("pissa", "llama", {}, dict(init_lora_weights="pissa"), dict(start="pissa")),
    ("loftq", "llama", dict(hidden_size=64, intermediate_size=64, num_hidden_layers=2), dict(lora_alpha=4), dict(start="loftq")),
]


def loftq(model):
    """peft's loftq_init with one iteration (its code wants a GPU): the base becomes nf4, the adapter what that took."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit
    for m in model.modules():
        if not isinstance(m, LoraLayer):
            continue
        w = m.get_base_layer().weight.data
        base = dequantize_4bit(*quantize_4bit(w, blocksize=64, quant_type="nf4", compress_statistics=False))
        u, s, v = torch.linalg.svd(w - base, full_matrices=False)
        r, root = m.r["default"], s.sqrt()
        m.get_base_layer().weight.data = base
        m.lora_B["default"].weight.data = (u * root)[:, :r].contiguous()
        m.lora_A["default"].weight.data = (root[:, None] * v)[:r].contiguous()


def one(name, arch, fields, lora, more, seed):
    torch.manual_seed(seed)
    cfg = AutoConfig.for_model(arch, **dict(BASE, **fields))
    cfg._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(cfg, attn_implementation="eager").float()
    with torch.no_grad():
        for n, p in model.named_parameters():
            if p.dim() >= 2:
                p.normal_(0, 0.6 / math.sqrt(p.shape[-1]) if "embed" not in n else 0.5)
            elif n.endswith("bias"):
                p.normal_(0, 0.1)
            else:
                p.add_(torch.randn_like(p) * 0.1)
    d = os.path.join(OUT, name)
    os.makedirs(d, exist_ok=True)
    model.save_pretrained(d)
    os.remove(os.path.join(d, "generation_config.json"))
    start = more.get("start")
    settings = dict(dict(r=4, lora_alpha=8, lora_dropout=0.0, bias="none", target_modules=ALL7), **lora)
    train = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
    if start == "loftq":
        loftq(train)
    if not start:
        with torch.no_grad():
            for n, p in train.named_parameters():
                if "lora_B" in n:
                    p.normal_(0, 0.05)
        train.save_pretrained(os.path.join(d, "adapter"), save_embedding_layers=False)
        os.remove(os.path.join(d, "adapter", "README.md")) if os.path.exists(os.path.join(d, "adapter", "README.md")) else None
    train.train()
    params = {n: p for n, p in train.named_parameters() if p.requires_grad}
    ids = torch.randint(3, cfg.vocab_size, (2, 24))
    mask = torch.ones_like(ids)
    mask[1, 17:] = 0
    ids[1, 17:] = 0
    labels = ids.clone()
    labels[mask == 0] = -100
    labels[:, :5] = -100
    g = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    run = lambda: train(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False)
    out = run()
    out.loss.backward()
    g["logits"], g["loss"] = out.logits.detach(), out.loss.detach().reshape(1)
    short = lambda n: n.replace("base_model.model.", "").replace(".default", "")
    if not start:
        g |= {"grad." + short(n): p.grad.detach().clone() for n, p in params.items()}
    steps, warm, lr = 20, 5, 5e-3
    train.zero_grad(set_to_none=True)
    opt = torch.optim.AdamW(params.values(), lr=lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    sched = transformers.get_linear_schedule_with_warmup(opt, warm, steps)
    losses, norms, rates = [], [], []
    for _ in range(steps):
        o = run()
        o.loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(params.values(), 1.0)))
        losses.append(float(o.loss))
        rates.append(sched.get_last_lr()[0])
        opt.step()
        sched.step()
        opt.zero_grad(set_to_none=True)
    g["loss_curve"], g["grad_norm_curve"], g["lr_curve"] = map(torch.tensor, (losses, norms, rates))
    if not start:
        g |= {"final." + short(n): p.detach().clone() for n, p in params.items()}
    train.eval()
    tokens, margins, cur = [], [], ids[:1, :8]
    with torch.no_grad():
        for _ in range(more.get("gen", 16)):
            lg = train(input_ids=cur, use_cache=False).logits[0, -1]
            top = lg.topk(2).values
            margins.append(float(top[0] - top[1]))
            tokens.append(int(lg.argmax()))
            cur = torch.cat([cur, lg.argmax().reshape(1, 1)], 1)
    g["greedy_prompt"], g["greedy_tokens"], g["greedy_margin"] = ids[:1, :8], torch.tensor(tokens), torch.tensor(margins)
    save_file({k: v.clone().contiguous() for k, v in g.items()}, os.path.join(d, "golden.safetensors"))
    case = dict(name=name, arch=arch, seed=seed, full=False, train=dict(
        steps=steps, warmup=warm, lr=lr, betas=[0.9, 0.999], eps=1e-8, weight_decay=0.01, clip=1.0, schedule="linear"))
    if start:
        case |= dict(start=start, lora_config={k: v for k, v in settings.items() if k != "init_lora_weights"})
    with open(os.path.join(d, "case.json"), "w") as f:
        json.dump(case, f, indent=1)
        f.write("\n")
    print(name, f"loss {losses[0]:.4f} -> {losses[-1]:.4f}", flush=True)


for i, case in enumerate(CASES):
    one(*case, 700 + i)
