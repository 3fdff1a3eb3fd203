"""Right answers for what shared/golden does not cover, from transformers, peft and bitsandbytes (float32, CPU, eager attention).

usage: make_cases.py OUT [NAME...]     (torch 2.11 to 2.15, transformers 5.17 to 5.23, peft 0.21, bitsandbytes 0.50)
Made after shared/tools/make_goldens.py, of the same layout, and with more in it:
  case.json      the recipe; `base`: the folder beside it that holds the weights; `start`, `lora_config`: an adapter that
                 starts by peft's rule, of which there is no file; `f64`: how far the recorded f32 numbers lie from the same
                 recipe in float64, which is the room a bound has; `left_out`: what golden.safetensors does not hold
  config.old.json  the same model as files said it before transformers 5; transformers itself gives equal logits from both
  model.safetensors  bf16 (random values rounded to it, so nothing is lost), computed in f32
  golden.safetensors  input_ids, attention_mask, labels: [B,S], or [M,B,S] for M micro-batches a step;
                 more.{i}.input_ids, more.{i}.logits: another length, the last rows of its logits;
                 off.nll: each label's -log p with the adapter left out
"""
import contextlib
import copy
import inspect
import json
import math
import os
import re
import shutil
import sys
import tempfile
import torch
import transformers
from transformers.utils import logging
import peft.tuners.lora.layer
import peft.utils.loftq_utils as loftq_utils
from peft import LoftQConfig, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
import cases as data
import training

B, S, LAST = 2, 24, 4
torch.set_num_threads(1)
logging.set_verbosity_error()
logging.disable_progress_bar()
torch.use_deterministic_algorithms(True)
# transformers takes attention's softmax in f32 whatever the model's type; the recipe in f64 takes it in f64.
softmax = torch.nn.functional.softmax
torch.nn.functional.softmax = lambda x, dim=None, dtype=None, **k: softmax(
    x, dim=dim, dtype=x.dtype if x.dtype == torch.float64 else dtype, **k)
# peft's loftq_init asks for a GPU by name; everything in it runs on the CPU.
exec(compile(inspect.getsource(loftq_utils.loftq_init).replace('"cuda"', '"cpu"'), "loftq_init", "exec"), loftq_utils.__dict__)
peft.tuners.lora.layer.loftq_init = loftq_utils.loftq_init
# LAPACK's f32 singular vectors of these matrices are 1.3e-5 off; taken in f64, the start is no part of a comparison's error.
exact_svd = torch.linalg.svd
torch.linalg.svd = lambda x, **k: tuple(t.to(x.dtype) for t in exact_svd(x.double(), **k))


def make_model(arch, fields, seed):
    """A livelier start than 0.02, so that every path shows in the numbers; values are bf16's."""
    torch.manual_seed(seed)
    cfg = AutoConfig.for_model(arch, **json.loads(json.dumps(fields)))
    model = AutoModelForCausalLM.from_config(cfg, attn_implementation="eager").float()
    with torch.no_grad():
        for n, p in model.named_parameters():
            if p.dim() >= 2: p.normal_(0, 0.6 / math.sqrt(p.shape[-1]) if "embed" not in n else 0.5)
            elif n.endswith("bias"): p.normal_(0, 0.1)
            else: p.add_(torch.randn_like(p) * 0.1)
            p.copy_(p.bfloat16().float())
    return model


