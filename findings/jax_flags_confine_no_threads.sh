#!/usr/bin/env bash
# jax 0.10.2, on a CPU: the flags by which programs are commonly confined to one thread,
# XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1", confine nothing: a jitted chain of products
# takes CPU time in several threads, and as many as without the flags. They are accepted without a word. What does decide the
# number is the variable NPROC, set before jax is first asked for a device: with NPROC=1 one thread does all the work. So a
# comparison "on one thread" that sets the flags compares with more than one.
#
# Seen, on two cores, the share of the busiest thread in the CPU time of 20 calls: "as it is: 0.49", "with the flags:
# 0.49", "with NPROC=1: 0.99". (The shares move by a few hundredths; on a single core there is nothing to see.)
#
# Exits with 0 where this is still so, and with 1 where it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q jax==0.10.2
cat >"$folder/share.py" <<'PYTHON'
from pathlib import Path

import jax
import jax.numpy as jnp


def ticks():
    """The CPU time of each thread of this process."""
    stats = {task.name: (task / "stat").read_text().rpartition(")")[2].split() for task in Path("/proc/self/task").iterdir()}
    return {name: int(fields[11]) + int(fields[12]) for name, fields in stats.items()}


@jax.jit
def chain(x, weight):
    return jax.lax.fori_loop(0, 50, lambda _, value: jnp.tanh(value @ weight), x)


x, weight = jnp.ones((512, 512)), jnp.eye(512)
for _ in range(5):
    chain(x, weight).block_until_ready()
before = ticks()
for _ in range(20):
    chain(x, weight).block_until_ready()
taken = [after - before.get(name, 0) for name, after in ticks().items()]
print(max(taken) / sum(taken))
PYTHON
share() { env "$@" "$folder/environment/bin/python" "$folder/share.py"; }
plain=$(share JAX_PLATFORMS=cpu)
flags=$(share JAX_PLATFORMS=cpu "XLA_FLAGS=--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
confined=$(share JAX_PLATFORMS=cpu NPROC=1)
printf 'as it is: %.2f\nwith the flags: %.2f\nwith NPROC=1: %.2f\n' "$plain" "$flags" "$confined"
python3 -c "import sys; sys.exit(not ($plain < 0.9 and $flags < 0.9 and $confined > 0.9))"
