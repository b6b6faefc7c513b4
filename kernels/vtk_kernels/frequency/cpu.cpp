// The frequency filter on a CPU: y = G (s x + R m(R^T x W^T) W), see lowrank.py. The clip is read from memory once and
// written once; what is read again comes from a cache.
//
// Time alone: a block of pixels with all its frames is one tile, small enough for the first-level cache.
// Space alone: a frame is one item; its coefficients, then the frame again with its modes added or taken out.
// Both: a volume, one channel of one clip, is swept twice: the coefficients of its frames, then tiles of one row of pixels
// with all frames. uint8 frames are taken apart into channels a clip at a time, and normalised as they are loaded.
//
// Each element of the output and each coefficient is written by one thread, in an order that does not depend on how many
// there are. Arithmetic is in float, and in double for double.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "arrays.h"
#include "elements.h"
#include "parallel.h"
#include "simd.h"

#if defined(__SSE2__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define VTK_STREAM
#include <xmmintrin.h>
#endif

namespace {

namespace nb = nanobind;
using vtk::Array;

constexpr int64_t TILE_BYTES = 24 << 10;     // half of a first-level cache
constexpr int64_t STREAMED_BYTES = 8 << 20;  // a result of this size does not stay in a cache that its reader would find it in
constexpr int64_t DIRECT_BLOCK = 512;        // pixels of a block that is filtered where it lies

// 64 bytes of numbers: one AVX-512 register, two of AVX2, four of SSE.
template <class A>
struct lanes;
template <>
struct lanes<float> {
    typedef float type __attribute__((vector_size(64), aligned(4), may_alias));
};
template <>
struct lanes<double> {
    typedef double type __attribute__((vector_size(64), aligned(8), may_alias));
};
template <class A>
constexpr int64_t LANES = 64 / sizeof(A);

template <class A>
constexpr int64_t padded(int64_t count) {
    return (count + 2 * LANES<A> - 1) / (2 * LANES<A>) * (2 * LANES<A>);
}

template <class A>
constexpr int64_t vectors(int64_t count) {
    return (count + LANES<A> - 1) / LANES<A> * LANES<A>;
}

template <class A>
VTK_INLINE typename lanes<A>::type &at(A *place) {
    return *reinterpret_cast<typename lanes<A>::type *>(place);
}
template <class A>
VTK_INLINE const typename lanes<A>::type &at(const A *place) {
    return *reinterpret_cast<const typename lanes<A>::type *>(place);
}

// Numbers on a border of 64 bytes, zero at first.
template <class A>
class Scratch {
  public:
    explicit Scratch(int64_t count) : room(count + LANES<A>) {}
    A *data() {
        const auto address = reinterpret_cast<uintptr_t>(room.data());
        return room.data() + ((address + 63) / 64 * 64 - address) / sizeof(A);
    }

  private:
    std::vector<A> room;
};

// The filter and the sizes of the clips; the names are those of lowrank.py.
template <class A>
struct Map {
    int64_t clips, channels, frames, height, width;
    bool keeps_pixels, keeps_frames;
    const A *temporal, *rows, *columns, *weights, *joint;  // columns: (column_modes, stride) padded with zeros
    int64_t temporal_modes, row_modes, column_modes, joint_modes, stride;
    bool streams;  // whether the result is written past the caches
    const uint8_t *apply;
    const A *scale, *shift;  // one a channel; for uint8 only

    bool filters_time() const { return temporal_modes > 0 || !keeps_pixels; }
    bool filters_space() const { return row_modes > 0 || !keeps_frames; }
    int64_t pixels() const { return height * width; }
    int64_t coefficients() const { return row_modes * column_modes; }
};

// Consecutive volumes (T, H, W) of elements S that become elements D.
template <class S, class D>
struct Job {
    using A = vtk::accumulator_t<D>;
    const Map<A> *map;
    const S *in;
    D *out;
    int64_t first;    // the number of the first volume in the batch: clip * channels + channel
    int64_t block;    // pixels of a tile
    // Of one volume, where both time and space are filtered:
    A *coefficients;  // (T, row_modes, column_modes)
    A *spread;        // (T, row_modes, stride), see spread_columns

