"""What the safetensors library reads from a file, as JSON: {name: [dtype, shape, values]}. python safetensors_check.py FILE"""
import json
import sys

from safetensors import safe_open

with safe_open(sys.argv[1], "pt") as f:
    out = {n: [str(f.get_tensor(n).dtype), list(f.get_tensor(n).shape), f.get_tensor(n).double().flatten().tolist()] for n in f.keys()}
    out["__metadata__"] = f.metadata()
print(json.dumps(out))
