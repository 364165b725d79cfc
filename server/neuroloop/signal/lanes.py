"""The innermost loops of the signal path, as vector instructions.

A lane is one channel. Numba's own vectoriser loads and stores filter states, sums and counters at every sample; here
they stay in registers over all samples of a tile, which is what the time goes into. Each function below is for compiled
code, and works on the columns of one group of lanes of a tile, (rows, width) with channels side by side: `lanes(tile)`
says how many those are. Arrays have two axes, rows that are contiguous, and one element type, float32 or float64.

Every lane takes the same operations in the same order however many the processor's vectors hold, and multiply-adds are
fused everywhere, so results do not depend on the width. LLVM splits vectors where the processor's are shorter.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from neuroloop.compiled import has_avx512

VECTOR_BYTES = 64
WIDTH = 32  # the widths of tiles are multiples of it, and it is a multiple of the lanes of a group of either type
# Vectors of a group, and rows of a product that are summed side by side: what fits 32 registers, of 64 bytes, or 16.
VECTORS, ROWS = (2, 8) if has_avx512() else (1, 4)

_INDEX = ir.IntType(64)
_LANE = ir.IntType(32)


class _Lanes:
    """Emits vector instructions on the array arguments of one function, in the element type of the first."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        self.builder = builder
        self.element = context.get_data_type(signature.args[0].dtype)
        self.count = VECTOR_BYTES // (4 if isinstance(self.element, ir.FloatType) else 8)
        self.vector = ir.VectorType(self.element, self.count)
        self.mask = ir.VectorType(ir.IntType(1), self.count)
        suffix = f"v{self.count}f{64 if self.count == 8 else 32}"
        self._fma = self._function(f"llvm.fma.{suffix}", 3)
        self._abs = self._function(f"llvm.fabs.{suffix}", 1)
        self._arrays = {
            number: context.make_array(kind)(context, builder, value)
            for number, (kind, value) in enumerate(zip(signature.args, arguments, strict=True))
            if isinstance(kind, types.Array)
        }

    def _function(self, name: str, arity: int) -> Any:
        kind = ir.FunctionType(self.vector, [self.vector] * arity)
        return cgutils.get_or_insert_function(self.builder.module, kind, name)

    def at(self, array: int, row: Any, column: Any) -> Any:
        """Pointer to an element of a two-dimensional argument."""
        struct = self._arrays[array]
        row, column = self.index(row), self.index(column)
        stride = cgutils.unpack_tuple(self.builder, struct.strides)[0]
        size = ir.Constant(_INDEX, 4 if isinstance(struct.data.type.pointee, ir.FloatType) else 8)
        row_start = self.builder.mul(row, self.builder.sdiv(stride, size))
        return self.builder.gep(struct.data, [self.builder.add(row_start, column)])

    def index(self, value: Any) -> Any:
        return ir.Constant(_INDEX, value) if isinstance(value, int) else value

    def add(self, index: Any, offset: int) -> Any:
        return self.builder.add(index, self.index(offset))

    def column(self, first: Any, vector: int) -> Any:
        """Of the lanes of one vector of the group that begins there."""
        return self.add(first, vector * self.count)

    def load(self, pointer: Any) -> Any:
        return self.builder.load(self.builder.bitcast(pointer, self.vector.as_pointer()), align=self.element_bytes)

    def load_as(self, pointer: Any) -> Any:
        """Load elements of either float type, as this one."""
        kind = pointer.type.pointee
        vector = ir.VectorType(kind, self.count)
        size = 4 if isinstance(kind, ir.FloatType) else 8
        loaded = self.builder.load(self.builder.bitcast(pointer, vector.as_pointer()), align=size)
        if kind == self.element:
            return loaded
        convert = self.builder.fpext if size == 4 else self.builder.fptrunc
        return convert(loaded, self.vector)

    def store(self, value: Any, pointer: Any) -> None:
        self.builder.store(value, self.builder.bitcast(pointer, self.vector.as_pointer()), align=self.element_bytes)

    @property
    def element_bytes(self) -> int:
        return VECTOR_BYTES // self.count

    def splat(self, scalar: Any) -> Any:
        undefined = ir.Constant(self.vector, ir.Undefined)
        single = self.builder.insert_element(undefined, scalar, ir.Constant(_LANE, 0))
        everywhere = ir.Constant(ir.VectorType(_LANE, self.count), [0] * self.count)
        return self.builder.shuffle_vector(single, undefined, everywhere)

    def constant(self, value: float) -> Any:
        return ir.Constant(self.vector, [value] * self.count)

    def broadcast(self, pointer: Any) -> Any:
        return self.splat(self.builder.load(pointer))

    def variable(self, value: Any) -> Any:
        """A vector that changes in a loop; the compiler keeps it in a register."""
        place = cgutils.alloca_once(self.builder, value.type)
        self.builder.store(value, place)
        return place

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a * b + c, rounded once."""
        return self.builder.call(self._fma, [a, b, c])

    def magnitude(self, x: Any) -> Any:
        return self.builder.call(self._abs, [x])

    def least(self, a: Any, b: Any) -> Any:
        return self.builder.select(self.builder.fcmp_ordered("<", a, b), a, b)

    def loop(self, count: Any) -> AbstractContextManager[Any]:
        loop: AbstractContextManager[Any] = cgutils.for_range(self.builder, count, intp=_INDEX)
        return loop


def _emitted(emit: Callable[..., None], *arguments: Any) -> Any:
    """Signature and code of a function that `emit` writes."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        emit(_Lanes(context, builder, signature, values), *values)
        return context.get_dummy_value()

    return types.void(*arguments), generate


