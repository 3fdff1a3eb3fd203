"""GEMMs and attention of this library against cuBLAS, cuDNN and FlashAttention-2 (through PyTorch), in one run on one GPU:
    python3 bench/cuda_peers.py [gemm[:q,gate]] [attention] [copy] [floor] [floor:fp8]
Random data, outputs poisoned, relative error against f32 or the peer, medians of repeated launches."""
import ctypes, os, re, sys
import torch

root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
L = ctypes.CDLL(os.path.join(root, "cuda/prebuilt/linux-x64/libunsloth_cuda.so"))
header = open(os.path.join(root, "ffi/unsloth.h")).read()
CODE = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.int32: 3}


def must(rc):
    if rc:
        text = ctypes.create_string_buffer(600)
        L.us_last_error(text, 600)
        raise RuntimeError(f"status {rc}: {text.value.decode()}")


class Mem:
    """A tensor in the library's memory; upload and download go through the host."""

    def __init__(self, shape, dtype, value=None):
        self.shape, self.dtype = list(shape), dtype
        self.count = 1
        for s in shape:
            self.count *= s
        self.bytes = self.count * torch.tensor([], dtype=dtype).element_size()
        a = (ctypes.c_uint32 * 3)(self.bytes & 0xFFFFFFFF, self.bytes >> 32, 0)
        must(L.us_alloc(a))
        self.handle = a[2]
        if value is not None:
            self.put(value)

    def words(self):
        return [self.handle, CODE[self.dtype], 0, 0, len(self.shape)] + (self.shape + [1, 1, 1, 1])[:4]

    def move(self):
        return (ctypes.c_uint32 * 5)(self.handle, 0, 0, self.bytes & 0xFFFFFFFF, self.bytes >> 32)

    def put(self, t):
        t = t.detach().to(self.dtype).contiguous().cpu()
        must(L.us_upload(self.move(), ctypes.c_void_p(t.data_ptr())))

    def get(self):
        t = torch.empty(self.shape, dtype=self.dtype)
        must(L.us_download(self.move(), ctypes.c_void_p(t.data_ptr())))
        return t.cuda()

    def free(self):
        must(L.us_free(self.handle))


NONE = [0] * 9


def f(x):
    return ctypes.c_uint32.from_buffer_copy(ctypes.c_float(x)).value


def call(name, *parts):
    words = []
    for p in parts:
        words += p.words() if isinstance(p, Mem) else p if isinstance(p, list) else [p]
    args = (ctypes.c_uint32 * len(words))(*words)
    fn = getattr(L, name)
    return lambda: must(fn(args))


def ours(fn, n=20, rounds=3):
    """ms a call: n launches between two waits, best of `rounds`."""
    import time
    for _ in range(3):
        fn()
    must(L.us_fence())
    best = 1e9
    for _ in range(rounds):
        t = time.perf_counter()
        for _ in range(n):
            fn()
        must(L.us_fence())
        best = min(best, (time.perf_counter() - t) / n * 1e3)
    return best


def theirs(fn, n=20, rounds=3):
    for _ in range(3):
        fn()
    torch.cuda.synchronize()
    best = 1e9
    for _ in range(rounds):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        for _ in range(n):
            fn()
        b.record()
        torch.cuda.synchronize()
        best = min(best, a.elapsed_time(b) / n)
    return best


def err(x, y):
    return ((x.float() - y.float()).norm() / y.float().norm()).item()


def gemm(only="", M=8192):
    total = {"cublas": 0.0, "ours": 0.0}
    shapes = [("q", 3072, 3072, 28), ("k", 1024, 3072, 56), ("o", 3072, 3072, 28), ("gate", 8192, 3072, 56),
              ("down", 3072, 8192, 28), ("head", 128256, 3072, 1)]
    for name, N, K, count in shapes:
        if only and name not in only.split(","):
            continue
        for nt in (True, False):
            m, n, k = (M, N, K) if nt else (M, K, N)
            a = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
            b = torch.randn(*((n, k) if nt else (k, n)), device="cuda", dtype=torch.bfloat16) * 0.05
            want = torch.mm(a, b.t() if nt else b)
            A, B, C = Mem(a.shape, a.dtype, a), Mem(b.shape, b.dtype, b), Mem((m, n), a.dtype, want * float("nan"))
            run = call("us_matmul", C, A, B, NONE, 0, int(nt), f(1.0), f(0.0))
            run()
            e = err(C.get(), want)
            tc = theirs(lambda: torch.mm(a, b.t() if nt else b, out=want))
            to = ours(run)
            total["cublas"] += tc * count
            total["ours"] += to * count
            fl = 2 * m * n * k / 1e9
            print(f"ROW gemm {name} {'nt' if nt else 'nn'} {m}x{n}x{k}: cuBLAS {fl / tc:.0f} ours {fl / to:.0f} TFLOP/s, ratio {tc / to:.3f}, err {e:.1e}", flush=True)
            for x in (A, B, C):
                x.free()
    print("ROW gemm step ms", {k: round(v, 1) for k, v in total.items()})


def copy():
    a = torch.empty(1 << 30, device="cuda", dtype=torch.uint8)
    b = torch.empty_like(a)
    print(f"ROW copy {2 * a.numel() / theirs(lambda: b.copy_(a)) / 1e9:.2f} TB/s")