    bool applies(int64_t volume) const { return map->apply[(first + volume) / map->channels] != 0; }
    int64_t channel(int64_t volume) const { return (first + volume) % map->channels; }
};

enum class Kind { time, space, coefficients, both };

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
VTK_INLINE void pass_row(const Job<S, D> &job, int64_t channel, const S *from, D *to, int64_t count, vtk::accumulator_t<D> *row) {
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
#ifdef VTK_STREAM
    if constexpr (Stream) {
        __m128 quarters[4];
        std::memcpy(quarters, &value, 64);
        for (int k = 0; k < 4; ++k) _mm_stream_ps(reinterpret_cast<float *>(place) + 4 * k, quarters[k]);
        return;
    }
#endif
    at(place) = value;
}

// Makes what `put` streamed visible to other threads.
VTK_INLINE void fence() {
#ifdef VTK_STREAM
    _mm_sfence();
#endif
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
            for (r = 0; r < modes; ++r) y0 += u[r] * at(sums + 2 * r * LANES<A>), y1 += u[r] * at(sums + (2 * r + 1) * LANES<A>);
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
VTK_INLINE void project_rows(const Map<A> map, const A *x, int64_t between, const A *r, A *sums, int64_t begin, int64_t end) {
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
                if constexpr (std::is_same_v<S, A>) project_rows<1>(map, x + k * map.width, 0, r + k * modes, sums, 0, whole);
                project_rows<1>(map, rows + k * stride, 0, r + k * modes, sums, whole, map.width);
            }
        }
    }
    for (int64_t i = 0; i < modes; ++i)
        for (int64_t j = 0; j < map.column_modes; ++j) {
            V dot = {};
            for (int64_t w = 0; w < map.width; w += LANES<A>) dot += at(sums + i * stride + w) * at(map.columns + j * stride + w);
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
            for (int64_t j = 0; j < map.column_modes; ++j) sum += coefficients[i * map.column_modes + j] * at(map.columns + j * map.stride + w);
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
            for (int64_t t = 0; t < map.frames; ++t) pass_row(job, channel, in + t * pixels, out + t * pixels, count, tile);
            continue;
        }
        if constexpr (std::is_same_v<S, A>) {  // in place, but for the pixels that do not fill two vectors
            const int64_t whole = count / (2 * LANES<A>) * (2 * LANES<A>);
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
            written = count / (2 * LANES<A>) * (2 * LANES<A>);
            filter_columns<Stream>({tile, width, out, pixels}, written, map, sums);
        }
        filter_columns<false>({tile + written, width, tile + written, width}, padded<A>(count - written), map, sums);
        for (int64_t t = 0; t < map.frames; ++t) store_row(tile + t * width + written, out + t * pixels + written, count - written);
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
            add_modes<false>(map, sums, h, written, rows + written - whole, rows + written - whole, vectors<A>(map.width - written));
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
        const int64_t whole = std::is_same_v<S, A> ? count / (2 * LANES<A>) * (2 * LANES<A>) : 0;  // pixels read in place
        const S *in = job.in + h * map.width + w;
        D *out = job.out + h * map.width + w;
        for (int64_t t = 0; t < map.frames; ++t) {
            A *row = tile + t * job.block;
            const A *spread = job.spread + t * map.row_modes * map.stride;
            if constexpr (std::is_same_v<S, A>) {
                if (map.filters_time()) add_modes<false>(map, spread, h, w, in + t * pixels, row, whole);
                else add_modes<Stream>(map, spread, h, w, in + t * pixels, out + t * pixels, whole);
            }
            load_row(job, channel, in + t * pixels + whole, row + whole, count - whole);
            add_modes<false>(map, spread, h, w + whole, row + whole, row + whole, vectors<A>(count - whole));
        }
        int64_t written = map.filters_time() ? 0 : whole;
        if constexpr (std::is_same_v<D, A>) {
            written = std::max(written, map.filters_time() ? count / (2 * LANES<A>) * (2 * LANES<A>) : 0);
            if (map.filters_time()) filter_columns<Stream>({tile, job.block, out, pixels}, written, map, sums);
        }
        if (map.filters_time()) filter_columns<false>({tile + written, job.block, tile + written, job.block}, padded<A>(count - written), map, sums);
        for (int64_t t = 0; t < map.frames; ++t) store_row(tile + t * job.block + written, out + t * pixels + written, count - written);
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

#define VTK_ITEMS(S, D) \
    VTK_SIMD static void items(const Job<S, D> &job, Kind kind, int64_t begin, int64_t end) { items_of<false>(job, kind, begin, end); }
#define VTK_STREAMED_ITEMS(S, D)                                                                       \
    VTK_SIMD static void items(const Job<S, D> &job, Kind kind, int64_t begin, int64_t end) {          \
        if (!job.map->streams) return items_of<false>(job, kind, begin, end);                               \
        items_of<true>(job, kind, begin, end);                                                         \
        fence();                                                                                       \
    }
