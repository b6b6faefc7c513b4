// What the loops of the frequency filter work with: vectors, scratch, the filter and a job of volumes. Included by loops.h.
#pragma once

#include <cstdint>
#include <vector>

#include "elements.h"
#include "simd.h"

namespace {

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
    return (count + 2 * LANES<A> - 1) / (2 * LANES<A>)*(2 * LANES<A>);
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
    int64_t first;  // the number of the first volume in the batch: clip * channels + channel
    int64_t block;  // pixels of a tile
    // Of one volume, where both time and space are filtered:
    A *coefficients;  // (T, row_modes, column_modes)
    A *spread;        // (T, row_modes, stride), see spread_columns

    bool applies(int64_t volume) const { return map->apply[(first + volume) / map->channels] != 0; }
    int64_t channel(int64_t volume) const { return (first + volume) % map->channels; }
};

enum class Kind { time, space, coefficients, both };

}  // namespace
