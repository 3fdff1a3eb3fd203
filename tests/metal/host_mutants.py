#!/usr/bin/env python3
"""Slips that a host's author could make, one at a time: each must be noticed by abi_test, by the fake Metal's rules, or by
another result. host_mutants.py ROOT OUT WORK: OUT has the simulator (sim/build.sh), WORK abi_test and its results."""
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

# file, what is there, what a slip would put there
MUTANTS = [
    ('encoder.c', 'SEND(void, flight[(finished + 1) % MOST_IN_FLIGHT], S(wait)) END;', ';'),
    ('encoder.c', 'SEND(void, open_encoder, S(endEncoding)) END;', ';'),
    ('encoder.c', 'SEND(void, open_buffer, S(commit)) END;', ';'),
    ('encoder.c', 'release(open_encoder);', ';'),
    ('encoder.c', 'SEND(id, open_encoder, S(retain)) END;', ';'),
    ('encoder.c', 't->slot->used_by = current_number();', ';'),
    ('encoder.c', '(NSUInteger)t->offset,', '0UL,'),
    ('encoder.c', '{c->grid[0], c->grid[1] ? c->grid[1] : 1,', '{c->grid[1] ? c->grid[1] : 1, c->grid[0],'),
    ('ops_matmul.c', 'part.alpha = 1', 'part.alpha = g->alpha'),
    ('ops_matmul.c', 'part.beta = 0', 'part.beta = g->beta'),
    ('encoder.c', '(NSUInteger)c->args_bytes,', '(NSUInteger)c->args_bytes - 4,'),
    ('encoder.c', 'if (committed - finished == MOST_IN_FLIGHT) wait_for(finished + 1);', ';'),
    ('encoder.c', '++launches >= MOST_LAUNCHES', '++launches >= 1000000'),
    ('device.c', 'SEND(void, options, S(setFastMathEnabled), bool), false END;', ';'),
    ('device.c', 'release(options);', ';'),
    ('device.c', '3UL << 16', '2UL << 16'),
    ('device.c', 'release(device.queue);', ';'),
    ('pipelines.c', 'release(function);', ';'),
    ('pipelines.c', 'release(values);', ';'),
    ('pipelines.c', 'p->hash == want.hash && !memcmp(p->name, want.name, NAME) && !memcmp(&p->fc, c, sizeof *c)',
     '!memcmp(p->name, want.name, NAME)'),
    ('pipelines.c', 'UINT, FC_TYPE + i', 'UINT, FC_OUT + i'),
    ('memory.c', 's->generation++;', ';'),
    ('memory.c', 'release(s->buffer);', ';'),
    ('memory.c', 'bytes > device.largest || active_bytes + bytes > device.limit', '0'),
    ('memory.c', 'out->offset > s->bytes || out->bytes > s->bytes - out->offset', '0'),
    ('memory.c', 'active_bytes -= s->held;', ';'),
    ('memory.c', 'out->offset % alignment(t->dtype)', '0'),
    ('transfer.c', 'if (to->used_by > finished_number())', 'if (0)'),
    ('transfer.c', 'staging_at += (bytes + 255) & ~255ull;', ';'),
    ('transfer.c', 'if (status == US_OK) status = wait_all();', ';'),
    ('transfer.c', 'bytes > LARGEST_STAGED', '0'),
    ('memory.c', 'trim_cache(0);\n  // Generations', ';\n  // Generations'),
    ('cache.c', 's->used_by = kept[best].used_by;', 's->used_by = 0;'),
    ('cache.c', 'held - bytes <= bytes / 8', 'true'),
    ('mapping.c', 'munmap(at, bytes);', ';'),
    ('mapping.c', '*skip = (uint32_t)(offset - from)', '*skip = 0'),
    ('library.c', 'list[i].written && out[i].slot', '0 && out[i].slot'),
    ('library.c', 'give_back_all();', ';'),
    ('library.c', 'drop_pipelines();', ';'),
    ('library.c', 'if (!opens) return fail(US_DEVICE', 'if (0) return fail(US_DEVICE'),
    ('objc.h', '"waitUntilCompleted"', '"waitUntilComplete"'),
    ('error.c', 'pthread_setspecific(key, p)', '(void)0'),
    ('error.c', 'os_unfair_lock_lock(&the_lock)', '(void)0'),
    ('ops_attention.c', '&t[1], &t[2]}, .count = 9}', '&t[2], &t[1]}, .count = 9}'),
    ('ops_matmul.c', 'wide_b = by_four(w) && w->cols % 4 == 0', 'wide_b = true'),
    ('ops_optimizer.c', 'join.buffers[0] = &list, ', ''),
]