def save_model(model, d, old):
    os.makedirs(d, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(d)
    model.float()
    with contextlib.suppress(FileNotFoundError): os.remove(os.path.join(d, "generation_config.json"))
    if old is None: return
    cfg = json.load(open(os.path.join(d, "config.json")))
    cfg.pop("rope_parameters")
    cfg["torch_dtype"] = cfg.pop("dtype")
    cfg["transformers_version"] = "4.45.0"
    cfg.pop("layer_types", None)
    cfg.update(old)
    json.dump(cfg, open(os.path.join(d, "config.old.json"), "w"), indent=2)


def load(d, dtype=torch.float32):
    """A model folder; a rope's frequencies are f32 in transformers whatever the dtype."""
    return AutoModelForCausalLM.from_pretrained(d, attn_implementation="eager", dtype=dtype)


def check_old(d, ids):
    """transformers reads the older form to the same logits."""
    if not os.path.exists(os.path.join(d, "config.old.json")): return
    with tempfile.TemporaryDirectory() as t:
        shutil.copy(os.path.join(d, "model.safetensors"), t)
        shutil.copy(os.path.join(d, "config.old.json"), os.path.join(t, "config.json"))
        a, b = load(d), load(t)
        with torch.no_grad(): assert torch.equal(a(ids).logits, b(ids).logits), f"{d}: the older form differs"


def adapt(model, lora, seed):
    """The model under peft; B of a default start is not zero, so that A has gradients at once; an embedding starts with A at zero."""
    k = dict(lora)
    if k.get("init_lora_weights") == "loftq": k["loftq_config"] = LoftQConfig(loftq_bits=4)
    torch.manual_seed(seed + 1)
    out = get_peft_model(model, LoraConfig(lora_dropout=0.0, task_type="CAUSAL_LM", **k))
    if k.get("init_lora_weights", True) is True:
        with torch.no_grad():
            for n, p in out.named_parameters():
                if "lora_B" in n or "lora_embedding_A" in n: p.normal_(0, 0.05)
    return out


def make_batch(vocab, micro):
    """Rows padded on the right, the prompt not trained; micro-batches differ in length and in trained tokens."""
    ids = torch.randint(3, vocab, (micro, B, S))
    mask, labels = torch.ones_like(ids), ids.clone()
    for m in range(micro):
        for row, length in enumerate([(24, 17), (13, 6), (21, 24)][m % 3]):
            mask[m, row, length:] = 0
            labels[m, row, length:] = -100
            labels[m, row, :5 if row == 0 or micro == 1 else 2 + 7 * (m == 2)] = -100
    ids[mask == 0] = 0
    return [x if micro > 1 else x[0] for x in (ids, mask, labels)]


def short(n):
    return n.replace("base_model.model.", "").replace(".default", "")


def run(train, batch, t, record=None):
    """One backward, then the recipe's steps. Returns what `record` keeps: curves, and tensors by name."""
    ids, mask, labels = (x.reshape(-1, B, S) for x in batch)
    params = {short(n): p for n, p in train.named_parameters() if p.requires_grad}
    train.train()
    forget(train)
    g = {}

    def backward():
        outs, loss = training.backward(train, zip(ids, mask, labels), t)
        return outs, loss

    outs, loss = backward()
    if len(outs) == 1: g["logits"] = outs[0].detach()
    g["loss"] = loss.reshape(1)
    for n, p in params.items(): g["grad." + n] = p.grad.detach().clone()
    train.zero_grad(set_to_none=True)
    opt, sched = training.optimizer(train, t)
    curves = {"loss_curve": [], "grad_norm_curve": [], "lr_curve": []}
    for _ in range(t["steps"]):
        _, l = backward()
        curves["loss_curve"].append(float(l))
        curves["grad_norm_curve"].append(float(torch.nn.utils.clip_grad_norm_(params.values(), t["clip"] or math.inf)))
        curves["lr_curve"].append(sched.get_last_lr()[0])
        opt.step()
        sched.step()
        opt.zero_grad(set_to_none=True)
    g.update({k: torch.tensor(v, dtype=torch.float64) for k, v in curves.items()})
    for n, p in params.items(): g["final." + n] = p.detach().clone()
    return g


def distances(f64, f32, loose):
    """Relative norms and curves as tests/golden/compare.ts takes them."""
    d = lambda x: (x.abs() if loose else x).double()
    rel = lambda k: float((d(f64[k]) - d(f32[k])).norm() / d(f32[k]).norm().clamp_min(1e-12))
    curve = lambda k: float(((f64[k] - f32[k]).abs() / f32[k].abs().clamp_min(1e-9)).max())
    worst = lambda start: max((rel(k) for k in f32 if k.startswith(start)), default=None)
    r = dict(logits=rel("logits") if "logits" in f32 else None, loss=curve("loss"), grad=worst("grad."),
             curve=curve("loss_curve"), norm=curve("grad_norm_curve"), final=worst("final."))
    return {k: float(f"{v:.1e}") for k, v in r.items() if v is not None}


def greedy(model, ids, dynamic):
    """Continuation, each step a whole pass. A rope that depends on the length stays on the short side."""
    prompt, count = (6, 8) if dynamic else (8, 16)
    cur, tokens, margins = ids.reshape(-1, S)[:1, :prompt], [], []
    model.eval()
    with torch.no_grad():
        for _ in range(count):
            top = model(input_ids=cur, use_cache=False).logits[0, -1].topk(2)
            margins.append(float(top.values[0] - top.values[1]))
            tokens.append(int(top.indices[0]))
            cur = torch.cat([cur, top.indices[:1].reshape(1, 1)], 1)
    return {"greedy_prompt": ids.reshape(-1, S)[:1, :prompt], "greedy_tokens": torch.tensor(tokens),
            "greedy_margin": torch.tensor(margins)}


def forget(model):
    """A dynamic rope remembers the longest sequence it has seen until a short one comes by."""
    with torch.no_grad(): model(input_ids=torch.tensor([[3, 4, 5]]), use_cache=False)


def more_lengths(model, lengths, vocab):
    g = {}
    model.eval()
    for i, n in enumerate(lengths):
        ids = torch.randint(3, vocab, (1, n))
        forget(model)
        with torch.no_grad(): g[f"more.{i}.logits"] = model(input_ids=ids, use_cache=False).logits[0, -LAST:]
        g[f"more.{i}.input_ids"] = ids
    return g


def save_adapter(train, d, base):
    train.save_pretrained(d)
    os.remove(os.path.join(d, "README.md"))
    path = os.path.join(d, "adapter_config.json")
    cfg = dict(json.load(open(path)), base_model_name_or_path=base)
    if isinstance(cfg["target_modules"], list): cfg["target_modules"].sort()
    json.dump(cfg, open(path, "w"), indent=2)


def adapter_off(train, batch):
    ids, mask, labels = (x.reshape(-1, S) for x in batch)
    train.eval()
    with torch.no_grad(), train.disable_adapter():
        lg = train(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    return {"off.nll": torch.nn.functional.cross_entropy(lg.transpose(1, 2), labels[:, 1:], ignore_index=-100, reduction="none")}


def case(c, out, seed):
    d = os.path.join(out, c["name"])
    os.makedirs(d, exist_ok=True)
    t = dict(data.TRAIN, **c.get("train", {}))
    source = d if "model" in c else os.path.join(out, c["base"])
    if "model" in c:
        arch, fields, old, lengths = data.MODELS[c["model"]]
        save_model(make_model(arch, fields, seed), d, old)
    model, lengths = load(source), data.MODELS[c["model"]][3] if "model" in c else []
    vocab = model.config.vocab_size
    torch.manual_seed(seed)
    batch = make_batch(vocab, t.get("micro", 1))
    check_old(source, batch[0].reshape(-1, S))
    g = dict(zip(("input_ids", "attention_mask", "labels"), batch))
    l = c["lora"]
    loose = bool(l) and l.get("init_lora_weights", True) is not True
    train = adapt(model, l, seed) if l else model
    if l:
        if not loose: save_adapter(train, os.path.join(d, "adapter"), c.get("base", c["name"]))
        if l.get("bias", "none") == "none" and not loose: g.update(adapter_off(train, batch))
    g.update(more_lengths(train, lengths, vocab))
    f64 = exact(source, d, l, batch, t, loose, train if loose else None)
    g.update(run(train, batch, t))
    g.update(greedy(train, batch[0], 16 in data.MODELS.get(c.get("model", c.get("base")), [[]])[-1]))
    left_out = ["logits", "grad", "greedy", "off"] if c["name"].startswith("train-") else []
    if not l: left_out.append("final")  # as large as the model, and the losses follow from them
    g = {k: v for k, v in g.items() if re.split("[._]", k)[0] not in left_out or k == "grad_norm_curve"}
    keep = lambda v: v.float() if v.dtype == torch.float64 else v.int() if v.dtype == torch.int64 else v
    save_file({k: keep(v).clone().contiguous() for k, v in g.items()}, os.path.join(d, "golden.safetensors"))
    recipe = dict(name=c["name"], left_out=left_out, **({"base": c["base"]} if "base" in c else {}), seed=seed, full=not l,
                  **(started(l) if loose else {}),
                  train=t, f64=f64 and distances(f64, g, loose),
                  made_with=dict(torch=torch.__version__, transformers=transformers.__version__, peft=peft.__version__))
    json.dump(recipe, open(os.path.join(d, "case.json"), "w"), indent=1)
    size = sum(os.path.getsize(os.path.join(r, f)) for r, _, fs in os.walk(d) for f in fs)
    curve = g["loss_curve"].tolist()
    print(f"{c['name']:24s} loss {curve[0]:.4f} -> {curve[-1]:.4f}  {size / 1e3:.0f} KB  {recipe['f64']}", flush=True)


def started(l):
    return dict(start=l["init_lora_weights"], lora_config={k: v for k, v in l.items() if k != "init_lora_weights"})


def exact(source, d, l, batch, t, loose, train):
    """The recipe in float64; None where the optimiser has none."""
    if t["optimizer"] in ("adamw_8bit", "lion_32bit"): return None
    if not l: return run(load(source, torch.float64), batch, t)
    if loose:
        return run(copy.deepcopy(train).double(), batch, t)
    model = PeftModel.from_pretrained(load(source, torch.float64), os.path.join(d, "adapter"), is_trainable=True)
    return run(model.double(), batch, t)


def main():
    out, only = sys.argv[1], sys.argv[2:]
    for i, (name, (arch, fields)) in enumerate(data.BASES.items()):
        if not only or name in only: save_model(make_model(arch, fields, 500 + i), os.path.join(out, name), None)
    for i, c in enumerate(data.cases()):
        if not only or c["name"] in only: case(c, out, 600 + i)


main()