def attention(batch=4, H=24, K=8, T=2048, d=128):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    N = batch * T
    q, do = (torch.randn(N, H, d, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    k, v = (torch.randn(N, K, d, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    Q, KK, V, DO = (Mem(x.shape, x.dtype, x) for x in (q, k, v, do))
    nan = float("nan")
    O, DQ = Mem(q.shape, q.dtype, q * nan), Mem(q.shape, q.dtype, q * nan)
    DK, DV = Mem(k.shape, k.dtype, k * nan), Mem(k.shape, k.dtype, k * nan)
    LSE = Mem((H, N), torch.float32, torch.full((H, N), nan))
    CU = Mem((batch + 1,), torch.int32, torch.arange(batch + 1) * T)
    opts = [CU, T, f(d ** -0.5), 0, f(0.0)]
    fwd = call("us_attention", O, LSE, Q, KK, V, *opts)
    bwd = call("us_attention_bwd", DQ, DK, DV, DO, Q, KK, V, O, LSE, *opts)
    fwd()
    bwd()
    flops = 4 * batch * H * T * T * d / 2 / 1e9
    shape = lambda x: x.view(batch, T, -1, d).transpose(1, 2)
    qs, ks, vs = (shape(x).detach().requires_grad_() for x in (q, k, v))
    first = True
    for name, be in (("cuDNN", SDPBackend.CUDNN_ATTENTION), ("FA2", SDPBackend.FLASH_ATTENTION)):
        with sdpa_kernel(be):
            run = lambda: torch.nn.functional.scaled_dot_product_attention(qs, ks, vs, is_causal=True, enable_gqa=True)
            out = run()
            g = shape(do)
            tf = theirs(lambda: run())
            tb = theirs(lambda: torch.autograd.grad(out, (qs, ks, vs), g, retain_graph=True))
            grads = torch.autograd.grad(out, (qs, ks, vs), g, retain_graph=True)
        back = lambda x, h: x.transpose(1, 2).reshape(N, h, d)
        print(f"ROW attention {name} forward {tf:.3f} ms {flops / tf:.0f} TFLOP/s, backward {tb:.3f} ms {2.5 * flops / tb:.0f} TFLOP/s")
        if first:
            print("ROW attention error against it:", "out %.1e dq %.1e dk %.1e dv %.1e" % (
                err(O.get(), back(out, H)), err(DQ.get(), back(grads[0], H)), err(DK.get(), back(grads[1], K)), err(DV.get(), back(grads[2], K))))
        first = False
    tf, tb = ours(fwd), ours(bwd)
    print(f"ROW attention ours forward {tf:.3f} ms {flops / tf:.0f} TFLOP/s, backward {tb:.3f} ms {2.5 * flops / tb:.0f} TFLOP/s")


def floor(kind="bf16", batch=4, T=2048, layers=28, steps=12):
    """What a step cannot be faster than by the best libraries, as long and as hot as a step: the products of Llama-3.2-3B's shape
    (q, k, v and gate, up fused; input gradients; the head) by cuBLAS, attention by cuDNN, and 80 GB of memory passes at copy
    speed (norms, RoPE, SwiGLU, loss, adapters), one after the other. floor:fp8 multiplies the blocks' weights at 8 bits."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    M, D, F, V = batch * T, 3072, 8192, 128256
    shapes = [(5120, D), (D, D), (2 * F, D), (D, F)]  # [N, K]
    make = lambda *s: torch.randn(*s, device="cuda", dtype=torch.bfloat16) * 0.05
    if kind == "fp8":
        e4m3, one = torch.float8_e4m3fn, torch.ones((), device="cuda")
        weights = [[(make(n, k).to(e4m3), make(k, n).to(e4m3)) for n, k in shapes] for _ in range(layers)]
        xs, dys = {k: make(M, k).to(e4m3) for _, k in shapes}, {n: make(M, n).to(e4m3) for n, _ in shapes}
        mm = lambda a, w: torch._scaled_mm(a, w.t(), one, one, out_dtype=torch.bfloat16, use_fast_accum=True)
        forward, backward = lambda w, n, k: mm(xs[k], w[0]), lambda w, n, k: mm(dys[n], w[1])
    else:
        weights = [[make(n, k) for n, k in shapes] for _ in range(layers)]
        xs, dys = {k: make(M, k) for _, k in shapes}, {n: make(M, n) for n, _ in shapes}
        forward, backward = lambda w, n, k: torch.mm(xs[k], w.t()), lambda w, n, k: torch.mm(dys[n], w)
    head, x, dl = make(V, D), make(2048, D), make(2048, V)
    q = torch.randn(batch, 24, T, 128, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    k, v = (torch.randn(batch, 8, T, 128, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    g, half = torch.randn_like(q), 80_000_000_000 // layers // 2
    a, b = torch.empty(half, device="cuda", dtype=torch.uint8), torch.empty(half, device="cuda", dtype=torch.uint8)
    times = []
    for _ in range(steps):
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(4)]
        marks[0].record()
        for layer in weights:
            for w, (n, kk) in zip(layer, shapes):
                forward(w, n, kk), backward(w, n, kk)
        for _ in range(M // 2048):
            torch.mm(x, head.t()), torch.mm(dl, head)
        marks[1].record()
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            for _ in range(layers):
                out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
                torch.autograd.grad(out, (q, k, v), g)
        marks[2].record()
        for _ in range(layers):
            b.copy_(a)
        marks[3].record()
        torch.cuda.synchronize()
        times.append([marks[i].elapsed_time(marks[i + 1]) for i in range(3)])
    mid = [sorted(t[i] for t in times[3:])[(steps - 3) // 2] for i in range(3)]
    print(f"ROW floor {kind}: products {mid[0]:.1f} + attention {mid[1]:.1f} + memory {mid[2]:.1f} = {sum(mid):.1f} ms, "
          f"{M / sum(mid) * 1e3:.0f} tokens/s", flush=True)


must(L.us_open(0))
what = sys.argv[1:] or ["copy", "gemm", "attention"]
for w in what:
    globals()[w.split(":")[0]](*w.split(":")[1:])
