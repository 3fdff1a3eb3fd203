"""The hundred steps of tests/gpu/curve.ts by transformers and peft (f32 without TF32, and bf16 with f32 adapters), and how far
the curves lie apart: python3 tests/gpu/curve_peft.py ../shared/golden-real MODEL.gguf curve.json
Needs torch with CUDA, transformers, peft, safetensors, and gguf to read the model."""
import json, os, sys
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, get_scheduler

root, model_path, ours_path = sys.argv[1:4]
recipe = json.load(open(os.path.join(root, "case.json")))["train"]
data = load_file(os.path.join(root, "golden.safetensors"))
ids, mask, labels = (data[n].long().cuda() for n in ("ids", "attention_mask", "labels"))
STEPS = 100


def train(dtype):
    torch.manual_seed(0)
    folder, name = os.path.split(os.path.abspath(model_path))
    base = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).to(dtype).cuda()
    model = PeftModel.from_pretrained(base, os.path.join(root, "adapter"), is_trainable=True)
    for p in model.parameters():
        if p.requires_grad:
            p.data = p.data.float()
    params = [p for p in model.parameters() if p.requires_grad]
    optim = torch.optim.AdamW(params, lr=recipe["lr"], betas=recipe["betas"], eps=recipe["eps"], weight_decay=recipe["weight_decay"])
    schedule = get_scheduler(recipe["schedule"], optim, recipe["warmup"], STEPS)
    losses = []
    model.train()
    for t in range(STEPS):
        b = t % len(ids)
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = model(input_ids=ids[b], attention_mask=mask[b], labels=labels[b]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, recipe["clip"])
        optim.step(), schedule.step(), optim.zero_grad()
        losses.append(loss.item())
    return losses


def apart(name, a, b):
    d = [abs(x - y) / y for x, y in zip(a, b)]
    print(f"{name:28} mean {sum(d) / len(d):.1e}, largest {max(d):.1e} at step {d.index(max(d)) + 1}, last {a[-1]:.4f} / {b[-1]:.4f}")


torch.backends.cuda.matmul.allow_tf32 = False
ours = json.load(open(ours_path))
f32, bf16 = train(torch.float32), train(torch.bfloat16)
apart("ours f32, peft f32", ours["f32"], f32)
apart("ours bf16, peft bf16", ours["bf16"], bf16)
apart("ours bf16, peft f32", ours["bf16"], f32)
apart("peft bf16, peft f32", bf16, f32)
worst = max(abs(x - y) / y for x, y in zip(ours["f32"], f32))
noise = sum(abs(x - y) / y for x, y in zip(bf16, f32)) / STEPS
mean = sum(abs(x - y) / y for x, y in zip(ours["bf16"], f32)) / STEPS
ok = worst < 1e-2 and mean < 3 * noise
print("pass" if ok else "MISS")
sys.exit(not ok)
