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
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "arrays.h"
#include "loops.h"
#include "pages.h"
#include "parallel.h"
#include "simd.h"
#include "stream.h"

namespace {

namespace nb = nanobind;
using vtk::Array;

constexpr int64_t kTileBytes = 24 << 10;  // half of a first-level cache
constexpr int64_t kDirectBlock = 512;     // pixels of a block that is filtered where it lies

#define VTK_ITEMS(S, D)                                                                       \
    VTK_SIMD static void items(const Job<S, D> &job, Kind kind, int64_t begin, int64_t end) { \
        items_of<false>(job, kind, begin, end);                                               \
    }
#define VTK_STREAMED_ITEMS(S, D)                                                              \
    VTK_SIMD static void items(const Job<S, D> &job, Kind kind, int64_t begin, int64_t end) { \
        if (!job.map->streams) return items_of<false>(job, kind, begin, end);                 \
        items_of<true>(job, kind, begin, end);                                                \
        vtk::end_stream();                                                                    \
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
                for (int64_t k = 0; k < count; ++k)
                    modes[v * count + k] += map.joint[t * map.joint_modes + v] * coefficients[t * count + k];
        for (int64_t k = 0; k < map.joint_modes * count; ++k) modes[k] *= map.weights[k];
        std::fill_n(coefficients, map.frames * count, A{0});
        for (int64_t t = 0; t < map.frames; ++t)
            for (int64_t v = 0; v < map.joint_modes; ++v)
                for (int64_t k = 0; k < count; ++k)
                    coefficients[t * count + k] += map.joint[t * map.joint_modes + v] * modes[v * count + k];
    }
    for (int64_t t = 0; t < map.frames; ++t)
        spread_columns(map, coefficients + t * count, spread + t * map.row_modes * map.stride);
}

VTK_SIMD static void weigh(const Map<float> &map, float *coefficients, float *spread) {
    weigh_of(map, coefficients, spread);
}
VTK_SIMD static void weigh(const Map<double> &map, double *coefficients, double *spread) {
    weigh_of(map, coefficients, spread);
}

// Pixels of a tile whose frames fill kTileBytes, at most `most`.
template <class A>
int64_t tile_block(int64_t frames, int64_t most) {
    const int64_t fits = kTileBytes / static_cast<int64_t>(sizeof(A)) / frames / (2 * LANES<A>)*(2 * LANES<A>);
    return std::min(std::max(fits, 2 * LANES<A>), padded<A>(most));
}

// Pixels of an item of `time_items`.
template <class S, class A>
int64_t time_block(const Map<A> &map) {
    return std::is_same_v<S, A> ? std::min(kDirectBlock, padded<A>(map.pixels()))
                                : tile_block<A>(map.frames, map.pixels());
}

// Whether to write past the caches: in whole lines of 64 bytes, which are rows of pixels, or frames where they are one row.
template <class D, class A>
bool streams(const Map<A> &map, const Array &out) {
    const int64_t run = (map.filters_space() ? map.width : map.pixels()) * static_cast<int64_t>(sizeof(D));
    return run % 64 == 0 && vtk::streams(out.data(), static_cast<int64_t>(out.nbytes()), run);
}

// Where time and space are both filtered: volume by volume, `threads` within each.
template <class S, class D, class A = vtk::accumulator_t<D>>
void filter_both(const Map<A> &map, const S *in, D *out, int64_t first, int64_t count, int threads) {
    const int64_t volume = map.frames * map.pixels();
    Scratch<A> room(map.frames * (map.row_modes * map.stride + map.coefficients()));
    A *spread = room.data(), *coefficients = spread + map.frames * map.row_modes * map.stride;
    for (int64_t v = 0; v < count; ++v) {
        Job<S, D> job{&map,         in + v * volume, out + v * volume, first + v, tile_block<A>(map.frames, map.width),
                      coefficients, spread};
        if (!job.applies(0)) {
            job.block = time_block<S>(map);
            const int64_t blocks = (map.pixels() + job.block - 1) / job.block;
            vtk::parallel_for(blocks, threads, 4,
                              [&](int64_t begin, int64_t end) { items(job, Kind::time, begin, end); });
            continue;
        }
        vtk::parallel_for(map.frames, threads, 1,
                          [&](int64_t begin, int64_t end) { items(job, Kind::coefficients, begin, end); });
        weigh(map, coefficients, spread);
        const int64_t blocks = (map.width + job.block - 1) / job.block;
        vtk::parallel_for(map.height * blocks, threads, 4,
                          [&](int64_t begin, int64_t end) { items(job, Kind::both, begin, end); });
    }
}

// `count` volumes from number `first` on.
template <class S, class D, class A = vtk::accumulator_t<D>>
void filter_volumes(const Map<A> &map, const S *in, D *out, int64_t first, int64_t count, int threads) {
    const int64_t volume = map.frames * map.pixels();
    const bool joint = map.joint_modes > 0;
    if (map.filters_space() && (map.filters_time() || joint)) {
        if (count < 2 * threads) return filter_both(map, in, out, first, count, threads);
        vtk::parallel_for(
            count, threads, 1,
            [&](int64_t begin, int64_t end) {
                filter_both(map, in + begin * volume, out + begin * volume, first + begin, end - begin, 1);
            },
            4);
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
                separate(in + b * clip + t * pixels * map.channels, planes.data() + t * pixels, map.frames * pixels,
                         pixels, map.channels);
        });
        filter_volumes(map, planes.data(), out + b * clip, (first + b) * map.channels, map.channels, threads);
    }
}

