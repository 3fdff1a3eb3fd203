"""Right answers for src/train's optimisers, from the libraries whose names they carry (CPU, float32).

usage: make_optimizers.py OUT.safetensors     (torch 2.11, transformers 5.17, bitsandbytes 0.50, safetensors)
The moments of AdamW8bit are encoded by bitsandbytes' own generic code (nearest value): its C code for the CPU looks them up
in a coarser table, and its CUDA code rounds to the nearest too.
p.* start values, g{step}.* gradients, {optimizer}.* values after three steps, signed/unsigned: the 8-bit codes.
"""
import sys
import torch
import bitsandbytes as bnb
import bitsandbytes.backends.cpu.ops as cpu
from bitsandbytes.functional import create_dynamic_map
from safetensors.torch import save_file
from transformers.optimization import Adafactor



def nearest(x, code, absmax_out, out, blocksize):
    bytes_, absmax = torch.ops.bitsandbytes.quantize_blockwise(x.double(), code.double(), blocksize)
    out.copy_(bytes_)
    absmax_out.copy_(absmax)


cpu._quant_blockwise_fp32_direct = nearest
torch.manual_seed(5)
SHAPES = {"matrix": (17, 255), "small": (3, 5), "vector": (7,)}
p = {n: torch.randn(s) for n, s in SHAPES.items()}
g = [{n: torch.randn(s) * 10.0 ** torch.randint(-2, 1, s) for n, s in SHAPES.items()} for _ in range(3)]
OPTIMIZERS = {
    "adamw_torch": lambda x: torch.optim.AdamW(x, lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1),
    "adamw_8bit": lambda x: bnb.optim.AdamW8bit(x, lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1),
    "sgd": lambda x: torch.optim.SGD(x, lr=1e-2, momentum=0.9, weight_decay=0.1),
    "lion_32bit": lambda x: bnb.optim.Lion32bit(x, lr=1e-2, betas=(0.9, 0.999), weight_decay=0.1),
    "adafactor": lambda x: Adafactor(x, lr=1e-2, scale_parameter=False, relative_step=False, weight_decay=0.1),
}
out = {"signed": create_dynamic_map(True), "unsigned": create_dynamic_map(False)}
out |= {f"p.{n}": x for n, x in p.items()}
out |= {f"g{i}.{n}": x for i, d in enumerate(g) for n, x in d.items()}
for name, make in OPTIMIZERS.items():
    params = {n: torch.nn.Parameter(x.clone()) for n, x in p.items()}
    opt = make(list(params.values()))
    for step in g:
        for n, x in params.items():
            x.grad = step[n].clone()
        opt.step()
    out |= {f"{name}.{n}": x.detach() for n, x in params.items()}
save_file({k: v.contiguous() for k, v in out.items()}, sys.argv[1])