VTK_STREAMED_ITEMS(double, double)
VTK_STREAMED_ITEMS(float, float)
VTK_STREAMED_ITEMS(uint8_t, float)
VTK_ITEMS(vtk::bfloat16, vtk::bfloat16)
VTK_ITEMS(vtk::float16, vtk::float16)
VTK_ITEMS(uint8_t, vtk::bfloat16)
VTK_ITEMS(uint8_t, vtk::float16)
#undef VTK_ITEMS
#undef VTK_STREAMED_ITEMS

template <int C>
VTK_INLINE void separate_of(const uint8_t *in, uint8_t *out, int64_t plane, int64_t count, int64_t channels) {
    if constexpr (C > 0) channels = C;
    for (int64_t p = 0; p < count; ++p)
        for (int64_t c = 0; c < channels; ++c) out[c * plane + p] = in[p * channels + c];
}

// `count` pixels of `channels` bytes -> one run of bytes a channel, `plane` apart.
VTK_SIMD static void separate(const uint8_t *in, uint8_t *out, int64_t plane, int64_t count, int64_t channels) {
    if (channels == 3)
        separate_of<3>(in, out, plane, count, channels);
    else
        separate_of<0>(in, out, plane, count, channels);
}

// K of every frame of a volume, weighted and spread. A joint filter weighs it in the temporal modes V: V (w . V^T K).
template <class A>
VTK_INLINE void weigh_of(const Map<A> &map, A *coefficients, A *spread) {
    const int64_t count = map.coefficients();
    if (map.joint_modes == 0) {
        for (int64_t t = 0; t < map.frames; ++t)
            for (int64_t k = 0; k < count; ++k) coefficients[t * count + k] *= map.weights[k];
    } else {
        std::vector<A> modes(map.joint_modes * count);
        for (int64_t t = 0; t < map.frames; ++t)
            for (int64_t v = 0; v < map.joint_modes; ++v)
                for (int64_t k = 0; k < count; ++k) modes[v * count + k] += map.joint[t * map.joint_modes + v] * coefficients[t * count + k];
        for (int64_t k = 0; k < map.joint_modes * count; ++k) modes[k] *= map.weights[k];
        std::fill_n(coefficients, map.frames * count, A{0});
        for (int64_t t = 0; t < map.frames; ++t)
            for (int64_t v = 0; v < map.joint_modes; ++v)
                for (int64_t k = 0; k < count; ++k) coefficients[t * count + k] += map.joint[t * map.joint_modes + v] * modes[v * count + k];
    }
    for (int64_t t = 0; t < map.frames; ++t) spread_columns(map, coefficients + t * count, spread + t * map.row_modes * map.stride);
}

VTK_SIMD static void weigh(const Map<float> &map, float *coefficients, float *spread) { weigh_of(map, coefficients, spread); }
VTK_SIMD static void weigh(const Map<double> &map, double *coefficients, double *spread) { weigh_of(map, coefficients, spread); }

// Pixels of a tile whose frames fill TILE_BYTES, at most `most`.
template <class A>
int64_t tile_block(int64_t frames, int64_t most) {
    const int64_t fits = TILE_BYTES / static_cast<int64_t>(sizeof(A)) / frames / (2 * LANES<A>) * (2 * LANES<A>);
    return std::min(std::max(fits, 2 * LANES<A>), padded<A>(most));
}

// Pixels of an item of `time_items`.
template <class S, class A>
int64_t time_block(const Map<A> &map) {
    return std::is_same_v<S, A> ? std::min(DIRECT_BLOCK, padded<A>(map.pixels())) : tile_block<A>(map.frames, map.pixels());
}

// Whether a result is large, and made of runs on borders of 64 bytes: rows, or whole frames.
template <class D, class A>
bool streams(const Map<A> &map, const D *out) {
    const int64_t run = map.filters_space() ? map.width : map.pixels(), size = sizeof(D);
    const int64_t total = map.clips * map.channels * map.frames * map.pixels() * size;
    return total >= STREAMED_BYTES && reinterpret_cast<uintptr_t>(out) % 64 == 0 && run * size % 64 == 0;
}

