"""Lets torch's wheel load where CUDA's libraries are not: python without_cuda.py FOLDER_OF_TORCH/lib

PyPI's torch for Linux is linked with CUDA's libraries: 2.5 GB to download and 4 GB to unpack, of which no test calls a function.
In their place stand libraries that have the names torch asks for and say 100 to every call: cudaErrorNoDevice. Needs gcc and readelf.
"""
import os
import re
import subprocess
import sys

folder = sys.argv[1]


def read(flag, file):
    return subprocess.run(["readelf", "-W", flag, os.path.join(folder, file)], check=True, capture_output=True, text=True).stdout


libraries, versions, rest = set(), {}, set()  # sonames; version -> names asked for; names without a version
for file in os.listdir(folder):
    if not re.match(r"lib(torch|c10).*\.so$", file):
        continue
    libraries |= set(re.findall(r"\(NEEDED\).*\[(lib(?:cu|nv|nccl)[^\]]*)\]", read("-d", file)))
    for line in read("--dyn-syms", file).splitlines():
        undefined = re.search(r" UND (\w+)(?:@(lib(?:cu|nv)\S+|NVSHMEM))?(?: |$)", line)
        if undefined and undefined[2]:
            versions.setdefault(undefined[2], set()).add(undefined[1])
        elif undefined and re.match(r"cu|nccl|nvshmem", undefined[1]) and "@" not in line:
            rest.add(undefined[1])

for library in sorted(libraries):
    version = "NVSHMEM" if library.startswith("libnvshmem") else library
    own, free = versions.pop(version, set()), rest
    rest = set()  # those stand in the first
    source = "".join(f"int {name}(void) {{ return 100; }}\n" for name in sorted(own | free))
    script = os.path.join(folder, f"{library}.map")
    with open(script, "w") as f:
        f.write(f"{version} {{ global: {'; '.join(sorted(own)) or 'none'}; }};\n")
    flags = [f"-Wl,--version-script={script}"] if own else []
    subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-fno-builtin", f"-Wl,-soname,{library}", *flags, "-x", "c", "-", "-o", os.path.join(folder, library)],
                   input=source, text=True, check=True)
    os.remove(script)
if versions:
    sys.exit(f"Cannot stand in for {', '.join(versions)}: no library of torch's is linked with them")