@njit(inline="always")
def lanes(tile: Any) -> int:
    """Lanes of a group: columns that one call takes."""
    return int(VECTORS * VECTOR_BYTES // tile.itemsize)


def _emit_copy(emit: _Lanes, tile: Any, column: Any, samples: Any, source: Any, first: Any) -> None:
    with emit.loop(samples) as loop:
        for vector in range(VECTORS):
            x = emit.load_as(emit.at(3, loop.index, emit.column(first, vector)))
            emit.store(x, emit.at(0, loop.index, emit.column(column, vector)))


def _type_copy(typing: Any, tile: Any, column: Any, samples: Any, source: Any, first: Any) -> Any:
    """Copy a group of neighbouring channels from `first` into the tile; source: (samples, channels), float32 or 64."""
    return _emitted(_emit_copy, tile, column, samples, source, first)


def _emit_center(emit: _Lanes, centered: Any, samples: Any, column: Any, scale: Any, _mean: Any, _tile: Any) -> None:
    builder = emit.builder
    first = [emit.load_as(emit.at(5, 0, emit.column(column, vector))) for vector in range(VECTORS)]
    sums = [emit.variable(emit.constant(0.0)) for _ in range(VECTORS)]
    with emit.loop(samples) as loop:
        for vector in range(VECTORS):
            x = emit.load_as(emit.at(5, loop.index, emit.column(column, vector)))
            builder.store(builder.fadd(builder.load(sums[vector]), builder.fsub(x, first[vector])), sums[vector])
    means = [builder.fmul(builder.load(total), emit.splat(scale)) for total in sums]
    for vector in range(VECTORS):
        emit.store(means[vector], emit.at(4, 0, emit.column(column, vector)))
    with emit.loop(samples) as loop:
        for vector in range(VECTORS):
            x = emit.load_as(emit.at(5, loop.index, emit.column(column, vector)))
            about = builder.fsub(builder.fsub(x, first[vector]), means[vector])
            emit.store(about, emit.at(0, loop.index, emit.column(column, vector)))


def _type_center(typing: Any, centered: Any, samples: Any, column: Any, scale: Any, mean: Any, tile: Any) -> Any:
    """The samples of a tile about their mean, in the type of `centered`; scale: 1 / samples, of that type.

    mean: (1, width) of that type, written: less the first sample, which keeps an offset out of the rounding.
    """
    return _emitted(_emit_center, centered, samples, column, scale, mean, tile)


def _emit_filter(
    sections: int, emit: _Lanes, tile: Any, samples: Any, column: Any, sos: Any, first: Any, _: Any, offset: Any
) -> None:
    """Sections of direct form II transposed: y = b0 x + s0; s0 = b1 x - a1 y + s1; s1 = b2 x - a2 y."""
    coefficients = []
    for section in range(sections):
        row = emit.add(first, section)
        b0, b1, b2, a1, a2 = (emit.broadcast(emit.at(3, row, k)) for k in (0, 1, 2, 4, 5))
        coefficients.append((b0, b1, b2, emit.builder.fneg(a1), emit.builder.fneg(a2)))
    twice = emit.builder.mul(first, emit.index(2))
    kept = {}
    for row in range(2 * sections):
        for vector in range(VECTORS):
            place = emit.at(5, emit.add(twice, row), emit.column(column, vector))
            kept[row, vector] = (place, emit.variable(emit.load(place)))
    offsets = [emit.load(emit.at(5, offset, emit.column(column, vector))) for vector in range(VECTORS)]
    with emit.loop(samples) as loop:
        for vector in range(VECTORS):
            place = emit.at(0, loop.index, emit.column(column, vector))
            x = emit.builder.fsub(emit.load(place), offsets[vector])
            for section, (b0, b1, b2, minus_a1, minus_a2) in enumerate(coefficients):
                s0, s1 = kept[2 * section, vector][1], kept[2 * section + 1, vector][1]
                y = emit.fma(b0, x, emit.builder.load(s0))
                ahead = emit.fma(b1, x, emit.builder.load(s1))
                emit.builder.store(emit.fma(minus_a1, y, ahead), s0)
                emit.builder.store(emit.fma(minus_a2, y, emit.builder.fmul(b2, x)), s1)
                x = y
            emit.store(x, place)
    for place, variable in kept.values():
        emit.store(emit.builder.load(variable), place)


def _type_filter_one(
    typing: Any, tile: Any, samples: Any, column: Any, sos: Any, section: Any, state: Any, offset: Any
) -> Any:
    """Filter a group of columns of the tile in place, by one section.

    state: rows 2 * section and the next are the section's; offset: the row that is subtracted from the samples.
    """
    return _emitted(partial(_emit_filter, 1), tile, samples, column, sos, section, state, offset)


def _type_filter_two(
    typing: Any, tile: Any, samples: Any, column: Any, sos: Any, section: Any, state: Any, offset: Any
) -> Any:
    """The same by this section and the next: half the loads and stores."""
    return _emitted(partial(_emit_filter, 2), tile, samples, column, sos, section, state, offset)


def _emit_multiply(emit: _Lanes, tile: Any, row: Any, column: Any, matrix: Any, depth: Any, _: Any) -> None:
    sums = {(r, vector): emit.variable(emit.constant(0.0)) for r in range(ROWS) for vector in range(VECTORS)}
    with emit.loop(depth) as loop:
        weights = [emit.load(emit.at(3, loop.index, emit.column(column, vector))) for vector in range(VECTORS)]
        for r in range(ROWS):
            x = emit.broadcast(emit.at(0, emit.add(row, r), loop.index))
            for vector, weight in enumerate(weights):
                place = sums[r, vector]
                emit.builder.store(emit.fma(x, weight, emit.builder.load(place)), place)
    for (r, vector), place in sums.items():
        emit.store(emit.builder.load(place), emit.at(5, emit.add(row, r), emit.column(column, vector)))


def _type_multiply(typing: Any, tile: Any, row: Any, column: Any, matrix: Any, depth: Any, out: Any) -> Any:
    """`out = tile @ matrix` for ROWS rows from `row` and a group of columns; depth: columns of the tile that count."""
    return _emitted(_emit_multiply, tile, row, column, matrix, depth, out)


def _emit_outer(emit: _Lanes, tile: Any, samples: Any, row: Any, column: Any, _: Any) -> None:
    sums = {(r, vector): emit.variable(emit.constant(0.0)) for r in range(ROWS) for vector in range(VECTORS)}
    with emit.loop(samples) as loop:
        right = [emit.load(emit.at(0, loop.index, emit.column(column, vector))) for vector in range(VECTORS)]
        for r in range(ROWS):
            left = emit.broadcast(emit.at(0, loop.index, emit.add(row, r)))
            for vector, x in enumerate(right):
                place = sums[r, vector]
                emit.builder.store(emit.fma(left, x, emit.builder.load(place)), place)
    for (r, vector), place in sums.items():
        emit.store(emit.builder.load(place), emit.at(4, emit.add(row, r), emit.column(column, vector)))


def _type_outer(typing: Any, tile: Any, samples: Any, row: Any, column: Any, product: Any) -> Any:
    """`product = tile.T @ tile` for ROWS rows of the product from `row` and a group of its columns."""
    return _emitted(_emit_outer, tile, samples, row, column, product)


# Rows of the state of `detect`.
LIMIT, CLIP, ABOVE, WAIT, COUNTS, TOTAL, KEPT = range(7)
DETECT_ROWS = 7


def _emit_detect(emit: _Lanes, tile: Any, start: Any, samples: Any, column: Any, refractory: Any, _: Any) -> None:
    builder, zero, one = emit.builder, emit.constant(0.0), emit.constant(1.0)
    pause = emit.splat(refractory)

    def column_of(row: int, vector: int) -> Any:
        return emit.at(5, row, emit.column(column, vector))

    limit = [emit.load(column_of(LIMIT, vector)) for vector in range(VECTORS)]
    clip = [emit.load(column_of(CLIP, vector)) for vector in range(VECTORS)]
    above, ready, counts, total, kept = [], [], [], [], []
    for vector in range(VECTORS):
        was_above = builder.fcmp_ordered(">", emit.load(column_of(ABOVE, vector)), zero)
        above.append(emit.variable(was_above))
        # A channel that has to wait w samples more is ready at sample w - 1, counted from here.
        ready.append(emit.variable(builder.fsub(emit.load(column_of(WAIT, vector)), one)))
        counts.append(emit.variable(emit.load(column_of(COUNTS, vector))))
        total.append(emit.variable(emit.load(column_of(TOTAL, vector))))
        kept.append(emit.variable(emit.load(column_of(KEPT, vector))))
    now = emit.variable(zero)
    with emit.loop(samples) as loop:
        time = builder.load(now)
        for v in range(VECTORS):
            x = emit.load(emit.at(0, builder.add(start, loop.index), emit.column(column, v)))
            free = builder.fcmp_ordered(">=", x, limit[v])
            is_ready = builder.fcmp_ordered(">=", time, builder.load(ready[v]))
            hit = builder.and_(builder.and_(builder.load(above[v]), builder.not_(free)), is_ready)
            builder.store(builder.select(hit, builder.fadd(time, pause), builder.load(ready[v])), ready[v])
            counted = builder.fadd(builder.load(counts[v]), one)
            builder.store(builder.select(hit, counted, builder.load(counts[v])), counts[v])
            keep = builder.and_(free, is_ready)
            summed = builder.fadd(builder.load(total[v]), emit.least(emit.magnitude(x), clip[v]))
            builder.store(builder.select(keep, summed, builder.load(total[v])), total[v])
            more = builder.fadd(builder.load(kept[v]), one)
            builder.store(builder.select(keep, more, builder.load(kept[v])), kept[v])
            builder.store(free, above[v])
        builder.store(builder.fadd(time, one), now)
    last = builder.fsub(builder.load(now), one)
    for v in range(VECTORS):
        emit.store(builder.select(builder.load(above[v]), one, zero), column_of(ABOVE, v))
        left = builder.fsub(builder.load(ready[v]), last)
        left = builder.select(builder.fcmp_ordered(">", left, zero), left, zero)
        emit.store(left, column_of(WAIT, v))
        for row, variables in ((COUNTS, counts), (TOTAL, total), (KEPT, kept)):
            emit.store(builder.load(variables[v]), column_of(row, v))


def _type_detect(typing: Any, tile: Any, start: Any, samples: Any, column: Any, refractory: Any, state: Any) -> Any:
    """Spikes of a group of columns in `samples` rows of a tile from `start`; see `neuroloop.signal.spikes`.

    refractory: in samples, of the tile's type. state: (DETECT_ROWS, width), updated.
    """
    return _emitted(_emit_detect, tile, start, samples, column, refractory, state)


copy: Any = intrinsic(_type_copy)
center: Any = intrinsic(_type_center)


def _control_register(write: bool) -> Callable[..., Any]:
    """Generates a read of the processor's floating-point control register, or a write; 0 and nothing but on x86."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.IntType(32)
        if not binding.get_process_triple().startswith(("x86_64", "i686")):
            return context.get_dummy_value() if write else ir.Constant(kind, 0)
        place = cgutils.alloca_once(builder, kind)
        pointer = builder.bitcast(place, cgutils.voidptr_t)
        name = "llvm.x86.sse.ldmxcsr" if write else "llvm.x86.sse.stmxcsr"
        call = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t]), name)
        if write:
            builder.store(values[0], place)
        builder.call(call, [pointer])
        return context.get_dummy_value() if write else builder.load(place)

    return generate


def _type_read(typing: Any) -> Any:
    return types.uint32(), _control_register(write=False)


def _type_write(typing: Any, value: Any) -> Any:
    return types.void(types.uint32), _control_register(write=True)


_read_control: Any = intrinsic(_type_read)
restore_denormals: Any = intrinsic(_type_write)
_FLUSH = 0x8040  # results that are denormal become 0, and so do operands


@njit(inline="always")
def flush_denormals() -> Any:
    """Take denormal numbers for 0, which x86 computes a hundred times slower, until `restore_denormals` of the result.

    Filter states decay through them in silence. ARM computes them at full speed.
    """
    before = _read_control()
    restore_denormals(np.uint32(before | np.uint32(_FLUSH)))
    return before


filter_one: Any = intrinsic(_type_filter_one)
filter_two: Any = intrinsic(_type_filter_two)
multiply: Any = intrinsic(_type_multiply)
outer: Any = intrinsic(_type_outer)
detect: Any = intrinsic(_type_detect)