template <class D>
void filter_all_bytes(const Map<float> &map, const uint8_t *in, D *out, int threads) {
    const int64_t clip = map.channels * map.frames * map.pixels();
    if (map.clips < 2 * threads) return filter_bytes(map, in, out, 0, map.clips, threads);
    vtk::parallel_for(
        map.clips, threads, 1,
        [&](int64_t begin, int64_t end) {
            filter_bytes(map, in + begin * clip, out + begin * clip, begin, end - begin, 1);
        },
        4);
}

void expect(bool holds, const char *message) {
    if (!holds) throw std::invalid_argument(message);
}

template <class A>
Map<A> map_of(const int64_t (&sizes)[5], bool keeps_pixels, const Array &temporal, bool keeps_frames, const Array &rows,
              const Array &columns, const Array &weights, const Array &joint, const Array &apply,
              std::vector<A> &room) {
    const auto [clips, channels, frames, height, width] = sizes;
    expect(temporal.ndim() == 2 && rows.ndim() == 2 && columns.ndim() == 2 && weights.ndim() == 3 && joint.ndim() == 2,
           "matrices: wrong number of dimensions");
    for (const Array *matrix : {&temporal, &rows, &columns, &weights, &joint})
        expect(vtk::is_float(matrix->dtype(), 8 * sizeof(A)), "matrices: wrong dtype");
    const auto size = [](const Array &array, size_t axis) { return static_cast<int64_t>(array.shape(axis)); };
    expect(
        size(temporal, 0) == frames && size(joint, 0) == frames && size(rows, 0) == height && size(columns, 1) == width,
        "matrices: wrong length");
    const int64_t joint_modes = size(joint, 1), row_modes = size(rows, 1), column_modes = size(columns, 0);
    expect(size(weights, 0) == std::max<int64_t>(1, joint_modes) && size(weights, 1) == row_modes &&
               size(weights, 2) == column_modes,
           "weights: wrong shape");
    expect(apply.ndim() == 1 && size(apply, 0) == clips && apply.dtype() == nb::dtype<uint8_t>(),
           "apply: expected uint8 (B,)");
    const int64_t stride = padded<A>(width);
    room.assign(static_cast<size_t>(column_modes * stride), A{0});
    for (int64_t j = 0; j < column_modes; ++j)
        std::copy_n(vtk::data<A>(columns) + j * width, width, room.data() + j * stride);
    return {clips,
            channels,
            frames,
            height,
            width,
            keeps_pixels,
            keeps_frames,
            vtk::data<A>(temporal),
            vtk::data<A>(rows),
            room.data(),
            vtk::data<A>(weights),
            vtk::data<A>(joint),
            size(temporal, 1),
            row_modes,
            column_modes,
            joint_modes,
            stride,
            false,
            vtk::data<uint8_t>(apply),
            nullptr,
            nullptr};
}

// clip, out: (B, C, T, H, W) of one floating dtype.
void filter(const Array &clip, Array &out, bool keeps_pixels, const Array &temporal, bool keeps_frames,
            const Array &rows, const Array &columns, const Array &weights, const Array &joint, const Array &apply,
            int threads) {
    expect(clip.ndim() == 5 && out.ndim() == 5 && clip.dtype() == out.dtype(),
           "clip, out: expected (B, C, T, H, W) of one dtype");
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
        map.streams = streams<T>(map, out);
        nb::gil_scoped_release release;
        vtk::ask_for_large_pages(out.data(), out.nbytes());
        filter_volumes(map, vtk::data<const T>(clip), vtk::data<T>(out), 0, map.clips * map.channels, threads);
    });
}

// frames: uint8 (B, T, H, W, C); out: (B, C, T, H, W) float32, float16 or bfloat16; a byte becomes byte * scale + shift.
void filter_frames(const Array &frames, Array &out, const Array &scale, const Array &shift, bool keeps_pixels,
                   const Array &temporal, bool keeps_frames, const Array &rows, const Array &columns,
                   const Array &weights, const Array &joint, const Array &apply, int threads) {
    expect(frames.ndim() == 5 && out.ndim() == 5 && frames.dtype() == nb::dtype<uint8_t>(),
           "frames: expected uint8 (B, T, H, W, C)");
    const int order[5] = {0, 4, 1, 2, 3};
    int64_t sizes[5];
    for (size_t axis = 0; axis < 5; ++axis) {
        sizes[axis] = static_cast<int64_t>(out.shape(axis));
        expect(out.shape(axis) == frames.shape(order[axis]), "out: expected (B, C, T, H, W) of frames");
    }
    for (const Array *one : {&scale, &shift})
        expect(one->ndim() == 1 && static_cast<int64_t>(one->shape(0)) == sizes[1] && vtk::is_float(one->dtype(), 32),
               "scale, shift: expected float32 (C,)");
    if (frames.size() == 0) return;
    vtk::with_element(out, "out", [&](auto element) {
        using D = decltype(element);
        if constexpr (std::is_same_v<D, double>) {
            throw std::invalid_argument("out: expected float32, float16 or bfloat16");
        } else {
            std::vector<float> room;
            Map<float> map =
                map_of<float>(sizes, keeps_pixels, temporal, keeps_frames, rows, columns, weights, joint, apply, room);
            map.scale = vtk::data<float>(scale), map.shift = vtk::data<float>(shift);
            map.streams = streams<D>(map, out);
            nb::gil_scoped_release release;
            vtk::ask_for_large_pages(out.data(), out.nbytes());
            filter_all_bytes(map, vtk::data<uint8_t>(frames), vtk::data<D>(out), threads);
        }
    });
}

}  // namespace

void register_frequency(nb::module_ &module) {
    module.def("filter", &filter);
    module.def("filter_frames", &filter_frames);
}