// Where time and space are both filtered: volume by volume, `threads` within each.
template <class S, class D, class A = vtk::accumulator_t<D>>
void filter_both(const Map<A> &map, const S *in, D *out, int64_t first, int64_t count, int threads) {
    const int64_t volume = map.frames * map.pixels();
    Scratch<A> room(map.frames * (map.row_modes * map.stride + map.coefficients()));
    A *spread = room.data(), *coefficients = spread + map.frames * map.row_modes * map.stride;
    for (int64_t v = 0; v < count; ++v) {
        Job<S, D> job{&map, in + v * volume, out + v * volume, first + v, tile_block<A>(map.frames, map.width), coefficients, spread};
        if (!job.applies(0)) {
            job.block = time_block<S>(map);
            const int64_t blocks = (map.pixels() + job.block - 1) / job.block;
            vtk::parallel_for(blocks, threads, 4, [&](int64_t begin, int64_t end) { items(job, Kind::time, begin, end); });
            continue;
        }
        vtk::parallel_for(map.frames, threads, 1, [&](int64_t begin, int64_t end) { items(job, Kind::coefficients, begin, end); });
        weigh(map, coefficients, spread);
        const int64_t blocks = (map.width + job.block - 1) / job.block;
        vtk::parallel_for(map.height * blocks, threads, 4, [&](int64_t begin, int64_t end) { items(job, Kind::both, begin, end); });
    }
}

// `count` volumes from number `first` on.
template <class S, class D, class A = vtk::accumulator_t<D>>
void filter_volumes(const Map<A> &map, const S *in, D *out, int64_t first, int64_t count, int threads) {
    const int64_t volume = map.frames * map.pixels();
    const bool joint = map.joint_modes > 0;
    if (map.filters_space() && (map.filters_time() || joint)) {
        if (count < 2 * threads) return filter_both(map, in, out, first, count, threads);
        vtk::parallel_for(count, threads, 1, [&](int64_t begin, int64_t end) { filter_both(map, in + begin * volume, out + begin * volume, first + begin, end - begin, 1); }, 4);
        return;
    }
    const Kind kind = map.filters_space() ? Kind::space : Kind::time;
    const Job<S, D> job{&map, in, out, first, time_block<S>(map), nullptr, nullptr};
    const int64_t blocks = kind == Kind::space ? map.frames : (map.pixels() + job.block - 1) / job.block;
    vtk::parallel_for(count * blocks, threads, 1, [&](int64_t begin, int64_t end) { items(job, kind, begin, end); }, 4);
}

// `count` clips of bytes (T, H, W, C) from number `first` on, each taken apart into channels, then filtered.
template <class D>
void filter_bytes(const Map<float> &map, const uint8_t *in, D *out, int64_t first, int64_t count, int threads) {
    const int64_t pixels = map.pixels(), clip = map.channels * map.frames * pixels;
    std::vector<uint8_t> planes(static_cast<size_t>(clip));
    for (int64_t b = 0; b < count; ++b) {
        vtk::parallel_for(map.frames, threads, 1, [&](int64_t begin, int64_t end) {
            for (int64_t t = begin; t < end; ++t)
                separate(in + b * clip + t * pixels * map.channels, planes.data() + t * pixels, map.frames * pixels, pixels, map.channels);
        });
        filter_volumes(map, planes.data(), out + b * clip, (first + b) * map.channels, map.channels, threads);
    }
}

template <class D>
void filter_all_bytes(const Map<float> &map, const uint8_t *in, D *out, int threads) {
    const int64_t clip = map.channels * map.frames * map.pixels();
    if (map.clips < 2 * threads) return filter_bytes(map, in, out, 0, map.clips, threads);
    vtk::parallel_for(map.clips, threads, 1, [&](int64_t begin, int64_t end) { filter_bytes(map, in + begin * clip, out + begin * clip, begin, end - begin, 1); }, 4);
}

void expect(bool holds, const char *message) {
    if (!holds) throw std::invalid_argument(message);
}

