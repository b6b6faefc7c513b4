// The loops of the frequency filter: what is done to one tile, one frame, one range of items. Included by cpu.cpp alone.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "elements.h"
#include "map.h"
#include "simd.h"
#include "stream.h"

namespace {

template <class S, class D, class A = vtk::accumulator_t<D>>
VTK_INLINE void load_row(const Job<S, D> &job, int64_t channel, const S *from, A *to, int64_t count) {
    if constexpr (std::is_same_v<S, uint8_t>) {
        const A scale = job.map->scale[channel], shift = job.map->shift[channel];
        for (int64_t i = 0; i < count; ++i) to[i] = static_cast<A>(from[i]) * scale + shift;
    } else {
        (void)job, (void)channel;
        for (int64_t i = 0; i < count; ++i) to[i] = vtk::load(from[i]);
    }
}

template <class D, class A>
VTK_INLINE void store_row(const A *from, D *to, int64_t count) {
    for (int64_t i = 0; i < count; ++i) vtk::store(to[i], from[i]);
}

// A volume that is not filtered: the same bits, or, of bytes, the normalised value.
template <class S, class D>
VTK_INLINE void pass_row(const Job<S, D> &job, int64_t channel, const S *from, D *to, int64_t count,
                         vtk::accumulator_t<D> *row) {
    if constexpr (std::is_same_v<S, D>) {
        (void)job, (void)channel, (void)row;
        std::memcpy(to, from, static_cast<size_t>(count) * sizeof(D));
    } else {
        load_row(job, channel, from, row, count);
        store_row(row, to, count);
    }
}

// Writes a vector past the caches, to a place on a border of 16 bytes, or as usual.
template <bool Stream, class A>
VTK_INLINE void put(A *place, const typename lanes<A>::type &value) {
    if constexpr (Stream)
        vtk::stream(reinterpret_cast<char *>(place), reinterpret_cast<const char *>(&value), 64);
    else
        at(place) = value;
}

// Columns of pixels with all their frames: where they are read and where G of them is written, which may be the same place.
template <class A>
struct Columns {
    const A *in;
    int64_t in_stride;  // from one frame to the next
    A *out;
    int64_t out_stride;
};

// G on `pixels` columns, a multiple of two vectors; R modes, held in registers.
template <int R, bool Stream, class A>
VTK_INLINE void filter_columns_few(const Columns<A> place, int64_t pixels, const Map<A> map) {
    using V = typename lanes<A>::type;
    const A keep = map.keeps_pixels ? 1 : 0, sign = map.keeps_pixels ? -1 : 1;
    for (int64_t p = 0; p < pixels; p += 2 * LANES<A>) {
        V left[R] = {}, right[R] = {};
        for (int64_t t = 0; t < map.frames; ++t) {
            const A *x = place.in + t * place.in_stride + p, *u = map.temporal + t * R;
            __builtin_prefetch(x + 8 * LANES<A>);
            __builtin_prefetch(x + 9 * LANES<A>);
            const V x0 = at(x), x1 = at(x + LANES<A>);
            for (int r = 0; r < R; ++r) left[r] += u[r] * x0, right[r] += u[r] * x1;
        }
        for (int r = 0; r < R; ++r) left[r] *= sign, right[r] *= sign;
        for (int64_t t = 0; t < map.frames; ++t) {
            const A *x = place.in + t * place.in_stride + p, *u = map.temporal + t * R;
            V y0 = keep * at(x), y1 = keep * at(x + LANES<A>);
            for (int r = 0; r < R; ++r) y0 += u[r] * left[r], y1 += u[r] * right[r];
            put<Stream>(place.out + t * place.out_stride + p, y0);
            put<Stream>(place.out + t * place.out_stride + p + LANES<A>, y1);
        }
    }
}

// The same for any number of modes; `sums` has room for two vectors a mode.
template <bool Stream, class A>
VTK_INLINE void filter_columns_many(const Columns<A> place, int64_t pixels, const Map<A> map, A *sums) {
    using V = typename lanes<A>::type;
    const int64_t modes = map.temporal_modes;
    const A keep = map.keeps_pixels ? 1 : 0, sign = map.keeps_pixels ? -1 : 1;
    for (int64_t p = 0; p < pixels; p += 2 * LANES<A>) {
        int64_t r = 0;
        for (; r + 4 <= modes; r += 4) {
            V left[4] = {}, right[4] = {};
            for (int64_t t = 0; t < map.frames; ++t) {
                const A *x = place.in + t * place.in_stride + p, *u = map.temporal + t * modes + r;
                const V x0 = at(x), x1 = at(x + LANES<A>);
                for (int k = 0; k < 4; ++k) left[k] += u[k] * x0, right[k] += u[k] * x1;
            }
            for (int k = 0; k < 4; ++k) {
                at(sums + 2 * (r + k) * LANES<A>) = sign * left[k];
                at(sums + (2 * (r + k) + 1) * LANES<A>) = sign * right[k];
            }
        }
        for (; r < modes; ++r) {
            V left = {}, right = {};
            for (int64_t t = 0; t < map.frames; ++t) {
                const A *x = place.in + t * place.in_stride + p;
                const A u = map.temporal[t * modes + r];
                left += u * at(x), right += u * at(x + LANES<A>);
            }
            at(sums + 2 * r * LANES<A>) = sign * left, at(sums + (2 * r + 1) * LANES<A>) = sign * right;
        }
        for (int64_t t = 0; t < map.frames; ++t) {
            const A *x = place.in + t * place.in_stride + p, *u = map.temporal + t * modes;
            V y0 = keep * at(x), y1 = keep * at(x + LANES<A>);
            for (r = 0; r < modes; ++r)
                y0 += u[r] * at(sums + 2 * r * LANES<A>), y1 += u[r] * at(sums + (2 * r + 1) * LANES<A>);
            put<Stream>(place.out + t * place.out_stride + p, y0);
            put<Stream>(place.out + t * place.out_stride + p + LANES<A>, y1);
        }
    }
}

template <bool Stream, class A>
VTK_INLINE void filter_columns(const Columns<A> &place, int64_t pixels, const Map<A> &map, A *sums) {
    switch (map.temporal_modes) {
        case 1: return filter_columns_few<1, Stream>(place, pixels, map);
        case 2: return filter_columns_few<2, Stream>(place, pixels, map);
        case 3: return filter_columns_few<3, Stream>(place, pixels, map);
        default: return filter_columns_many<Stream>(place, pixels, map, sums);
    }
}

// sums (row_modes, stride) += R^T x for N rows of pixels, `between` apart, from pixel `begin` to pixel `end`.
template <int N, class A>
VTK_INLINE void project_rows(const Map<A> map, const A *x, int64_t between, const A *r, A *sums, int64_t begin,
                             int64_t end) {
    using V = typename lanes<A>::type;
    const int64_t modes = map.row_modes, stride = map.stride;
    for (int64_t w = begin; w < end; w += LANES<A>) {
        V row[N];
        for (int k = 0; k < N; ++k) {
            row[k] = at(x + k * between + w);
            __builtin_prefetch(x + (k + 2 * N) * between + w);  // two groups of rows ahead
        }
        A *place = sums + w;
        for (int64_t i = 0; i < modes; ++i, place += stride) {
            V sum = at(place);
            for (int k = 0; k < N; ++k) sum += r[k * modes + i] * row[k];
            at(place) = sum;
        }
    }
}

// K (row_modes, column_modes) = R^T x W^T of one frame. `sums` holds (row_modes, stride), `rows` four rows of `stride`.
template <class S, class D, class A = vtk::accumulator_t<D>>
VTK_INLINE void project(const Job<S, D> &job, int64_t channel, const S *frame, A *coefficients, A *sums, A *rows) {
    using V = typename lanes<A>::type;
    const Map<A> map = *job.map;
    const int64_t stride = map.stride, modes = map.row_modes;
    std::fill_n(sums, modes * stride, A{0});
    const int64_t whole = std::is_same_v<S, A> ? map.width / LANES<A> * LANES<A> : 0;  // pixels read in place
    for (int64_t h = 0; h < map.height; h += 4) {
        const int64_t count = std::min<int64_t>(4, map.height - h);
        const S *x = frame + h * map.width;
        const A *r = map.rows + h * modes;
        for (int64_t k = 0; k < count; ++k) {
            A *row = rows + k * stride;
            load_row(job, channel, x + k * map.width + whole, row + whole, map.width - whole);
            std::fill(row + map.width, row + stride, A{0});  // a NaN left by another frame, times 0, is NaN
        }
        if (count == 4) {
            if constexpr (std::is_same_v<S, A>) project_rows<4>(map, x, map.width, r, sums, 0, whole);
            project_rows<4>(map, rows, stride, r, sums, whole, map.width);
        } else {
            for (int64_t k = 0; k < count; ++k) {
                if constexpr (std::is_same_v<S, A>)
                    project_rows<1>(map, x + k * map.width, 0, r + k * modes, sums, 0, whole);
                project_rows<1>(map, rows + k * stride, 0, r + k * modes, sums, whole, map.width);
            }
        }
    }
    for (int64_t i = 0; i < modes; ++i)
        for (int64_t j = 0; j < map.column_modes; ++j) {
            V dot = {};
            for (int64_t w = 0; w < map.width; w += LANES<A>)
                dot += at(sums + i * stride + w) * at(map.columns + j * stride + w);
            A sum = 0;
            for (int64_t lane = 0; lane < LANES<A>; ++lane) sum += dot[lane];
            coefficients[i * map.column_modes + j] = sum;
        }
}

// spread (row_modes, stride) = K W, so that row h of what K stands for is R[h] . spread.
template <class A>
VTK_INLINE void spread_columns(const Map<A> map, const A *coefficients, A *spread) {
    using V = typename lanes<A>::type;
    for (int64_t i = 0; i < map.row_modes; ++i)
        for (int64_t w = 0; w < map.stride; w += LANES<A>) {
            V sum = {};
            for (int64_t j = 0; j < map.column_modes; ++j)
                sum += coefficients[i * map.column_modes + j] * at(map.columns + j * map.stride + w);
            at(spread + i * map.stride + w) = sum;
        }
}

// out = s in + R[h] . spread for `count` pixels, a multiple of a vector, of row h from column w on; in and out may be one.
template <bool Stream, class A>
VTK_INLINE void add_modes(const Map<A> map, const A *spread, int64_t h, int64_t w, const A *in, A *out, int64_t count) {
    using V = typename lanes<A>::type;
    const A keep = map.keeps_frames ? 1 : 0, *r = map.rows + h * map.row_modes;
    const int64_t modes = map.row_modes, stride = map.stride;
    for (int64_t v = 0; v < count; v += LANES<A>) {
        V y = keep * at(in + v);
        const A *mode = spread + w + v;
        for (int64_t i = 0; i < modes; ++i, mode += stride) y += r[i] * at(mode);
        put<Stream>(out + v, y);
    }
}

// Items are blocks of pixels, all frames of each.
template <bool Stream, class S, class D, class A = vtk::accumulator_t<D>>
VTK_INLINE void time_items(const Job<S, D> &job, int64_t begin, int64_t end) {
    const Map<A> map = *job.map;
    const int64_t pixels = map.pixels(), blocks = (pixels + job.block - 1) / job.block;
    const int64_t width = std::is_same_v<S, A> ? 2 * LANES<A> : job.block;  // of the tile
    Scratch<A> room(map.frames * width + map.temporal_modes * 2 * LANES<A>);
    A *tile = room.data(), *sums = tile + map.frames * width;
    for (int64_t item = begin; item < end; ++item) {
        const int64_t volume = item / blocks, first = item % blocks * job.block, channel = job.channel(volume);
        int64_t count = std::min(job.block, pixels - first);
        const S *in = job.in + volume * map.frames * pixels + first;
        D *out = job.out + volume * map.frames * pixels + first;
        if (!job.applies(volume)) {
            for (int64_t t = 0; t < map.frames; ++t)
                pass_row(job, channel, in + t * pixels, out + t * pixels, count, tile);
            continue;
        }
        if constexpr (std::is_same_v<S, A>) {  // in place, but for the pixels that do not fill two vectors
            const int64_t whole = count / (2 * LANES<A>)*(2 * LANES<A>);
            filter_columns<Stream>({in, pixels, out, pixels}, whole, map, sums);
            in += whole, out += whole, count -= whole;
            if (count == 0) continue;
        }
        for (int64_t t = 0; t < map.frames; ++t) {
            load_row(job, channel, in + t * pixels, tile + t * width, count);
            for (int64_t i = 0; i < count; i += LANES<S>) __builtin_prefetch(in + t * pixels + job.block + i);
        }
        int64_t written = 0;
        if constexpr (std::is_same_v<D, A>) {
            written = count / (2 * LANES<A>)*(2 * LANES<A>);
            filter_columns<Stream>({tile, width, out, pixels}, written, map, sums);
        }
        filter_columns<false>({tile + written, width, tile + written, width}, padded<A>(count - written), map, sums);
        for (int64_t t = 0; t < map.frames; ++t)
            store_row(tile + t * width + written, out + t * pixels + written, count - written);
    }
}

// Items are frames.
template <bool Stream, class S, class D, class A = vtk::accumulator_t<D>>
VTK_INLINE void space_items(const Job<S, D> &job, int64_t begin, int64_t end) {
    const Map<A> map = *job.map;
    Scratch<A> room((map.row_modes + 4) * map.stride + map.coefficients());
    A *rows = room.data(), *sums = rows + 4 * map.stride, *coefficients = sums + map.row_modes * map.stride;
    const int64_t whole = std::is_same_v<S, A> ? map.width / LANES<A> * LANES<A> : 0;
    for (int64_t item = begin; item < end; ++item) {
        const int64_t volume = item / map.frames, channel = job.channel(volume);
        const S *in = job.in + item * map.pixels();
        D *out = job.out + item * map.pixels();
        const bool applies = job.applies(volume);
        if (applies) {
            project(job, channel, in, coefficients, sums, rows);
            for (int64_t k = 0; k < map.coefficients(); ++k) coefficients[k] *= map.weights[k];
            spread_columns(map, coefficients, sums);
        }
        for (int64_t h = 0; h < map.height; ++h, in += map.width, out += map.width) {
            if (!applies) {
                pass_row(job, channel, in, out, map.width, rows);
                continue;
            }
            if constexpr (std::is_same_v<S, A>) add_modes<Stream>(map, sums, h, 0, in, out, whole);
            if (whole == map.width) continue;
            load_row(job, channel, in + whole, rows, map.width - whole);
            int64_t written = whole;
            if constexpr (std::is_same_v<D, A>) {
                written = map.width / LANES<A> * LANES<A>;
                add_modes<Stream>(map, sums, h, whole, rows, out + whole, written - whole);
            }
            add_modes<false>(map, sums, h, written, rows + written - whole, rows + written - whole,
                             vectors<A>(map.width - written));
            store_row(rows + written - whole, out + written, map.width - written);
        }
    }
}

// Items are frames of one volume: their coefficients.
template <class S, class D, class A = vtk::accumulator_t<D>>
VTK_INLINE void coefficient_items(const Job<S, D> &job, int64_t begin, int64_t end) {
    const Map<A> map = *job.map;
    Scratch<A> room((map.row_modes + 4) * map.stride);
    A *rows = room.data(), *sums = rows + 4 * map.stride;
    for (int64_t t = begin; t < end; ++t)
        project(job, job.channel(0), job.in + t * map.pixels(), job.coefficients + t * map.coefficients(), sums, rows);
}

// Items are blocks of the rows of pixels of one volume, all frames of each.
template <bool Stream, class S, class D, class A = vtk::accumulator_t<D>>
VTK_INLINE void row_items(const Job<S, D> &job, int64_t begin, int64_t end) {
    const Map<A> map = *job.map;
    const int64_t blocks = (map.width + job.block - 1) / job.block, channel = job.channel(0), pixels = map.pixels();
    Scratch<A> room(map.frames * job.block + map.temporal_modes * 2 * LANES<A>);
    A *tile = room.data(), *sums = tile + map.frames * job.block;
    for (int64_t item = begin; item < end; ++item) {
        const int64_t h = item / blocks, w = item % blocks * job.block, count = std::min(job.block, map.width - w);
        const int64_t whole = std::is_same_v<S, A> ? count / (2 * LANES<A>)*(2 * LANES<A>) : 0;  // pixels read in place
        const S *in = job.in + h * map.width + w;
        D *out = job.out + h * map.width + w;
        for (int64_t t = 0; t < map.frames; ++t) {
            A *row = tile + t * job.block;
            const A *spread = job.spread + t * map.row_modes * map.stride;
            if constexpr (std::is_same_v<S, A>) {
                if (map.filters_time())
                    add_modes<false>(map, spread, h, w, in + t * pixels, row, whole);
                else
                    add_modes<Stream>(map, spread, h, w, in + t * pixels, out + t * pixels, whole);
            }
            load_row(job, channel, in + t * pixels + whole, row + whole, count - whole);
            add_modes<false>(map, spread, h, w + whole, row + whole, row + whole, vectors<A>(count - whole));
        }
        int64_t written = map.filters_time() ? 0 : whole;
        if constexpr (std::is_same_v<D, A>) {
            written = std::max(written, map.filters_time() ? count / (2 * LANES<A>)*(2 * LANES<A>) : 0);
            if (map.filters_time()) filter_columns<Stream>({tile, job.block, out, pixels}, written, map, sums);
        }
        if (map.filters_time())
            filter_columns<false>({tile + written, job.block, tile + written, job.block}, padded<A>(count - written),
                                  map, sums);
        for (int64_t t = 0; t < map.frames; ++t)
            store_row(tile + t * job.block + written, out + t * pixels + written, count - written);
    }
}

template <bool Stream, class S, class D>
VTK_INLINE void items_of(const Job<S, D> &job, Kind kind, int64_t begin, int64_t end) {
    switch (kind) {
        case Kind::time: return time_items<Stream>(job, begin, end);
        case Kind::space: return space_items<Stream>(job, begin, end);
        case Kind::coefficients: return coefficient_items(job, begin, end);
        case Kind::both: return row_items<Stream>(job, begin, end);
    }
}

}  // namespace
