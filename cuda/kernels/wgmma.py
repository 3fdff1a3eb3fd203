"""Writes wgmma.inc: python3 cuda/kernels/wgmma.py. The accumulator lists of inline PTX must be spelt out."""
import os

HEAD = """// One struct a type and shape; the operand lists of inline PTX must be spelt out. Written by cuda/kernels/wgmma.py.
// ss: a and b in shared memory. rs: a in registers, 16-bit pairs in the layout of an accumulator's rows. AT, BT: a, b are
// MN-major. `keep` 0 overwrites d. first: overwrites d without being said to read it, which leaves the compiler free to overlap.
template <class T, int N, int BT, int AT = 0> struct Wgmma;"""


def struct(name, n):
    r = n // 2
    d = "{" + ", ".join(f"%{i}" for i in range(r)) + "}"
    both = ", ".join(f'"+f"(d[{i}])' for i in range(r))
    fresh = ", ".join(f'"=f"(d[{i}])' for i in range(r))
    op = f"wgmma.mma_async.sync.aligned.m64n{n}k16.f32.{name}.{name} {d}, "
    return f'''template <int BT, int AT> struct Wgmma<{name}, {n}, BT, AT> {{
  static __device__ __forceinline__ void ss(float (&d)[{r}], uint64_t a, uint64_t b, int keep) {{
    asm volatile("{{\\n.reg .pred p;\\nsetp.ne.b32 p, %{r + 2}, 0;\\n{op}"
                 "%{r}, %{r + 1}, p, 1, 1, %{r + 4}, %{r + 3};\\n}}" : {both} : "l"(a), "l"(b), "r"(keep), "n"(BT), "n"(AT));
  }}
  static __device__ __forceinline__ void first(float (&d)[{r}], uint64_t a, uint64_t b) {{
    asm volatile("{{\\n.reg .pred p;\\nsetp.ne.b32 p, 0, 0;\\n{op}"
                 "%{r}, %{r + 1}, p, 1, 1, %{r + 3}, %{r + 2};\\n}}" : {fresh} : "l"(a), "l"(b), "n"(BT), "n"(AT));
  }}
  static __device__ __forceinline__ void rs(float (&d)[{r}], const uint32_t (&a)[4], uint64_t b, int keep) {{
    asm volatile("{{\\n.reg .pred p;\\nsetp.ne.b32 p, %{r + 5}, 0;\\n{op}"
                 "{{%{r}, %{r + 1}, %{r + 2}, %{r + 3}}}, %{r + 4}, p, 1, 1, %{r + 6};\\n}}"
                 : {both} : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep), "n"(BT));
  }}
}};'''


def struct_e4m3(n):
    r = n // 2
    d = "{" + ", ".join(f"%{i}" for i in range(r)) + "}"
    both = ", ".join(f'"+f"(d[{i}])' for i in range(r))
    op = f"wgmma.mma_async.sync.aligned.m64n{n}k32.f32.e4m3.e4m3 {d}, "
    return f'''/** 8-bit operands, 32 of k a step: a in registers, four values a word; b K-major in shared memory. */
struct WgmmaE4m3 {{
  static __device__ __forceinline__ void rs(float (&d)[{r}], const uint32_t (&a)[4], uint64_t b, int keep) {{
    asm volatile("{{\\n.reg .pred p;\\nsetp.ne.b32 p, %{r + 5}, 0;\\n{op}"
                 "{{%{r}, %{r + 1}, %{r + 2}, %{r + 3}}}, %{r + 4}, p, 1, 1;\\n}}"
                 : {both} : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep));
  }}
}};'''


structs = [struct(name, n) for name in ("bf16", "f16") for n in (16, 32, 64, 128, 256)]
path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "wgmma.inc")
open(path, "w").write("\n".join([HEAD, *structs, struct_e4m3(64)]) + "\n")