template <class A>
Map<A> map_of(const int64_t (&sizes)[5], bool keeps_pixels, const Array &temporal, bool keeps_frames, const Array &rows, const Array &columns,
              const Array &weights, const Array &joint, const Array &apply, std::vector<A> &room) {
    const auto [clips, channels, frames, height, width] = sizes;
    expect(temporal.ndim() == 2 && rows.ndim() == 2 && columns.ndim() == 2 && weights.ndim() == 3 && joint.ndim() == 2, "matrices: wrong number of dimensions");
    for (const Array *matrix : {&temporal, &rows, &columns, &weights, &joint}) expect(vtk::is_float(matrix->dtype(), 8 * sizeof(A)), "matrices: wrong dtype");
    const auto size = [](const Array &array, size_t axis) { return static_cast<int64_t>(array.shape(axis)); };
    expect(size(temporal, 0) == frames && size(joint, 0) == frames && size(rows, 0) == height && size(columns, 1) == width, "matrices: wrong length");
    const int64_t joint_modes = size(joint, 1), row_modes = size(rows, 1), column_modes = size(columns, 0);
    expect(size(weights, 0) == std::max<int64_t>(1, joint_modes) && size(weights, 1) == row_modes && size(weights, 2) == column_modes, "weights: wrong shape");
    expect(apply.ndim() == 1 && size(apply, 0) == clips && apply.dtype() == nb::dtype<uint8_t>(), "apply: expected uint8 (B,)");
    const int64_t stride = padded<A>(width);
    room.assign(static_cast<size_t>(column_modes * stride), A{0});
    for (int64_t j = 0; j < column_modes; ++j) std::copy_n(vtk::data<A>(columns) + j * width, width, room.data() + j * stride);
    return {clips, channels, frames, height, width, keeps_pixels, keeps_frames, vtk::data<A>(temporal), vtk::data<A>(rows), room.data(), vtk::data<A>(weights),
            vtk::data<A>(joint), size(temporal, 1), row_modes, column_modes, joint_modes, stride, false, vtk::data<uint8_t>(apply), nullptr, nullptr};
}

// clip, out: (B, C, T, H, W) of one floating dtype.
void filter(const Array &clip, Array &out, bool keeps_pixels, const Array &temporal, bool keeps_frames, const Array &rows, const Array &columns,
            const Array &weights, const Array &joint, const Array &apply, int threads) {
    expect(clip.ndim() == 5 && out.ndim() == 5 && clip.dtype() == out.dtype(), "clip, out: expected (B, C, T, H, W) of one dtype");
    int64_t sizes[5];
    for (size_t axis = 0; axis < 5; ++axis) {
        expect(clip.shape(axis) == out.shape(axis), "out: expected the shape of clip");
        sizes[axis] = static_cast<int64_t>(clip.shape(axis));
    }
    if (clip.size() == 0) return;
    vtk::with_element(clip, "clip", [&](auto element) {
        using T = decltype(element);
        using A = vtk::accumulator_t<T>;
        std::vector<A> room;
        Map<A> map = map_of<A>(sizes, keeps_pixels, temporal, keeps_frames, rows, columns, weights, joint, apply, room);
        map.streams = streams(map, vtk::data<T>(out));
        nb::gil_scoped_release release;
        filter_volumes(map, vtk::data<const T>(clip), vtk::data<T>(out), 0, map.clips * map.channels, threads);
    });
}

// frames: uint8 (B, T, H, W, C); out: (B, C, T, H, W) float32, float16 or bfloat16; a byte becomes byte * scale + shift.
void filter_frames(const Array &frames, Array &out, const Array &scale, const Array &shift, bool keeps_pixels, const Array &temporal, bool keeps_frames,
                   const Array &rows, const Array &columns, const Array &weights, const Array &joint, const Array &apply, int threads) {
    expect(frames.ndim() == 5 && out.ndim() == 5 && frames.dtype() == nb::dtype<uint8_t>(), "frames: expected uint8 (B, T, H, W, C)");
    const int order[5] = {0, 4, 1, 2, 3};
    int64_t sizes[5];
    for (size_t axis = 0; axis < 5; ++axis) {
        sizes[axis] = static_cast<int64_t>(out.shape(axis));
        expect(out.shape(axis) == frames.shape(order[axis]), "out: expected (B, C, T, H, W) of frames");
    }
    for (const Array *one : {&scale, &shift})
        expect(one->ndim() == 1 && static_cast<int64_t>(one->shape(0)) == sizes[1] && vtk::is_float(one->dtype(), 32), "scale, shift: expected float32 (C,)");
    if (frames.size() == 0) return;
    vtk::with_element(out, "out", [&](auto element) {
        using D = decltype(element);
        if constexpr (std::is_same_v<D, double>) {
            throw std::invalid_argument("out: expected float32, float16 or bfloat16");
        } else {
            std::vector<float> room;
            Map<float> map = map_of<float>(sizes, keeps_pixels, temporal, keeps_frames, rows, columns, weights, joint, apply, room);
            map.scale = vtk::data<float>(scale), map.shift = vtk::data<float>(shift);
            map.streams = streams(map, vtk::data<D>(out));
            nb::gil_scoped_release release;
            filter_all_bytes(map, vtk::data<uint8_t>(frames), vtk::data<D>(out), threads);
        }
    });
}

}  // namespace

void register_frequency(nb::module_ &module) {
    module.def("filter", &filter);
    module.def("filter_frames", &filter_frames);
}