COMPILE = ['clang-19', '-std=c23', '-O1', '-w', '-ffreestanding', '-fvisibility=hidden', '-fPIC']


def compile_all(host, out, to, files):
    """Objects of the files in `to`; what the compiler said when one does not compile."""
    for f in files:
        build = subprocess.run([*COMPILE, f'--embed-dir={out}', '-c', f'{host}/{f}', '-o', f'{to}/{f}.o'], capture_output=True, text=True)
        if build.returncode:
            return build.stderr[:300]


def run(root, out, work, mutant):
    file, there, slip = mutant
    folder = tempfile.mkdtemp(prefix='host', dir=work)
    try:
        shutil.copytree(f'{root}/metal', f'{folder}/metal', ignore=shutil.ignore_patterns('prebuilt*', 'stubs'))
        shutil.copytree(f'{root}/ffi', f'{folder}/ffi', ignore=shutil.ignore_patterns('*.ts'))
        host = f'{folder}/metal/host'
        path = f'{host}/{file}'
        text = open(path).read()
        if there not in text:
            return f'MISSED {file}: there is no {there}'
        open(path, 'w').write(text.replace(there, slip, 1))
        # what the slip does not reach is compiled once for all
        sources = sorted(f for f in os.listdir(host) if f.endswith('.c'))
        reached = [file] if file.endswith('.c') else sources
        fault = compile_all(host, out, folder, reached)
        if fault:
            return f'MISSED {file}: {slip} does not compile: {fault}'
        objects = [f'{folder if f in reached else work + "/host_right"}/{f}.o' for f in sources]
        subprocess.run(['clang-19', '-shared', *objects, '-o', f'{folder}/lib.so', f'-L{out}', '-lfakemetal', f'-Wl,-rpath,{out}', '-lc'],
                       check=True)
        try:
            test = subprocess.run([f'{work}/abi_test', f'{folder}/lib.so', f'{folder}/results'], capture_output=True, timeout=60,
                                  env={**os.environ, 'ABI_TEST_STOP': '1'})
        except subprocess.TimeoutExpired:
            return f'noticed (hangs) {file}: {there}'
        if test.returncode:
            return f'noticed {file}: {there}'
        here = os.path.dirname(os.path.abspath(__file__))
        same = subprocess.run([sys.executable, f'{here}/abi/compare.py', f'{work}/results', f'{folder}/results'], capture_output=True)
        return f'noticed (results) {file}: {there}' if same.returncode else f'MISSED {file}: {there} -> {slip}'
    finally:
        shutil.rmtree(folder)


def main(root, out, work):
    host, right = f'{root}/metal/host', f'{work}/host_right'
    os.makedirs(right, exist_ok=True)
    fault = compile_all(host, out, right, [f for f in os.listdir(host) if f.endswith('.c')])
    if fault:
        sys.exit(f'the host does not compile: {fault}')
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        lines = list(pool.map(lambda m: run(root, out, work, m), MUTANTS))
    print('\n'.join(line.replace('\n', ' ') for line in lines))  # a line a slip: run.sh counts them
    return any(line.startswith('MISSED') for line in lines)


sys.exit(main(*sys.argv[1:]))
