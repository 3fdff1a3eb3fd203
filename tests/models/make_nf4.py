"""Right bytes for src/formats/nf4.ts from bitsandbytes on the CPU. usage: make_nf4.py OUT.safetensors (bitsandbytes 0.50)"""
import sys
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from safetensors.torch import save_file

torch.manual_seed(3)
x = torch.randn(12, 64) * 10.0 ** torch.randint(-3, 3, (12, 1))
x[4] = 0
x[5, 7] = 40.0
packed, state = quantize_4bit(x, blocksize=64, quant_type="nf4", compress_statistics=False)
back = dequantize_4bit(packed, state)
save_file({"x": x, "packed": packed.reshape(-1).contiguous(), "absmax": state.absmax.float(), "back": back}, sys.argv[1])
